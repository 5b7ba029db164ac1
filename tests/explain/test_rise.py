"""RISE compared with its definition, and on a target whose evidence is known."""

import numpy as np
import pytest

from evofool.explain.covering import filled
from evofool.explain.rise import random_masks, rise
from evofool.scores import confidence, log_odds
from tests.explain.one_patch import PATCH, SHAPE, lit, one_patch


def test_the_map_is_the_covariance_of_confidence_and_visibility() -> None:
    target = one_patch()
    found = rise(target, lit(), 0, masks=40, seed=3)
    assert target.queries == 40
    masks = random_masks(*SHAPE[1:], list(range(40)), seed=3)
    other = filled(lit(), "mean").astype(np.float64)
    shown = np.rint(other + masks[:, None] * (lit() - other)).astype(np.uint8)
    p = np.asarray(confidence(log_odds(target.logits(shown))[:, 0]))
    expected = np.zeros(SHAPE[1:])
    for mask, weight in zip(masks, p, strict=True):
        expected += (weight - p.mean()) * mask / (40 * 0.5)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_patch_has_the_highest_values() -> None:
    found = rise(one_patch(), lit(), 0, masks=300)
    assert found[PATCH].mean() > 5 * np.abs(found[~PATCH]).mean()
    assert PATCH[np.unravel_index(found.argmax(), found.shape)]
    np.testing.assert_array_equal(found, rise(one_patch(), lit(), 0, masks=300))


def test_masks_are_smooth_keyed_and_visible_in_half_of_the_cells() -> None:
    masks = random_masks(30, 44, list(range(200)), cells=5, keep=0.5, seed=1)
    assert masks.shape == (200, 30, 44)
    assert masks.min() == 0
    assert masks.max() == 1
    assert np.abs(masks.mean(0) - 0.5).max() < 0.15
    assert np.abs(np.diff(masks, axis=2)).max() < 1 / 5, "a cell is nine pixels wide"
    np.testing.assert_array_equal(random_masks(30, 44, [7], cells=5, seed=1)[0], masks[7])
    assert (random_masks(30, 44, [7], cells=5, seed=2)[0] != masks[7]).any()


def test_arguments_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2 masks, not 1"):
        rise(one_patch(), lit(), 0, masks=1)
    with pytest.raises(ValueError, match=r"cells 0 has to be at least 1, and keep 0\.5 between"):
        random_masks(8, 8, [0], cells=0)
