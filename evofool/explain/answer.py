"""The answer of an explanation: one sentence on where the network sees the class, from the checked masks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from evofool.explain.mask_check import CheckedMask, MaskCheck
from evofool.explain.phrases import three_decimals
from evofool.scores import confidence
from evofool.targets import Target

_SPECK = 0.1  # of the largest area; smaller ones are not counted
_MOST = 0.5  # of the confidence: what a mask alone has to keep to be called the main one
_NOTHING = 0.0005  # of log-odds, which are shown with three decimals
_EIGHT = np.ones((3, 3), int)
_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")


class Answer(NamedTuple):
    """sentence: what the masks show. mask: the one that it is about; None: no mask passes its checks."""

    sentence: str
    mask: CheckedMask | None


def answer(target: Target, class_id: int, masks: Sequence[CheckedMask]) -> Answer:
    """The answer from at least one checked mask.

    Of the masks that pass it takes the one that is furthest beyond the limits of its copies; of equal ones the first.
    """
    passed = [found for found in masks if found.passed]
    if not passed:
        return Answer(_none(target, class_id, [found.check for found in masks]), None)
    best = max(passed, key=lambda found: found.beyond)
    return Answer(_found(target, class_id, best), best)


def areas(mask: np.ndarray) -> int:
    """The number of connected areas of a mask (8-neighbours), without those under a tenth of the largest."""
    sizes = np.bincount(ndimage.label(mask, _EIGHT)[0].ravel())[1:]
    return int((sizes >= _SPECK * sizes.max()).sum()) if len(sizes) else 0


def _none(target: Target, class_id: int, checks: Sequence[MaskCheck]) -> str:
    start = f'No part of this image is shown to be where {target.name} sees "{target.labels[class_id]}": '
    if all(np.abs(check.whole - np.append(check.copies, check.removal.without)).max() < _NOTHING for check in checks):
        return f"{start}the log-odds stay the same whatever is removed."
    which = "the mask below does not pass" if len(checks) == 1 else f"none of the {len(checks)} masks below passes"
    return (
        f"{start}{which} its check. Removing it would have to cost more than removing most copies of it elsewhere, with the "
        "mean colour and with a blur in its place."
    )


def _found(target: Target, class_id: int, best: CheckedMask) -> str:
    check, label = best.check, target.labels[class_id]
    count = areas(best.mask)
    number = _WORDS[count - 2] if 2 <= count <= 9 else str(count)
    these, they, them, keep, have = (
        ("this area", "it", "it", "keeps", "has")
        if count == 1
        else (f"these {number} areas", "they", "them", "keep", "have")
    )
    whole, without, alone = check.whole, check.removal.without, check.removal.alone
    if check.seen != class_id:
        return (
            f'{target.name} sees "{target.labels[check.seen]}" in this image. The evidence for "{label}" is mainly in '
            f"{these}: without {them} its log-odds fall from {three_decimals(whole)} to {three_decimals(without)}; alone "
            f"{they} {have} {three_decimals(alone)}."
        )
    if check.removal.seen_without != class_id:
        lost = f'without {them} it sees "{target.labels[check.removal.seen_without]}"'
    else:
        lost = f"without {them} {_fall(whole, without)}"
    share = confidence(alone) / confidence(whole)
    kept = f"{keep} {_percent(share)} of the confidence"
    if share > 1.005:
        kept = f"{have} a confidence of {_percent(confidence(alone))}, the whole image {_percent(confidence(whole))}"
    if share >= _MOST:
        return f'{target.name} sees "{label}" mainly in {these}: alone {they} {kept}; {lost}.'
    return f'{target.name} needs {these} to see "{label}": {lost}. But alone {they} {kept}: the rest matters too.'


def _fall(whole: float, without: float) -> str:
    before, after = confidence(whole), confidence(without)
    if round(float(before), 2) > round(float(after), 2):
        return f"the confidence falls from {_percent(before)} to {_percent(after)}"
    return f"the log-odds fall from {three_decimals(whole)} to {three_decimals(without)}"


def _percent(share: float | np.ndarray) -> str:
    """Whole percents; "less than 1%" and "more than 99%" instead of rounding to 0 or 100."""
    if share < 0.01:
        return "less than 1%"
    return "more than 99%" if 0.99 < share < 0.9999995 else f"{float(share):.0%}"
