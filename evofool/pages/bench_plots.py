"""The plots of a benchmark's report, as SVG: what arms and targets came to, from the values of their JSON."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evofool.pages.palette import BLUE, FAINT, GREEN, INK, LINE, OLIVE, ORANGE, PINK, PURPLE, SKY, dress
from evofool.pages.svg import WIDE, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter

_POINTS = 120  # that a curve is drawn by, evenly on the logarithmic axis
_ROW = 0.27  # inches that a row of dots is high


class _Look(NamedTuple):
    colour: str
    marker: str
    dash: Any


# A dash for a kind of arm, a marker for each, so that a grey print can be read too.
_SEARCH, _BLACK, _WHITE, _FLOOR = "-", (0, (5, 1.6)), (0, (7, 1.4, 1.4, 1.4)), (0, (1.2, 1.6))
_LOOKS = {
    "direct": _Look(BLUE, "o", _SEARCH),
    "cppn": _Look(ORANGE, "s", _SEARCH),
    "per-class": _Look(GREEN, "^", _SEARCH),
    "random": _Look(FAINT, "v", _BLACK),
    "square": _Look(PURPLE, "D", _BLACK),
    "nes": _Look(SKY, "<", _BLACK),
    "apgd": _Look(PINK, "P", _WHITE),
    "fourier": _Look(OLIVE, "X", _WHITE),
    "noise": _Look(INK, ".", _FLOOR),
}
_OTHERS = (_Look(BLUE, "*", _BLACK), _Look(ORANGE, "h", _WHITE), _Look(GREEN, "p", _BLACK), _Look(PURPLE, ">", _WHITE))
_DETECTORS = ((BLUE, _SEARCH), (ORANGE, _BLACK), (GREEN, _WHITE), (PURPLE, _FLOOR), (PINK, _SEARCH))


def share_curves(arms: Mapping[str, Mapping[str, Any]], budgets: Sequence[int]) -> str:
    """The share of classes accepted at tau_5 against total queries, by arm, with its band, and a tick for each budget.

    arms: each "queries" ascending, "value", "low" and "high", as many, 0..1; without "low" there is no band.
    """
    with drawing(WIDE, 3.9) as made:
        axes = made.figure.subplots()
        looks = _looks(list(arms))
        for arm, curve in arms.items():
            kept = _thinned(curve["queries"])
            x, y = (np.asarray(curve[key], float)[kept] for key in ("queries", "value"))
            look = looks[arm]
            if "low" in curve:
                low, high = (np.asarray(curve[key], float)[kept] for key in ("low", "high"))
                axes.fill_between(x, low, high, color=look.colour, alpha=0.1, linewidth=0)
            # A few markers alone, at other places for every arm.
            every = (len(kept) // 7 * list(arms).index(arm) // len(arms), max(1, len(kept) // 6))
            axes.plot(x, y, color=look.colour, ls=look.dash, lw=1.7, marker=look.marker, ms=4.5, markevery=every, label=arm)
        for budget in budgets:
            axes.axvline(budget, color=FAINT, lw=0.8, ls=(0, (2, 3)))
        # Where nothing is accepted yet there is nothing to see.
        starts = [next((q for q, v in zip(c["queries"], c["value"], strict=True) if v), max(budgets)) for c in arms.values()]
        _queries_axis(axes, [*budgets, max(1.0, min(starts, default=1.0) / 2)])
        axes.set_xlabel("queries in all, logarithmic; dotted: the budgets")
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("share of classes accepted at tau_5")
        dress(axes)
        _legend(axes, _labelled(axes))
    return made.svg


def q50_dots(targets: Mapping[str, Mapping[str, Mapping[str, Any]]], budgets: Mapping[str, int]) -> str:
    """Queries until half of the classes are accepted, with intervals: arms on rows, and around them their target.

    targets: by name, by arm, the "q50" of its JSON. budgets: of each target, where what is censored has its arrow.
    """
    return _dots(
        targets,
        lambda target: float(budgets[target]),
        "queries until half of the classes are accepted (Q50), logarithmic; arrow: beyond the budget for some seeds or all",
    )


def ratio_dots(targets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """How many times the queries of MAP-Elites a rival needs, with intervals, on both sides of 1.

    targets: by name, by rival, its "sharing". A bound has an arrow, to the right or to the left.
    """
    known = [v for t in targets.values() for r in t.values() for v in (r["value"], r["low"]) if v]
    edge = max([4.0, *known]) * 4
    return _dots(
        targets,
        lambda _: edge,
        "the rival's Q50 divided by that of MAP-Elites, logarithmic: right of 1 MAP-Elites needs fewer queries",
        middle=1.0,
    )


def margin_quantiles(arms: Mapping[str, Mapping[str, float]], real: Mapping[str, float] | None = None) -> str:
    """Margins of elites in units of real images' median margin: 5% to 95% thin, 25% to 75% thick, the median a dot.

    arms: by name, "scaled_margins" of its JSON; real: the same of real images, where it is known.
    """
    rows = {"real images": real, **arms} if real else dict(arms)
    looks = {"real images": _Look(INK, "|", "-"), **_looks(list(arms))}
    with drawing(WIDE, 0.75 + _ROW * len(rows)) as made:
        axes = made.figure.subplots()
        for at, (arm, quantiles) in enumerate(rows.items()):
            look = looks[arm]
            for low, high, wide, alpha in (("5", "95", 1.6, 1.0), ("25", "75", 6, 0.45)):
                if quantiles.get(low) is not None and quantiles.get(high) is not None:
                    axes.plot([quantiles[low], quantiles[high]], [at, at], color=look.colour, lw=wide, alpha=alpha)
            axes.plot([quantiles["50"]], [at], color=look.colour, marker=look.marker, ms=6, ls="none")
        axes.axvline(1, color=FAINT, lw=1)
        axes.axvline(0, color=FAINT, lw=0.8, ls=(0, (2, 3)))
        values = [v for q in rows.values() for v in q.values() if v is not None]
        if values and max(values) > 8:
            axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_major_formatter(_plain())
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("margin, in medians of real images (1: as sure as of a usual real image; below 0: another class)")
        dress(axes, "x")
        axes.tick_params(axis="y", colors=INK)
    return made.svg


def transfer_heat(
    names: Sequence[str],
    share: Sequence[Sequence[float | None]],
    low: Sequence[Sequence[float | None]],
    high: Sequence[Sequence[float | None]],
) -> str:
    """The share of row's elites that column accepts, 0..1, with its interval; None: no elites, or not asked."""
    n = len(names)
    with drawing(min(WIDE, 2.2 + 1.0 * n), 1.2 + max(0.42, min(0.62, 6 / n)) * n) as made:
        from matplotlib import colormaps
        from matplotlib.patches import Rectangle

        axes = made.figure.subplots()
        for i in range(n):
            for j in range(n):
                value = share[i][j]
                shade = LINE if value is None else _hex(colormaps["YlGnBu"](0.05 + 0.8 * value))
                axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, facecolor=shade, linewidth=0))
                # Not the page's ink: the ground is the map's, by day and by night.
                ink = "#ffffff" if value is not None and value > 0.74 else "#101318"
                if value is None:
                    axes.text(j, i, "none", ha="center", va="center", color=INK, fontsize=8)
                    continue
                # A target accepts all of its own elites that are asked of, by definition.
                below, above = (None, None) if i == j else (low[i][j], high[i][j])
                alone = below is None or above is None
                axes.text(j, i if alone else i - 0.13, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
                if below is not None and above is not None:
                    said = f"{below:.2f} - {above:.2f}"
                    axes.text(j, i + 0.24, said, ha="center", va="center", color=ink, fontsize=6.4 if n > 8 else 7)
        axes.set_xlim(-0.5, n - 0.5)
        axes.set_ylim(n - 0.5, -0.5)
        turned = max(map(len, names)) > (6 if n > 4 else 14)
        axes.set_xticks(range(n), list(names), rotation=35 if turned else 0, ha="left" if turned else "center")
        axes.set_yticks(range(n), list(names))
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("accepted by")
        axes.set_ylabel("elites of")
        made.figure.set_layout_engine("constrained", w_pad=0.15)  # a page's letters may be wider than those reckoned with
        axes.tick_params(length=0, labelsize=9, colors=INK)
        axes.spines[:].set_visible(False)
    return made.svg


def detector_curves(detectors: Sequence[Mapping[str, Any]]) -> str:
    """ROC curves: a row for each arm, and in it the static elites beside those evolved against the detector."""
    arms = list(dict.fromkeys(str(d["arm"]) for d in detectors))
    kinds = [k for k in ("static", "adaptive") if any(d["kind"] == k for d in detectors)]
    names = list(dict.fromkeys(str(d["detector"]) for d in detectors))
    with drawing(0.6 + 3.2 * max(len(kinds), 1) + 1.4, 0.5 + 2.7 * len(arms)) as made:
        made.figure.set_layout_engine("compressed")  # square panels stand together
        grid = made.figure.subplots(len(arms), len(kinds), squeeze=False, sharex=True, sharey=True)
        for arm, row in zip(arms, grid, strict=True):
            for kind, axes in zip(kinds, row, strict=True):
                axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=(0, (2, 3)))
                for one in detectors:
                    if (one["arm"], one["kind"]) == (arm, kind) and one.get("curve"):
                        colour, dash = _DETECTORS[names.index(one["detector"]) % len(_DETECTORS)]
                        x, y = np.asarray(one["curve"]["fpr"], float), np.asarray(one["curve"]["tpr"], float)
                        kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))
                        axes.plot(x[kept], y[kept], color=colour, ls=dash, lw=1.6, label=one["detector"])
                axes.set_title(f"{arm}, {kind}", fontsize=9.5, color=INK, loc="left")
                axes.set_xlim(-0.02, 1.02)
                axes.set_ylim(-0.02, 1.02)
                axes.set_aspect("equal")
                axes.set_xlabel("share of real images flagged" if arm == arms[-1] else "")
                axes.set_ylabel("share of fooling images flagged" if kind == kinds[0] else "")
                dress(axes)
        _legend(grid[0, -1], {name: line for axes in grid.flat for name, line in _labelled(axes).items()})
    return made.svg


