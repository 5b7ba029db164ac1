"""The masks that an explanation makes of its maps. Their settings were chosen on photographs, by the check of masks."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from evofool.explain.elements import Element
from evofool.explain.occlusion import Ablation
from evofool.explain.segmentation import segment

SHARE = 0.15
"""Of the image: the pixels in a mask of a map."""
_BLUR = 0.06  # of the shorter side: single pixels of saliency are noise
# Of smooth saliency: with fewer pixels that are surely not the object, the cut takes the background too.
_FOREGROUND, _BACKGROUND = 0.9, 0.7


def occlusion_mask(values: np.ndarray) -> np.ndarray:
    """The pixels of an occlusion map (H, W) whose covering lowers the log-odds most: bool (H, W), empty if none does."""
    return highest(values, SHARE, above=0.0)


def map_mask(values: np.ndarray) -> np.ndarray:
    """The pixels with the highest values of a smooth map (H, W), of those above 0: bool (H, W)."""
    return highest(values, SHARE, above=0.0)


def saliency_mask(smooth: np.ndarray) -> np.ndarray:
    """The pixels with the highest smooth saliency (H, W), after a blur: bool (H, W), empty if it is constant."""
    return highest(smooth, SHARE, blur=_BLUR)


def object_mask(image: np.ndarray, smooth: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """The cut of a uint8 image (C, H, W) by its smooth saliency (H, W): bool (H, W), as from segment."""
    return segment(image, smooth, foreground=_FOREGROUND, background=_BACKGROUND, seed=seed)


def highest(values: np.ndarray, share: float, *, blur: float = 0.0, above: float = -np.inf) -> np.ndarray:
    """The share of pixels with the highest values of a map (H, W), of those above `above`: bool (H, W).

    The map is first blurred by a Gaussian, `blur` of the shorter side wide. More pixels where values are equal at the
    border, and none where the map is constant.
    """
    smooth = values.astype(np.float64)
    if blur > 0:
        smooth = ndimage.gaussian_filter(smooth, blur * min(smooth.shape))
    return (smooth >= np.quantile(smooth, 1 - share)) & (smooth > max(smooth.min(), above))


def most_effective(elements: Sequence[Element], result: Ablation) -> np.ndarray:
    """The element, or the copies of a group, without which the log-odds are lowest: bool (H, W), empty if none lowers them.

    Of equal ones the first, elements before groups.
    """
    candidates = [(float(odds), element.mask) for odds, element in zip(result.alone, elements, strict=True)]
    for group, odds in result.together.items():
        copies = [element.mask for element in elements if element.group == group]
        candidates.append((float(odds[-1]), np.logical_or.reduce(copies)))
    lowest, mask = min(candidates, key=lambda candidate: candidate[0])
    # As wide as what was covered: soft edges belong to an element.
    return ndimage.binary_dilation(mask, np.ones((3, 3))) if lowest < result.log_odds else np.zeros_like(mask)
