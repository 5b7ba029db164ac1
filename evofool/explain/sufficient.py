"""Sufficient subsets: the smallest shares of an image's pixels that alone keep the class, by the order of maps."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from evofool.ascend.hooks import ForwardPass, Hooks
from evofool.ascend.loop import gradient_of
from evofool.ascend.objectives import log_odds
from evofool.errors import ImageError, ScoreError
from evofool.explain.covering import Fill, answers, filled
from evofool.targets import Target

KEPT = 0.9
"""Of the image's confidence: what a sufficient subset keeps. For a confidence near 1 it is the threshold of Carter 2021."""
_GRID = 8  # shares of the image that are queried first: the squares of 1/8 to 7/8
_ROUNDS = 3
_REMOVED = 0.08  # of the pixels that are left, in each step; with larger steps the subsets grow
_FEWEST = 0.1  # of the image's pixels: with fewer, selection goes on only as long as they keep the confidence


class Subset(NamedTuple):
    """The pixels that a map ranks highest, as many as keep the confidence. mask: bool (H, W). share: of the image.

    log_odds: with these pixels alone.
    """

    mask: np.ndarray
    share: float
    log_odds: float


class Sufficient(NamedTuple):
    """Log-odds: whole: of the image; threshold: what a subset has to keep; empty: of an image of the fill alone.

    subsets: by map. Where no pixel is needed, all are empty.
    """

    fill: Fill
    threshold: float
    whole: float
    empty: float
    subsets: dict[str, Subset]

    @property
    def needless(self) -> bool:
        """Whether no pixel is needed: the fill alone keeps the confidence."""
        return self.empty >= self.threshold


def sufficient(
    target: Target,
    image: np.ndarray,
    class_id: int,
    maps: Mapping[str, np.ndarray],
    *,
    first: Mapping[str, Sequence[int]] = MappingProxyType({}),
    fill: Fill = "mean",
    rounds: int = _ROUNDS,
) -> Sufficient:
    """By map the smallest share of pixels, highest values first, that alone keeps 90% of the class's confidence.

    image: uint8 (C, H, W); maps: float (H, W); of equal values the first in reading order. All other pixels are replaced by
    the fill. Of seven shares, 1/64 to 49/64, and of the numbers of pixels in `first` for a map, the smallest that keeps the
    confidence is found; then a smaller one by bisection, down to the next share that does not, on a scale of square roots,
    which is finer for small shares. So the subset was queried and keeps the confidence; as the confidence need not rise with
    every pixel, a smaller one may exist. Nothing is random. Costs 2 queries, and for each map 7 + rounds and one for each
    number in its `first`; only the 2 where no pixel is needed, and without maps.

    Source: Carter et al. 2019, "What made you do this?"; the order there is that of backward selection. ImageError for a map
    that does not fit the image, ScoreError for one that is not finite.
    """
    for name, values in maps.items():
        if values.shape != image.shape[1:]:
            raise ImageError(f'the map "{name}" is {values.shape}, not {image.shape[1:]} as the image')
        if not np.isfinite(values).all():
            raise ScoreError(f'the map "{name}" is not finite')
    other = filled(image, fill)
    orders = {name: np.argsort(-values.ravel(), kind="stable") for name, values in maps.items()}

    def alone(name: str, count: int) -> np.ndarray:
        return np.where(_first(orders[name], count, image.shape[1:]), image, other)

    whole, empty = answers(target, (image, other), class_id).log_odds.tolist()
    threshold, size = least_kept(whole), image.shape[1] * image.shape[2]
    if empty >= threshold or not maps:
        nothing = Subset(np.zeros(image.shape[1:], bool), 0.0, empty)
        return Sufficient(fill, threshold, whole, empty, dict.fromkeys(maps, nothing))
    enough, too_few = dict.fromkeys(maps, (size, whole)), dict.fromkeys(maps, 0)

    def query(counts: Mapping[str, Sequence[int]]) -> None:
        pairs = [(name, count) for name in counts for count in counts[name]]
        found = answers(target, (alone(*pair) for pair in pairs), class_id).log_odds.tolist()
        for (name, count), odds in zip(pairs, found, strict=True):
            if odds >= threshold and count < enough[name][0]:
                enough[name] = (count, odds)
        for name, count in pairs:
            if too_few[name] < count < enough[name][0]:
                too_few[name] = count

    grid = [max(1, round((k / _GRID) ** 2 * size)) for k in range(1, _GRID)]
    query({name: [*grid, *first.get(name, ())] for name in maps})
    for _ in range(rounds):
        query({name: [_between(too_few[name], enough[name][0])] for name in maps})
    subsets = {
        name: Subset(_first(orders[name], count, image.shape[1:]), count / size, odds)
        for name, (count, odds) in enough.items()
    }
    return Sufficient(fill, threshold, whole, empty, subsets)


