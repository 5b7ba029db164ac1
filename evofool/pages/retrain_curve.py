"""Of retraining: how sure each network in turn is of the images that fool it, and how well it knows real ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evofool.pages.palette import BLUE, FAINT, INK, ORANGE, PAPER, png

_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
_ENDS = ("low", "high")  # of an interval
_CLIP = 1 - 1e-7
_ACCURACY = 0.98  # that retraining is not to cost


def retrain_curve(rows: Sequence[Mapping[str, Any]], title: str = "") -> bytes:
    """A PNG of rows of retrain.json's "iterations", in order.

    Above: every image's confidence, the runs' medians and the median of all with its interval, each p at -log10(1 - p),
    so that every further nine is as far again; the paper's recalled medians beside them. Below: every network's accuracy on
    held-out real images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not rows:
        raise ValueError("a curve of retraining needs at least one iteration; there are none")
    x = np.array([row["iteration"] for row in rows])
    figure = Figure(figsize=(8, 6.4), dpi=120, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, 1))
    if title:
        figure.suptitle(title, fontsize=12, color=INK, parse_math=False)

    for k, row in enumerate(rows):
        every = nines(np.concatenate([np.asarray(one, float) for one in row["confidences"]]))
        # Side by side in the order of runs: no chance in where a dot is.
        beside = np.linspace(-0.16, 0.16, len(every)) if len(every) > 1 else np.zeros(1)
        label = "one image" if k == 0 else None
        upper.plot(x[k] + beside, every, "o", ms=3.5, mew=0, color=BLUE, alpha=0.6, label=label)
    middle = nines(np.array([row["median"] for row in rows]))
    limits = [[row["median"] if row["of_images"][end] is None else row["of_images"][end] for row in rows] for end in _ENDS]
    low, high = (nines(np.array(limit)) for limit in limits)
    upper.errorbar(
        x, middle, (np.maximum(0, middle - low), np.maximum(0, high - middle)), fmt="o-", ms=6, capsize=5, color=BLUE, lw=2,
        label="median of all, with interval",
    )  # fmt: skip
    recalled = [(row["iteration"], row["paper_recalled"]) for row in rows if row["paper_recalled"] is not None]
    if recalled:
        at, medians = zip(*recalled, strict=True)
        upper.plot(at, nines(np.array(medians)), "s--", ms=5, color=ORANGE, lw=1.2, label="paper's median (recalled)")
    highest = [*map(_most, rows), *(p for _, p in recalled)]
    top = max(2.0, float(nines(np.array(highest)).max()))
    ticks = [p for p in _TICKS if nines(np.array(p)) <= top + 0.3]
    upper.set_yticks([float(nines(np.array(p))) for p in ticks], [f"{p:.10g}" for p in ticks])
    upper.set_ylim(-0.03 * top, 1.04 * top)
    upper.set_ylabel("confidence of fooling images", color=INK)

    for k, row in enumerate(rows):
        label = "one network" if k == 0 else None
        lower.plot([x[k]] * len(row["accuracy"]), row["accuracy"], "o", ms=5, mew=0, color=BLUE, alpha=0.5, label=label)
    lower.axhline(_ACCURACY, color=FAINT, lw=1, ls=":", label=f"accuracy asked for, {_ACCURACY:g}")
    lower.set_ylabel("accuracy on real digits", color=INK)
    lower.set_xlabel("network in turn", color=INK)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    return png(figure, (upper, lower))


def nines(p: np.ndarray) -> np.ndarray:
    """-log10(1 - p), with p of 1 - 1e-7 at the most."""
    return -np.log10(1 - np.clip(p, 0, _CLIP))


def _most(row: Mapping[str, Any]) -> float:
    return max(max(one) for one in row["confidences"])
