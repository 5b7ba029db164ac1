"""What came out of a benchmark, in tables and sentences: the strongest arms of each target, whether sharing helps."""

from collections.abc import Mapping, Sequence
from math import inf
from statistics import median
from typing import Any

from evofool.bench.interval import format_ratio
from evofool.bench.report.formatting import join_words, queries_cell, ratio_cell, selection_note, share_cell
from evofool.pages.bench_plots import ratio_dots
from evofool.pages.html_page import Picture, Plot, RowGroup, Section, Table, TableCell, TableRow

_RIVALS = {
    "per-class": "independent climbers, one for each class, which share nothing (the control)",
    "nes": "an evolution strategy on low-frequency pixels, class by class",
    "apgd": "gradient ascent (Auto-PGD), class by class, which sees gradients",
}


def valid_arms(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arms of a target that have a valid seed; none of a target that is invalid."""
    if not result["valid"]:
        return {}
    return {name: arm for name, arm in result["scores"]["arms"].items() if arm["seeds"]}


def budget_of(result: Mapping[str, Any]) -> int:
    """The largest budget, at which queries are censored."""
    return max(result["protocol"]["budgets"])


def strongest(result: Mapping[str, Any], black_box: bool) -> str | None:
    """The arm of the least Q50, of those that ask only if black_box; of equals the one that has more classes accepted.

    A bound counts as its value, and what is beyond the budget comes last.
    """
    kinds = ("search", "black") if black_box else ("search", "black", "white")

    def order(item: tuple[str, Mapping[str, Any]]) -> tuple[float, list[float]]:
        value = item[1]["q50"]["value"]
        at = sorted(item[1]["r95"], key=lambda row: -row["queries"])
        return (inf if value is None else value, [-(row["value"] or 0.0) for row in at])

    rows = [item for item in valid_arms(result).items() if item[1]["kind"] in kinds]
    return min(rows, key=order)[0] if rows else None


def invalid_reason(result: Mapping[str, Any]) -> str:
    """Why a target is invalid."""
    return "; ".join(flag["message"] for flag in result["flags"] if flag["level"] == "invalid") or "no reason was stored"


def verdict(results: Sequence[Mapping[str, Any]]) -> Section:
    """What stands under the page's title."""
    bad = [one for one in results if not one["valid"]]
    fault = "\n".join(f"The evaluation of {one['target']['name']} is invalid: {invalid_reason(one)}." for one in bad)
    budgets = sorted({b for one in results for b in one["protocol"]["budgets"]})
    heads = ["target", "strongest arm", *(f"R95 at {b:,}" for b in budgets), "Q50", "Q50 per class"]
    titled: dict[str, list[TableRow]] = {}
    for one in results:
        titled.setdefault(one["target"].get("group") or "", []).extend(_rows(one, budgets))
    under = (
        "R95 at q: the share of classes with an image that is no instance of it and that a rejector which keeps 95% of "
        "the real images lets through, after q queries in all. Q50: queries in all until that is half of the classes. "
        f"{brackets_note(results)}"
    )
    if list(titled) in ([], [""]):
        table = Table(heads, titled.get("", []), under=under)
    else:
        table = Table(heads, [], groups=[RowGroup(g or "in no group", rows) for g, rows in titled.items()], under=under)
    return Section("", tables=[table] if results else [], fault=fault, lead=_sentence(results))


def sharing(results: Sequence[Mapping[str, Any]]) -> Section:
    """The settled question, answered whatever the answer is."""
    asked = {one["target"]["name"]: one["scores"].get("sharing") or {} for one in results if one["valid"]}
    asked = {name: {r: row for r, row in own.items() if row} for name, own in asked.items()}
    asked = {name: own for name, own in asked.items() if own}
    rivals = list(dict.fromkeys([*_RIVALS, *(r for own in asked.values() for r in own)]))
    rivals = [r for r in rivals if any(r in own for own in asked.values())]
    text = [
        "MAP-Elites tries every image in all classes at once, so a class may inherit from another. Whether that saves "
        "queries is asked at equal queries, paired by seed: the Q50 of each rival, divided by that of MAP-Elites over "
        "CPPNs (cppn). Above 1 the rival needs more queries, so MAP-Elites is ahead; below 1 the rival is."
    ]
    if not asked:
        lead = "Not answered: the comparison needs the arm cppn and one of per-class, nes and apgd, on a valid target."
        return Section("Does sharing between classes help?", text, lead=lead)
    text += [_against(rival, asked) for rival in rivals]
    rows = [[name, *(ratio_cell(own.get(r)) for r in rivals), _pairs(own)] for name, own in asked.items()]
    heads = ["target", *(f"{r} / cppn" for r in rivals), "pairs (censored)"]
    table = Table(heads, rows)
    shown = {name: {r: row for r, row in own.items() if row["value"]} for name, own in asked.items()}
    shown = {name: own for name, own in shown.items() if own}
    title, under = (
        "Queries of the rivals, as a multiple of those of MAP-Elites",
        "Lines: intervals over seeds; an arrow: a bound.",
    )
    plots = [Plot(title, ratio_dots(shown), under)] if shown else []
    return Section("Does sharing between classes help?", text, plots=plots, tables=[table], lead=_answer(asked))


def what_fools(results: Sequence[Mapping[str, Any]], sheets: Mapping[str, Mapping[str, bytes]]) -> Section | None:
    """The images of the strongest arm that asks only, against the target that is the easiest to fool by one."""
    for one, arm in _ranked(results)[:1]:
        name = one["target"]["name"]
        if png := sheets.get(name, {}).get(arm):
            text = f"What {name} takes for its classes: images of {arm} after {budget_of(one):,} queries, of one seed."
            shown = Picture(f"{arm} against {name}", png, selection_note(one))
            return Section(f"What fools {name}", [text], pictures=[shown])
    return None


def _ranked(results: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
    """The valid targets, the easiest to fool first, each with its strongest arm that asks only."""
    return sorted(((one, arm) for one in results if (arm := strongest(one, black_box=True))), key=_value)


def _value(pair: tuple[Mapping[str, Any], str]) -> float:
    known = pair[0]["scores"]["arms"][pair[1]]["q50"]["value"]
    return inf if known is None else known


def _sentence(results: Sequence[Mapping[str, Any]]) -> str:
    best = _ranked(results)
    whom = "any arm that needs no gradients" if len(best) == 1 else "any of these"
    if not best:
        return "There is no valid result of an arm that asks only, so there is no verdict."

    def told(pair: tuple[Mapping[str, Any], str]) -> str:
        one, arm = pair
        q50, budget = one["scores"]["arms"][arm]["q50"], budget_of(one)
        if q50["value"] is None:
            return f"{one['target']['name']}: half of its classes are not accepted within {budget:,} queries by {whom}"
        cell = queries_cell(q50, budget)
        each = queries_cell(q50, budget, one["target"]["scored_classes"]).text
        return (
            f"{one['target']['name']}: half of its classes are accepted after {cell.text} queries {cell.faint} in all, "
            f"{each} a class, by {arm}"
        )

    if len(best) == 1:
        return f"{told(best[0])}{'' if _value(best[0]) == inf else ', the strongest arm that needs no gradients'}."
    return f"By arms that need no gradients, the easiest to fool is {told(best[0])}. The hardest is {told(best[-1])}."


def _rows(one: Mapping[str, Any], budgets: Sequence[int]) -> list[TableRow]:
    name = one["target"]["name"]
    if not one["valid"]:
        return [[name, TableCell(invalid_reason(one), mark="invalid")]]
    black, every = strongest(one, black_box=True), strongest(one, black_box=False)
    if every is None:
        return [[name, TableCell("no arm has a valid seed", mark="invalid")]]
    if black == every:
        return [_row(one, name, every, "of all, and of black box", budgets)]
    rows = [] if black is None else [_row(one, name, black, "of black box", budgets)]
    return [*rows, _row(one, "" if rows else name, every, "of all", budgets)]


def _row(one: Mapping[str, Any], name: str, arm: str, of: str, budgets: Sequence[int]) -> TableRow:
    scores, budget = one["scores"]["arms"][arm], budget_of(one)
    at = {row["queries"]: row for row in scores["r95"]}
    shares = [share_cell(at.get(b)) for b in budgets]
    each = queries_cell(scores["q50"], budget, one["target"]["scored_classes"])
    return [name, TableCell(arm, of), *shares, queries_cell(scores["q50"], budget), each]


def brackets_note(results: Sequence[Mapping[str, Any]]) -> str:
    """What figures in brackets are; a single seed has none."""
    if max((len(one["protocol"]["seeds"]) for one in results), default=0) == 1:
        return "One seed: no intervals."
    confidence = join_words(sorted({f"{one['protocol']['confidence']:.0%}" for one in results}))
    return f"Brackets: {confidence} intervals over seeds."


def _outcome(row: Mapping[str, Any]) -> str:
    """ahead, behind or open: where the interval of a ratio lies."""
    low, high = row.get("low"), row.get("high")
    return "ahead" if low is not None and low > 1 else "behind" if high is not None and high < 1 else "open"


def _answer(asked: Mapping[str, Mapping[str, Any]]) -> str:
    control = [_outcome(own["per-class"]) for own in asked.values() if "per-class" in own]
    if not control:
        return "Not answered against the control: the arm own was not run."
    n, ahead, behind = len(control), control.count("ahead"), control.count("behind")
    where = "" if n == 1 else f" ({ahead} of {n} targets ahead, {behind} behind, {n - ahead - behind} open)"
    if not ahead and not behind:
        return f"It cannot be told: against the control no interval of the ratio leaves 1 out{where}."
    if behind and ahead:
        return f"It depends on the target, measured against the control{where}."
    yes = f"{'Yes' if ahead else 'No'}, against the control: sharing {'saves' if ahead else 'costs'} queries"
    return f"{yes} where it can be told{where}." if ahead + behind < n else f"{yes}{where}."


def _against(rival: str, asked: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [own[rival] for own in asked.values() if rival in own]
    outcomes = [_outcome(row) for row in rows]
    what = f"Against {rival}{f', {_RIVALS[rival]}' if rival in _RIVALS else ''}: "
    if len(rows) == 1:
        means = {
            "ahead": "MAP-Elites needs fewer queries",
            "behind": "MAP-Elites needs more queries",
            "open": "which needs fewer queries cannot be told",
        }
        cell = ratio_cell(rows[0])
        return f"{what}{means[outcomes[0]]}; the ratio is {cell.text} {cell.faint}."
    return (
        f"{what}MAP-Elites needs fewer queries on {outcomes.count('ahead')} of {len(rows)} targets, more on "
        f"{outcomes.count('behind')}, and on {outcomes.count('open')} it cannot be told{_median(rows)}."
    )


def _median(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of bounds it is one; of bounds from both sides it is none."""
    signs = {row["bound"] for row in rows} - {"="}
    if len(signs) > 1 or "unknown" in signs:
        return ""
    sign = f"{signs.pop()} " if signs else ""
    return f"; the median ratio is {sign}{format_ratio(median(row['value'] for row in rows))}"


def _pairs(own: Mapping[str, Mapping[str, Any]]) -> str:
    said = {f"{row['pairs']} ({row['censored']})" for row in own.values()}
    return said.pop() if len(said) == 1 else ", ".join(f"{r} {row['pairs']} ({row['censored']})" for r, row in own.items())
