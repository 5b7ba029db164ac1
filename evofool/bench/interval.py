"""A figure with an interval, which may be a bound where searches were censored at their budget; and its text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Sign = Literal["=", ">=", "<=", "unknown"]


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its interval; None where unknown, or where censoring leaves no limit.

    bound is the relation of the true value to `value`: "=", or ">=" (a lower bound, because searches were stopped at the
    budget), or "<=" (an upper bound). A value of None with ">=" is above the budget; with "unknown" there is no bound.
    """

    value: float | None
    low: float | None
    high: float | None
    number: int = 0  # of seeds, pairs or networks (of two groups: of the smaller)
    censored: int = 0  # how many of these give only a bound
    confidence: float = 0.95  # as requested; of median_interval: as attained
    bound: Sign = "="

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Interval":
        """From to_dict, or from any row with "value", "low" and "high"; without "bound" the value is exact."""
        return cls(row.get("value"), row.get("low"), row.get("high"), bound=row.get("bound", "="))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: value, bound, low and high."""
        return {"value": self.value, "bound": self.bound, "low": self.low, "high": self.high}

    def at_least(self, least: float) -> bool | None:
        """Whether the true value is at least `least`; None where the bound does not decide it.

        A lower bound can only confirm it, an upper bound only refute it.
        """
        if self.value is None:
            return None
        reached = self.value >= least
        return {"=": reached, ">=": reached or None, "<=": None if reached else False, "unknown": None}[self.bound]

    def text(self, number: Callable[[float], str], budget: float | None = None) -> tuple[str, str]:
        """The value with the sign of its bound, and the limits in brackets ("" without limits).

        number: formats a figure. budget: what a value of None with ">=" is above.
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
    """A ratio: 2.50, 1,234."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def format_queries(value: float) -> str:
    """A mean number of queries: 5.2, 12,346."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
