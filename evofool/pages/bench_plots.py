"""The plots of a benchmark's report, as SVG, drawn from the values of its JSON."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evofool.pages.palette import BLUE, FAINT, GREEN, INK, LINE, OLIVE, ORANGE, PINK, PURPLE, SKY, dress
from evofool.pages.svg import WIDE, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter

_POINTS = 120  # of a drawn curve, evenly spaced on the logarithmic axis
_ROW = 0.27  # inches, the height of a row of dots


class _Style(NamedTuple):
    colour: str
    marker: str
    dash: Any


# A dash for each kind of arm and a marker for each arm, so that a print in grey is readable.
_SEARCH, _BLACK, _WHITE, _NOISE = "-", (0, (5, 1.6)), (0, (7, 1.4, 1.4, 1.4)), (0, (1.2, 1.6))
_ARM_STYLES = {
    "direct": _Style(BLUE, "o", _SEARCH),
    "cppn": _Style(ORANGE, "s", _SEARCH),
    "per-class": _Style(GREEN, "^", _SEARCH),
    "random": _Style(FAINT, "v", _BLACK),
    "square": _Style(PURPLE, "D", _BLACK),
    "nes": _Style(SKY, "<", _BLACK),
    "apgd": _Style(PINK, "P", _WHITE),
    "fourier": _Style(OLIVE, "X", _WHITE),
    "noise": _Style(INK, ".", _NOISE),
}
_OTHER_STYLES = (
    _Style(BLUE, "*", _BLACK),
    _Style(ORANGE, "h", _WHITE),
    _Style(GREEN, "p", _BLACK),
    _Style(PURPLE, ">", _WHITE),
)
_DETECTOR_STYLES = ((BLUE, _SEARCH), (ORANGE, _BLACK), (GREEN, _WHITE), (PURPLE, _NOISE), (PINK, _SEARCH))


def share_curves(arms: Mapping[str, Mapping[str, Any]], budgets: Sequence[int]) -> str:
    """The share of classes fooled at 95% acceptance against total queries, a line for each arm, with its interval as a band.

    arms: each has "queries" (ascending), and "value", "low" and "high" of equal length, 0..1; without "low" there is no
    band. Where one of the two is None, the band ends at the value. budgets are marked by dotted lines.
    """
    with drawing(WIDE, 3.9) as plot:
        axes = plot.figure.subplots()
        styles = _styles(list(arms))
        for arm, curve in arms.items():
            kept = _thinned(curve["queries"])
            x, y = (np.asarray(curve[key], float)[kept] for key in ("queries", "value"))
            style = styles[arm]
            if "low" in curve:
                limits = (np.asarray(curve[key], float)[kept] for key in ("low", "high"))
                low, high = (np.where(np.isnan(limit), y, limit) for limit in limits)
                axes.fill_between(x, low, high, color=style.colour, alpha=0.1, linewidth=0)
            # Only a few markers, at different places for every arm.
            every = (len(kept) // 7 * list(arms).index(arm) // len(arms), max(1, len(kept) // 6))
            axes.plot(
                x, y, color=style.colour, ls=style.dash, lw=1.7, marker=style.marker, ms=4.5, markevery=every, label=arm
            )
        for budget in budgets:
            axes.axvline(budget, color=FAINT, lw=0.8, ls=(0, (2, 3)))
        # The axis begins shortly before the first class is fooled.
        starts = [next((q for q, v in zip(c["queries"], c["value"], strict=True) if v), max(budgets)) for c in arms.values()]
        _queries_axis(axes, [*budgets, max(1.0, min(starts, default=1.0) / 2)])
        axes.set_xlabel("queries over all classes, logarithmic; dotted: the budgets")
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("share of classes fooled at 95% acceptance")
        dress(axes)
        _legend(axes, _labelled_lines(axes))
    return plot.svg


def q50_dots(targets: Mapping[str, Mapping[str, Mapping[str, Any]]], budgets: Mapping[str, int]) -> str:
    """Q50 with intervals: a row for each arm, grouped by target.

    targets: by name and arm, the "q50" of the arm's JSON. budgets: by target, where the arrow of a censored value begins.
    """
    return _dots(
        targets,
        lambda target: float(budgets[target]),
        "queries until half of the classes are fooled (Q50), logarithmic; arrow: above the budget for some or all seeds",
    )


def ratio_dots(targets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The Q50 of other arms as multiples of that of MAP-Elites, with intervals, and a line at 1.

    targets: by name and arm, the row of "sharing". A bound has an arrow to the right or to the left.
    """
    known = [v for t in targets.values() for r in t.values() for v in (r["value"], r["low"]) if v]
    edge = max([4.0, *known]) * 4
    return _dots(
        targets,
        lambda _: edge,
        "Q50 of the arm divided by Q50 of MAP-Elites, logarithmic; right of 1: MAP-Elites needs fewer queries",
        middle=1.0,
    )


