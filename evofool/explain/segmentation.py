"""Segmentation of a class: saliency gives object and background seeds, a graph cut finds the border between them."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from evofool.errors import ImageError, ScoreError

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of the eight neighbours (down, right); edges go both ways
_EIGHT = np.ones((3, 3), int)
_FLOW = 2**30  # the most that may flow: scipy counts in int32
_FINEST = 1000.0  # integer units of one nat of log-likelihood
_KEPT = 0.5  # share of all parts' saliency that the mask holds at least
_SAMPLE = 4096  # pixels to which a mixture is fitted at most


class Edges(NamedTuple):
    """Pairs of neighbouring pixels, each once: indices int64 (E,) of both, and the cost of separating them, float64 (E,)."""

    tails: np.ndarray
    heads: np.ndarray
    costs: np.ndarray


def segment(
    image: np.ndarray,
    saliency: np.ndarray,
    *,
    foreground: float = 0.95,
    background: float = 0.30,
    blur: float = 0.06,
    components: tuple[int, int] = (2, 5),
    smoothness: float = 5.0,
    seed: int = 0,
) -> np.ndarray:
    """The main connected parts of the object found by a graph cut, bool (H, W) (Simonyan 2014, section 3.2).

    image is uint8 (C, H, W), saliency float (H, W), which is first blurred by a Gaussian, `blur` of the shorter side wide.
    Pixels at or above its `foreground` quantile are surely the object, those at or below its `background` quantile surely
    not. Gaussian mixtures of so many components model the colours of either kind; the cut (Boykov & Jolly 2001) weighs how
    much better one fits a pixel than the other against `smoothness` exp(-d^2 / (2 mean d^2)) / length for each pair of
    8-neighbours that it separates, d their difference in colour. It is the exact minimum, in integers, at the image's size.

    The mask is the parts with the most blurred saliency, as few as hold half of all parts' (of equal ones the first from the
    top). Simonyan took the largest, which is often background that was cut with the object. Where saliency is nowhere
    higher than its background quantile the mask is empty. ImageError for shapes that do not go together, ScoreError for
    saliency that is not finite.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or saliency.shape != image.shape[1:]:
        raise ImageError(
            f"an image is uint8 (C, H, W) and its saliency (H, W), not {image.dtype} {image.shape} and {saliency.shape}"
        )
    if not 0 <= background < foreground <= 1:
        raise ValueError(f"quantiles have to be 0 <= background < foreground <= 1, not {background} and {foreground}")
    if not np.isfinite(saliency).all():
        raise ScoreError(f"saliency is not finite at {int((~np.isfinite(saliency)).sum())} of {saliency.size} pixels")
    smooth = _blurred(saliency, blur)
    surely, surely_not = _seeds(smooth, foreground, background)
    if not surely.any():
        return surely
    colours = image.reshape(len(image), -1).T / 255.0
    with threadpool_limits(1):  # matrices this small are not worth waking threads for
        object_ = _log_likelihood(colours, surely.ravel(), components[0], seed)
        rest = _log_likelihood(colours, surely_not.ravel(), components[1], seed)
    cut = _cut((object_ - rest).reshape(surely.shape), _neighbours(image, smoothness), surely, surely_not)
    return _main_parts(cut, smooth, _KEPT)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the smallest rectangle around a bool (H, W) mask, the last two exclusive.

    (0, 0, 0, 0) for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _blurred(saliency: np.ndarray, blur: float) -> np.ndarray:
    # Scaled, so that very small gradients are not lost, and float64, so that blurring a constant leaves it one.
    smooth = saliency.astype(np.float64)
    smooth = (smooth - smooth.min()) / (np.ptp(smooth) or 1.0)
    return ndimage.gaussian_filter(smooth, blur * min(smooth.shape)) if blur > 0 else smooth


