"""Why one class and not another: the comparison's heading, and the gradient of the margin as a section of the page."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from evofool.explain.masks import SHARE, highest
from evofool.explain.part_result import PartResult
from evofool.explain.parts_saliency import Gradients
from evofool.explain.phrases import three_decimals
from evofool.explain.saliency import MARGIN
from evofool.images import encode_png
from evofool.pages.heat import heat
from evofool.pages.html_page import Picture, Section
from evofool.targets import Target

WIDE = 296
"""Pixels on the page: three maps beside one another."""


def versus_section(
    target: Target, class_id: int, against: int, predicted: int, apart: float, inside: Sequence[Section]
) -> Section:
    """The parts that compare the explained class with another. apart: how far its logit is above the other's."""
    first, other = target.labels[class_id], target.labels[against]
    title = f"Why {first} and not {other}" if predicted == class_id else f"{first} compared with {other}"
    where = "above" if apart >= 0 else "below"
    text = f"The logit of {first} is {three_decimals(abs(apart))} {where} that of {other}."
    return Section(title, [text], parts=inside)


def margin_part(target: Target, image: np.ndarray, class_id: int, against: int, gradients: Gradients) -> PartResult:
    """The smooth gradients of the class's logit and of the margin, side by side. Their passes are shared with saliency."""
    label, other = target.labels[class_id], target.labels[against]
    of_class, of_margin = gradients.smooth["smooth"], gradients.smooth[MARGIN]
    pictures = [
        Picture(f"For {label}", encode_png(heat(of_class, image)), f"gradient of the logit of {label}", width=WIDE),
        Picture(
            f"For {label}, not {other}",
            encode_png(heat(of_margin, image)),
            f"gradient of the logit of {label} less that of {other}",
            width=WIDE,
        ),
    ]
    text = [
        _result(of_class, of_margin, label, other),
        f"Which pixels decide between the two classes: the gradient of the margin, the logit of {label} less that of "
        f"{other}, beside the gradient of {label} alone. Evidence that both classes share cancels out in the margin. Each "
        "map is the magnitude, the maximum over channels, averaged over 16 noisy copies of the image.",
    ]
    source = "Simonyan, Vedaldi & Zisserman 2014, for a difference of two logits; Smilkov et al. 2017."
    return PartResult(Section("Gradient of the margin", text, source, pictures), maps={MARGIN: of_margin})


def _result(of_class: np.ndarray, of_margin: np.ndarray, label: str, other: str) -> str:
    """How far the two maps show the same pixels."""
    if not np.ptp(of_class) or not np.ptp(of_margin):
        return "A gradient is the same at all pixels, so there is nothing to compare."
    alike = float(stats.spearmanr(of_class, of_margin, axis=None).statistic)
    first, second = (highest(values, SHARE) for values in (of_class, of_margin))
    both = (first & second).sum() / min(first.sum(), second.sum())
    return (
        f"{both:.0%} of the pixels that matter most for {label} are also among those that matter most for the choice "
        f"between {label} and {other} (the highest {SHARE:.0%} of each map; rank correlation of the maps {alike:.2f})."
    )
