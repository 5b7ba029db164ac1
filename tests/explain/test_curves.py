"""Deletion and insertion compared with a loop over steps, on a target whose evidence is known."""

import itertools

import numpy as np
import pytest

from evofool.errors import ImageError, ScoreError
from evofool.explain.covering import filled
from evofool.explain.curves import Curves, curves, random_map
from evofool.scores import confidence, log_odds
from evofool.targets import Target
from tests.explain.one_patch import PATCH, SHAPE, lit, one_patch

MAPS = {"true": PATCH * 1.0, "false": ~PATCH * 1.0, "random": random_map(*SHAPE[1:])}


def slow(target: Target, image: np.ndarray, values: np.ndarray, steps: int) -> Curves:
    """Pixel by pixel; of equal values the first in reading order."""
    height, width = values.shape
    order = sorted(range(values.size), key=lambda k: (-values[k // width, k % width], k))
    empty, blurred = filled(image, "mean"), filled(image, "blur")
    found: list[list[float]] = [[], []]
    for step in range(steps + 1):
        pair = np.array([image, blurred])
        for k in order[: round(step / steps * height * width)]:
            pair[0, :, k // width, k % width] = empty[:, k // width, k % width]
            pair[1, :, k // width, k % width] = image[:, k // width, k % width]
        for points, odds in zip(found, log_odds(target.logits(pair))[:, 0], strict=True):
            points.append(float(confidence(odds)))
    areas = [sum((a + b) / 2 / steps for a, b in itertools.pairwise(points)) for points in found]
    return Curves(np.array(found[0]), np.array(found[1]), *areas)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_curves_and_areas_are_those_of_a_loop(steps: int) -> None:
    found = curves(one_patch(), lit(), 0, MAPS, steps=steps)
    assert list(found) == list(MAPS)
    for name, values in MAPS.items():
        for ours, theirs in zip(found[name], slow(one_patch(), lit(), values, steps), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_map_of_the_evidence_falls_first_and_rises_first() -> None:
    found = curves(one_patch(), lit(), 0, MAPS)
    true, false, random = (found[name] for name in MAPS)
    assert true.deletion_area < random.deletion_area < false.deletion_area
    assert true.insertion_area > random.insertion_area > false.insertion_area
    assert true.deletion[2] == pytest.approx(false.deletion[-1]), "a sixteenth of the image is the patch"
    assert true.insertion[2] == pytest.approx(false.deletion[0])


def test_only_the_order_of_a_maps_values_matters() -> None:
    values = MAPS["random"]
    found = curves(one_patch(), lit(), 0, {"a": values, "b": 1e6 * values**3, "c": -values})
    np.testing.assert_array_equal(found["a"].deletion, found["b"].deletion)
    assert (found["a"].deletion != found["c"].deletion).any()


def test_the_ends_are_queried_once_for_all_maps() -> None:
    target = one_patch()
    curves(target, lit(), 0, MAPS, steps=5, batch=3)
    assert target.queries == 3 + 3 * 2 * 4


def test_a_random_map_has_a_key_and_patches() -> None:
    first = random_map(9, 7, patch=4, seed=2)
    np.testing.assert_array_equal(first, random_map(9, 7, patch=4, seed=2))
    assert first.shape == (9, 7)
    assert len(np.unique(first)) == 3 * 2
    assert (first[:4, :4] == first[0, 0]).all()
    assert (first != random_map(9, 7, patch=4, seed=3)).all()


def test_maps_that_cannot_be_are_named() -> None:
    with pytest.raises(ImageError, match=r'map "short" is \(31, 32\), not \(32, 32\)'):
        curves(one_patch(), lit(), 0, {"short": np.zeros((31, 32))})
    with pytest.raises(ScoreError, match='map "bad" is not finite at 1 of 1024 pixels'):
        curves(one_patch(), lit(), 0, {"bad": np.where(np.arange(1024).reshape(32, 32) == 3, np.nan, 0)})
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        curves(one_patch(), lit(), 0, MAPS, steps=0)
