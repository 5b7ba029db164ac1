"""The first sections of a benchmark's report: the strongest arms of each target, and whether sharing saves queries."""

from collections.abc import Mapping, Sequence
from math import inf
from statistics import median
from typing import Any

from evofool.bench.arms import arm_title
from evofool.bench.interval import format_ratio
from evofool.bench.report.formatting import join_names, queries_cell, ratio_cell, selection_note, share_cell
from evofool.pages.bench_plots import ratio_dots
from evofool.pages.html_page import Picture, Plot, RowGroup, Section, Table, TableCell, TableRow

_COMPARED_ARMS = {
    "per-class": "independent hill climbers, one for each class, which share no images (the control)",
    "nes": "an evolution strategy on low-frequency pixels, one class at a time",
    "apgd": "gradient ascent (Auto-PGD), one class at a time, which uses gradients",
}
_SHARING = "Does sharing images between classes save queries?"


def valid_arms(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arms of a target that have a valid seed; none of an invalid target."""
    if not result["valid"]:
        return {}
    return {name: arm for name, arm in result["scores"]["arms"].items() if arm["seeds"]}


def budget_of(result: Mapping[str, Any]) -> int:
    """The largest budget, at which Q50 is censored."""
    return max(result["protocol"]["budgets"])


def strongest(result: Mapping[str, Any], black_box: bool) -> str | None:
    """The arm with the lowest Q50, of the arms that need no gradients if black_box; None if no such arm is valid.

    Of arms with equal Q50 the one that fools more classes. A bound counts as its value; an arm without a Q50 comes last.
    """
    kinds = ("search", "black") if black_box else ("search", "black", "surrogate", "white")

    def order(item: tuple[str, Mapping[str, Any]]) -> tuple[float, list[float]]:
        value = item[1]["q50"]["value"]
        at = sorted(item[1]["r95"], key=lambda row: -row["queries"])
        return (inf if value is None else value, [-(row["value"] or 0.0) for row in at])

    rows = [item for item in valid_arms(result).items() if item[1]["kind"] in kinds]
    return min(rows, key=order)[0] if rows else None


def invalid_reason(result: Mapping[str, Any]) -> str:
    """Why a target is invalid."""
    return "; ".join(flag["message"] for flag in result["flags"] if flag["level"] == "invalid") or "no reason was stored"


def summary_section(results: Sequence[Mapping[str, Any]]) -> Section:
    """The section under the page's title: one sentence, and the strongest arms of each target."""
    invalid = [result for result in results if not result["valid"]]
    fault = "\n".join(
        f"The evaluation of {result['target']['name']} is invalid: {invalid_reason(result)}." for result in invalid
    )
    budgets = sorted({b for result in results for b in result["protocol"]["budgets"]})
    heads = [
        "target", "strongest arm", *(f"fooled at 95% acceptance, {b:,} queries" for b in budgets), "Q50", "Q50 per class",
    ]  # fmt: skip
    by_group: dict[str, list[TableRow]] = {}
    for result in results:
        by_group.setdefault(result["target"].get("group") or "", []).extend(_rows(result, budgets))
    under = (
        "Fooled at 95% acceptance (R95): the share of classes for which the arm found an image that the target classifies "
        "as the class and that passes a rejection threshold set to keep 95% of the real images. Q50: the number of queries, "
        f"over all classes, after which half of the classes are fooled. {brackets_note(results)}"
    )
    if list(by_group) in ([], [""]):
        table = Table(heads, by_group.get("", []), under=under)
    else:
        table = Table(heads, [], groups=[RowGroup(g or "in no group", rows) for g, rows in by_group.items()], under=under)
    return Section("", tables=[table] if results else [], fault=fault, lead=_lead(results))


def sharing_section(results: Sequence[Mapping[str, Any]]) -> Section:
    """MAP-Elites over CPPNs against the arms in which classes share nothing, whatever the outcome."""
    ratios = {result["target"]["name"]: result["scores"].get("sharing") or {} for result in results if result["valid"]}
    ratios = {name: {arm: row for arm, row in by_arm.items() if row} for name, by_arm in ratios.items()}
    ratios = {name: by_arm for name, by_arm in ratios.items() if by_arm}
    arms = list(dict.fromkeys([*_COMPARED_ARMS, *(arm for by_arm in ratios.values() for arm in by_arm)]))
    arms = [arm for arm in arms if any(arm in by_arm for by_arm in ratios.values())]
    text = [
        "MAP-Elites scores every image in all classes, so an image found for one class can become the best of another. "
        "The comparison is at equal queries and paired by seed: the Q50 of each other arm, divided by the Q50 of MAP-Elites "
        "over CPPNs (cppn). Above 1 the other arm needs more queries, below 1 it needs fewer."
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


def images_section(results: Sequence[Mapping[str, Any]], sheets: Mapping[str, Mapping[str, bytes]]) -> Section | None:
    """The images of the strongest arm without gradients, for the target that is fooled with the fewest queries."""
    for result, arm in _ranked(results)[:1]:
        name = result["target"]["name"]
        if png := sheets.get(name, {}).get(arm):
            text = (
                f"The best image of each class for {name}, found by the arm {arm} within {budget_of(result):,} queries (one "
                "seed)."
            )
            picture = Picture(f"{arm} against {name}", png, selection_note(result))
            return Section(f"Images that fool {name}", [text], pictures=[picture])
    return None


def brackets_note(results: Sequence[Mapping[str, Any]]) -> str:
    """What figures in brackets are; a single seed has none."""
    if max((len(result["protocol"]["seeds"]) for result in results), default=0) == 1:
        return "One seed: no intervals."
    confidence = join_names(sorted({f"{result['protocol']['confidence']:.0%}" for result in results}))
    return f"Brackets: {confidence} intervals over seeds."


def _ranked(results: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
    """The valid targets, lowest Q50 first, each with its strongest arm that needs no gradients."""
    return sorted(((result, arm) for result in results if (arm := strongest(result, black_box=True))), key=_q50_value)


def _q50_value(pair: tuple[Mapping[str, Any], str]) -> float:
    known = pair[0]["scores"]["arms"][pair[1]]["q50"]["value"]
    return inf if known is None else known


def _lead(results: Sequence[Mapping[str, Any]]) -> str:
    ranked = _ranked(results)
    arms = "any arm that needs no gradients" if len(ranked) == 1 else "any of these arms"
    if not ranked:
        return "No arm that works without gradients has a valid result."

    def sentence(pair: tuple[Mapping[str, Any], str]) -> str:
        result, arm = pair
        q50, budget = result["scores"]["arms"][arm]["q50"], budget_of(result)
        if q50["value"] is None:
            return f"{result['target']['name']}: {arms} fools less than half of its classes within {budget:,} queries"
        cell = queries_cell(q50, budget)
        each = queries_cell(q50, budget, result["target"]["scored_classes"]).text
        return (
            f"{result['target']['name']}: half of its classes are fooled after {cell.text} queries {cell.faint} over all "
            f"classes, {each} per class, by {arm}"
        )

    if len(ranked) == 1:
        strongest_arm = "" if _q50_value(ranked[0]) == inf else ", the strongest arm that needs no gradients"
        return f"{sentence(ranked[0])}{strongest_arm}."
    return (
        f"Among arms that need no gradients, the fewest queries fool {sentence(ranked[0])}. The most are needed for "
        f"{sentence(ranked[-1])}."
    )


def _rows(result: Mapping[str, Any], budgets: Sequence[int]) -> list[TableRow]:
    name = result["target"]["name"]
    if not result["valid"]:
        return [[name, TableCell(invalid_reason(result), mark="invalid")]]
    black, every = strongest(result, black_box=True), strongest(result, black_box=False)
    if every is None:
        return [[name, TableCell("no arm has a valid seed", mark="invalid")]]
    if black == every:
        return [_row(result, name, every, "of all arms", budgets)]
    rows = [] if black is None else [_row(result, name, black, "without gradients", budgets)]
    return [*rows, _row(result, "" if rows else name, every, "of all arms", budgets)]


def _row(result: Mapping[str, Any], name: str, arm: str, among: str, budgets: Sequence[int]) -> TableRow:
    scores, budget = result["scores"]["arms"][arm], budget_of(result)
    at = {row["queries"]: row for row in scores["r95"]}
    shares = [share_cell(at.get(b)) for b in budgets]
    each = queries_cell(scores["q50"], budget, result["target"]["scored_classes"])
    return [name, TableCell(arm_title(arm, scores), among), *shares, queries_cell(scores["q50"], budget), each]


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
