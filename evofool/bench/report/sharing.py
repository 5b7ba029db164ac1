"""Whether sharing images between classes saves queries."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from evofool.bench.interval import format_ratio
from evofool.bench.report.formatting import ratio_cell
from evofool.pages.bench_plots import ratio_dots
from evofool.pages.html_page import Plot, Section, Table

_COMPARED_ARMS = {
    "per-class": "independent hill climbers, one for each class, which share no images (the control)",
    "nes": "an evolution strategy on low-frequency pixels, one class at a time",
    "apgd": "gradient ascent (Auto-PGD), one class at a time, which uses gradients",
}
_SHARING = "Does sharing images between classes save queries?"


def sharing_section(results: Sequence[Mapping[str, Any]]) -> Section:
    """MAP-Elites over CPPNs against the arms in which classes share nothing, whatever the outcome."""
    ratios = {result["target"]["name"]: result["scores"].get("sharing") or {} for result in results if result["valid"]}
    ratios = {name: {arm: row for arm, row in by_arm.items() if row} for name, by_arm in ratios.items()}
    ratios = {name: by_arm for name, by_arm in ratios.items() if by_arm}
    arms = list(dict.fromkeys([*_COMPARED_ARMS, *(arm for by_arm in ratios.values() for arm in by_arm)]))
    arms = [arm for arm in arms if any(arm in by_arm for by_arm in ratios.values())]
    text = [
        "MAP-Elites scores every image in all classes, so an image found for one class can become the best of another. "
        "Compared are the queries until half of the classes are fooled (Q50), paired by seed: those of each other arm, "
        "divided by those of MAP-Elites over CPPNs (cppn). Above 1 the other arm needs more queries, below 1 it needs fewer."
    ]
    if not ratios:
        lead = "Not measured: the comparison needs the arm cppn and one of per-class, nes and apgd on a valid target."
        return Section(_SHARING, text, lead=lead)
    text += [_compared_sentence(arm, ratios) for arm in arms]
    rows = [[name, *(ratio_cell(by_arm.get(arm)) for arm in arms), _pairs(by_arm)] for name, by_arm in ratios.items()]
    heads = ["target", *(f"{arm} / cppn" for arm in arms), "pairs (censored)"]
    table = Table(heads, rows)
    shown = {name: {arm: row for arm, row in by_arm.items() if row["value"]} for name, by_arm in ratios.items()}
    shown = {name: by_arm for name, by_arm in shown.items() if by_arm}
    title, under = (
        "Q50 of the other arms, as a multiple of the Q50 of MAP-Elites",
        "Lines: intervals over seeds. Arrows: bounds.",
    )
    plots = [Plot(title, ratio_dots(shown), under)] if shown else []
    return Section(_SHARING, text, plots=plots, tables=[table], lead=_sharing_lead(ratios))


def _side(row: Mapping[str, Any]) -> str:
    """On which side of 1 the interval of a ratio lies: above, below, or both."""
    low, high = row.get("low"), row.get("high")
    return "above" if low is not None and low > 1 else "below" if high is not None and high < 1 else "both"


def _sharing_lead(ratios: Mapping[str, Mapping[str, Any]]) -> str:
    sides = [_side(by_arm["per-class"]) for by_arm in ratios.values() if "per-class" in by_arm]
    if not sides:
        return "Not measured against the control: the arm per-class was not run."
    n, above, below = len(sides), sides.count("above"), sides.count("below")
    where = (
        "" if n == 1 else f" (fewer queries on {above} of {n} targets, more on {below}, undecided on {n - above - below})"
    )
    if not above and not below:
        return "Undecided: against the control, the interval of the ratio excludes 1 on no target."
    if below and above:
        return f"It depends on the target: against the control, sharing saves queries on some, costs them on others{where}."
    answer = f"{'Yes' if above else 'No'}: against the control, sharing {'saves' if above else 'costs'} queries"
    return f"{answer} on the targets where the interval excludes 1{where}." if above + below < n else f"{answer}{where}."


def _compared_sentence(arm: str, ratios: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [by_arm[arm] for by_arm in ratios.values() if arm in by_arm]
    sides = [_side(row) for row in rows]
    start = f"Against {arm}{f' ({_COMPARED_ARMS[arm]})' if arm in _COMPARED_ARMS else ''}: "
    if len(rows) == 1:
        means = {
            "above": "MAP-Elites needs fewer queries",
            "below": "MAP-Elites needs more queries",
            "both": "undecided",
        }
        cell = ratio_cell(rows[0])
        return f"{start}{means[sides[0]]}; the ratio is {cell.text} {cell.faint}."
    return (
        f"{start}MAP-Elites needs fewer queries on {sides.count('above')} of {len(rows)} targets, more on "
        f"{sides.count('below')}, undecided on {sides.count('both')}{_median(rows)}."
    )


def _median(rows: Sequence[Mapping[str, Any]]) -> str:
    """The median of bounds on one side is a bound; with bounds on both sides there is no median."""
    signs = {row["bound"] for row in rows} - {"="}
    if len(signs) > 1 or "unknown" in signs:
        return ""
    sign = f"{signs.pop()} " if signs else ""
    return f"; the median ratio is {sign}{format_ratio(median(row['value'] for row in rows))}"


def _pairs(by_arm: Mapping[str, Mapping[str, Any]]) -> str:
    texts = {f"{row['pairs']} ({row['censored']})" for row in by_arm.values()}
    if len(texts) == 1:
        return texts.pop()
    return ", ".join(f"{arm} {row['pairs']} ({row['censored']})" for arm, row in by_arm.items())
