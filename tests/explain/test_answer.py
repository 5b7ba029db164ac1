"""The sentence of an explanation, from checked masks."""

import numpy as np
import pytest

from evofool.explain.answer import answer, areas
from evofool.explain.covering import Fill
from evofool.explain.mask_check import CheckedMask, MaskCheck, Removal, check_by_both_fills
from tests.explain.one_patch import PATCH, lit, one_patch
from tests.synthetic import fake

TARGET = fake()
LEFT = np.zeros((6, 6), bool)
LEFT[1:3, 1] = True
TWO = LEFT.copy()
TWO[5, 4:] = True


def found(
    whole: float,
    without: float,
    alone: float,
    *,
    seen: tuple[int, int] = (0, 1),
    part: str = "saliency",
    mask: np.ndarray = LEFT,
    limit: float = 1.0,
    blurred: float | None = None,
) -> CheckedMask:
    """Checks whose copies all cost `limit`, or `blurred` by the blur. seen: the image's class, and that without the mask."""
    removal = Removal(without, alone, seen[1], 0)
    by: dict[Fill, Removal] = {"mean": removal, "blur": removal}
    check = MaskCheck("mean", 0.1, whole, seen[0], by, np.full(64, whole - limit))
    copies = np.full(64, whole - (limit if blurred is None else blurred))
    again = MaskCheck("blur", 0.1, whole, seen[0], by, copies)
    return CheckedMask(part, mask, check, again if check.passed else None)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (
            found(2.0, -3.0, 1.5),
            'fake sees "class 0" mainly in this area: alone it keeps 93% of the confidence; without it it sees "class 1".',
        ),
        (
            found(2.0, -3.0, 1.5, mask=TWO),
            'fake sees "class 0" mainly in these two areas: alone they keep 93% of the confidence; without them it sees '
            '"class 1".',
        ),
        (
            found(2.0, 0.5, -6.0, seen=(0, 0)),
            'fake needs this area to see "class 0": without it the confidence falls from 88% to 62%. But alone it keeps '
            "less than 1% of the confidence: the rest matters too.",
        ),
        (
            found(30.0, 25.0, 20.0, seen=(0, 0), mask=TWO),
            'fake sees "class 0" mainly in these two areas: alone they keep 100% of the confidence; without them the '
            "log-odds fall from 30.000 to 25.000.",
        ),
        (
            found(20.0, 6.0, 0.0, seen=(0, 0)),
            'fake sees "class 0" mainly in this area: alone it keeps 50% of the confidence; without it the log-odds '
            "fall from 20.000 to 6.000.",
        ),
        (
            found(0.0, -2.0, 2.0),
            'fake sees "class 0" mainly in this area: alone it has a confidence of 88%, the whole image 50%; without it it '
            'sees "class 1".',
        ),
        (
            found(-3.0, -5.0, -4.0, seen=(2, 2)),
            'fake sees "class 2" in this image. The evidence for "class 0" is mainly in this area: without it its log-odds '
            "fall from -3.000 to -5.000; alone it has -4.000.",
        ),
    ],
)
def test_a_mask_that_passes_is_said_to_be_where_the_class_is(mask: CheckedMask, sentence: str) -> None:
    assert answer(TARGET, 0, [mask]) == (sentence, mask)


def test_without_a_mask_that_passes_the_answer_is_that_nothing_is_shown() -> None:
    fails = found(2.0, 1.5, 1.9)
    assert answer(TARGET, 0, [fails]) == (
        'No part of this image is shown to be where fake sees "class 0": the mask below does not pass its check. Removing '
        "it would have to cost more than removing most copies of it elsewhere, with the mean colour and with a blur in its "
        "place.",
        None,
    )
    assert "none of the 3 masks below passes its check." in answer(TARGET, 0, [fails] * 3).sentence


def test_a_mask_that_passes_by_the_mean_colour_alone_is_no_answer() -> None:
    fails = found(2.0, -3.0, 1.5, blurred=5.0)
    assert fails.check.passed
    assert not fails.passed
    assert answer(TARGET, 0, [fails]).mask is None


def test_where_nothing_that_is_removed_changes_the_score_the_answer_says_so() -> None:
    same, fails = found(2.0, 2.0, 2.0, limit=1e-9), found(2.0, 1.5, 1.9)
    start = 'No part of this image is shown to be where fake sees "class 0": '
    assert answer(TARGET, 0, [same, same]).sentence == start + "the log-odds stay the same whatever is removed."
    assert answer(TARGET, 0, [same, fails]).sentence.startswith(start + "none of the 2 masks")


def test_of_masks_that_pass_the_one_furthest_above_its_copies_is_taken() -> None:
    large, small, fails = found(9.0, 0.0, 5.0, limit=8.5), found(9.0, 4.0, 5.0, limit=2.0), found(9.0, -9.0, 9.0, limit=20.0)
    less = found(9.0, 1.0, 5.0, limit=2.0, blurred=7.5)
    assert less.beyond == 0.5 < large.beyond + 0.5 == 1.0 < small.beyond == 3.0
    assert answer(TARGET, 0, [less, small]).mask is small
    assert answer(TARGET, 0, [large, small, fails]).mask is small
    assert answer(TARGET, 0, [small, small._replace(part="occlusion")]).mask is small


def test_specks_are_not_counted_as_areas() -> None:
    mask = np.zeros((30, 30), bool)
    mask[:10, :10] = mask[20:25, 20:25] = mask[15, 15] = True
    assert areas(mask) == 2
    assert areas(np.zeros((3, 3), bool)) == 0


def test_the_patch_that_alone_matters_is_the_answer() -> None:
    target, image = one_patch(), lit()
    masks = [
        check_by_both_fills(target, image, 0, name, mask)
        for name, mask in (("elsewhere", np.roll(PATCH, 12, 0)), ("patch", PATCH))
    ]
    found = answer(target, 0, masks)
    assert found.mask is masks[1]
    assert found.sentence == (
        'one patch sees "bright" mainly in this area: alone it keeps 100% of the confidence; without it it sees "dark".'
    )
