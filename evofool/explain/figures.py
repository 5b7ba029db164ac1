"""The answer, the checks of masks and the curves of an explanation as numbers and names, for JSON."""

from typing import TYPE_CHECKING, Any

from evofool.explain.mask_check import CheckedMask, MaskCheck
from evofool.explain.segmentation import box
from evofool.targets import Target

if TYPE_CHECKING:
    from evofool.explain.page import Explanation


def figures(explanation: "Explanation", target: Target) -> dict[str, Any]:
    """answer, against, masks (a list, in the order of the parts), curves (by map), and what other parts found by name."""
    return {
        "answer": explanation.answer,
        "against": {"class": explanation.against, "label": target.labels[explanation.against]},
        "masks": [mask_figures(found, target) for found in explanation.masks],
        "curves": {
            name: {key: _plain(value) for key, value in c._asdict().items()} for name, c in explanation.curves.items()
        },
        **explanation.figures,
    }


def mask_figures(found: CheckedMask, target: Target) -> dict[str, Any]:
    """Log-odds, and the classes predicted. box: top, left, bottom, right, the last two exclusive.

    blur has no copies, limit and "passed" if the check by the mean colour is not passed.
    """
    check = found.check
    by_fill: dict[str, dict[str, Any]] = {
        fill: {
            "without": removal.without,
            "alone": removal.alone,
            "seen_without": target.labels[removal.seen_without],
            "seen_alone": target.labels[removal.seen_alone],
        }
        for fill, removal in check.by.items()
    }
    for each in (check, found.blurred):
        if each is not None:
            by_fill[each.fill] |= _compared(each)
    return {
        "part": found.part,
        "passed": found.passed,
        "area": check.area,
        "box": list(box(found.mask)),
        "log_odds": check.whole,
        **by_fill,
    }


def _compared(check: MaskCheck) -> dict[str, Any]:
    return {"passed": check.passed, "cost": check.cost, "limit": check.limit, "copies": check.copies.tolist()}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
