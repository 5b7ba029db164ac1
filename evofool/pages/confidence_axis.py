"""A vertical axis of log-odds with two aligned scales: confidence on the left, log-odds on the right."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from evofool.pages.palette import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWEST = -7.0
"""Log-odds below which nothing is drawn: confidences under 0.0009, and 0, are drawn here."""

_HIGHEST_P = 1 - 2.0**-53  # the largest float64 below 1; a confidence of exactly 1.0 is drawn here, at 36.7
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_MOST_TICKS = 10


def to_log_odds(p: np.ndarray | float) -> np.ndarray:
    """ln(p / (1 - p)) of confidences 0..1, float64 of p's shape; at least LOWEST and at most 36.74 (p = 1.0)."""
    p = np.minimum(np.asarray(p, np.float64), _HIGHEST_P)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(p) - np.log1p(-p), LOWEST)


def set_confidence_axis(axes: "Axes", drawn: Iterable[np.ndarray], label: str) -> None:
    """Scale the y axis of a panel whose y values are log-odds, so that all of `drawn` (log-odds) lies on it.

    Ticks on the left are confidences, on a second axis on the right log-odds at the same heights.
    """
    values = np.concatenate([np.ravel(log_odds) for log_odds in drawn])
    low, high = min(0.0, float(values.min())), max(5.0, float(values.max()))
    pad = 0.04 * (high - low)
    axes.set_ylim(low - pad, high + pad)
    ticks = [p for p in _confidences(high) if low - pad <= to_log_odds(p) <= high + pad]
    step = -(-len(ticks) // _MOST_TICKS)
    # Counted from above, so that thinning keeps the highest.
    ticks = sorted(ticks[::-1][::step])
    axes.set_yticks([float(to_log_odds(p)) for p in ticks], [_name(p) for p in ticks])
    axes.set_ylabel(label, color=INK)
    right = axes.secondary_yaxis("right")
    right.set_ylabel("log-odds", color=INK)
    right.tick_params(colors=FAINT, labelsize=9)
    right.spines["right"].set_color(FAINT)


def _confidences(high: float) -> list[float]:
    """Confidences worth a tick: _TICKS, then one for each further nine up to log-odds `high`."""
    nines = (1 - 10.0**-k for k in range(4, 16))
    return [*_TICKS, *(p for p in nines if to_log_odds(p) <= high + 0.5)]


def _name(p: float) -> str:
    return f"{p:.6g}" if p <= 0.99999 else f"1 - 1e-{round(-np.log10(1 - p))}"
