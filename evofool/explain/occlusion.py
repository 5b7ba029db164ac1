"""Which parts of an image affect a score: cover them and query again. Needs only scores, so it works for a black box."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from evofool.errors import ImageError
from evofool.explain.covering import answers, mean_colour
from evofool.explain.elements import Element
from evofool.targets import Target

_GROWN = 1  # pixels by which a cover reaches over an element, so that a soft edge is covered too
_AROUND = 2  # pixels beyond the cover, whose colour it gets


OnProgress = Callable[[int, int], None]
"""Called with (queries done, of all)."""


class Occlusion(NamedTuple):
    """How far the log-odds of a class drop when a square of `patch` pixels a side is covered.

    drops: (n,) float64, patch by patch in reading order, positive where it supports the class; corners: (n, 2) int64, the
    top and left of each. map: float32 (H, W), at each pixel the mean over the patches that cover it: its extremes are
    milder than those of drops.
    """

    patch: int
    corners: np.ndarray
    drops: np.ndarray
    map: np.ndarray


def occlude(
    target: Target,
    image: np.ndarray,
    class_id: int,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: int | None = None,
    batch: int = 32,
    on_progress: OnProgress = lambda _done, _of: None,
) -> Occlusion:
    """Cover a square patch of the image, uint8 (C, H, W), and query again, patch by patch.

    patch: pixels a side, an eighth of the shorter side unless given; stride: half a patch; patches reach into every corner.
    fill: a grey level, or the mean colour of the image. Costs a query, and one more
    for each patch. Source: Zeiler & Fergus 2014, section 4.2.
    """
    height, width = image.shape[-2:]
    patch = max(2, round(min(height, width) / 8)) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    if not 1 <= patch <= min(height, width) or stride < 1:
        raise ImageError(f"a patch of {patch} pixels every {stride} does not go over an image of {height}x{width}")
    if stride > patch:
        raise ImageError(f"patches of {patch} pixels every {stride} leave gaps; the stride is at most the patch")
    colour = mean_colour(image) if fill is None else np.full(len(image), fill, np.uint8)
    corners = [(top, left) for top in _starts(height, patch, stride) for left in _starts(width, patch, stride)]

    def covered(top: int, left: int) -> np.ndarray:
        shown = image.copy()
        shown[:, top : top + patch, left : left + patch] = colour[:, None, None]
        return shown

    # Not in one pass with the rest, so that the map does not depend on how the patches fill their batches.
    whole = answers(target, [image], class_id).log_odds[0]
    drops = (
        whole
        - answers(
            target,
            (covered(*corner) for corner in corners),
            class_id,
            batch=batch,
            on_progress=lambda done: on_progress(done, len(corners)),
        ).log_odds
    )
    # A cover of the patch's own colour changes nothing, but the rounding of another batch may.
    for k, (top, left) in enumerate(corners):
        if (image[:, top : top + patch, left : left + patch] == colour[:, None, None]).all():
            drops[k] = 0.0
    total, times = np.zeros((2, height, width))
    for drop, (top, left) in zip(drops, corners, strict=True):
        total[top : top + patch, left : left + patch] += drop
        times[top : top + patch, left : left + patch] += 1
    return Occlusion(patch, np.array(corners), drops, (total / times).astype(np.float32))


@dataclass(frozen=True)
class Ablation:
    """The classifier's scores of an image without its elements. All log-odds are of the same class.

    log_odds: of the whole image. alone: (n,) float64, without one element each. images: uint8 (n, C, H, W), as queried.
    together: for every group of k copies (k + 1,) float64, without the first 0 to k of them, in the elements' order;
    emptied: for every group the uint8 image (C, H, W) without all of its copies.
    """

    log_odds: float
    alone: np.ndarray
    images: np.ndarray
    together: dict[int, np.ndarray]
    emptied: dict[int, np.ndarray]


def ablate(
    target: Target,
    image: np.ndarray,
    class_id: int,
    elements: Sequence[Element],
    *,
    batch: int = 32,
    on_progress: OnProgress = lambda _done, _of: None,
) -> Ablation:
    """Cover every element alone, and the copies of each group one after the other, with the colour around them.

    The queried images are 8-bit. Costs 1 + n queries, and one more for every copy but the first of a group. Source: Nguyen
    2015, who removed some of the repeated elements of CPPN images: confidence fell, often a little with each.
    """
    if not elements:
        raise ImageError("the image has no elements to cover")
    anywhere = np.logical_or.reduce([_grown(element.mask) for element in elements])
    covers = [(_grown(e.mask), _colour_around(image, e.mask, anywhere)) for e in elements]
    alone = np.stack([_covered(image, *cover) for cover in covers])
    steps: dict[int, list[np.ndarray]] = {}
    for element, cover in zip(elements, covers, strict=True):
        so_far = steps.setdefault(element.group, [])
        so_far.append(_covered(so_far[-1] if so_far else image, *cover))
    # The first step of a group is an image of `alone`.
    further = [step for group in steps.values() for step in group[1:]]
    queried = [image, *alone, *further]
    odds = answers(target, queried, class_id, batch=batch, on_progress=lambda done: on_progress(done, len(queried))).log_odds
    whole, single, rest = float(odds[0]), odds[1 : len(elements) + 1], odds[len(elements) + 1 :]
    first = {element.group: k for k, element in reversed(list(enumerate(elements)))}
    together = {}
    for group, images in steps.items():
        group_odds, rest = rest[: len(images) - 1], rest[len(images) - 1 :]
        together[group] = np.array([whole, single[first[group]], *group_odds])
    return Ablation(whole, single, alone, together, {group: images[-1] for group, images in steps.items()})


def _starts(length: int, patch: int, stride: int) -> list[int]:
    """Every stride pixels, and the last one at the end."""
    return sorted({*range(0, length - patch + 1, stride), length - patch})


def _grown(mask: np.ndarray, by: int = _GROWN) -> np.ndarray:
    return ndimage.binary_dilation(mask, np.ones((3, 3)), by)


def _colour_around(image: np.ndarray, mask: np.ndarray, anywhere: np.ndarray) -> np.ndarray:
    """uint8 (C,): each channel's middle value around an element, of two the lower; other elements left out if possible."""
    ring = _grown(mask, _GROWN + _AROUND) & ~_grown(mask)
    if not ring.any():  # its cover fills the image
        ring = ~mask
    free = ring & ~anywhere
    return np.percentile(image[:, free if free.any() else ring], 50, axis=1, method="lower").astype(np.uint8)


def _covered(image: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.where(mask, colour[:, None, None], image)