def margin_quantiles(arms: Mapping[str, Mapping[str, float]], real: Mapping[str, float] | None = None) -> str:
    """Margins of elites in medians of real images: 5% to 95% a thin line, 25% to 75% a thick one, the median a marker.

    arms: by name, "scaled_margins" of the arm's JSON; real: the same for real images, if known.
    """
    rows = {"real images": real, **arms} if real else dict(arms)
    styles = {"real images": _Style(INK, "|", "-"), **_styles(list(arms))}
    with drawing(WIDE, 0.75 + _ROW * len(rows)) as plot:
        axes = plot.figure.subplots()
        for at, (arm, quantiles) in enumerate(rows.items()):
            style = styles[arm]
            for low, high, wide, alpha in (("5", "95", 1.6, 1.0), ("25", "75", 6, 0.45)):
                if quantiles.get(low) is not None and quantiles.get(high) is not None:
                    axes.plot([quantiles[low], quantiles[high]], [at, at], color=style.colour, lw=wide, alpha=alpha)
            axes.plot([quantiles["50"]], [at], color=style.colour, marker=style.marker, ms=6, ls="none")
        axes.axvline(1, color=FAINT, lw=1)
        axes.axvline(0, color=FAINT, lw=0.8, ls=(0, (2, 3)))
        values = [v for q in rows.values() for v in q.values() if v is not None]
        if values and max(values) > 8:
            axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_major_formatter(_number_formatter())
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("margin, in medians of real images (1: that of the median real image; below 0: another class)")
        dress(axes, "x")
        axes.tick_params(axis="y", colors=INK)
    return plot.svg


