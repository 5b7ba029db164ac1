"""A run's curve: how sure the classifier has become, and of how many classes, over the evaluations spent."""

from collections.abc import Mapping, Sequence

import numpy as np

from evofool.pages.palette import BLUE, FAINT, INK, MINT, ORANGE, PAPER, png

_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 0.9999999)
_CLIP = 1 - 1e-7
_COLUMNS = ("evaluations", "median", "q25", "q75", "min", "at_99", "distinct")


def curve(rows: Sequence[Mapping[str, float]], title: str = "", classes: int = 0, spent: str = "evaluations") -> bytes:
    """A PNG of a run's metric rows (evolve.statistics), in the order given, over evaluations on a logarithmic scale.

    spent: what the rows count by "evaluations".

    Above: median, quartiles and minimum of the classes' best confidences, each p at -log10(1 - p), so that every
    further nine is as far again; above 1 - 1e-7 they are drawn there. Below: classes at 0.99 or more, of `classes` if
    that is not 0, and distinct elites. Nothing is drawn through pyplot, so no global state changes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if not rows:
        raise ValueError("a curve needs at least one row; there are none")
    for k, row in enumerate(rows):
        if missing := [c for c in _COLUMNS if c not in row]:
            raise ValueError(f"row {k} has no {', '.join(missing)}; a curve is drawn from {', '.join(_COLUMNS)}")
    column = {c: np.array([float(row[c]) for row in rows]) for c in _COLUMNS}
    x = np.maximum(column["evaluations"], 1)
    nines = {c: -np.log10(1 - np.clip(column[c], 0, _CLIP)) for c in ("median", "q25", "q75", "min")}
    # Points too few to make a line that is seen get a dot each.
    mark = "o" if len(set(x.tolist())) < 12 else "none"

    figure = Figure(figsize=(8, 6), dpi=120, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, 1))
    if title:
        figure.suptitle(title, fontsize=12, color=INK, parse_math=False)  # a recipe's name may hold a dollar sign

    upper.fill_between(x, nines["q25"], nines["q75"], color=BLUE, alpha=0.18, linewidth=0, label="middle half")
    if x.min() == x.max():  # a band of no width would not be seen
        upper.vlines(x[-1], nines["q25"][-1], nines["q75"][-1], color=BLUE, alpha=0.18, lw=5)
    upper.plot(x, nines["median"], marker=mark, ls="-", ms=4, color=BLUE, lw=2, label="median")
    upper.plot(x, nines["min"], marker=mark, ls="--", ms=4, color=ORANGE, lw=1.3, label="least sure class")
    top = max(2.0, *(float(v.max()) for v in nines.values()))
    ticks = [p for p in _TICKS if -np.log10(1 - p) <= top + 0.3]
    upper.set_yticks([-np.log10(1 - p) for p in ticks], [f"{p:.10g}" for p in ticks])
    upper.set_ylim(-0.03 * top, 1.04 * top)
    upper.set_ylabel("confidence, by class", color=INK)

    # The wide one first: the two often lie on each other.
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
    lower.set_ylabel("how many", color=INK)
    lower.set_xlabel(spent, color=INK)
    lower.set_xscale("log")
    first, last = float(x.min()), float(x.max())
    # A range of no width cannot be an axis; the least one is a factor of two around the single value.
    pad = max((last / first) ** 0.02, 2**0.5 if first == last else 1.0)
    lower.set_xlim(first / pad, last * pad)

    lower.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    lower.xaxis.set_minor_formatter(NullFormatter())
    if last < 10 * first:  # there may be no power of ten to name
        lower.set_xticks(sorted({first, last}))

    return png(figure, (upper, lower))
