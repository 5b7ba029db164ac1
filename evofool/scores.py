"""Scores of images, from logits: float32 in, float64 out, exact where a softmax would saturate."""

import numba
import numpy as np

from evofool.errors import ScoreError


def log_odds(logits: np.ndarray, multilabel: bool = False) -> np.ndarray:
    """log(p_c / (1 - p_c)) under the softmax, for every class c: logits (B, K) float32 to (B, K) float64, K >= 2.

    Equal to z_c - logsumexp of the others, computed without cancellation: a float32 softmax reaches 1.0 near a log-odds
    of 17 and then ranks nothing; these keep growing. Finite for finite logits.
    multilabel: of labels that do not exclude each other, each with a sigmoid of its own (Target.multilabel): z_c itself.
    """
    if multilabel:
        return logits.astype(np.float64)
    out = np.empty(logits.shape, np.float64)
    _log_odds(logits, out)
    return out


def margin(logits: np.ndarray, multilabel: bool = False) -> np.ndarray:
    """z_c - max of the other classes' z, for every class c: (B, K) float32 to (B, K) float64, K >= 2.

    Negative unless c is the predicted class. A temperature divides all margins by the same number.
    multilabel: as in log_odds: z_c itself, which is positive where the image is given the label.
    """
    if multilabel:
        return logits.astype(np.float64)
    out = np.empty(logits.shape, np.float64)
    _margin(logits, out)
    return out


def confidence(log_odds: np.ndarray | float) -> np.ndarray | float:
    """The probability of log-odds: 1 / (1 + exp(-log_odds)), never overflowing."""
    x = np.asarray(log_odds, np.float64)
    small = np.exp(-np.abs(x))
    p = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return p if p.ndim else float(p)


def needed_log_odds(p: float) -> float:
    """The log-odds of a confidence p in (0, 1)."""
    return float(np.log(p) - np.log1p(-p))


def of_top_k(ranked: np.ndarray, logits: np.ndarray, k: int) -> np.ndarray:
    """ranked (B, K), -inf outside each image's k highest logits: classes that a black box does not return win no cell."""
    out = np.full_like(ranked, -np.inf)
    top = np.argpartition(logits, -k, axis=1)[:, -k:]
    np.put_along_axis(out, top, np.take_along_axis(ranked, top, axis=1), axis=1)
    return out


def refuse_unfinite(logits: np.ndarray, batch: int, target_name: str, begin: int = 0) -> None:
    """Raise ScoreError naming the batch and the first bad row if any logit is NaN or infinite.

    begin: the row of the batch that logits start with.
    """
    if not np.isfinite(logits).all():
        rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        raise ScoreError(
            f"batch {batch}: {target_name} answered NaN or infinity for {len(rows)} of {len(logits)} images "
            f"(first: row {begin + rows[0]}). Nothing of this batch was kept; check the network's weights and number format."
        )


@numba.njit(cache=True, nogil=True)
def _first_two(z: np.ndarray) -> tuple[int, float]:
    """The class of the highest of one image's logits (K,), of equals the lowest, and the highest of the other logits."""
    top = 0
    for k in range(1, z.shape[0]):
        if z[k] > z[top]:
            top = k
    second = -np.inf
    for k in range(z.shape[0]):
        if k != top and z[k] > second:
            second = z[k]
    return top, second


@numba.njit(cache=True, nogil=True)
def _log_odds(z: np.ndarray, out: np.ndarray) -> None:
    for b in range(z.shape[0]):
        top, second = _first_two(z[b])
        # others: the sum over all classes but the top one, in units of the second's exponential
        others = 0.0
        for k in range(z.shape[1]):
            if k != top:
                e = np.exp(np.float64(z[b, k]) - second)
                out[b, k] = e
                others += e
        best = np.float64(z[b, top])
        gap = best - second
        out[b, top] = gap - np.log(others)
        shrink = np.exp(-gap)
        for k in range(z.shape[1]):
            if k != top:
                rest = max(0.0, others - out[b, k])
                out[b, k] = (np.float64(z[b, k]) - best) - np.log1p(shrink * rest)


@numba.njit(cache=True, nogil=True)
def _margin(z: np.ndarray, out: np.ndarray) -> None:
    for b in range(z.shape[0]):
        top, second = _first_two(z[b])
        for k in range(z.shape[1]):
            out[b, k] = np.float64(z[b, k]) - (second if k == top else np.float64(z[b, top]))
