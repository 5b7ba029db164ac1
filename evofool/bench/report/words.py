"""Figures as the report says them: shares, queries that may be more than a budget, quantiles, durations."""

from collections.abc import Mapping
from typing import Any

from evofool.pages.html import NOTHING, Cell

KINDS = {"search": "Search", "black": "Black box", "white": "White box", "floor": "Floor"}
"""Kinds of arms in the order of the report."""


def share(value: float | None) -> str:
    """0..1 by two decimals; 0.00 and 1.00 are said of nothing else."""
    if value is None:
        return NOTHING
    if 0 < value < 0.005:
        return "<0.01"
    if 0.995 <= value < 1:
        return ">0.99"
    return f"{value:.2f}"


def queries(value: float | None, budget: float, per: float = 1) -> str:
    """Queries for `per` classes each, of a total; None is more than the budget."""
    known = budget if value is None else value
    said = f"{known / per:,.0f}" if known / per >= 10 else f"{known / per:.1f}"
    return f">{said}" if value is None else said


def share_cell(row: Mapping[str, Any] | None) -> Cell:
    """A share with its interval, of "value", "low" and "high"."""
    if not row or row.get("value") is None:
        return Cell(NOTHING)
    known = row.get("low") is not None and row.get("high") is not None
    return Cell(share(row["value"]), f"[{share(row['low'])}, {share(row['high'])}]" if known else "")


def queries_cell(row: Mapping[str, Any], budget: float, per: float = 1) -> Cell:
    """A Q50 with its interval; one that is censored at both ends is left out. ≥: some seeds are censored."""
    low, high = row.get("low"), row.get("high")
    censored = low is None or (row.get("value") is None and low >= budget)
    inside = "" if censored else f"[{queries(low, budget, per)}, {queries(high, budget, per)}]"
    least = "≥ " if row.get("censored") and row.get("value") is not None else ""
    return Cell(least + queries(row.get("value"), budget, per), inside)


def ratio_cell(row: Mapping[str, Any]) -> Cell:
    """A paired ratio with its interval; without an upper bound it is "and more"."""
    if row.get("ratio") is None:
        return Cell(NOTHING, "all pairs censored")
    low, high = row.get("low"), row.get("high")
    if low is None:
        return Cell(f"{row['ratio']:.2f}", "no interval" if high is None else f"at most {high:.2f}")
    return Cell(f"{row['ratio']:.2f}", f"[{low:.2f} and more]" if high is None else f"[{low:.2f}, {high:.2f}]")


def quantiles_cell(row: Mapping[str, float | None] | None, digits: int = 2) -> Cell:
    """The median, and behind it the 5% and 95% quantiles."""
    if not row or row.get("50") is None:
        return Cell(NOTHING)
    low, middle, high = (row.get(key) for key in ("5", "50", "95"))
    known = low is not None and high is not None
    return Cell(f"{middle:,.{digits}f}", f"[{low:,.{digits}f}, {high:,.{digits}f}]" if known else "")


def confidences_cell(row: Mapping[str, float | None] | None) -> Cell:
    """Confidences: the median, and behind it the 5% and 95% quantiles; 1 is said of nothing else."""

    def said(p: float | None) -> str:
        if p is None:
            return NOTHING
        return ">0.9999" if 0.99995 <= p < 1 else f"{p:.4g}" if p >= 1e-4 or p == 0 else "<0.0001"

    if not row or row.get("50") is None:
        return Cell(NOTHING)
    return Cell(said(row["50"]), f"[{said(row.get('5'))}, {said(row.get('95'))}]")


def duration(seconds: float | None) -> str:
    """In the unit that people would use."""
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(words: list[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"
