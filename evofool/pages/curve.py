"""A run's curve: the classes' best confidences, and the number of classes at 0.99, over the evaluations spent."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from evofool.pages.confidence_axis import set_confidence_axis, to_log_odds
from evofool.pages.palette import BLUE, FAINT, INK, MINT, ORANGE, PAPER, png
from evofool.text import visible

_COLUMNS = ("evaluations", "median", "q25", "q75", "min", "at_99", "distinct")
_MOST = 1e18  # of a number that an axis shows
TITLE_WIDTH = 90
"""Characters of a title that fit on one line of a plot; longer titles are wrapped."""


def curve(rows: Sequence[Mapping[str, float]], title: str = "", classes: int = 0, spent: str = "evaluations") -> bytes:
    """A PNG of a run's metric rows (evolve.statistics), in the order given, over evaluations on a logarithmic scale.

    spent: the label of the horizontal axis, which has the rows' "evaluations". ValueError, naming the row and the column,
    for a value that is missing or no finite number, and for no rows.

    The upper panel has median, quartiles and minimum of the classes' best confidences, drawn at their log-odds; the left
    axis is labelled with confidences, the right one with log-odds. Confidences below 0.0009, as of a class without an elite,
    are drawn at log-odds -7, and 1.0 at 36.7, where float64 ends. The lower panel has the number of classes at 0.99 or more,
    a line at `classes` unless that is 0, and the number of distinct elites. pyplot is not used, so no global state changes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if not rows:
        raise ValueError("a curve needs at least one row; there are none")
    for k, row in enumerate(rows):
        if missing := [c for c in _COLUMNS if c not in row]:
            raise ValueError(f"row {k} has no {', '.join(missing)}; a curve is drawn from {', '.join(_COLUMNS)}")
        if wrong := [c for c in _COLUMNS if not (isinstance(row[c], (int, float)) and abs(row[c]) < _MOST)]:
            raise ValueError(f"row {k} has {wrong[0]} = {row[wrong[0]]!r:.40}; a curve is drawn from finite numbers")
    column = {c: np.array([float(row[c]) for row in rows]) for c in _COLUMNS}
    x = np.maximum(column["evaluations"], 1)
    odds = {c: to_log_odds(column[c]) for c in ("median", "q25", "q75", "min")}
    # Few points make no visible line, so each gets a dot.
    mark = "o" if len(set(x.tolist())) < 12 else "none"

    figure = Figure(figsize=(8, 6), dpi=120, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, 1))
    if title:
        figure.suptitle(
            textwrap.fill(visible(title), TITLE_WIDTH), fontsize=12, color=INK, parse_math=False
        )  # a recipe's name may hold a dollar sign

    upper.fill_between(x, odds["q25"], odds["q75"], color=BLUE, alpha=0.18, linewidth=0, label="25% to 75%")
    if x.min() == x.max():  # a band of no width is invisible
        upper.vlines(x[-1], odds["q25"][-1], odds["q75"][-1], color=BLUE, alpha=0.18, lw=5)
    upper.plot(x, odds["median"], marker=mark, ls="-", ms=4, color=BLUE, lw=2, label="median")
    upper.plot(x, odds["min"], marker=mark, ls="--", ms=4, color=ORANGE, lw=1.3, label="lowest class")
    set_confidence_axis(upper, odds.values(), "best confidence of a class")

    # The wide line first, because the two often coincide.
    for c, shade, wide, label in (
        ("distinct", MINT, 4, "distinct elites"),
        ("at_99", BLUE, 1.8, "classes at 0.99 or more"),
    ):
        lower.plot(x, column[c], marker=mark, ms=wide + 2, color=shade, lw=wide, label=label, drawstyle="steps-post")
    high = max(1.0, float(classes), float(column["at_99"].max()), float(column["distinct"].max()))
    if classes:
        lower.axhline(classes, color=FAINT, lw=1, ls=":", label=f"all {classes:,} classes")
    lower.set_ylim(-0.04 * high, 1.1 * high)
    lower.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
    lower.set_ylabel("number", color=INK)
    lower.set_xlabel(spent, color=INK)
    lower.set_xscale("log")
    first, last = float(x.min()), float(x.max())
    # An axis needs a range: around a single value it spans a factor of two.
    pad = max((last / first) ** 0.02, 2**0.5 if first == last else 1.0)
    lower.set_xlim(first / pad, last * pad)

    lower.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    lower.xaxis.set_minor_formatter(NullFormatter())
    if last < 10 * first:  # the range may hold no power of ten
        lower.set_xticks(sorted({first, last}))

    return png(figure, (upper, lower))
