"""What every part of a report asks of a result: its valid arms, the strongest of them, and why it is invalid."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from evofool.bench.arms import arm_title
from evofool.bench.report.formatting import KINDS, join_names
from evofool.pages.html_page import RowGroup


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


def brackets_note(results: Sequence[Mapping[str, Any]]) -> str:
    """What figures in brackets are; a single seed has none."""
    if max((len(result["protocol"]["seeds"]) for result in results), default=0) == 1:
        return "One seed: no intervals."
    confidence = join_names(sorted({f"{result['protocol']['confidence']:.0%}" for result in results}))
    return f"Brackets: {confidence} intervals over seeds."


def by_kind(result: Mapping[str, Any], row: Any) -> list[RowGroup]:
    """Rows of a table for each arm, invalid ones too, under the kind of the arm. row: makes that of an arm, by its title."""
    arms = result["scores"]["arms"]
    kinds = dict.fromkeys([*KINDS, *(arm["kind"] for arm in arms.values())])
    groups = [
        (kind, [row(arm_title(name, arm), arm) for name, arm in arms.items() if arm["kind"] == kind]) for kind in kinds
    ]
    return [RowGroup(KINDS.get(kind, kind), rows) for kind, rows in groups if rows]
