"""All parts of an explanation in one folder: a page by itself, what is kept when a part fails, what a black box has."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import evofool
from evofool.errors import ImageError, StoreError, TargetError
from evofool.explain import parts
from evofool.explain.explain import PARTS, Explained, explain
from evofool.images import decode_png, save_png
from evofool.machine import torch_threads
from evofool.targets import Target


@pytest.fixture(scope="module")
def lenet() -> Target:
    return evofool.target("lenet")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unless layers are named one alone is inverted; a thread, as the command has it."""
    monkeypatch.setattr("evofool.explain.explain.evenly", lambda _target, count=1: ["fc1", "conv2", "fc2"][:count])
    with torch_threads(1):
        yield


def ring() -> np.ndarray:
    y, x = np.mgrid[:28, :28]
    return (255 * (np.abs(np.hypot(y - 14, x - 14) - 8) < 1.8)).astype(np.uint8)[None]


def black() -> Target:
    white = evofool.target("lenet")
    return Target("box", white.labels, white.shape, white.logits, {})


def told(target: Target, folder: Path, **how: object) -> Explained:
    return explain(target, ring(), 0, folder, title="Why", source="ring.png", **how)  # type: ignore[arg-type]


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r'src="[^"]*"', "", page.read_text(encoding="utf-8")))


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page.read_text(encoding="utf-8"))


def test_the_page_has_every_part_and_every_picture_is_a_file_beside_it(lenet: Target, tmp_path: Path) -> None:
    reals = tmp_path / "reals"
    reals.mkdir()
    for i in range(4):
        save_png(np.random.default_rng(i).integers(0, 256, (1, 28, 28), np.uint8), reals / f"{i}.png")
    lines: list[str] = []
    found = told(lenet, tmp_path / "out", real=reals, dream="conv2", say=lines.append)
    assert headings(found.page) == [
        "Saliency",
        "Segmentation",
        "Occlusion",
        "Elements",
        "Inversion",
        "Dream",
        "Nearest real images",
    ]
    assert not found.faults
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", *(path.name for path in found.pictures)}
    assert len(set(found.pictures)) == found.page.read_text(encoding="utf-8").count("data:image/png;base64,") > 10
    np.testing.assert_array_equal(decode_png((tmp_path / "out" / "image.png").read_bytes()), ring())
    assert lines[0] == "saliency (1 of 7)"
    assert "nearest: 4 of 4 pictures" in lines
    text = text_of(found.page)
    assert "sees 0 in this image with a confidence of" in text
    assert "Not done" not in text
    assert f"Passes spent: {found.forwards:,} forward, {found.backwards:,} backward" in text


def test_passes_are_counted_forward_and_backward(lenet: Target, tmp_path: Path) -> None:
    before = lenet.queries
    found = told(lenet, tmp_path, only=["saliency", "segmentation"])
    assert found.forwards == lenet.queries - before == 1 + 69
    assert found.backwards == 69


def test_inversions_tell_both_errors_and_whether_the_class_was_kept(lenet: Target, tmp_path: Path) -> None:
    lines: list[str] = []
    found = told(lenet, tmp_path, only=["inversion"], layers=["conv1", "fc2"], say=lines.append)
    assert [path.name for path in found.pictures] == ["image.png", "inversion-from-conv1.png", "inversion-from-fc2.png"]
    text = text_of(found.page)
    assert "over the norm of the image's features" in html.unescape(text)
    assert "The inversion of fc2, the deepest of them, is called 0 too" in text
    assert "deep inversions are themselves fooling images" in text
    assert "error, squared" in text
    assert "error, unsquared" in text
    assert found.backwards == 400
    assert "inversion: conv1, step 100 of 200" in lines


def test_an_inversion_that_is_the_image_again_is_called_no_fooling_image(lenet: Target, tmp_path: Path) -> None:
    text = text_of(told(lenet, tmp_path, only=["inversion"], layers=["conv1"]).page)
    assert "The inversion of conv1, the deepest of them, is called 0 too" in text
    assert "fooling images" not in text


