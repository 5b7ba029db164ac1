"""Figures as the report shows them: shares, numbers of queries that may be bounds, quantiles, durations."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.interval import Interval, format_queries, format_ratio
from evofool.pages.html_page import NOTHING, TableCell

SHOWN = 30
"""The most images on a contact sheet of the report."""

KINDS = {
    "search": "Search",
    "black": "Black box",
    "surrogate": "Transfer, by surrogates",
    "white": "White box",
    "floor": "Noise",
}
"""Kinds of arms in the order of the report."""

MET = {True: "met", False: "not met", None: "undecided"}
"""How a statement or a control turned out."""


def format_share(value: float | None) -> str:
    """0..1 with two decimals. Only 0 is written 0.00 and only 1 is written 1.00; NOTHING for None."""
    if value is None:
        return NOTHING
    if 0 < value < 0.005:
        return "<0.01"
    if 0.995 <= value < 1:
        return ">0.99"
    return f"{value:.2f}"


def share_cell(row: Mapping[str, Any] | None) -> TableCell:
    """A share with its interval, from "value", "low" and "high"."""
    if not row or row.get("value") is None:
        return TableCell(NOTHING)
    return TableCell(*Interval.from_row(row).text(format_share))


def queries_cell(row: Mapping[str, Any], budget: float, per: float = 1) -> TableCell:
    """A Q50 with its interval, divided by `per`; budget: what a censored value is above."""
    return TableCell(*Interval.from_row(row).text(lambda total: format_queries(total / per), budget))


def ratio_cell(row: Mapping[str, Any] | None) -> TableCell:
    """A paired ratio with its interval."""
    if not row:
        return TableCell(NOTHING)
    # A column of numbers may contain a dash.
    return TableCell(NOTHING, "unknown") if row["value"] is None else TableCell(*Interval.from_row(row).text(format_ratio))


def quantiles_cell(row: Mapping[str, float | None] | None, digits: int = 2) -> TableCell:
    """The median, followed by the 5% and 95% quantiles."""
    if not row or row.get("50") is None:
        return TableCell(NOTHING)
    low, middle, high = (row.get(key) for key in ("5", "50", "95"))
    known = low is not None and high is not None
    return TableCell(f"{middle:,.{digits}f}", f"[{low:,.{digits}f}, {high:,.{digits}f}]" if known else "")


def confidences_cell(row: Mapping[str, float | None] | None) -> TableCell:
    """Confidences: the median, followed by the 5% and 95% quantiles; only 1 is written 1."""

    def text(p: float | None) -> str:
        if p is None:
            return NOTHING
        return ">0.9999" if 0.99995 <= p < 1 else f"{p:.4g}" if p >= 1e-4 or p == 0 else "<0.0001"

    if not row or row.get("50") is None:
        return TableCell(NOTHING)
    return TableCell(text(row["50"]), f"[{text(row.get('5'))}, {text(row.get('95'))}]")


def format_duration(seconds: float | None) -> str:
    """In seconds, minutes or hours, whichever fits."""
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 target", "2 targets": a number with its noun, whose plural ends in s if none is given."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def selection_note(result: Mapping[str, Any]) -> str:
    """Which images the sheets of a target show, if it has more classes than SHOWN; else ""."""
    return (
        f"the {SHOWN} images with the highest margins, in the order of classes"
        if result["target"]["scored_classes"] > SHOWN
        else ""
    )


def join_names(names: Sequence[str]) -> str:
    """ "a, b and c"; "none" if there are none."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
