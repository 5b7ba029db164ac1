"""What every part of a report asks of a result: its valid arms, the strongest of them, and why it is invalid."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from evofool.bench.acceptance import MARGIN
from evofool.bench.arms import arm_title
from evofool.bench.report.formatting import KINDS, join_names
from evofool.bench.report.places import Figures, Fooled
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


def arm_figures(result: Mapping[str, Any], arm: str) -> Figures:
    """What orders an arm with a valid seed among others of its target, or with the strongest arms of other targets."""
    scores, budget = result["scores"]["arms"][arm], budget_of(result)
    last = max(scores["r95"], key=lambda row: row["queries"], default=None)
    if last is None:
        return Figures(scores["q50"], budget=budget)
    by_seed = _hits(result, [arm], scores["seeds"], MARGIN, budget)
    return Figures(scores["q50"], _fooled(result, last, by_seed, last.get("threshold_variance", 0.0)), budget)


def suite_figures(result: Mapping[str, Any]) -> Figures:
    """What orders a target with a headline among others: the queries and the classes of the headline's suite."""
    row = result["scores"]["headline"]
    within = row["queries_per_class"] * row["classes"]
    by_seed = _hits(result, row["by_score"][row["score"]].get("arms", row["arms"]), row["seeds"], row["score"], within)
    variance = row["by_score"][row["score"]].get("threshold_variance", 0.0)
    return Figures(row["queries"], _fooled(result, row, by_seed, variance), row["queries_per_class"])


def _fooled(
    result: Mapping[str, Any], share: Mapping[str, Any], by_seed: Mapping[str, Sequence[bool]], variance: float
) -> Fooled:
    images, target = result["images"], result["target"]
    unscored = {*images.get("classes_without_images", ()), *images.get("classes_left_out", ())}
    classes = tuple(label for label in target["labels"] if label not in unscored)
    return Fooled(share, classes, by_seed, f"{target['fingerprint']} {images['sha256']}", variance)


def _hits(
    result: Mapping[str, Any], arms: Sequence[str], seeds: Sequence[int], score: str, within: float
) -> dict[str, list[bool]]:
    """By seed, whether any of the arms has fooled each scored class within so many queries; empty if it is not known."""
    found: dict[str, list[bool]] = {}
    for arm in arms:
        scores = result["scores"]["arms"][arm]
        of_score = scores if score == MARGIN else scores.get("by_score", {}).get(score, {})
        by_seed = of_score.get("accepted_at", {})
        if any(str(seed) not in by_seed for seed in seeds):
            return {}
        for seed in map(str, seeds):
            hits = [at is not None and at <= within for at in by_seed[seed]]
            found[seed] = [a or b for a, b in zip(hits, found.get(seed, hits), strict=True)]
    return found


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