def _dots(targets: Mapping[str, Mapping[str, Mapping[str, Any]]], edge: Any, label: str, middle: float | None = None) -> str:
    """Rows of values with whiskers, target after target. edge: of a target, where what has no upper bound ends.

    A row has "value", its "bound", "low" and "high". One that is bounded from below, ">=", has an arrow to the right, at the
    edge; one from above, "<=", an arrow to the left, where the plot ends.
    """
    arms = list(dict.fromkeys(arm for own in targets.values() for arm in own))
    looks = _looks(arms)
    rows = sum(len(own) for own in targets.values())
    many = len(targets) > 1
    step, ms = (0.105, 4.2) if many else (_ROW, 6)
    with drawing(WIDE, 0.8 + step * rows + 0.14 * len(targets)) as made:
        from matplotlib.lines import Line2D

        axes = made.figure.subplots()
        told = [row for own in targets.values() for row in own.values()]
        inner = [v for v in (middle, *(row["value"] for row in told), *map(edge, targets)) if v]
        # An interval of a few seeds may reach over many powers of ten: it runs out of the plot.
        least, most = min(inner) / 8, max(inner) * 8
        limits = [row.get(key) for row in told for key in ("low", "high")]
        bounds = [*inner, *(min(max(v, least), most) for v in limits if v)]
        bounds += [row["value"] / 4 for row in told if row["bound"] == "<="]  # room for the arrow
        bounds.append(
            min(min(bounds), max(bounds) / 10)
        )  # where all ends at the budget there has to be something left of it
        stretch = (max(bounds) / min(bounds)) ** 0.022  # how far an arrow goes on
        leftmost = min(bounds)
        at, ticks = 0.0, []
        for number, (target, own) in enumerate(targets.items()):
            start = at
            for arm, row in own.items():
                value, low, high = row["value"], row.get("low"), row.get("high")
                look, end = looks[arm], edge(target)
                if row["bound"] == ">=":
                    high = end
                elif row["bound"] == "<=":
                    low = end = leftmost
                if low and high:
                    axes.plot([low, high], [at, at], color=look.colour, lw=1.5, ls=look.dash)
                if value:
                    axes.plot([value], [at], color=look.colour, marker=look.marker, ms=ms, ls="none")
                if row["bound"] in (">=", "<="):
                    on = end * stretch if row["bound"] == ">=" else end / stretch
                    axes.plot([end], [at], color=look.colour, marker="|", ms=ms + 1, ls="none")
                    axes.annotate("", (on, at), (end, at), arrowprops={"arrowstyle": "->", "color": look.colour})
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
        axes.set_yticks([y for y, _ in ticks], [said for _, said in ticks])
        axes.set_xlabel(label)
        dress(axes, "x")
        axes.tick_params(axis="y", colors=INK, length=0)
        if many:
            named = {a: Line2D([], [], color=k.colour, ls=k.dash, marker=k.marker, ms=5) for a, k in looks.items()}
            _legend(axes, named)
    return made.svg


