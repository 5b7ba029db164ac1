"""A figure between two limits, which a budget may leave as a bound: the one type for it, and the one way to say it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Sign = Literal["=", ">=", "<=", "unknown"]


@dataclass(frozen=True)
class Interval:
    """A value between two limits; None where there is none: nothing known, or unbounded by censoring.

    bound is what the true one is to the value: ">=" where searches that were broken off at the budget leave a bound from
    below, "<=" one from above. A value of None with ">=" is beyond the budget; with "unknown" nothing is bounded.
    """

    value: float | None
    low: float | None
    high: float | None
    number: int = 0  # of seeds, pairs or networks behind it (of two groups: of the smaller)
    censored: int = 0  # of those, how many only give a bound
    confidence: float = 0.95  # that was asked for; of median_interval: that was attained
    bound: Sign = "="

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Interval":
        """What `plain` has written, or any row with a value and its limits; without "bound" the value is exact."""
        return cls(row.get("value"), row.get("low"), row.get("high"), bound=row.get("bound", "="))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, "bound": self.bound, "low": self.low, "high": self.high}

    def at_least(self, least: float) -> bool | None:
        """Whether the true one is `least` or more; None where the bound leaves that open.

        A bound from below can show that it is, never that it is not; one from above the other way round.
        """
        if self.value is None:
            return None
        enough = self.value >= least
        return {"=": enough, ">=": enough or None, "<=": None if enough else False, "unknown": None}[self.bound]

    def text(self, number: Callable[[float], str], budget: float | None = None) -> tuple[str, str]:
        """The value with the sign of a bound, and its limits in brackets, "" where there are none.

        number: how to say one. budget: what a value of None is more than.
        """
        low, high = (None if limit is None else number(limit) for limit in (self.low, self.high))
        inside = f"[{low}, {high}]" if low and high else f"[{low} and more]" if low else f"[at most {high}]" if high else ""
        if self.value is not None:
            sign = {"=": "", ">=": ">= ", "<=": "<= ", "unknown": ""}[self.bound]
            return sign + number(self.value), inside
        if self.bound != ">=":
            return "unknown", ""
        return "over the budget" if budget is None else f"> {number(budget)}", inside


def format_ratio(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def format_queries(value: float) -> str:
    """A mean number of queries."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
