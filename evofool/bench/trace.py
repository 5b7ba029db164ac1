"""How the images of a cell got better, query by query: what every score is read from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class Trace:
    """For each of n scored classes, when its image got better, and how good it was then.

    queries: n arrays int64, ascending: of all classes together, counted from 1. margins: n arrays float64, strictly
    ascending. budget: the queries that were to be made.
    """

    queries: tuple[np.ndarray, ...]
    margins: tuple[np.ndarray, ...]
    budget: int

    def accepted_at(self, taus: np.ndarray) -> np.ndarray:
        """(B, n) float64: after how many queries each class's image had the margin taus (B, n), and one above 0.

        NaN where it had not within the budget.
        """
        out = np.full(taus.shape, np.nan)
        for c, (at, margins) in enumerate(zip(self.queries, self.margins, strict=True)):
            first = np.maximum(np.searchsorted(margins, taus[:, c]), np.searchsorted(margins, 0.0, side="right"))
            reached = first < len(at)
            out[reached, c] = at[first[reached]]
        return out

    def best(self) -> np.ndarray:
        """(n,) float64: the highest margins within the budget; -inf for a class that came to none."""
        return np.array([margins[-1] if len(margins) else -np.inf for margins in self.margins])


def read(stored: StoredRun, classes: Sequence[int], budget: int) -> Trace:
    """The trace of a run that was ranked by margin, up to so many queries.

    Of a search query n is birth n - 1. A baseline's classes climb side by side, whatever the order it did them in: when a
    class has made f forward passes, all have, and f * classes queries were made.
    """
    by_class: dict[int, list[tuple[int, float]]] = {c: [] for c in classes}
    if "baseline" in stored.meta:
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