def test_a_zoom_shows_some_frames_and_keeps_all(lenet: Target, tmp_path: Path) -> None:
    found = told(lenet, tmp_path, only=["dream"], dream="conv1", zoom=13)
    names = [path.name for path in found.pictures if path.name.startswith("dream-")]
    assert sorted(names) == [f"dream-frame-{k:03d}.png" for k in range(14)]
    assert found.page.read_text(encoding="utf-8").count("data:image/png;base64,") == 1 + 12
    assert "-fold" in text_of(found.page)
    assert found.backwards == 14 * 4 * 10
    for name in names:
        assert decode_png((tmp_path / name).read_bytes()).shape == (1, 28, 28)


def test_a_layer_that_takes_one_size_alone_is_dreamt_of_at_that_size(lenet: Target, tmp_path: Path) -> None:
    found = told(lenet, tmp_path, only=["dream"], dream="fc1")
    assert "its own size alone" in text_of(found.page)
    assert found.backwards == 10


def test_equal_seeds_give_equal_files(lenet: Target, tmp_path: Path) -> None:
    one, two = (told(lenet, tmp_path / name, seed=3) for name in "ab")
    assert one.page.read_bytes() == two.page.read_bytes()


def test_a_black_box_says_what_it_has_not_and_has_the_rest(tmp_path: Path) -> None:
    found = told(black(), tmp_path)
    assert headings(found.page) == ["Occlusion", "Elements"]
    text = text_of(found.page)
    assert "box has no gradients" in text
    assert "evofool baseline square, nes or random" in text
    assert found.backwards == 0
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        told(black(), tmp_path, only=["saliency"])


def test_a_part_that_fails_is_named_on_the_page_and_the_others_are_there(
    lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of <luck>")

    monkeypatch.setattr(parts, "segmentation_part", fail)
    lines: list[str] = []
    found = told(lenet, tmp_path, say=lines.append)
    assert found.faults == {"segmentation": "RuntimeError: out of <luck>"}
    assert headings(found.page) == ["Saliency", "Segmentation", "Occlusion", "Elements", "Inversion"]
    assert "This part failed: RuntimeError: out of &lt;luck&gt;" in found.page.read_text(encoding="utf-8")
    assert "segmentation failed: RuntimeError: out of <luck>" in lines


def test_what_was_done_is_kept_when_it_is_interrupted(
    lenet: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "occlusion_part", stop)
    with pytest.raises(KeyboardInterrupt):
        told(lenet, tmp_path)
    assert headings(tmp_path / "index.html") == ["Saliency", "Segmentation"]
    assert "Not done: occlusion, elements, inversion." in text_of(tmp_path / "index.html")
    assert (tmp_path / "segmentation-mask.png").exists()


def test_another_class_than_the_one_called_is_explained_and_said(lenet: Target, tmp_path: Path) -> None:
    found = explain(lenet, ring(), 7, tmp_path, title="Why", source="ring.png", only=["occlusion"])
    text = text_of(found.page)
    assert "sees 7 in this image" in text
    assert "It calls the image 0" in text


def test_an_image_without_elements_says_so(lenet: Target, tmp_path: Path) -> None:
    flat = np.full((1, 28, 28), 77, np.uint8)
    found = explain(lenet, flat, 1, tmp_path, title="Flat", source="flat.png", only=["elements"])
    assert "no elements" in text_of(found.page)


def test_what_cannot_be_is_refused_before_anything_is_written(lenet: Target, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(TargetError, match=r'no part "saleincy".*did you mean "saliency"'):
        told(lenet, folder, only=["saleincy"])
    with pytest.raises(TargetError, match=r'no layer "conv3".*conv2'):
        told(lenet, folder, layers=["conv1", "conv3"])
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        told(black(), folder, layers=["conv1"])
    with pytest.raises(TargetError, match="--dream LAYER, for example fc1"):
        told(lenet, folder, only=["dream"])
    with pytest.raises(TargetError, match=r'no layer "conv9"'):
        told(lenet, folder, dream="conv9")
    with pytest.raises(ImageError, match="--real DIR"):
        told(lenet, folder, only=["nearest"])
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_named(lenet: Target, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        told(lenet, tmp_path / "file" / "out")


def test_every_part_has_something_to_do(lenet: Target, tmp_path: Path) -> None:
    for name in PARTS:
        if name != "nearest":
            assert len(headings(told(lenet, tmp_path / name, only=[name], dream="conv1").page)) == 1