class Selection(NamedTuple):
    """map: float32 (H, W), by when a pixel was removed: the last ones have the highest values.

    counts, log_odds: the pixels that were left before each step, and what they gave the class.
    """

    map: np.ndarray
    counts: list[int]
    log_odds: list[float]

    @property
    def kept(self) -> list[int]:
        """The two smallest counts that kept KEPT of the confidence."""
        threshold = least_kept(self.log_odds[0])
        return [count for count, odds in zip(self.counts, self.log_odds, strict=True) if odds >= threshold][-2:]


def backward_selection(
    target: Target,
    image: np.ndarray,
    class_id: int,
    *,
    fill: Fill = "mean",
    removed: float = _REMOVED,
    on_step: Callable[[int, int], None] = lambda _step, _of: None,
) -> Selection:
    """Remove pixels step by step, those first that the class depends on least. image: uint8 (C, H, W).

    Batched Gradient BackSelect (Carter et al. 2021, "Overinterpretation reveals image classification model pathologies",
    section 3.1): from the whole image on, the log-odds of the class are differentiated by a mask, 1 where a pixel is the
    image's and 0 where it is the fill, and the pixels with the smallest derivatives are removed, all channels of a pixel
    together. The paper removes 100 pixels a step; here a step removes the share `removed` of the pixels that are left, so
    that some thirty steps suffice. The paper differentiates the confidence, whose derivatives have the same order.

    Ends with a tenth of the pixels, or when fewer no longer keep the confidence; those that are left are ranked by their
    derivatives. Ties: the first in reading order is removed first. One forward and backward pass a step. Before each,
    on_step gets its number, from 1, and the number of steps: down to a tenth of the pixels, and after these down to two
    pixels, which are about 110 steps for 224 x 224 pixels. There an image ends whose fill alone keeps the confidence.
    TargetError for a target without gradients, ScoreError for one that is not finite.
    """
    with Hooks(target) as hooks:
        x, other = (torch.from_numpy(np.array(part)).float()[None] / 255 for part in (image, filled(image, fill)))
        device = target.network.device if target.network is not None else x.device
        x, other = x.to(device), other.to(device)
        left = np.arange(image.shape[1] * image.shape[2])
        order = np.zeros(len(left), np.float32)
        counts: list[int] = []
        path: list[float] = []
        planned, most = (_steps(len(left), end, removed) for end in (max(2, _FEWEST * len(left)), 2))
        while True:
            step = len(path) + 1
            on_step(step, planned if step <= planned else most)
            odds, slopes = _slopes(target, hooks, x, other, left, class_id)
            if not (np.isfinite(odds) and np.isfinite(slopes).all()):
                raise ScoreError(f"{target.name}: the gradient of class {class_id} is not finite")
            counts.append(len(left))
            path.append(odds)
            ranked = left[np.argsort(slopes[left], kind="stable")]
            last = len(left) <= 2 or (len(left) <= _FEWEST * len(order) and odds < least_kept(path[0]))
            gone = ranked if last else ranked[: int(np.ceil(removed * len(left)))]
            order[gone] = len(order) - len(left) + np.arange(len(gone))
            if last:
                return Selection(order.reshape(image.shape[1:]), counts, path)
            left = np.sort(ranked[len(gone) :])


def least_kept(odds: float) -> float:
    """The log-odds of KEPT of the confidence of log-odds: without cancellation, as confidences saturate at 1.

    p / (1 - p) with p = k / (1 + e^-odds) is k / (1 - k + e^-odds).
    """
    return float(np.log(KEPT) - np.logaddexp(np.log1p(-KEPT), -odds))


def _steps(pixels: int, end: float, removed: float) -> int:
    """The steps of backward selection from so many pixels to at most `end`, of which the last one removes none."""
    steps = 1
    while pixels > end:
        pixels -= int(np.ceil(removed * pixels))
        steps += 1
    return steps


def _slopes(
    target: Target, hooks: Hooks, x: torch.Tensor, other: torch.Tensor, left: np.ndarray, class_id: int
) -> tuple[float, np.ndarray]:
    """The log-odds of the class with the pixels that are left, and their derivatives by every pixel's mask (H W,)."""
    mask = torch.zeros(x[0, 0].numel())
    mask[torch.from_numpy(left)] = 1
    with torch.enable_grad():
        mask = mask.to(x.device).requires_grad_()
        shown = other + mask.view(1, 1, *x.shape[2:]) * (x - other)
        seen = ForwardPass(hooks.forward(shown).logits.double(), {}, target.multilabel)
        first = torch.zeros(1, dtype=torch.int64, device=x.device)
        odds = log_odds(torch.tensor([class_id]))(seen, shown, first)[0]
        slopes = gradient_of(target, odds, mask)
    return odds.item(), slopes.double().cpu().numpy()


def _between(low: int, high: int) -> int:
    """A count of pixels in the middle of two, by their square roots."""
    middle = round(((low**0.5 + high**0.5) / 2) ** 2)
    return min(max(middle, low + 1), max(high - 1, low + 1))


def _first(order: np.ndarray, count: int, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(order.size, bool)
    mask[order[:count]] = True
    return mask.reshape(shape)
