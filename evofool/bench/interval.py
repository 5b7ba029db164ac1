"""A figure with an interval, or with a bound where an interval cannot be trusted; and its text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Sign = Literal["=", ">=", "<=", "unknown"]


@dataclass(frozen=True)
class Interval:
    """A value and the limits of its interval; None where unknown, or where no limit can be trusted.

    bound: "=" for an interval of two limits (none for a single seed); ">=" where the true value is only bounded from below,
    by `low`, because searches were stopped at the budget or a share is near 1; "<=" where it is only bounded from above, by
    `high`; "unknown" where it is not bounded. Without limits the value is the bound. A value of None with ">=" is above the
    budget.
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

        A lower bound can only confirm it, an upper bound only refute it, by the limit that is printed.
        """
        limit = {"=": None, ">=": self.low, "<=": self.high, "unknown": None}[self.bound]
        known = self.value if limit is None else limit
        if known is None:
            return None
        reached = known >= least
        return {"=": reached, ">=": reached or None, "<=": None if reached else False, "unknown": None}[self.bound]

    def text(self, number: Callable[[float], str], budget: float | None = None) -> tuple[str, str]:
        """The value and, in brackets, the limits or the bound ("" without limits: the value then has the sign of its bound).

        number: formats a figure. budget: what a value of None with ">=" is above.
        """
        limits = format_limits({"low": self.low, "high": self.high}, number).replace(" to ", ", ")
        inside = limits and f"[{limits}]"
        if self.value is not None:
            sign = "" if inside else {"=": "", ">=": ">= ", "<=": "<= ", "unknown": ""}[self.bound]
            return sign + number(self.value), inside
        if self.bound != ">=":
            return "unknown", inside
        return "over the budget" if budget is None else f"> {number(budget)}", inside


def format_limits(row: Mapping[str, Any], number: Callable[[float], str]) -> str:
    """The limits of a row with "low" and "high": "0.40 to 0.60", "at least 0.91", "at most 0.09"; "" without any."""
    low, high = (None if row[key] is None else number(row[key]) for key in ("low", "high"))
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def format_ratio(value: float) -> str:
    """A ratio: 2.50, 1,234."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def format_queries(value: float) -> str:
    """A mean number of queries: 5.2, 12,346."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