def _looks(arms: Sequence[str]) -> dict[str, _Look]:
    """The same for an arm on every plot; arms that are not the protocol's have what is left, in turn."""
    spare = [arm for arm in arms if arm not in _LOOKS]
    return {arm: _LOOKS[arm] if arm in _LOOKS else _OTHERS[spare.index(arm) % len(_OTHERS)] for arm in arms}


def _thinned(queries: Sequence[float]) -> np.ndarray:
    """Row numbers, ascending, of at most _POINTS points, evenly on a logarithmic axis, the first and the last among them."""
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
    axes.xaxis.set_major_formatter(_plain())
    axes.xaxis.set_minor_formatter(_plain(few=True) if high < 30 * low else NullFormatter())


def _plain(few: bool = False) -> "Formatter":
    """Numbers as people write them; few: those beginning with 2 or 5 alone, where powers of ten are not enough."""
    from matplotlib.ticker import FuncFormatter

    def said(value: float, _: int | None) -> str:
        return "" if few and f"{value:e}"[0] not in "25" else f"{value:,.10g}"

    return FuncFormatter(said)


def _legend(axes: "Axes", once: Mapping[str, Any]) -> None:
    """To the right of the plot, where it hides nothing."""
    if once:
        axes.legend(
            list(once.values()), list(once), loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=9, frameon=False,
            labelcolor=INK, handlelength=3.2,
        )  # fmt: skip


def _labelled(axes: "Axes") -> dict[str, Any]:
    handles, names = axes.get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


def _hex(colour: Sequence[float]) -> str:
    from matplotlib.colors import to_hex

    return to_hex((colour[0], colour[1], colour[2]))
