"""Sections about several targets: their images, and the queries of every arm."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.arms import arm_title
from evofool.bench.report.formatting import queries_cell, selection_note, share_cell
from evofool.bench.report.overview import brackets_note, budget_of, invalid_reason, strongest, valid_arms
from evofool.pages.bench_plots import q50_dots
from evofool.pages.html_page import Picture, Plot, RowGroup, Section, Table, TableCell, TableRow

Results = Sequence[Mapping[str, Any]]


def strips_section(results: Results, strips: Mapping[str, Sequence[Picture]]) -> Section | None:
    """A row of images of each target. strips: by target, pictures that its strongest arm without gradients has found."""
    shown = [result for result in results if strips.get(result["target"]["name"])]
    if not shown:
        return None
    parts = [Section(result["target"]["name"], pictures=strips[result["target"]["name"]]) for result in shown]
    which = next(filter(None, map(selection_note, shown)), "")
    text = [
        "The first images of the strongest attack that needs no gradients, of one seed: the class that each was made for, "
        f"and the target's confidence.{f' Of {which}.' if which else ''} The page of a target has more."
    ]
    return Section("Images made to fool them", text, parts=parts)


def queries_section(results: Results) -> Section | None:
    """Q50 of every target and arm, drawn."""
    shown = {
        result["target"]["name"]: {name: arm["q50"] for name, arm in valid_arms(result).items() if arm["kind"] != "floor"}
        for result in results
    }
    shown = {name: by_arm for name, by_arm in shown.items() if by_arm}
    if not shown:
        return None
    budgets = {result["target"]["name"]: budget_of(result) for result in results}
    text = [
        "Further to the left: fewer queries. Of arms that use gradients only the queries are shown here, not the backward "
        "passes."
    ]
    drawn = Plot("Queries by target and arm", q50_dots(shown, budgets), "Lines: intervals over seeds. Arrows: bounds.")
    return Section("Queries until half of the classes are fooled", text, plots=[drawn])


def budgets_section(results: Results) -> Section:
    """The strongest arms of each target, with and without gradients, at every budget."""
    budgets = sorted({b for result in results for b in result["protocol"]["budgets"]})
    heads = ["target", "strongest arm", *(f"fooled, {b:,} queries" for b in budgets), "Q50", "Q50 a class"]
    by_group: dict[str, list[TableRow]] = {}
    for result in results:
        by_group.setdefault(result["target"].get("group") or "", []).extend(_arm_rows(result, budgets))
    under = (
        "Fooled at 95% acceptance (R95): the share of classes for which the arm found an image that passes a threshold set "
        "to keep 95% of the real images. Q50: the number of queries, over all classes, after which half of the classes are "
        f"fooled. {brackets_note(results)}"
    )
    groups = [RowGroup(group or "in no group", rows) for group, rows in by_group.items()]
    if list(by_group) in ([], [""]):
        table = Table(heads, by_group.get("", []), under=under)
    else:
        table = Table(heads, groups=groups, under=under)
    return Section("Strongest arms at every budget", tables=[table], closed=True)


def _arm_rows(result: Mapping[str, Any], budgets: Sequence[int]) -> list[TableRow]:
    name = result["target"]["name"]
    if not result["valid"]:
        return [[name, TableCell(invalid_reason(result), mark="invalid")]]
    black, every = strongest(result, black_box=True), strongest(result, black_box=False)
    if every is None:
        return [[name, TableCell("no arm has a valid seed", mark="invalid")]]
    if black == every:
        return [_arm_row(result, every, "of all arms", budgets)]
    rows = [] if black is None else [_arm_row(result, black, "without gradients", budgets)]
    return [*rows, _arm_row(result, every, "of all arms", budgets)]


def _arm_row(result: Mapping[str, Any], arm: str, among: str, budgets: Sequence[int]) -> TableRow:
    scores, budget = result["scores"]["arms"][arm], budget_of(result)
    at = {row["queries"]: row for row in scores["r95"]}
    shares = [share_cell(at.get(b)) for b in budgets]
    each = queries_cell(scores["q50"], budget, result["target"]["scored_classes"])
    title = TableCell(arm_title(arm, scores), among)
    return [result["target"]["name"], title, *shares, queries_cell(scores["q50"], budget), each]
