"""The order of targets, or of attacks, as far as their intervals show one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from evofool.bench.report.formatting import counted, join_names

_NAMED = 4  # names of a tie that a sentence lists


@dataclass(frozen=True)
class Place:
    """The places that a row may have, 1 for the fewest queries, as far as intervals show: `best` to `worst`, of `among`."""

    best: int
    worst: int
    among: int

    def __str__(self) -> str:
        return f"{self.best}" if self.best == self.worst else f"{self.best} to {self.worst}"


def by_queries(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of rows of Q50, the fewest queries first; those above the budget are last, in the order given."""
    return sorted(rows, key=lambda name: inf if rows[name]["value"] is None else rows[name]["value"])


def places(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Place]:
    """By name, the places of rows with "low" and "high" (None: not known, so that no difference is shown on that side).

    A difference is shown where two intervals do not overlap.
    """

    def below(a: str, b: str) -> bool:
        high, low = rows[a].get("high"), rows[b].get("low")
        return high is not None and low is not None and high < low

    n = len(rows)
    return {
        name: Place(1 + sum(below(other, name) for other in rows), n - sum(below(name, other) for other in rows), n)
        for name in rows
    }


def tied_first(rows: Mapping[str, Mapping[str, Any]], most: bool = False) -> list[str]:
    """The names that may be first (with most: last), in the order of by_queries, or with most the other way round."""
    found = places(rows)
    ordered = by_queries(rows)
    if most:
        return [name for name in reversed(ordered) if found[name].worst == len(rows)]
    return [name for name in ordered if found[name].best == 1]


def listed(names: Sequence[str]) -> str:
    """The names joined; of many the first ones, and the number of the others."""
    if len(names) <= _NAMED + 1:
        return join_names(names)
    return f"{', '.join(names[:_NAMED])} and {counted(len(names) - _NAMED, 'other')}"


PLACE_NOTE = "Place: 1 has the fewest queries. A range, such as 1 to 3: intervals overlap, so no difference is shown."
"""What the column of places is."""
