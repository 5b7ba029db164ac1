"""Photographs from folders: their classes, the pixels that a target gets, and unreadable files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from evofool.errors import ImageError
from evofool.targets import Target
from evofool.targets.photos import find_photographs, patterns, photographs, to_input

WNIDS = ("n01440764", "n01443537", "n02100000")
SAMPLES = Path(__file__).parents[2] / ".." / "shared" / "data" / "imagenet_samples"


def fake(
    shape: tuple[int, int, int] = (3, 8, 8), labels: tuple[str, ...] = ("tench", "goldfish", "setter"), **how: Any
) -> Target:
    return Target("fake", labels, shape, lambda x: np.zeros((len(x), len(labels)), np.float32), {"preprocessing": how})


def picture(width: int = 12, height: int = 10, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def folder_of(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed=seed).save(path)
    return folder


# --- classes


@pytest.mark.parametrize(
    "classes",
    [
        ("tench", "goldfish", "setter"),
        ("Tench", "GOLDFISH", "setter"),
        ("0_tench", "001_goldfish", "2_setter"),
        ("0_anything", "1_at", "2_all"),
        WNIDS,
        ("class_2", "class_9", "class_10"),
    ],
    ids=" ".join,
)
def test_folders_of_classes_are_recognised_by_label_number_or_order(classes: tuple[str, ...], tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{name}/{file}" for name in reversed(classes) for file in ("b.png", "deep/er/a.jpg")))
    (tmp_path / "readme.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    found = find_photographs(tmp_path, ("tench", "goldfish", "setter"))
    shown = {p.file.relative_to(tmp_path).as_posix(): p.class_id for p in found}
    assert shown == {f"{name}/{file}": c for c, name in enumerate(classes) for file in ("b.png", "deep/er/a.jpg")}


@pytest.mark.parametrize("more", [("rejected",), ("nothing",), ("nothing", "rejected by msp")], ids=" ".join)
@pytest.mark.parametrize("classes", [("tench", "goldfish", "setter"), ("0_anything", "1_at", "2_all"), WNIDS])
def test_rejection_classes_need_no_pictures(classes: tuple[str, ...], more: tuple[str, ...], tmp_path: Path) -> None:
    labels = ("tench", "goldfish", "setter", *more)
    folder_of(tmp_path, *(f"{name}/a.png" for name in classes))
    assert {p.file.parent.name: p.class_id for p in find_photographs(tmp_path, labels)} == dict(
        zip(classes, range(3), strict=True)
    )
    with pytest.raises(ImageError, match=r"or exactly 3 names in class order"):
        find_photographs(folder_of(tmp_path / "few", "x/a.png", "y/a.png"), labels)


def test_a_rejection_class_may_have_pictures(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{name}/a.png" for name in (*WNIDS, "nothing")))
    with pytest.raises(
        ImageError, match="of which 3 are not among the target's 4"
    ):  # some are labels, so the order cannot be used
        find_photographs(tmp_path, ("tench", "goldfish", "setter", "nothing"))
    (tmp_path / "nothing").rename(tmp_path / "zz")
    assert [p.class_id for p in find_photographs(tmp_path, ("tench", "goldfish", "setter", "nothing"))] == [0, 1, 2, 3]


def test_some_of_the_classes_suffice_if_their_names_are_labels(tmp_path: Path) -> None:
    assert [p.class_id for p in find_photographs(folder_of(tmp_path, "setter/a.png", "goldfish/b.png"), fake().labels)] == [
        1,
        2,
    ]


def test_pictures_in_one_folder_have_their_class_before_the_underscore(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{wnid}_{i}_x.png" for wnid in reversed(WNIDS) for i in range(2)))
    found = find_photographs(tmp_path, fake().labels)
    assert [(p.file.name[:9], p.class_id) for p in found] == [(w, c) for c, w in enumerate(WNIDS) for _ in range(2)]


def test_numbers_that_are_labels_are_labels(tmp_path: Path) -> None:
    labels = ("2", "1", "0")
    assert [p.class_id for p in find_photographs(folder_of(tmp_path, "0/a.png", "1/a.png", "2/a.png"), labels)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"has no pictures \(\.jpg, .*\); it has to be a folder of pictures for every class, or pictures named"),
        (("a/x.png", "y.png"), r"has 1 folders with pictures and 1 pictures beside them \(y\.png\)"),
        (("cat/x.png", "dog/x.png"), r"2 different folders, of which 2 are not among the target's 3 \(cat, dog\); they have "
         r"to be labels \(tench, goldfish, setter \.\.\.\), or exactly 3 names in class order"),
        (("tench/x.png", "goldfish/x.png", "seter/x.png"), r"of which 1 are not among the target's 3 \(seter\)"),
        (("IMG_1.png", "IMG_2.png"), r"1 different beginnings of names, of which 1 are not among .* \(IMG\)"),
    ],
)  # fmt: skip
def test_a_folder_with_unknown_classes_is_refused_with_what_is_needed(
    files: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=message):
        find_photographs(folder_of(tmp_path, *files), fake().labels)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere is not a folder"):
        find_photographs(tmp_path / "nowhere", fake().labels)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the sample photographs")
def test_the_order_of_wnids_is_that_of_imagenet_s_classes() -> None:
    found = find_photographs(SAMPLES, [str(c) for c in range(1000)])
    assert [p.class_id for p in found] == list(range(1000))


# --- pixels


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (31, 57), (100, 20), (16, 16)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_are_scaled_and_cut_as_torchvision_does(size: tuple[int, int], interpolation: str) -> None:
    whole = picture(*size)
    expected = v2.Compose(
        [v2.Resize(20, interpolation=v2.InterpolationMode(interpolation)), v2.CenterCrop((16, 12)), v2.PILToTensor()]
    )(whole)
    assert np.array_equal(to_input(whole, fake((3, 16, 12), resize=20, interpolation=interpolation)), expected.numpy())


def test_without_resize_the_whole_picture_is_squeezed_unless_it_has_the_right_size() -> None:
    whole = picture(12, 10)
    squeezed = to_input(whole, fake((3, 5, 9)))
    assert np.array_equal(squeezed, np.asarray(whole.resize((9, 5), Image.Resampling.BILINEAR)).transpose(2, 0, 1))
    assert np.array_equal(to_input(whole, fake((3, 10, 12))), np.asarray(whole).transpose(2, 0, 1))


def test_a_shape_larger_than_resize_is_filled() -> None:
    assert to_input(picture(12, 10), fake((3, 30, 20), resize=8)).shape == (3, 30, 20)


def test_grey_targets_get_grey_and_rgb_targets_rgb_for_every_mode() -> None:
    for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1", "LA"):
        for channels in (1, 3):
            seen = to_input(picture().convert(mode), fake((channels, 8, 8)))
            assert (seen.shape, seen.dtype) == ((channels, 8, 8), np.uint8)
    grey = np.asarray(picture().convert("L"))
    assert np.array_equal(to_input(picture(), fake((1, 10, 12)))[0], grey)


def test_photographs_come_in_batches_in_the_order_of_their_classes(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{name}/{i}.png" for name in ("tench", "goldfish", "setter") for i in range(3)))
    target = fake((3, 10, 12))
    parts = list(photographs(find_photographs(tmp_path, target.labels), target, 4))
    assert [len(images) for images, _, _ in parts] == [4, 4, 1]
    assert parts[0][0].dtype == np.uint8
    assert parts[0][1].dtype == np.int64
    for images, classes, files in parts:
        for image, class_id, file in zip(images, classes, files, strict=True):
            assert file.parent.name == target.labels[class_id]
            assert np.array_equal(image, np.asarray(Image.open(file)).transpose(2, 0, 1))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n\0\0", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
    ids=["empty", "cut off", "a page", "a program"],
)
def test_an_incomplete_picture_is_named(content: bytes, tmp_path: Path) -> None:
    path = folder_of(tmp_path, "tench/bad.png") / "tench" / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.png cannot be read as a picture"):
        list(photographs(find_photographs(tmp_path, fake().labels), fake()))


def test_pixels_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tench").mkdir()
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "tench" / "deep.tif")
    with pytest.raises(
        ImageError, match=r"deep\.tif cannot be read .*more than 8 bits \(mode I\); save it as an 8-bit picture"
    ):
        list(photographs(find_photographs(tmp_path, fake().labels), fake()))


def test_a_long_strip_that_resizing_would_make_a_giant_is_refused() -> None:
    strip = Image.new("L", (1, 10_000))
    with pytest.raises(
        ImageError, match=r"1 x 10,000 pixels are 256 x 2,560,000 with a short side of 256, .* crop it first"
    ):
        to_input(strip, fake((3, 224, 224), resize=256))
    assert to_input(strip, fake((3, 8, 8))).shape == (3, 8, 8)


@pytest.mark.parametrize("most", [50, 100])
def test_a_small_file_that_unpacks_to_a_giant_is_refused(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)  # 120 pixels: more than twice, and more than once as many
    target = fake()
    with pytest.raises(ImageError, match=r"a\.png cannot be read as a picture \(Image size \(120 pixels\) exceeds limit"):
        list(photographs(find_photographs(folder_of(tmp_path, "tench/a.png"), target.labels), target))


def test_patterns_are_all_different_and_the_same_each_time() -> None:
    for shape in ((3, 9, 7), (1, 28, 28)):
        images = patterns(shape, 8)
        assert (images.shape, images.dtype) == ((8, *shape), np.uint8)
        assert len({image.tobytes() for image in images}) == 8
        assert np.array_equal(images[:4], patterns(shape, 8)[:4])
        rough = torch.from_numpy(images.astype(np.float32)).diff(dim=-1).abs().mean((1, 2, 3))
        assert rough[::2].max() < rough[1::2].min()
