"""The nearest real images: compared with a loop over all pairs, in features and in pixels, for networks and black boxes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import evofool
from evofool.errors import ImageError, TargetError
from evofool.explain.layers import last_layer
from evofool.explain.nearest import nearest_real, some_real
from evofool.images import save_png
from evofool.targets import Preprocessing, Target

SHAPE = (3, 12, 12)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(400, 5)
            self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).flatten(1))


def white() -> Target:
    return Target.from_module(Small(), list("abcde"), SHAPE, outputs="logits")


def black() -> Target:
    return Target("box", list("abcde"), SHAPE, lambda x: np.zeros((len(x), 5), np.float32), {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """23 pictures without classes."""
    for i in range(23):
        save_png(drawn(i), tmp_path / f"p{i:02d}.png")
    return tmp_path


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def slow(points: np.ndarray, point: np.ndarray) -> tuple[list[int], list[float], float]:
    """Every pair by itself: the three nearest, their distances, the percentile."""
    away = [float(np.linalg.norm(p.astype(np.float64) - point)) for p in points]
    order = sorted(range(len(points)), key=lambda i: away[i])[:3]
    nearest_other = [
        min(float(np.linalg.norm(p.astype(np.float64) - q)) for j, q in enumerate(points) if j != i)
        for i, p in enumerate(points)
    ]
    return order, [away[i] for i in order], 100.0 * sum(d <= away[order[0]] for d in nearest_other) / len(nearest_other)


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_nearest_are_those_that_a_loop_over_all_pairs_finds(folder: Path, batch: int) -> None:
    target, image = white(), drawn(99)
    real = np.stack([drawn(i) for i in range(23)])
    assert target.network is not None
    seen = torch.from_numpy(np.stack([*real, image])).float() / 255
    features = torch.relu(target.network.module.conv(seen)).flatten(1).detach().numpy()
    pixels = np.stack([*real, image]).reshape(24, -1) / np.float32(255)
    by_features, by_pixels = nearest_real(target, image, folder, batch=batch)
    assert by_features.space == "input of head"
    assert by_pixels.space == "pixels"
    for found, points in ((by_features, features), (by_pixels, pixels)):
        order, distances, percentile = slow(points[:23], points[23])
        assert [file.name for file in found.files] == [f"p{i:02d}.png" for i in order]
        np.testing.assert_allclose(found.distances, distances, rtol=1e-5)
        assert found.nearest_real_percentile == pytest.approx(percentile)
        np.testing.assert_array_equal(found.images, real[order])
        assert found.classes == [None] * 3
        assert found.compared == found.sampled == 23


def test_a_named_layer_is_the_space(folder: Path) -> None:
    target = white()
    found = nearest_real(target, drawn(3), folder, layer="conv", k=1)
    assert [near.space for near in found] == ["conv", "pixels"]
    assert [near.files[0].name for near in found] == ["p03.png"] * 2


def test_an_image_of_the_folder_is_at_distance_0_and_percentile_0(folder: Path) -> None:
    for found in nearest_real(white(), drawn(7), folder):
        assert found.files[0].name == "p07.png"
        assert found.distances[0] == 0
        assert found.nearest_real_percentile == 0


def test_an_image_unlike_all_others_is_at_percentile_100(folder: Path) -> None:
    flat = np.zeros(SHAPE, np.uint8)
    by_pixels = nearest_real(white(), flat, folder)[1]
    assert by_pixels.nearest_real_percentile == 100
    assert by_pixels.distances[0] > 0


def test_a_black_box_has_only_pixels_and_is_not_queried(folder: Path) -> None:
    box = black()
    found = nearest_real(box, drawn(5), folder)
    assert [near.space for near in found] == ["pixels"]
    assert found[0].files[0].name == "p05.png"
    assert box.queries == 0


def test_the_percentile_is_taken_over_a_sample_and_all_are_compared(folder: Path) -> None:
    few, every = (nearest_real(black(), drawn(50), folder, sample=sample)[0] for sample in (5, 100))
    assert (few.compared, few.sampled) == (23, 5)
    assert few.files == every.files
    assert few.nearest_real_percentile in {0, 20, 40, 60, 80, 100}


def test_classes_are_given_where_the_folder_has_them(tmp_path: Path) -> None:
    for c, name in enumerate("abcde"):
        (tmp_path / name).mkdir()
        save_png(drawn(c), tmp_path / name / "one.png")
    found = nearest_real(white(), drawn(3), tmp_path, k=9)[0]
    assert found.classes[0] == 3
    assert sorted(c for c in found.classes if c is not None) == [0, 1, 2, 3, 4]


def test_the_earlier_of_equal_pictures_is_the_nearer(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        save_png(drawn(1), tmp_path / f"{name}.png")
    assert [file.name for file in nearest_real(black(), drawn(1), tmp_path, batch=2)[0].files] == ["a.png", "b.png", "c.png"]


def test_crops_of_an_image_are_averaged_and_convolutions_replace_linear_layers(tmp_path: Path) -> None:
    class Convolved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3))

    target = Target.from_module(Convolved(), ["a", "b"], SHAPE, Preprocessing(crops=5, crop=(8, 8)))
    for i in range(4):
        save_png(drawn(i), tmp_path / f"{i}.png")
    assert last_layer(target) == "conv"
    found = nearest_real(target, drawn(2), tmp_path)[0]
    assert found.files[0].name == "2.png"
    assert found.distances[0] == 0


def test_some_real_images_are_spread_over_the_folder(folder: Path) -> None:
    some = some_real(black(), folder, 3)
    np.testing.assert_array_equal(some, np.stack([drawn(0), drawn(11), drawn(22)]))
    assert len(some_real(black(), folder, 100)) == 23


def test_pictures_that_cannot_be_read_are_left_out_and_listed(folder: Path) -> None:
    whole = nearest_real(white(), drawn(99), folder)
    for name in ("p00b.png", "q.png"):
        (folder / name).write_text("none")
    for batch in (1, 5, 64):
        for found, wanted in zip(nearest_real(white(), drawn(99), folder, batch=batch), whole, strict=True):
            assert [file.name for file in found.files] == [file.name for file in wanted.files]
            np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-5)
            assert found.nearest_real_percentile == wanted.nearest_real_percentile
            assert (found.compared, found.sampled) == (23, 23)
            assert [file.name for file in found.unreadable] == ["p00b.png", "q.png"]
    assert len(some_real(black(), folder, 100)) == 23


def test_too_few_readable_pictures_are_an_error(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.png").write_text("none")
    with pytest.raises(ImageError, match=r"none of 3 real pictures can be read; the first is .*a\.png"):
        nearest_real(black(), drawn(0), tmp_path)
    with pytest.raises(ImageError, match="none of 2 real pictures can be read"):
        some_real(black(), tmp_path, 2)
    save_png(drawn(0), tmp_path / "b.png")
    with pytest.raises(ImageError, match="1 of 3 pictures can be read; at least 2 are needed"):
        nearest_real(black(), drawn(0), tmp_path)


def test_no_hook_is_left_even_where_it_fails(folder: Path) -> None:
    target = white()
    assert target.network is not None
    nearest_real(target, drawn(0), folder)
    for file in folder.iterdir():
        file.write_text("none")
    with pytest.raises(ImageError, match="none of 23 real pictures"):
        nearest_real(target, drawn(0), folder)
    assert not any(module._forward_hooks for module in target.network.module.modules())


def test_missing_folders_and_layers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is not a folder"):
        nearest_real(black(), drawn(0), tmp_path / "none")
    with pytest.raises(ImageError, match="has no pictures"):
        nearest_real(black(), drawn(0), tmp_path)
    save_png(drawn(0), tmp_path / "one.png")
    with pytest.raises(ImageError, match="at least 2"):
        nearest_real(black(), drawn(0), tmp_path)
    save_png(drawn(1), tmp_path / "two.png")
    with pytest.raises(TargetError, match=r'no layer "cnv".*nearest conv'):
        nearest_real(white(), drawn(0), tmp_path, layer="cnv")
    with pytest.raises(TargetError, match="is not used in the network's forward pass"):
        nearest_real(white(), drawn(0), tmp_path, layer="unused")
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        last_layer(black())


def test_pictures_of_any_size_are_preprocessed_as_the_target_s(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30 + i, 50, 4), np.uint8), "RGBA").save(
            tmp_path / f"{i}.png"
        )
    found = nearest_real(evofool.target("lenet"), np.zeros((1, 28, 28), np.uint8), tmp_path)
    assert found[0].space == "input of fc2"
    assert found[0].images.shape == (3, 1, 28, 28)
