"""The spaces in which images are compared, and points that are kept on disk."""

from pathlib import Path

import numpy as np
import pytest

from evofool.errors import ImageError, StoreError
from evofool.image_metrics.spaces import RealPoints, hog
from evofool.run.schema import IMAGE_METRICS
from tests.image_metrics.samples import SHAPE

PIXELS, HOG, FEATURES, VARIATION = IMAGE_METRICS[:4]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 45), (1, 3, 5), (1, 224, 224)])
def test_hog_takes_images_of_any_size_and_knows_a_turned_edge(shape: tuple[int, int, int]) -> None:
    images = np.zeros((3, *shape), np.uint8)
    images[0, :, :, shape[2] // 2 :] = images[1, :, :, shape[2] // 2 :] = 200
    images[2, :, shape[1] // 2 :] = 200
    points = hog(images)
    assert points.dtype == np.float32
    assert points.shape[0] == 3
    assert np.isfinite(points).all()
    assert np.array_equal(points[0], points[1])
    assert not np.allclose(points[0], points[2])


def test_hog_cells_grow_with_the_image() -> None:
    # 7x7 and 14x14 cells: 6x6 and 13x13 blocks of 2x2 cells and 9 orientations.
    assert hog(np.zeros((1, 1, 28, 28), np.uint8)).shape == (1, 6 * 6 * 36)
    assert hog(np.zeros((1, 3, 224, 224), np.uint8)).shape == (1, 13 * 13 * 36)


@pytest.mark.parametrize("spill", [1, 1 << 26])
@pytest.mark.parametrize("block", [1, 1 << 24])
def test_points_in_memory_and_on_the_disk_are_as_near(monkeypatch: pytest.MonkeyPatch, spill: int, block: int) -> None:
    monkeypatch.setattr("evofool.image_metrics.spaces._SPILL", spill)
    monkeypatch.setattr("evofool.image_metrics.spaces._BLOCK", block)
    rng = np.random.default_rng(0)
    there, asked = (rng.normal(size=(n, 7)).astype(np.float32) for n in (30, 5))
    points = RealPoints()
    for part in np.split(there, [4, 5, 20]):
        points.add(part)
    assert len(points) == 30
    away = np.linalg.norm(there[None].astype(float) - asked[:, None], axis=2)
    np.testing.assert_allclose(points.nearest(asked), away.min(1), rtol=1e-12)
    assert points.nearest(there[3:4]).tolist() == [0]
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in points.blocks()]), there)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    points = RealPoints()
    monkeypatch.setattr(points, "_file", open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    with points._file, pytest.raises(StoreError, match="has no room for the points of the real images"):
        points.add(np.zeros((2, 3), np.float32))


def test_scikit_image_is_asked_for_by_the_name_of_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skimage.feature", None)
    with pytest.raises(ImageError, match=r"HOG needs scikit-image .*pip install 'evofool\[bench\]'"):
        hog(np.zeros((1, *SHAPE), np.uint8))
