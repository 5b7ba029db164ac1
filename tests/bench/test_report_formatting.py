"""How the figures of a report are written."""

from evofool.bench.report.formatting import (
    confidences_cell,
    counted,
    format_duration,
    format_share,
    join_names,
    quantiles_cell,
    queries_cell,
    ratio_cell,
    share_cell,
)
from evofool.bench.statistics import share_interval
from evofool.pages.html_page import NOTHING, TableCell


def test_shares_are_never_rounded_to_0_or_1() -> None:
    assert [format_share(v) for v in (0, 0.001, 0.005, 0.123, 0.994, 0.9951, 1, None)] == [
        "0.00", "<0.01", "0.01", "0.12", "0.99", ">0.99", "1.00", NOTHING
    ]  # fmt: skip


def test_a_share_near_1_is_shown_with_a_bound() -> None:
    found = share_interval([1.0] * 3, None, 10)
    assert share_cell(found.to_dict()) == TableCell("1.00", "[at least 0.76]")
    assert share_cell(share_interval([0.0] * 3, None, 10).to_dict()) == TableCell("0.00", "[at most 0.24]")


def test_queries_can_be_divided_by_the_number_of_classes() -> None:
    row = {"value": 812.0, "bound": ">=", "low": 700.0, "high": None}
    assert queries_cell(row, 10_000) == TableCell("812", "[at least 700]")
    assert queries_cell(row, 10_000, 100) == TableCell("8.1", "[at least 7.0]")
    beyond = {"value": None, "bound": ">=", "low": None, "high": None}
    assert [queries_cell(beyond, 10_000, per).text for per in (1, 10)] == ["> 10,000", "> 1,000"]


def test_unknown_ratios_quantiles_and_confidences_are_shown_as_unknown() -> None:
    assert ratio_cell({"value": 2.0, "bound": ">=", "low": 1.5, "high": None}) == TableCell("2.00", "[at least 1.50]")
    assert ratio_cell({"value": None, "bound": "unknown", "low": None, "high": None}) == TableCell(NOTHING, "unknown")
    assert ratio_cell(None) == TableCell(NOTHING)
    assert quantiles_cell({}) == TableCell(NOTHING)
    assert quantiles_cell({"5": 1.0, "50": 2.0, "95": 3.0}, 1) == TableCell("2.0", "[1.0, 3.0]")
    assert confidences_cell({"5": 1e-9, "50": 0.99999, "95": 1.0}) == TableCell(">0.9999", "[<0.0001, 1]")


def test_durations_numbers_and_lists_are_formatted_for_reading() -> None:
    assert [format_duration(v) for v in (5, 600, 7_200, None)] == ["5 s", "10 min", "2.0 h", NOTHING]
    assert [counted(number, "seed") for number in (0, 1, 1_000)] == ["0 seeds", "1 seed", "1,000 seeds"]
    assert [join_names(names) for names in ([], ["a"], ["a", "b", "c"])] == ["none", "a", "a, b and c"]