def transfer_heat(
    names: Sequence[str],
    share: Sequence[Sequence[float | None]],
    low: Sequence[Sequence[float | None]],
    high: Sequence[Sequence[float | None]],
) -> str:
    """The share of the row's elites that the column's target accepts, 0..1, with its interval; None: not measured.

    With one limit it is a bound; without any the share stands alone.
    """
    n = len(names)
    with drawing(min(WIDE, 2.2 + 1.0 * n), 1.2 + max(0.42, min(0.62, 6 / n)) * n) as plot:
        from matplotlib import colormaps
        from matplotlib.patches import Rectangle

        axes = plot.figure.subplots()
        for i in range(n):
            for j in range(n):
                value = share[i][j]
                shade = LINE if value is None else _hex(colormaps["YlGnBu"](0.05 + 0.8 * value))
                axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, facecolor=shade, linewidth=0))
                # Not the page's text colour, which changes with the colour scheme; the background does not.
                ink = "#ffffff" if value is not None and value > 0.74 else "#101318"
                if value is None:
                    axes.text(j, i, "none", ha="center", va="center", color=INK, fontsize=8)
                    continue
                # By definition a target accepts all of its counted elites.
                below, above = (None, None) if i == j else (low[i][j], high[i][j])
                alone = below is None and above is None
                axes.text(j, i if alone else i - 0.13, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
                if not alone:
                    text = (
                        f"\u2264 {above:.2f}"
                        if below is None
                        else f"\u2265 {below:.2f}"
                        if above is None
                        else f"{below:.2f} - {above:.2f}"
                    )
                    axes.text(j, i + 0.24, text, ha="center", va="center", color=ink, fontsize=6.4 if n > 8 else 7)
        axes.set_xlim(-0.5, n - 0.5)
        axes.set_ylim(n - 0.5, -0.5)
        turned = max(map(len, names)) > (6 if n > 4 else 14)
        axes.set_xticks(range(n), list(names), rotation=35 if turned else 0, ha="left" if turned else "center")
        axes.set_yticks(range(n), list(names))
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("accepted by")
        axes.set_ylabel("elites of")
        plot.figure.set_layout_engine("constrained", w_pad=0.15)  # a browser's font may be wider than matplotlib's
        axes.tick_params(length=0, labelsize=9, colors=INK)
        axes.spines[:].set_visible(False)
    return plot.svg


def detector_curves(detectors: Sequence[Mapping[str, Any]]) -> str:
    """ROC curves: a row of panels for each arm, static elites beside adaptive ones (evolved against the detector)."""
    arms = list(dict.fromkeys(str(d["arm"]) for d in detectors))
    kinds = [k for k in ("static", "adaptive") if any(d["kind"] == k for d in detectors)]
    names = list(dict.fromkeys(str(d["detector"]) for d in detectors))
    with drawing(0.6 + 3.2 * max(len(kinds), 1) + 1.4, 0.5 + 2.7 * len(arms)) as plot:
        plot.figure.set_layout_engine("compressed")  # keeps square panels together
        grid = plot.figure.subplots(len(arms), len(kinds), squeeze=False, sharex=True, sharey=True)
        for arm, row in zip(arms, grid, strict=True):
            for kind, axes in zip(kinds, row, strict=True):
                axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=(0, (2, 3)))
                for detector in detectors:
                    if (detector["arm"], detector["kind"]) == (arm, kind) and detector.get("curve"):
                        colour, dash = _DETECTOR_STYLES[names.index(detector["detector"]) % len(_DETECTOR_STYLES)]
                        x, y = np.asarray(detector["curve"]["fpr"], float), np.asarray(detector["curve"]["tpr"], float)
                        kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))
                        axes.plot(x[kept], y[kept], color=colour, ls=dash, lw=1.6, label=detector["detector"])
                axes.set_title(f"{arm}, {kind}", fontsize=9.5, color=INK, loc="left")
                axes.set_xlim(-0.02, 1.02)
                axes.set_ylim(-0.02, 1.02)
                axes.set_aspect("equal")
                axes.set_xlabel("share of real images flagged" if arm == arms[-1] else "")
                axes.set_ylabel("share of fooling images flagged" if kind == kinds[0] else "")
                dress(axes)
        _legend(grid[0, -1], {name: line for axes in grid.flat for name, line in _labelled_lines(axes).items()})
    return plot.svg


