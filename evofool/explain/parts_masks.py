"""The masks of an explanation: their checks in words and as a table, and their pictures."""

from collections.abc import Sequence

import numpy as np

from evofool.explain.answer import areas
from evofool.explain.mask_check import CheckedMask, MaskCheck, check_by_both_fills
from evofool.explain.part_result import PartMask
from evofool.explain.phrases import counted, three_decimals
from evofool.images import encode_png
from evofool.pages.heat import outlined
from evofool.pages.html_page import Picture, Section, Table
from evofool.targets import Target

_WIDE = 296  # pixels on the page: four maps beside one another
_ANSWER = 448
_NAMES = {"grad-cam": "Grad-CAM", "rise": "RISE"}


def checked(
    target: Target, image: np.ndarray, class_id: int, part: str, mask: np.ndarray, over: np.ndarray, seed: int
) -> list[PartMask]:
    """The mask of a part, bool (H, W), with its checks and pictures; [] for an empty mask. Costs 69 queries, or 138.

    over: the part's map over the image, uint8 (3, H, W), on which the mask is outlined.
    """
    if not mask.any():
        return []
    found = check_by_both_fills(target, image, class_id, part, mask, seed=seed)
    area = found.check.area
    caption = f"{area:.1%} of the image is outlined"
    where = Picture(
        "The outlined part",
        encode_png(outlined(image, mask, dim=True)),
        f"{counted(areas(mask), 'area')}, found by {_NAMES.get(part, part)}; {area:.1%} of the image",
        width=_ANSWER,
    )
    shown = "passes the check" if found.passed else "this is not shown to be where the class is"
    name = _NAMES.get(part, part.capitalize())
    map_over = Picture(f"{name}, over the image", encode_png(outlined(over, mask)), f"{caption}: {shown}", width=_WIDE)
    return [PartMask(found, where, map_over)]


def check_text(target: Target, class_id: int, masks: Sequence[PartMask]) -> list[str]:
    """A paragraph on the check of each mask."""
    return [_check_text(target.labels[class_id], mask.found) for mask in masks]


def _check_text(label: str, found: CheckedMask) -> str:
    check = found.check
    costs = (
        f"Without the outlined {check.area:.1%} of the image the log-odds of {label} are "
        f"{three_decimals(check.removal.without)} instead of {three_decimals(check.whole)}. That costs {_compared(check)}"
    )
    if found.blurred is not None:
        costs += f" With a blur instead of the mean colour it costs {_compared(found.blurred)}"
    return f"{costs} So {'the mask passes the check' if found.passed else 'this is not shown to be where the class is'}."


def _compared(check: MaskCheck) -> str:
    return (
        f"{three_decimals(check.cost)}; the 95th percentile of {len(check.copies)} shifted and mirrored copies is "
        f"{three_decimals(check.limit)}."
    )


def maps_section(target: Target, class_id: int, masks: Sequence[PartMask]) -> Section:
    """The maps side by side, and a table of the checks."""
    rows = []
    for mask in masks:
        check, blurred = mask.found.check, mask.found.blurred
        blur = check.by["blur"]
        figures = [check.removal.without, check.removal.alone, check.cost, check.limit]
        figures += [blur.without, blur.alone, check.whole - blur.without]
        limit = "" if blurred is None else three_decimals(blurred.limit)
        passes = "yes" if mask.found.passed else "no"
        rows.append([mask.found.part, passes, f"{check.area:.1%}", *map(three_decimals, figures), limit])
    by_fill = ("without it", "it alone", "cost", "95% of copies")
    heads = ["mask", "passes", "area", *by_fill, *(f"{head}, blurred" for head in by_fill)]
    text = (
        "Each map over the image, with the mask that was made of it. A mask is checked: its pixels are replaced by the "
        "image's mean colour, and the log-odds of the class have to fall, and by more than they fall for 95% of its "
        "copies, which have the same shape and are shifted and mirrored at random. A mask that passes is checked again with "
        "the blurred image in place of the mean colour. One that does not pass both checks is not shown to be where the "
        "class is."
    )
    label = target.labels[class_id]
    table = Table(heads, rows, f"Log-odds of {label} without the mask's pixels and with them alone; cost: how far they fall")
    return Section("Maps", [text], pictures=[mask.over for mask in masks], tables=[table])
