"""The report's control of the margin: the same attacks under the other acceptance scores."""

from collections.abc import Mapping
from typing import Any

from evofool.bench.acceptance import DESCRIPTIONS
from evofool.bench.arms import arm_title
from evofool.bench.report.formatting import format_share, queries_cell, share_cell
from evofool.bench.report.overview import budget_of
from evofool.pages.html_page import NOTHING, Section, Table, TableCell, TableRow


def scores_section(result: Mapping[str, Any]) -> Section | None:
    """How far the acceptance scores differ (scores.spread); None where the result has none, as earlier ones."""
    spread = result["scores"].get("spread")
    if not result["valid"] or not spread or not spread["scores"]:
        return None
    budget, scored = budget_of(result), result["target"]["scored_classes"]
    rows: list[TableRow] = []
    for name, row in spread["scores"].items():
        arm, control = row["arm"], row["control"]
        kept = TableCell(NOTHING)
        if control["images"]:
            kept = TableCell(format_share(control["accepted"]), f"± {control['standard_error']:.3f}")
        rows.append(
            [
                TableCell(name, DESCRIPTIONS.get(name, "")),
                arm_title(arm, result["scores"]["arms"].get(arm, {})),
                share_cell(row["r95"]),
                queries_cell(row["q50"], budget, scored),
                kept,
            ]
        )
    text = [
        "The attacks rank by margin, and every image is also looked at under the other scores, at no further queries. Each "
        "score has a threshold of its own that keeps 95% of real images. A defence counts only as far as it holds under the "
        "easiest score: figures that are much harder by margin than under another score may be those of changed logits.",
        *(f"Left out: {name}: {reason}." for name, reason in spread["left_out"].items()),
    ]
    heads = [
        "score", "strongest attack", f"classes fooled, {budget:,} queries over all", "queries a class until half are fooled",
        "real images kept (held-out half)",
    ]  # fmt: skip
    lead = f"The easiest score is {spread['easiest']}." if len(rows) > 1 else ""
    return Section("Acceptance under several scores", text, tables=[Table(heads, rows)], lead=lead, closed=True)
