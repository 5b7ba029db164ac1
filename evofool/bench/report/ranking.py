"""The order of targets, the hardest to fool first, as far as their intervals show one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evofool.bench.arms import arm_title
from evofool.bench.comparable import headline_conditions, other_answers
from evofool.bench.report.formatting import counted, join_names, queries_cell, share_cell
from evofool.bench.report.likeness import looked_sentence
from evofool.bench.report.overview import arm_figures, brackets_note, budget_of, invalid_reason, strongest, suite_figures
from evofool.bench.report.places import (
    CLASSES,
    PLACE_NOTE,
    QUERIES,
    Figures,
    by_basis,
    by_queries,
    listed,
    no_difference,
    places,
    tied_first,
    with_shares,
)
from evofool.pages.html_page import NOTHING, Section, Table, TableCell, TableRow

Results = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Compared:
    """The figure that orders the targets. head: of its column; note: what it is.

    rows: by name of a valid target, the queries a class, and the share of classes that is fooled, under fooled_head. most:
    by name, what queries of None are above. apart: why the targets have no order, "" if they have one.
    """

    head: str
    note: str
    rows: Mapping[str, Figures]
    most: Mapping[str, float]
    fooled_head: str
    apart: str = ""

    def cell(self, name: str) -> TableCell:
        return queries_cell(self.rows[name].queries, self.most[name])

    def fooled_cell(self, name: str) -> TableCell:
        fooled = self.rows[name].fooled
        return share_cell(fooled.share if fooled else None)


def ranking_head(results: Results, pages: Mapping[str, str]) -> Section:
    """What is under the title: which targets are shown to differ, and all of them, the hardest to fool first.

    pages: by target, the path of its page.
    """
    fault = "\n".join(
        f"The evaluation of {result['target']['name']} is invalid: {invalid_reason(result)}."
        for result in results
        if not result["valid"]
    )
    compared = _compared(results)
    text = [looked_sentence([result for result in results if result["valid"]])] if compared.rows else []
    return Section("", text, tables=[_table(results, compared, pages)], fault=fault, lead=ranking_lead(results))


def ranking_lead(results: Results) -> str:
    """Which target is the hardest to fool, and which the easiest, if that is shown."""
    compared = _compared(results)
    rows = compared.rows
    if not rows:
        return "No target has a valid result."
    hard, easy = tied_first(rows, most=True), tied_first(rows)
    if len(rows) == 1:
        return f"Only {hard[0]} has a valid result, so nothing is compared."
    if compared.apart:
        return f"Not compared, because an image takes another number of queries on each target: {compared.apart}."
    if len(hard) == len(rows):
        return no_difference(rows, hard)

    def sentence(names: Sequence[str], what: str, most: bool) -> str:
        if len(names) > 1:
            return f"No difference shown between {listed(names)}, {what} to fool."
        queries = f"{compared.cell(names[0]).text} queries a class"
        others = by_basis(rows, names[0], most)
        if CLASSES not in others:
            return f"{names[0]} is {what} to fool ({queries})."
        by = [f"by queries ({queries}) against {listed(others[QUERIES])}"] if QUERIES in others else []
        by.append(
            f"by {compared.fooled_head} ({rows[names[0]].share}) against {with_shares(rows, others[CLASSES])}, since their "
            "intervals of queries cannot be compared"
        )
        return f"{names[0]} is {what} to fool: {', and '.join(by)}."

    return f"{sentence(hard, 'the hardest', True)} {sentence(easy, 'the easiest', False)}"


def sorted_results(results: Results) -> list[Mapping[str, Any]]:
    """The targets in the order of the page: the hardest to fool first, or as given without an order; invalid ones last."""
    compared = _compared(results)
    order = list(compared.rows) if compared.apart else list(reversed(by_queries(compared.rows)))
    known = {result["target"]["name"]: result for result in results}
    return [known[name] for name in order] + [result for name, result in known.items() if name not in order]


def _compared(results: Results) -> _Compared:
    """The queries of the headline's suite, if all valid targets compare by them (bench.comparable); else of the best arm."""
    best = {result["target"]["name"]: arm for result in results if (arm := strongest(result, black_box=False))}
    valid = {result["target"]["name"]: result for result in results if result["target"]["name"] in best}
    headlines = {name: row for name, result in valid.items() if (row := result["scores"].get("headline"))}
    common = [headline_conditions(valid[name]) for name in headlines]
    if common and len(headlines) == len(valid) and all(each == common[0] for each in common):
        most, arms = common[0]["queries a class"], common[0]["attacks"]
        return _Compared(
            "queries until a class is fooled",
            f"By the suite ({join_names(arms)}); queries: the geometric mean over classes, where a class that is not fooled "
            f"counts as {most:,}.",
            {name: suite_figures(valid[name]) for name in headlines},
            dict.fromkeys(headlines, most),
            f"classes fooled within {most:,} queries a class",
        )
    rows, limits = {}, {}
    budget = max((budget_of(result) for result in results), default=0)
    for name, result in valid.items():
        figures, scored = arm_figures(result, best[name]), result["target"]["scored_classes"]
        q50, limits[name] = figures.queries, budget_of(result) / scored
        queries = {**q50, **{key: q50[key] and q50[key] / scored for key in ("value", "low", "high")}}
        rows[name] = Figures(queries, figures.fooled if budget_of(result) == budget else None, limits[name])
    note = "By the strongest attack on each target."
    if len(headlines) == len(valid) > 1:
        other = [key for key in common[0] if any(each[key] != common[0][key] for each in common)]
        note += f" Their headlines do not compare; what differs: {', '.join(other)}."
    head = f"classes fooled after {budget:,} queries over all"
    apart = other_answers(valid.values())
    return _Compared("queries a class until half are fooled", note, rows, limits, head, apart)


def _table(results: Results, compared: _Compared, pages: Mapping[str, str]) -> Table:
    rows: list[TableRow] = []
    found, n = places(compared.rows), len(compared.rows)
    for result in sorted_results(results):
        name = result["target"]["name"]
        warnings = sum(flag["level"] == "warning" for flag in result["flags"])
        beside = [group] if (group := result["target"].get("group") or "") not in ("", name) else []
        beside += [counted(warnings, "warning")] if warnings else []
        link = TableCell(name, ", ".join(beside), path=pages.get(name, ""))
        if name not in compared.rows:
            why = "no arm has a valid seed" if result["valid"] else invalid_reason(result)
            rows.append([link, TableCell(why, mark="invalid")])
            continue
        # Places count from the hardest target.
        best, worst = n + 1 - found[name].worst, n + 1 - found[name].best
        place = NOTHING if compared.apart else f"{best}" if best == worst else f"{best} to {worst}"
        arm = strongest(result, black_box=False) or ""
        rows.append(
            [
                link,
                place,
                compared.cell(name),
                compared.fooled_cell(name),
                arm_title(arm, result["scores"]["arms"][arm]),
            ]
        )
    heads = ["target", "place", compared.head, compared.fooled_head, "strongest attack"]
    under = f"{compared.note} {PLACE_NOTE.replace('the fewest queries', 'the most queries')} {brackets_note(results)}"
    return Table(heads, rows, under=under)
