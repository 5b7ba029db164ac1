"""Integrated gradients and Grad-CAM as sections of the page."""

import numpy as np

from evofool.errors import TargetError
from evofool.explain.captum_maps import grad_cam, integrated_gradients
from evofool.explain.masks import SHARE, map_mask
from evofool.explain.part_result import PartResult, PassCounter
from evofool.explain.parts_margin import WIDE
from evofool.explain.parts_masks import check_text, checked
from evofool.explain.phrases import signed, three_decimals
from evofool.images import encode_png
from evofool.pages.heat import full_scale, heat
from evofool.pages.html_page import Picture, Section
from evofool.targets import Target

_SQUARES = 28  # along the shorter side
_INACCURATE = 0.1  # of the change: a residual above it is pointed out


def integrated_part(target: Target, image: np.ndarray, class_id: int, against: int, passes: PassCounter) -> PartResult:
    """Integrated gradients of the margin. 34 forward and 32 backward passes."""
    label, other = target.labels[class_id], target.labels[against]
    found = integrated_gradients(target, image, class_id, against)
    passes.backwards += found.steps
    gained = found.margin - found.of_baseline
    positive, negative = found.map[found.map > 0].sum(), -found.map[found.map < 0].sum()
    share = f" ({abs(found.residual / gained):.1%})" if gained else ""
    text = [
        f"From an image of the mean colour to this one the margin of {label} over {other} changes by {signed(gained)}, "
        f"from {three_decimals(found.of_baseline)} to {three_decimals(found.margin)}: pixels add {three_decimals(positive)} "
        f"for {label} and {three_decimals(negative)} for {other}.",
        "What each pixel adds to the margin on the way: the gradients of the margin are summed along the straight line from "
        f"the baseline, an image of the mean colour, to the image, in {found.steps} steps. The picture has the sums over "
        f"squares: in red ones the image speaks for {label}, in blue ones for {other}.",
        "All pixels together should add up to that change (completeness). The residual, from the finite number of steps, "
        f"is {signed(found.residual)}{share}.",
    ]
    if abs(found.residual) > _INACCURATE * abs(gained):
        text.append("That is a large part of the change, so read the map as a sketch.")
    side = max(1, round(min(image.shape[1:]) / _SQUARES))
    summed = _summed(found.map, side)
    scale = f"red: for {label}, blue: for {other}; full colour at {full_scale(summed):.2g} a square"
    pictures = [
        Picture(f"By squares of {side} x {side} pixels", encode_png(heat(summed, image, signed=True)), scale, width=WIDE)
    ]
    pixels = Picture("By pixels", encode_png(heat(found.map, signed=True)))
    figures = {
        "integrated": {
            "fill": found.fill,
            "steps": found.steps,
            "margin": found.margin,
            "margin_of_baseline": found.of_baseline,
            "residual": found.residual,
        }
    }
    source = "Sundararajan, Taly & Yan 2017, equation 1 and proposition 1; computed by captum."
    section = Section("Integrated gradients", text, source, pictures)
    return PartResult(section, [pixels], {"integrated gradients": found.map}, figures=figures)


def grad_cam_part(target: Target, image: np.ndarray, class_id: int, seed: int, passes: PassCounter) -> PartResult:
    """Grad-CAM of the last layer with positions, and the checks of its mask. Up to 141 forward passes and one backward.

    A network without such a layer has a section that says why.
    """
    title, source = "Grad-CAM", "Selvaraju et al. 2017, equations 1 and 2; computed by captum."
    try:
        found = grad_cam(target, image, class_id)
    except TargetError as why:
        return PartResult(Section(title, [f"There is no Grad-CAM. {why}."], source))
    passes.backwards += 1
    over = heat(found.map, image)
    masks = checked(target, image, class_id, "grad-cam", map_mask(found.map), over, seed)
    label, (height, width) = target.labels[class_id], found.positions
    text = [
        *check_text(target, class_id, masks),
        f"Where {found.layer}, the last layer with positions ({height} x {width}), speaks for {label}: its channels are "
        "summed, each with the mean gradient of the logit as its weight, and only what is above 0 is kept. The map is "
        f"enlarged to the image, so it is coarse. The mask is the {SHARE:.0%} of pixels with the highest values.",
    ]
    pictures = [Picture("Grad-CAM", encode_png(heat(found.map)))]
    if not masks:
        text.insert(0, f"No position of {found.layer} speaks for {label}.")
        pictures = []
    return PartResult(Section(title, text, source, pictures), maps={"Grad-CAM": found.map}, masks=masks)


def _summed(values: np.ndarray, side: int) -> np.ndarray:
    """At each pixel the sum over its square of a map (H, W); squares at the far ends may be smaller."""
    height, width = values.shape
    sums = np.add.reduceat(np.add.reduceat(values, range(0, height, side), 0), range(0, width, side), 1)
    return sums.repeat(side, 0).repeat(side, 1)[:height, :width]
