"""The curve of a retraining: the confidence of each network's fooling images, and its accuracy on real images."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evofool.pages.confidence_axis import set_confidence_axis, to_log_odds
from evofool.pages.curve import TITLE_WIDTH
from evofool.pages.palette import BLUE, FAINT, INK, ORANGE, PAPER, png
from evofool.text import visible

_ENDS = ("low", "high")  # of an interval
_ACCURACY = 0.98  # on real digits, which retraining should not go below


def retrain_curve(rows: Sequence[Mapping[str, Any]], title: str = "") -> bytes:
    """A PNG of rows of retrain.json's "iterations", in order.

    The upper panel has the confidence of every fooling image, and the median of all with its interval, drawn at their
    log-odds (see curve), and the paper's medians, recalled. The lower panel has every network's accuracy on held-out real
    images.
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
        figure.suptitle(textwrap.fill(visible(title), TITLE_WIDTH), fontsize=12, color=INK, parse_math=False)

    drawn: list[np.ndarray] = []  # all log-odds that the axis has to include
    for k, row in enumerate(rows):
        every = to_log_odds(np.concatenate([np.asarray(of_run, float) for of_run in row["confidences"]]))
        # Side by side in the order of runs, not at random, so that the file is the same every time.
        beside = np.linspace(-0.16, 0.16, len(every)) if len(every) > 1 else np.zeros(1)
        label = "one image" if k == 0 else None
        drawn.append(every)
        upper.plot(x[k] + beside, every, "o", ms=3.5, mew=0, color=BLUE, alpha=0.6, label=label)
    middle = to_log_odds(np.array([row["median"] for row in rows]))
    limits = [[row["median"] if row["of_images"][end] is None else row["of_images"][end] for row in rows] for end in _ENDS]
    low, high = (to_log_odds(np.array(limit)) for limit in limits)
    upper.errorbar(
        x, middle, (np.maximum(0, middle - low), np.maximum(0, high - middle)), fmt="o-", ms=6, capsize=5, color=BLUE, lw=2,
        label="median of all, with interval",
    )  # fmt: skip
    recalled = [(row["iteration"], row["paper_recalled"]) for row in rows if row["paper_recalled"] is not None]
    if recalled:
        at, medians = zip(*recalled, strict=True)
        drawn.append(to_log_odds(np.array(medians)))
        upper.plot(at, drawn[-1], "s--", ms=5, color=ORANGE, lw=1.2, label="paper's median (recalled)")
    set_confidence_axis(upper, drawn, "confidence of fooling images")

    for k, row in enumerate(rows):
        label = "one network" if k == 0 else None
        lower.plot([x[k]] * len(row["accuracy"]), row["accuracy"], "o", ms=5, mew=0, color=BLUE, alpha=0.5, label=label)
    lower.axhline(_ACCURACY, color=FAINT, lw=1, ls=":", label=f"required accuracy, {_ACCURACY:g}")
    lower.set_ylabel("accuracy on real digits", color=INK)
    lower.set_xlabel("network in turn", color=INK)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    return png(figure, (upper, lower))
