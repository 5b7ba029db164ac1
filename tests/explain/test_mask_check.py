"""Masks compared with copies of themselves, on a target whose evidence is known."""

import dataclasses

import numpy as np
import pytest

from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain.covering import filled
from evofool.explain.mask_check import check_by_both_fills, check_mask, shifted
from evofool.targets import Target
from tests.explain.one_patch import PATCH, SHAPE, WEIGHT, lit, one_patch
from tests.synthetic import fake

GREY = 16 / 255  # the mean of the image
ELSEWHERE = np.roll(PATCH, 12, 0)


def test_the_mask_over_the_evidence_passes_with_the_scores_worked_out_by_hand() -> None:
    found = check_mask(one_patch(), lit(), 0, PATCH)
    assert found.passed
    assert found.area == 1 / 16
    assert (found.seen, found.removal.seen_without, found.removal.seen_alone) == (0, 1, 0)
    assert found.whole == pytest.approx(WEIGHT / 2)
    assert found.removal.without == pytest.approx(WEIGHT * (GREY - 0.5), abs=1e-5)
    assert found.removal.alone == pytest.approx(WEIGHT / 2)
    assert found.cost == pytest.approx(WEIGHT * (1 - GREY), abs=1e-5)
    overlap = (shifted(PATCH, 64, 0) & PATCH).sum((1, 2)) / PATCH.sum()
    np.testing.assert_allclose(found.copies, WEIGHT * (0.5 - overlap * (1 - GREY)), atol=1e-5)


def test_as_many_pixels_elsewhere_do_not_pass() -> None:
    found = check_mask(one_patch(), lit(), 0, ELSEWHERE)
    assert not found.passed
    assert found.cost == 0
    assert found.removal.alone == pytest.approx(WEIGHT * (GREY - 0.5), abs=1e-5)


@pytest.mark.parametrize("seed", [1, 2])
def test_fresh_copies_and_a_blur_in_place_of_the_mean_colour_give_the_same_answer(seed: int) -> None:
    inside, outside = (check_mask(one_patch(), lit(), 0, mask, fill="blur", seed=seed) for mask in (PATCH, ELSEWHERE))
    assert inside.passed
    assert not outside.passed
    assert inside.removal == inside.by["blur"] != inside.by["mean"]
    blurred = filled(lit(), "blur")[0, PATCH].mean() / 255
    assert inside.removal.without == pytest.approx(WEIGHT * (blurred - 0.5), abs=1e-5)


def test_only_a_mask_that_passes_by_the_mean_colour_is_checked_by_the_blur_too() -> None:
    target = one_patch()
    inside = check_by_both_fills(target, lit(), 0, "saliency", PATCH, seed=3)
    assert target.queries == 2 * 69
    assert inside.passed
    assert inside.blurred is not None
    expected = check_mask(one_patch(), lit(), 0, PATCH, fill="blur", seed=3)
    np.testing.assert_array_equal(inside.blurred.copies, expected.copies)
    outside = check_by_both_fills(target, lit(), 0, "saliency", ELSEWHERE)
    assert target.queries == 3 * 69
    assert (outside.passed, outside.blurred) == (False, None)


def test_a_mask_that_raises_the_log_odds_when_removed_never_passes() -> None:
    """For class 1 the patch is evidence against it; elsewhere nothing changes, and removal costs nothing."""
    found = check_mask(one_patch(), lit(), 1, PATCH)
    assert found.cost < 0
    assert not found.passed
    assert not dataclasses.replace(found, copies=np.full(64, 99.0)).passed, "although each copy costs less"


@pytest.mark.parametrize("full", [False, True])
def test_an_empty_mask_and_a_full_one_never_pass(full: bool) -> None:
    assert not check_mask(one_patch(), lit(), 0, np.full(SHAPE[1:], full)).passed


def test_at_most_two_of_64_copies_may_cost_as_much() -> None:
    found = check_mask(one_patch(), lit(), 0, PATCH)
    for equal, passed in ((2, True), (3, False)):
        copies = np.full(64, found.whole)
        copies[:equal] = found.removal.without
        assert dataclasses.replace(found, copies=copies).passed is passed
    costs = dataclasses.replace(found, copies=found.whole - np.arange(64.0))
    assert costs.limit == pytest.approx(61)


def test_masks_put_at_random_pass_in_a_twentieth() -> None:
    target = fake(shape=(1, 16, 16))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 16, 16), np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[:6, :3] = mask[9, 2:9] = True
    count = 200
    passed = sum(check_mask(target, image, 0, m, copies=19, seed=k).passed for k, m in enumerate(shifted(mask, count, 99)))
    assert 0.02 <= passed / count <= 0.08


def test_copies_have_the_masks_size_wrap_around_the_borders_and_cover_every_pixel_alike() -> None:
    mask = np.zeros((12, 10), bool)
    mask[2:5, :] = mask[7, 3] = True  # as wide as the image
    copies = shifted(mask, 6000, 4)
    assert (copies.sum((1, 2)) == mask.sum()).all()
    np.testing.assert_allclose(copies.mean(0), mask.mean(), atol=0.03)
    assert len(np.unique(copies, axis=0)) == 2 * 12 * 10  # its left-right mirror image is one of its shifts


def test_a_copy_is_keyed_by_the_seed_and_its_number() -> None:
    np.testing.assert_array_equal(shifted(PATCH, 64, 5)[:9], shifted(PATCH, 9, 5))
    assert (shifted(PATCH, 9, 5) != shifted(PATCH, 9, 6)).any()


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_queries_are_counted_and_the_batch_changes_nothing(batch: int) -> None:
    target = one_patch()
    found = check_mask(target, lit(), 0, PATCH, batch=batch)
    assert target.queries == 5 + 64
    np.testing.assert_array_equal(found.copies, check_mask(target, lit(), 0, PATCH).copies)


def test_invalid_arguments_are_named() -> None:
    with pytest.raises(ImageError, match=r"bool \(32, 32\), not float64 \(32, 32\)"):
        check_mask(one_patch(), lit(), 0, PATCH * 1.0)
    with pytest.raises(ImageError, match=r"not bool \(31, 32\)"):
        check_mask(one_patch(), lit(), 0, PATCH[1:])
    with pytest.raises(ValueError, match="18 copies is above all of them; use at least 19"):
        check_mask(one_patch(), lit(), 0, PATCH, copies=18)
    with pytest.raises(TargetError, match="no class 2; it has 0 to 1"):
        check_mask(one_patch(), lit(), 2, PATCH)
    broken = Target("broken", ["a", "b"], SHAPE, lambda x: np.full((len(x), 2), np.nan, np.float32), {})
    with pytest.raises(ScoreError, match="broken returned NaN"):
        check_mask(broken, lit(), 0, PATCH)
