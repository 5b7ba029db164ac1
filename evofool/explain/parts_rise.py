"""RISE as a section of the page."""

import numpy as np

from evofool.explain.masks import SHARE, map_mask
from evofool.explain.part_result import PartResult, Report, counting
from evofool.explain.parts_masks import check_text, checked
from evofool.explain.phrases import three_decimals
from evofool.explain.rise import rise
from evofool.images import encode_png
from evofool.pages.heat import full_scale, heat
from evofool.pages.html_page import Picture, Section
from evofool.targets import Target

PAGE_MASKS = 500
_SOURCE = "Petsiuk, Das & Saenko 2018, equation 6."


def rise_part(target: Target, image: np.ndarray, class_id: int, seed: int, report: Report) -> PartResult:
    """The RISE map, and the checks of its mask. Up to 638 queries."""
    found = rise(target, image, class_id, masks=PAGE_MASKS, seed=seed, on_progress=counting(report, "masks"))
    label = target.labels[class_id]
    if not np.ptp(found):
        nothing = f"The confidence of {label} is the same behind all {PAGE_MASKS} masks, so there is no map."
        return PartResult(Section("RISE", [nothing], _SOURCE))
    over = heat(found, image, signed=True)
    masks = checked(target, image, class_id, "rise", map_mask(found), over, seed)
    scale = (
        f"red: visible when the confidence of {label} is high, blue: when it is low; full colour at {full_scale(found):.2g}"
    )
    text = [
        *check_text(target, class_id, masks),
        f"The image is shown behind {PAGE_MASKS} random masks, which blend it with its mean colour. A pixel is red if the "
        f"confidence of {label} is higher than on average when the pixel is visible. The values go from "
        f"{three_decimals(found.min())} to {three_decimals(found.max())}; they are estimates from random masks. The mask is "
        f"the {SHARE:.0%} of pixels with the highest values. Only queries are needed, no gradients.",
    ]
    return PartResult(
        Section("RISE", text, _SOURCE, [Picture("RISE", encode_png(heat(found, signed=True)), scale)]),
        maps={"RISE": found},
        masks=masks,
    )
