"""The order of targets, or of attacks, as far as their intervals show one.

The queries order them. Where an interval of queries has no limit, or reaches the budget, as with few seeds or where fewer
than half of the classes are fooled, the classes that are fooled within the budget are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from evofool.bench.report.formatting import counted, format_share, join_names
from evofool.bench.statistics import fooled_difference

QUERIES, CLASSES = "queries", "classes"
"""The figures that a difference may rest on."""

_NAMED = 4  # names of a tie that a sentence lists


@dataclass(frozen=True)
class Fooled:
    """The classes that are fooled within the largest budget.

    share: of the classes, with "value", "low" and "high". classes: the names of the K that are scored. by_seed: for each
    seed, K times whether the class is fooled; empty if it is not known. thresholds: what sets them. variance: that of the
    mean share from them.
    """

    share: Mapping[str, Any]
    classes: tuple[str, ...] = ()
    by_seed: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    thresholds: str = ""
    variance: float = 0.0


@dataclass(frozen=True)
class Figures:
    """What orders a target or an attack among others.

    queries: with "value", "low" and "high"; None: not known. budget: the most queries; a limit there, or above,
    tells nothing.
    """

    queries: Mapping[str, Any]
    fooled: Fooled | None = None
    budget: float = inf

    @property
    def bounded(self) -> bool:
        """Whether the queries have two limits below the budget."""
        low, high = self.queries.get("low"), self.queries.get("high")
        return low is not None and high is not None and high < self.budget

    @property
    def share(self) -> str:
        """The share of classes fooled within the budget, as text."""
        return format_share(self.fooled.share["value"] if self.fooled else None)


@dataclass(frozen=True)
class Place:
    """The places that a row may have, 1 for the fewest queries, as far as is shown: `best` to `worst`, of `among`."""

    best: int
    worst: int
    among: int

    def __str__(self) -> str:
        return f"{self.best}" if self.best == self.worst else f"{self.best} to {self.worst}"


def easier(a: Figures, b: Figures) -> str:
    """By which figure it is shown that a is easier to fool than b: QUERIES or CLASSES; "" if it is not shown.

    By QUERIES where the two intervals do not overlap. By CLASSES only if these intervals cannot tell, since one of them is
    not bounded: paired by class and seed where both have the same classes and at least two seeds in common (95%,
    two-sided); otherwise where the two intervals of the shares do not overlap.
    """
    if _below(a.queries, b.queries):
        return QUERIES
    if _below(b.queries, a.queries) or (a.bounded and b.bounded) or a.fooled is None or b.fooled is None:
        return ""
    return CLASSES if _fools_more(a.fooled, b.fooled) else ""


def _below(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    high, low = a.get("high"), b.get("low")
    return high is not None and low is not None and high < low


def _fools_more(a: Fooled, b: Fooled) -> bool:
    seeds = [seed for seed in a.by_seed if seed in b.by_seed]
    if a.classes != b.classes or len(seeds) < 2:
        return _below(b.share, a.share)
    hits, others = (np.array([of.by_seed[seed] for seed in seeds], bool) for of in (a, b))
    variance = 0.0 if a.thresholds == b.thresholds else a.variance + b.variance
    low = fooled_difference(hits, others, variance).low
    return low is not None and low > 0


def by_queries(rows: Mapping[str, Figures]) -> list[str]:
    """The names, the fewest queries first; those above the budget are last, with the most fooled classes first."""

    def order(name: str) -> tuple[float, float]:
        value, fooled = rows[name].queries["value"], rows[name].fooled
        share = fooled.share["value"] if fooled else None
        return inf if value is None else value, -(share or 0.0)

    return sorted(rows, key=order)


def places(rows: Mapping[str, Figures]) -> dict[str, Place]:
    """By name, the places that the differences allow which are shown (easier)."""
    n = len(rows)
    above = {name: sum(bool(easier(rows[other], rows[name])) for other in rows if other != name) for name in rows}
    below = {name: sum(bool(easier(rows[name], rows[other])) for other in rows if other != name) for name in rows}
    return {name: Place(1 + above[name], n - below[name], n) for name in rows}


def tied_first(rows: Mapping[str, Figures], most: bool = False) -> list[str]:
    """The names that may be first (with most: last), in the order of by_queries, or with most the other way round.

    All of them in the odd case that two figures contradict each other so that none may be.
    """
    found = places(rows)
    ordered = by_queries(rows)
    if most:
        ordered.reverse()
    return [name for name in ordered if (found[name].worst == len(rows) if most else found[name].best == 1)] or ordered


def by_basis(rows: Mapping[str, Figures], name: str, most: bool = False) -> dict[str, list[str]]:
    """By figure, the names than which this one is shown to be easier to fool (with most: harder)."""
    found: dict[str, list[str]] = {}
    for other in (other for other in by_queries(rows) if other != name):
        pair = (rows[other], rows[name]) if most else (rows[name], rows[other])
        if basis := easier(*pair):
            found.setdefault(basis, []).append(other)
    return found


def no_difference(rows: Mapping[str, Figures], names: Sequence[str]) -> str:
    """The sentence on names between which no difference is shown, and by which figures they were compared.

    Of names that tied_first gives because two figures contradict each other, it says that.
    """
    if any(easier(rows[a], rows[b]) for a in names for b in names if a != b):
        return f"No order of {listed(names)}: queries, and the classes fooled within the budget, contradict each other."
    by = (
        ": their intervals overlap"
        if all(rows[name].bounded for name in names)
        else ", neither by queries nor by the classes fooled within the budget"
    )
    return f"No difference shown between {listed(names)}{by}."


def listed(names: Sequence[str]) -> str:
    """The names joined; of many the first ones, and the number of the others."""
    if len(names) <= _NAMED + 1:
        return join_names(names)
    return f"{', '.join(names[:_NAMED])} and {counted(len(names) - _NAMED, 'other')}"


def with_shares(rows: Mapping[str, Figures], names: Sequence[str]) -> str:
    """The names with the share of classes that is fooled, as a list."""
    return listed([f"{name} ({rows[name].share})" for name in names])


PLACE_NOTE = (
    "Place: 1 has the fewest queries. Where an interval of queries has no limit, or reaches the budget, the classes "
    "fooled within the budget decide. A range, such as 1 to 3: no difference is shown."
)
"""What the column of places is."""
