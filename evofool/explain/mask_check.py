"""Is a mask where the class is? The score without its pixels, with them alone, and without as many pixels elsewhere."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evofool.ascend.draws import Draws
from evofool.errors import ImageError
from evofool.explain.covering import FILLS, Fill, answers, filled
from evofool.targets import Target

COPIES = 64
_LEVEL = 0.95
_FEWEST = 19  # copies: of fewer none is above the 95th percentile
_STEP = 1 << 20  # of the draws: the averages of saliency use the first ones


class Removal(NamedTuple):
    """Log-odds of the class, and the predicted class, without the mask's pixels and with them alone."""

    without: float
    alone: float
    seen_without: int
    seen_alone: int


@dataclass(frozen=True)
class MaskCheck:
    """What the pixels of a mask contribute to the log-odds of a class.

    area: the mask's share of the image. whole: log-odds of the image; seen: the class predicted for it. by: of each fill,
    what it leaves. copies: float64 (n,), log-odds without the pixels of each shifted and mirrored copy, by `fill`.
    """

    fill: Fill
    area: float
    whole: float
    seen: int
    by: Mapping[Fill, Removal]
    copies: np.ndarray

    @property
    def removal(self) -> Removal:
        """By the fill of the copies."""
        return self.by[self.fill]

    @property
    def cost(self) -> float:
        """How far the log-odds drop without the mask."""
        return self.whole - self.removal.without

    @property
    def limit(self) -> float:
        """The 95th percentile of the copies' costs: the ceil(0.95 (n + 1))th smallest of n, the 62nd of 64."""
        rank = math.ceil(_LEVEL * (len(self.copies) + 1))
        return float(np.sort(self.whole - self.copies)[rank - 1])

    @property
    def passed(self) -> bool:
        """Whether removing the mask lowers the log-odds, and by more than `limit`."""
        return self.cost > max(self.limit, 0.0)


class CheckedMask(NamedTuple):
    """A mask of one part of an explanation, and its checks.

    mask: bool (H, W), with at least one pixel. check: by the mean colour. blurred: by the blur; None where the first check
    is not passed, which decides.
    """

    part: str
    mask: np.ndarray
    check: MaskCheck
    blurred: MaskCheck | None

    @property
    def passed(self) -> bool:
        """Whether it passes both checks."""
        return self.blurred is not None and self.blurred.passed

    @property
    def beyond(self) -> float:
        """How far the cost of removal is beyond the copies' limit; of both fills the less, if it passes the first check."""
        checks = [self.check] if self.blurred is None else [self.check, self.blurred]
        return min(check.cost - check.limit for check in checks)


def check_by_both_fills(
    target: Target, image: np.ndarray, class_id: int, part: str, mask: np.ndarray, *, seed: int = 0
) -> CheckedMask:
    """check_mask by the mean colour, and if it is passed by the blur: so what fills the place is not the reason.

    Costs 69 queries, and 69 more for a mask that passes by the mean colour.
    """
    check = check_mask(target, image, class_id, mask, seed=seed)
    blurred = check_mask(target, image, class_id, mask, fill="blur", seed=seed) if check.passed else None
    return CheckedMask(part, mask, check, blurred)


def check_mask(
    target: Target,
    image: np.ndarray,
    class_id: int,
    mask: np.ndarray,
    *,
    fill: Fill = "mean",
    copies: int = COPIES,
    seed: int = 0,
    batch: int = 32,
) -> MaskCheck:
    """Compare a mask, bool (H, W), with shifted and mirrored copies of itself. image: uint8 (C, H, W).

    A copy is mirrored or not, up-down and left-right, and shifted by any number of rows and columns, all equally likely; it
    is keyed by the seed and its number. Shifts wrap around the borders. So each copy has as many pixels as the mask, however
    wide that is, each pixel is covered equally often, and the mask is itself one of the places that are compared: put at
    random, it would pass with a probability of at most 5%. Copies that stay inside the image could not move a mask as wide
    as the image, and would cover the middle more often than the borders. In return, a copy over a border is in two pieces.

    A mask that passes is one of the 5% of places of its shape where removal costs most, for this image, network and fill.
    An empty mask, and one that is the whole image, never pass.

    Costs 5 + copies queries. ImageError for a mask that does not fit the image, ValueError for fewer than 19 copies.
    """
    if mask.dtype != bool or mask.shape != image.shape[1:]:
        raise ImageError(f"a mask of an image {image.shape} is bool {image.shape[1:]}, not {mask.dtype} {mask.shape}")
    if copies < _FEWEST:
        raise ValueError(f"the 95th percentile of {copies} copies is above all of them; use at least {_FEWEST}")
    fills = {name: filled(image, name) for name in FILLS}
    pairs = [np.where(cover, other, image) for other in fills.values() for cover in (mask, ~mask)]
    moved = (np.where(copy, fills[fill], image) for copy in shifted(mask, copies, seed))
    odds, predicted = answers(target, itertools.chain([image, *pairs], moved), class_id, batch=batch)
    by: dict[Fill, Removal] = {}
    for k, name in enumerate(FILLS):
        without, alone = 1 + 2 * k, 2 + 2 * k
        by[name] = Removal(float(odds[without]), float(odds[alone]), int(predicted[without]), int(predicted[alone]))
    return MaskCheck(fill, float(mask.mean()), float(odds[0]), int(predicted[0]), by, odds[1 + len(pairs) :])


def shifted(mask: np.ndarray, copies: int, seed: int) -> np.ndarray:
    """The shifted and mirrored copies of a mask (H, W) that check_mask uses: (copies, H, W)."""
    draws = Draws(seed, range(copies), _STEP)
    rows, columns = draws.integers(0, mask.shape[0]), draws.integers(0, mask.shape[1])
    turns = 1 - 2 * draws.integers(0, 2, 2)
    return np.stack(
        [
            np.roll(mask[::down, ::right], (row, column), (0, 1))
            for row, column, (down, right) in zip(rows.tolist(), columns.tolist(), turns.tolist(), strict=True)
        ]
    )
