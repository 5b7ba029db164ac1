"""Whether an image has the shape of its class."""

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from evofool.image_metrics.own_shape import OwnShape, normalised, otsu
from evofool.targets.digits import held_out


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """12 images of each digit."""
    images, labels = held_out()
    rows = np.concatenate([np.flatnonzero(labels == c)[:12] for c in range(10)])
    return images[rows], labels[rows]


@pytest.fixture(scope="module")
def shape(real: tuple[np.ndarray, np.ndarray]) -> OwnShape:
    return OwnShape(*real, np.arange(0, 120, 3))


def test_held_out_images_spread_over_the_percentiles_of_their_class_and_lie_beyond_other_classes(
    shape: OwnShape, real: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = real[0][::3], real[1][::3]
    percentiles, flags = shape(images, labels)
    for c in range(10):
        assert sorted(percentiles[labels == c]) == [25, 50, 75, 100]
    assert flags.sum() > 20
    others, flags = shape(images, (labels + 1) % 10)
    assert np.median(others) == 100
    assert flags.sum() < 4


def test_neither_polarity_nor_place_nor_size_nor_the_other_images_matter(
    shape: OwnShape, real: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = real[0][5:9], real[1][5:9]
    values, flags = shape(images, labels)
    for changed in (255 - images, np.roll(images, (2, -3), (2, 3)), np.pad(images, ((0, 0), (0, 0), (9, 4), (3, 8)))):
        assert np.array_equal(shape(changed, labels)[0], values)
    assert np.array_equal(shape(images[2:3], labels[2:3])[0], values[2:3])
    assert shape(images[:0], labels[:0])[0].shape == (0,)
    flat = np.full((1, 1, 28, 28), 130, np.uint8)
    assert shape(flat, labels[:1])[0] == 100
    assert flags.dtype == bool


def test_ink_is_scaled_to_twenty_pixels_around_its_centre_of_mass(real: tuple[np.ndarray, np.ndarray]) -> None:
    bar = np.zeros((1, 50, 60), np.uint8)
    bar[0, 5:45, 10:14] = 200
    found = normalised(bar)
    rows, columns = np.flatnonzero(found[0].any(1)), np.flatnonzero(found[0].any(0))
    assert (len(rows), len(columns)) == (20, 2)
    assert (rows[0], columns[0]) == (4, 13)
    for digit in real[0]:
        ink = normalised(digit)[0].astype(float)
        sides = [np.flatnonzero(ink.any(1 - axis)) for axis in (0, 1)]
        assert 19 <= max(side[-1] - side[0] + 1 for side in sides) <= 20
        for axis in (0, 1):
            assert abs((ink.sum(1 - axis) * (np.arange(28) + 0.5)).sum() / ink.sum() - 14) <= 0.5
    assert not normalised(np.full((1, 28, 28), 90, np.uint8)).any()


def test_the_threshold_is_otsus(real: tuple[np.ndarray, np.ndarray]) -> None:
    for image in real[0][::10]:
        assert otsu(image[0]) == threshold_otsu(image[0])


def test_a_class_needs_images_on_both_sides(real: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="class 0 has 12 held-out images and 0 others"):
        OwnShape(*real, np.arange(12))
