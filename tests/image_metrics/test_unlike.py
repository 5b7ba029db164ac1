"""The limit on likeness to real digits, beside the measure that it limits."""

import numpy as np
import pytest

from evofool.image_metrics.digit_hog import digit_hog
from evofool.image_metrics.own_shape import OwnShape, both_polarities, normalised
from evofool.image_metrics.spaces import hog
from evofool.image_metrics.unlike import Unlike
from evofool.targets.digits import held_out
from genomes import CPPN, Key


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """24 images of each digit, and the rows of 8 of them."""
    images, labels = held_out()
    rows = np.concatenate([np.flatnonzero(labels == c)[:24] for c in range(10)])
    return images[rows], labels[rows], np.arange(0, 240, 3)


def drawn(real: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Digits, their negatives, noise, drawings, and one flat image."""
    images, encoding = real[0][::9], CPPN("grey", 28, 28)
    noise = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28)).astype(np.uint8)
    cppns = encoding.render(encoding.random(20, Key(3, 0)))
    return np.concatenate([images, 255 - images, noise, cppns, np.full((1, 1, 28, 28), 9, np.uint8)])


def test_the_quick_hog_is_the_library_s(real: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    images = drawn(real)
    inks = np.concatenate([images, np.stack([normalised(image) for image in images])])
    found = digit_hog(inks)
    assert found.dtype == np.float32
    assert np.allclose(found, hog(inks), rtol=0, atol=1e-6)
    assert np.array_equal(digit_hog(inks[7:8]), found[7:8]), "an image's values do not depend on the others"


@pytest.mark.parametrize("limit", [0.0, 50.0, 95.0, 99.9])
def test_an_image_is_permitted_exactly_if_its_percentile_is_above_the_limit(
    real: tuple[np.ndarray, np.ndarray, np.ndarray], limit: float
) -> None:
    images, unlike = drawn(real), Unlike(*real, "shape", limit)
    rows, classes = np.repeat(np.arange(len(images)), 3), np.arange(3 * len(images)) % 10
    percentiles, _ = OwnShape(*real)(images[rows], classes)
    found = unlike(images, rows, classes)
    assert np.array_equal(found, percentiles > limit)
    assert found.any()
    assert not found.all() or not limit
    one = np.zeros(1, np.int64)
    assert unlike(images[5:6], one, classes[15:16])[0] == found[15]
    assert unlike(images, one[:0], one[:0]).shape == (0,)


def test_at_the_limit_the_distance_is_computed_exactly(
    real: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held-out digit that is itself the limit: its percentile is above it, and that of the one before is not."""
    images, labels, held = real
    shape = OwnShape(*real)
    of_class = held[labels[held] == 3]
    percentiles, _ = shape(images[of_class], np.full(len(of_class), 3))
    monkeypatch.setattr("evofool.image_metrics.unlike._NEAR", np.inf)  # whatever the rounding: all are near
    order = np.argsort(percentiles)
    below, at = percentiles[order[3]], percentiles[order[4]]
    assert below < at
    unlike = Unlike(*real, "shape", below)
    found = unlike(images, of_class[order], np.full(len(order), 3))
    assert found.tolist() == [False] * 4 + [True] * 4
    assert unlike.distances[3] == shape.distances_above(below)[3]


def test_other_classes_set_the_limit_if_they_are_named(real: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    images, labels, held = real
    shape, unlike = OwnShape(*real), Unlike(*real, "others", 50.0)
    some = np.concatenate([held[labels[held] == c][::5] for c in range(10)])
    for c in (0, 1, 7):
        others = some[labels[some] != c]
        apart = np.sort([shape.distances(both_polarities(images[row : row + 1]), c)[0] for row in others])
        assert len(apart) == 18
        assert unlike.distances[c] == apart[9], "above 50% are 10 of 18"
        permitted = unlike(images, others, np.full(len(others), c))
        assert permitted.sum() == 9
    digits = unlike(images, held, labels[held])
    assert digits.mean() < 0.2, "digits are like their class"
    assert (unlike.distances[1], unlike.distances[0]) > (Unlike(*real, "shape", 95.0).distances[1], 0)


def test_limits_of_another_process_are_compared(real: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    unlike = Unlike(*real, "shape", 95.0)
    limits = [*unlike.distances.values()]
    assert unlike.same_as(limits)
    assert unlike.same_as([x * (1 + 1e-9) for x in limits])
    assert not unlike.same_as([*limits[:-1], limits[-1] * 1.01])
    assert not unlike.same_as(())