def _seeds(smooth: np.ndarray, foreground: float, background: float) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that are surely the object and those that are surely not, bool (H, W), disjoint."""
    low, high = np.quantile(smooth, [background, foreground])
    return (smooth >= high) & (smooth > low), smooth <= low


def _log_likelihood(colours: np.ndarray, seeds: np.ndarray, components: int, seed: int) -> np.ndarray:
    """log p of every pixel's colour, (N,), under a mixture fitted to the seeds'."""
    known = colours[seeds]
    if len(known) > _SAMPLE:
        known = known[np.random.default_rng(seed).choice(len(known), _SAMPLE, replace=False)]
    # No more components than colours; a lone pixel counts twice, as scikit-learn wants two.
    count = min(components, len(np.unique(known, axis=0)))
    known = known if len(known) > 1 else np.repeat(known, 2, axis=0)
    # The floor under the variances, a thirtieth of the range, keeps a single colour from being infinitely likely.
    mixture = GaussianMixture(count, reg_covar=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an approximate colour model suffices
        return mixture.fit(known).score_samples(colours)


def _neighbours(image: np.ndarray, smoothness: float) -> Edges:
    pixels = image.astype(np.float64) / 255.0
    height, width = image.shape[1:]
    index = np.arange(height * width).reshape(height, width)
    tails, heads, distances, lengths = [], [], [], []
    for down, right in _STEPS:
        first = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        second = (slice(down, height), slice(max(0, right), width - max(0, -right)))
        tails.append(index[first].ravel())
        heads.append(index[second].ravel())
        distances.append(((pixels[:, *first] - pixels[:, *second]) ** 2).sum(0).ravel())
        lengths.append(np.full(tails[-1].size, np.hypot(down, right)))
    distance = np.concatenate(distances)
    spread = distance.mean() if distance.size else 0.0
    costs = smoothness * np.exp(-distance / (2 * spread + 1e-12)) / np.concatenate(lengths)
    return Edges(np.concatenate(tails), np.concatenate(heads), costs)


def _cut(preference: np.ndarray, edges: Edges, surely: np.ndarray, surely_not: np.ndarray) -> np.ndarray:
    """The minimum cut: what stays with the source, bool (H, W); preference: how much a pixel prefers the source."""
    count = preference.size
    source, sink = count, count + 1
    tails, heads, costs = edges
    # Larger than the sum of a pixel's edges, so that no cut separates a seed from its terminal (Boykov & Jolly 2001, K).
    sure = 1.0 + np.bincount(np.concatenate([tails, heads]), np.tile(costs, 2), count).max()
    preferences = preference.ravel()
    to_source = np.where(surely.ravel(), sure, np.where(surely_not.ravel(), 0.0, np.maximum(preferences, 0.0)))
    to_sink = np.where(surely_not.ravel(), sure, np.where(surely.ravel(), 0.0, np.maximum(-preferences, 0.0)))
    unit = min(_FINEST, _FLOW / (to_source.sum() + to_sink.sum() + costs.sum()))
    nodes = np.arange(count)
    rows = np.concatenate([tails, heads, np.full(count, source), nodes])
    columns = np.concatenate([heads, tails, nodes, np.full(count, sink)])
    capacities = np.rint(np.concatenate([costs, costs, to_source, to_sink]) * unit).astype(np.int32)
    graph = csr_array((capacities, (rows, columns)), shape=(count + 2, count + 2))
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    inside = np.zeros(count + 2, bool)
    inside[reached] = True
    return inside[:count].reshape(preference.shape)


def _main_parts(mask: np.ndarray, weight: np.ndarray, share: float) -> np.ndarray:
    """The heaviest connected parts of a mask, as few as hold a share of its weight (H, W), and at least one."""
    parts, count = ndimage.label(mask, _EIGHT)
    if count == 0:
        return mask
    weights = np.bincount(parts.ravel(), weight.ravel(), count + 1)[1:]
    order = np.argsort(-weights, kind="stable")
    held = np.cumsum(weights[order])
    taken = order[: 1 + np.searchsorted(held, share * held[-1] * (1 - 1e-12))]
    return np.isin(parts, taken + 1)
