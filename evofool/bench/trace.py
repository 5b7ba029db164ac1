"""The improvements of a cell's images over queries, from which all scores are computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evofool.bench.seen_answers import in_order
from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class Trace:
    """For each of n scored classes, after which query its best image improved, and the value that it then had.

    queries: n arrays int64, ascending; queries over all classes, counted from 1. margins: n arrays float64, strictly
    ascending: margins, or the values of another acceptance score. budget: the number of queries the cell was given. least:
    a value has to be above it to count.
    """

    queries: tuple[np.ndarray, ...]
    margins: tuple[np.ndarray, ...]
    budget: int
    least: float = 0.0

    def accepted_at(self, taus: np.ndarray) -> np.ndarray:
        """(B, n) float64: after how many queries each class had an image with a value >= taus (B, n) and > least.

        NaN where there was none within the budget.
        """
        out = np.full(taus.shape, np.nan)
        for c, (at, margins) in enumerate(zip(self.queries, self.margins, strict=True)):
            first = np.maximum(np.searchsorted(margins, taus[:, c]), np.searchsorted(margins, self.least, side="right"))
            reached = first < len(at)
            out[reached, c] = at[first[reached]]
        return out

    def best(self, within: float = np.inf) -> np.ndarray:
        """(n,) float64: the highest value of each class within so many queries; -inf for a class without an image."""
        numbers = [int(np.searchsorted(at, within, side="right")) for at in self.queries]
        return np.array([rises[n - 1] if n else -np.inf for n, rises in zip(numbers, self.margins, strict=True)])


def read_trace(stored: StoredRun, classes: Sequence[int], budget: int, per_image: int = 1) -> Trace:
    """The trace of a run that was ranked by margin, up to `budget` queries. per_image: the queries that an image takes.

    In a search, image n has birth n - 1. The classes of a baseline count as if attacked in parallel, in whatever order they
    were attacked: f images of one class are f * len(classes) images.
    """
    by_class: dict[int, list[tuple[int, float]]] = {c: [] for c in classes}
    if stored.meta.attack is not None:
        rows = [(row.cell, row.forwards * len(classes) * per_image, row.score) for row in stored.store.improvements()]
    else:
        rows = [(change.cell, (change.birth + 1) * per_image, change.margin) for change in stored.store.cell_history()]
    for cell, at, margin in rows:
        found = by_class.get(cell // stored.niches)
        if found is not None and at <= budget and margin > (found[-1][1] if found else -np.inf):
            found.append((at, margin))
    return Trace(
        tuple(np.array([at for at, _ in found], np.int64) for found in by_class.values()),
        tuple(np.array([margin for _, margin in found]) for found in by_class.values()),
        budget,
    )


def read_trace_of_score(
    stored: StoredRun,
    seen: np.ndarray,
    classes: Sequence[int],
    budget: int,
    values: Callable[[np.ndarray], np.ndarray],
    per_image: int = 1,
) -> Trace:
    """The trace of a run under another acceptance score, from its records `seen` (seen_answers.read_seen).

    values: records (n,) to the score's values (n,) float64; NaN, where an image has none, counts for nothing. Queries are
    counted as in read_trace. In a search the best image of a batch is the one that counts, of equal ones the first, since
    by margin no other one enters the archive.
    """
    state = stored.meta.attack
    images = budget // per_image
    records = in_order(seen, 1 if state is None else len(classes), images if state else min(images, stored.evaluations))
    score = np.nan_to_num(values(records), nan=-np.inf)
    queries, rises = [], []
    for c in classes:
        rows = records["class"] == c
        at, of_class = records["at"][rows], score[rows]
        if state is None:
            batches = (at - 1) // stored.recipe.search.batch
            chosen = np.lexsort((at, -of_class, batches))[np.unique(np.sort(batches), return_index=True)[1]]
            at, of_class = at[chosen], of_class[chosen]
        best = np.maximum.accumulate(of_class)
        first = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
        queries.append(at[first] * per_image)
        rises.append(best[first])
    return Trace(tuple(queries), tuple(rises), budget, -np.inf)
