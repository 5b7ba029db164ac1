"""The archive of a search as it was after any number of evaluations."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evofool.run.stored import StoredRun
from evofool.search.records import CellChange, Commit


class Place(NamedTuple):
    """The elite of a cell at some time: its birth, and the log-odds that the search ranked it by."""

    cell: int
    birth: int
    log_odds: float


class History:
    """Every replacement of an elite, in order, with the evaluations after which it happened."""

    def __init__(self, changes: Sequence[CellChange], batch: int, commits: Sequence[Commit] = ()) -> None:
        """changes: in the order in which elites were replaced. batch: evaluations in a batch. commits: those of a search in
        free mode, whose batches are not committed in the order of their numbers; else empty.
        """
        order = {commit.batch: position for position, commit in enumerate(sorted(commits))}
        self._changes = changes
        self._after = np.array([(order.get(change.batch, change.batch) + 1) * batch for change in changes], np.int64)

    def at(self, evaluations: int) -> dict[int, Place]:
        """By cell its elite after so many evaluations; a cell that had none is missing."""
        count = int(np.searchsorted(self._after, evaluations, "right"))
        return {change.cell: Place(change.cell, change.birth, change.log_odds) for change in self._changes[:count]}

    def moments(self) -> list[int]:
        """The numbers of evaluations after which some elite was replaced, ascending."""
        return np.unique(self._after).tolist()

    def births(self) -> set[int]:
        """Of all genomes that were ever an elite."""
        return {change.birth for change in self._changes}

    def of_cell(self, cell: int) -> list[tuple[int, Place]]:
        """(evaluations, elite) for each replacement in one cell, in order."""
        return [
            (int(after), Place(change.cell, change.birth, change.log_odds))
            for after, change in zip(self._after, self._changes, strict=True)
            if change.cell == cell
        ]


def history_of(run: StoredRun) -> History | None:
    """The history of a run; None for one that no search made: merged runs and attacks have none."""
    if not run.meta.searched:
        return None
    commits = run.store.commits() if run.recipe.search.mode == "free" else ()
    return History(run.store.cell_history(), run.recipe.search.batch, commits)
