"""The improvements of a cell's images over queries, from which all scores are computed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class Trace:
    """For each of n scored classes, after which query its best image improved, and the margin it then had.

    queries: n arrays int64, ascending; queries over all classes, counted from 1. margins: n arrays float64, strictly
    ascending. budget: the number of queries the cell was given.
    """

    queries: tuple[np.ndarray, ...]
    margins: tuple[np.ndarray, ...]
    budget: int

    def accepted_at(self, taus: np.ndarray) -> np.ndarray:
        """(B, n) float64: after how many queries each class had an image with a margin >= taus (B, n) and > 0.

        NaN where there was none within the budget.
        """
        out = np.full(taus.shape, np.nan)
        for c, (at, margins) in enumerate(zip(self.queries, self.margins, strict=True)):
            first = np.maximum(np.searchsorted(margins, taus[:, c]), np.searchsorted(margins, 0.0, side="right"))
            reached = first < len(at)
            out[reached, c] = at[first[reached]]
        return out

    def best(self) -> np.ndarray:
        """(n,) float64: the highest margin of each class within the budget; -inf for a class without an image."""
        return np.array([margins[-1] if len(margins) else -np.inf for margins in self.margins])


def read_trace(stored: StoredRun, classes: Sequence[int], budget: int) -> Trace:
    """The trace of a run that was ranked by margin, up to `budget` queries.

    In a search, query n has birth n - 1. The classes of a baseline count as if attacked in parallel, in whatever order they
    were attacked: f forward passes of one class are f * len(classes) queries.
    """
    by_class: dict[int, list[tuple[int, float]]] = {c: [] for c in classes}
    if stored.meta.attack is not None:
        rows = [(row.cell, row.forwards * len(classes), row.score) for row in stored.store.improvements()]
    else:
        rows = [(change.cell, change.birth + 1, change.margin) for change in stored.store.cell_history()]
    for cell, at, margin in rows:
        found = by_class.get(cell // stored.niches)
        if found is not None and at <= budget and margin > (found[-1][1] if found else -np.inf):
            found.append((at, margin))
    return Trace(
        tuple(np.array([at for at, _ in found], np.int64) for found in by_class.values()),
        tuple(np.array([margin for _, margin in found]) for found in by_class.values()),
        budget,
    )
