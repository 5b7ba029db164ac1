"""A figure that may be a bound: the comparisons that it allows, and its text."""

import pytest

from evofool.bench.interval import Interval, Sign, format_limits, format_queries, format_ratio


@pytest.mark.parametrize("bound", ["=", ">=", "<="])
@pytest.mark.parametrize("value", [0.5, 1.9, 2.0, 2.1, 10.0])
def test_a_bound_shows_only_what_is_true_of_every_value_within_it(value: float, bound: Sign) -> None:
    worlds = {"=": [value], ">=": [value, value + 100], "<=": [value, value / 100]}[bound]
    answers = {world >= 2 for world in worlds}
    assert Interval(value, None, None, bound=bound).at_least(2) == (answers.pop() if len(answers) == 1 else None)


def test_an_unknown_value_shows_nothing():
    assert Interval(None, None, None, bound="unknown").at_least(2) is None
    assert Interval(None, None, None, bound=">=").at_least(2) is None


def test_a_bound_decides_by_the_limit_that_is_printed() -> None:
    assert Interval(None, 1000, None, bound=">=").at_least(2) is True
    assert Interval(2.5, 1.5, None, bound=">=").at_least(2) is None
    assert Interval(1.5, 1.2, None, bound=">=").at_least(2) is None, "a lower bound cannot refute it"
    assert Interval(1.5, None, 2.5, bound="<=").at_least(2) is None
    assert Interval(1.5, None, 1.9, bound="<=").at_least(2) is False


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(812, 700, 900), ("812", "[700, 900]")),
        (Interval(812, None, None), ("812", "")),
        (Interval(812, 700, None, bound=">="), ("812", "[at least 700]")),
        (Interval(812, None, 900, bound="<="), ("812", "[at most 900]")),
        (Interval(812, None, None, bound=">="), (">= 812", "")),
        (Interval(None, None, None, bound=">="), ("> 1,000", "")),
        (Interval(None, 1000, None, bound=">="), ("> 1,000", "[at least 1,000]")),
        (Interval(None, None, None, bound="unknown"), ("unknown", "")),
    ],
)
def test_a_bound_is_printed_in_place_of_an_interval(interval: Interval, text: tuple[str, str]):
    assert interval.text(format_queries, 1000) == text
    assert Interval.from_row(interval.to_dict()).text(format_queries, 1000) == text, "JSON keeps it"


def test_a_row_of_a_share_is_exact():
    assert Interval.from_row({"queries": 10, "value": 0.5, "low": 0.4, "high": 0.6}) == Interval(0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.4, 0.6, "0.40 to 0.60"), (0.91, None, "at least 0.91"), (None, 0.09, "at most 0.09"), (None, None, "")],
)
def test_limits_are_written_in_words(low: float | None, high: float | None, text: str):
    assert format_limits({"low": low, "high": high}, format_ratio) == text


def test_ratios_and_queries_are_rounded():
    assert [format_ratio(v) for v in (0.123, 2.5, 1234.5)] == ["0.12", "2.50", "1,234"]
    assert [format_queries(v) for v in (5.25, 12345.6)] == ["5.2", "12,346"]
