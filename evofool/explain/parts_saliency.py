"""Parts of an explanation that need the gradient by the image, as sections of its page: saliency and segmentation."""

from functools import cached_property

import numpy as np

from evofool.explain.masks import SHARE, object_mask, saliency_mask
from evofool.explain.part_result import PartResult, PassCounter
from evofool.explain.parts_masks import check_text, checked
from evofool.explain.saliency import Averaging, saliency, smooth_saliency
from evofool.images import encode_png
from evofool.pages.heat import heat
from evofool.pages.html_page import Folded, Picture, Section
from evofool.targets import Target

GRADIENTS = ("saliency", "mean over ten crops", "smooth", "smooth, squared", "variance", "margin", "integrated gradients")
"""Maps of gradients, pixel by pixel."""


class Gradients:
    """The saliency maps of one image, float32 (H, W), each computed when it is first used.

    against: the class of the map margin; None: there is none.
    """

    def __init__(
        self, target: Target, image: np.ndarray, class_id: int, against: int | None, seed: int, passes: PassCounter
    ) -> None:
        self._target, self._image, self._class_id, self._seed, self._passes = target, image, class_id, seed, passes
        self._against = against

    @cached_property
    def one(self) -> np.ndarray:
        """One gradient. One forward and backward pass."""
        return self._averaged("none")

    @cached_property
    def crops(self) -> np.ndarray:
        """Ten forward and backward passes."""
        return self._averaged("crops")

    @cached_property
    def smooth(self) -> dict[str, np.ndarray]:
        """smooth, smooth_squared, variance, margin. 16 forward and backward passes together, 16 more backward for margin."""
        against = None if self._against is None else [self._against]
        with self._passes.as_forward(self._target, 2 if against else 1):
            maps = smooth_saliency(self._target, self._image[None], [self._class_id], seed=self._seed, against=against)
        return {kind: found[0] for kind, found in maps.items()}

    def _averaged(self, kind: str) -> np.ndarray:
        with self._passes.as_forward(self._target):
            return saliency(self._target, self._image[None], [self._class_id], averaging=Averaging(kind), seed=self._seed)[0]


def saliency_part(target: Target, image: np.ndarray, class_id: int, seed: int, gradients: Gradients) -> PartResult:
    """Maps of one gradient, of ten crops and of noisy copies, and the check of the smooth one's mask."""
    smooth = gradients.smooth
    named = {
        "Saliency": (gradients.one, "one gradient", "logits"),
        "Mean over ten crops": (gradients.crops, "shifted and mirrored", "logits"),
        "Smooth": (smooth["smooth"], "mean over 16 noisy copies", "logits"),
        "Smooth, squared": (smooth["smooth_squared"], "mean of squares over 16 noisy copies", "squared logits"),
        "Variance": (smooth["variance"], "of the gradient over 16 noisy copies", "squared logits"),
    }
    over, alone = {}, []
    for title, (weight, caption, unit) in named.items():
        over[title] = Picture(f"{title}, over the image", encode_png(heat(weight, image)), caption)
        by = "for a pixel from black to white"
        figures = f"largest {weight.max():.3g} {unit} {by}, median {np.median(weight):.3g}"
        alone.append(Picture(title, encode_png(heat(weight)), figures))
    mask = saliency_mask(smooth["smooth"])
    masks = checked(target, image, class_id, "saliency", mask, heat(smooth["smooth"], image), seed)
    description = (
        "Which pixels the class's logit depends on: the magnitude of its gradient by each pixel, the maximum over channels. "
        "Where the map is bright, a small change of the pixel changes the logit most. The mask is the "
        f"{SHARE:.0%} of pixels with the highest values of the smooth map, after a blur."
    )
    source = (
        "Simonyan, Vedaldi & Zisserman 2014. Smooth: Smilkov et al. 2017; squared: Hooker et al. 2019; variance: Adebayo et "
        "al. 2018."
    )
    first, others = [over["Saliency"], over["Mean over ten crops"]], [over["Smooth, squared"], over["Variance"]]
    if not masks:
        others.insert(0, over["Smooth"])
    text = [*check_text(target, class_id, masks), description]
    section = Section("Saliency", text, source, first, folded=[Folded("Other averages", others)])
    return PartResult(section, alone, {title.lower(): weight for title, (weight, *_) in named.items()}, masks)


def segmentation_part(target: Target, image: np.ndarray, class_id: int, seed: int, gradients: Gradients) -> PartResult:
    """The mask from a graph cut on the smooth saliency, and its check."""
    mask = object_mask(image, gradients.smooth["smooth"], seed=seed)
    description = (
        "An estimate, from saliency and colour, of where the class is: pixels with the highest smooth saliency count as "
        "object, pixels with the lowest as background, and a graph cut finds the border between, along changes of colour. "
        "Of its parts those with the most saliency are kept."
    )
    source = "Simonyan, Vedaldi & Zisserman 2014, section 3.2; Boykov & Jolly 2001."
    if not mask.any():
        nothing = "Saliency is the same everywhere, so there is no mask."
        return PartResult(Section("Segmentation", [description, nothing], source))
    masks = checked(target, image, class_id, "segmentation", mask, image, seed)
    pictures = [Picture("Mask", encode_png(np.where(mask, 255, 0).astype(np.uint8)[None]))]
    return PartResult(
        Section("Segmentation", [*check_text(target, class_id, masks), description], source, pictures), masks=masks
    )