def _dots(targets: Mapping[str, Mapping[str, Mapping[str, Any]]], edge: Any, label: str, middle: float | None = None) -> str:
    """Rows of values with intervals, target after target. edge: by target, where a value without an upper bound ends.

    A row has "value", "bound", "low" and "high". A row with bound ">=" has an arrow to the right at the edge, one with "<="
    an arrow to the left at the end of the plot.
    """
    arms = list(dict.fromkeys(arm for by_arm in targets.values() for arm in by_arm))
    styles = _styles(arms)
    rows = sum(len(by_arm) for by_arm in targets.values())
    many = len(targets) > 1
    step, ms = (0.105, 4.2) if many else (_ROW, 6)
    with drawing(WIDE, 0.8 + step * rows + 0.14 * len(targets)) as plot:
        from matplotlib.lines import Line2D

        axes = plot.figure.subplots()
        all_rows = [row for by_arm in targets.values() for row in by_arm.values()]
        inner = [v for v in (middle, *(row["value"] for row in all_rows), *map(edge, targets)) if v]
        # The interval of a few seeds may span many powers of ten; it is then cut off by the plot.
        least, most = min(inner) / 8, max(inner) * 8
        limits = [row.get(key) for row in all_rows for key in ("low", "high")]
        bounds = [*inner, *(min(max(v, least), most) for v in limits if v)]
        bounds += [row["value"] / 4 for row in all_rows if row["bound"] == "<="]  # room for the arrow
        # Where everything ends at the budget, the plot still needs room to its left.
        bounds.append(min(min(bounds), max(bounds) / 10))
        stretch = (max(bounds) / min(bounds)) ** 0.022  # the length of an arrow
        leftmost = min(bounds)
        at, ticks = 0.0, []
        for number, (target, by_arm) in enumerate(targets.items()):
            start = at
            for arm, row in by_arm.items():
                value, low, high = row["value"], row.get("low"), row.get("high")
                style, end = styles[arm], edge(target)
                if row["bound"] == ">=":
                    high = end
                elif row["bound"] == "<=":
                    low = end = leftmost
                if low and high:
                    axes.plot([low, high], [at, at], color=style.colour, lw=1.5, ls=style.dash)
                if value:
                    axes.plot([value], [at], color=style.colour, marker=style.marker, ms=ms, ls="none")
                if row["bound"] in (">=", "<="):
                    on = end * stretch if row["bound"] == ">=" else end / stretch
                    axes.plot([end], [at], color=style.colour, marker="|", ms=ms + 1, ls="none")
                    axes.annotate("", (on, at), (end, at), arrowprops={"arrowstyle": "->", "color": style.colour})
                if not many:
                    ticks.append((at, arm))
                at += 1
            if many:
                ticks.append(((start + at - 1) / 2, target))
                if number % 2 == 0:
                    axes.axhspan(start - 0.9, at - 0.1, color=LINE, alpha=0.35, linewidth=0)
                at += 0.8
        if middle:
            axes.axvline(middle, color=INK, lw=1)
        _queries_axis(axes, bounds)
        axes.set_ylim(at - (0.9 if many else 0.5), -0.9 if many else -0.5)
        axes.set_yticks([y for y, _ in ticks], [text for _, text in ticks])
        axes.set_xlabel(label)
        dress(axes, "x")
        axes.tick_params(axis="y", colors=INK, length=0)
        if many:
            named = {a: Line2D([], [], color=k.colour, ls=k.dash, marker=k.marker, ms=5) for a, k in styles.items()}
            _legend(axes, named)
    return plot.svg


def _styles(arms: Sequence[str]) -> dict[str, _Style]:
    """The styles of arms, the same on every plot; arms that are not in the protocol get the other styles in turn."""
    spare = [arm for arm in arms if arm not in _ARM_STYLES]
    return {
        arm: _ARM_STYLES[arm] if arm in _ARM_STYLES else _OTHER_STYLES[spare.index(arm) % len(_OTHER_STYLES)] for arm in arms
    }


def _thinned(queries: Sequence[float]) -> np.ndarray:
    """Ascending indices of at most _POINTS points, evenly spaced on a logarithmic axis, with the first and the last."""
    x = np.asarray(queries, float)
    if len(x) <= _POINTS:
        return np.arange(len(x))
    wanted = np.geomspace(max(x[0], 1e-9), x[-1], _POINTS)
    return np.unique([0, *np.clip(np.searchsorted(x, wanted, "right") - 1, 0, None), len(x) - 1])


def _queries_axis(axes: "Axes", values: Sequence[float]) -> None:
    from matplotlib.ticker import NullFormatter

    low, high = min(values, default=1.0), max(values, default=1.0)
    pad = max((high / low) ** 0.03, 1.05 if low < high else 2.0)
    axes.set_xscale("log")
    axes.set_xlim(low / pad, high * pad)
    axes.xaxis.set_major_formatter(_number_formatter())
    axes.xaxis.set_minor_formatter(_number_formatter(few=True) if high < 30 * low else NullFormatter())


def _number_formatter(few: bool = False) -> "Formatter":
    """Formats 1000 as 1,000; few: only numbers that begin with 2 or 5, for minor ticks."""
    from matplotlib.ticker import FuncFormatter

    def text(value: float, _: int | None) -> str:
        return "" if few and f"{value:e}"[0] not in "25" else f"{value:,.10g}"

    return FuncFormatter(text)


def _legend(axes: "Axes", once: Mapping[str, Any]) -> None:
    """A legend to the right of the plot."""
    if once:
        axes.legend(
            list(once.values()), list(once), loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=9, frameon=False,
            labelcolor=INK, handlelength=3.2,
        )  # fmt: skip


def _labelled_lines(axes: "Axes") -> dict[str, Any]:
    handles, names = axes.get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


def _hex(colour: Sequence[float]) -> str:
    from matplotlib.colors import to_hex

    return to_hex((colour[0], colour[1], colour[2]))
