"""What a checkpoint of a search contains, and when the next one is due."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from evofool.run.meta import WorkersRecord
from evofool.run.rescore import Rescorer
from evofool.run.schema import Checkpoint, EliteRow, MetricsRow, Pending, QuarantineRow
from evofool.run.store import Store
from evofool.search.evaluate import Evaluator
from evofool.search.evolve import MapElites

_ROW_GROWTH = 1.02  # a metrics row whenever the number of batches has grown by this much
_SAVE_SHARE = 80  # the next checkpoint of a kind waits at least this many times as long as the last one took ...
_CHECK_SHARE = 20  # ... and as long as a worker spends on its check
_NO_CELLS = np.zeros(0, np.int64)


class _Held(NamedTuple):
    """A checkpoint that is not yet written, since the checks of what is in it are not completed."""

    mark: int  # Evaluator.mark
    checkpoint: Checkpoint
    evaluations: int


class CheckpointWriter:
    """Writes what a search has done since the last checkpoint, once all workers agree on it.

    A whole checkpoint also brings the file's elites up to date: new ones are drawn and, where the search does not rank by
    float32, rescored. A partial one has all that the run needs to go on, and costs little.
    """

    def __init__(
        self, store: Store, strategy: MapElites, rescorer: Rescorer, logbook: Sequence[Mapping[str, Any]], keep_commits: bool
    ) -> None:
        self._store, self._strategy, self._rescorer = store, strategy, rescorer
        self._logbook, self._keep_commits = logbook, keep_commits
        self._unlike = store.meta().unlike
        self.shown = 0  # commits that the file's elites are up to date with
        self.saved_evaluations = 0
        self._shown_changes = 0  # cell changes that they are up to date with
        self._saved_changes = 0
        self._shown_births = np.full(len(strategy.archive.birth), -1, np.int64)  # by cell, of the file's elites
        self._saved_rows = 0  # of the logbook
        self._costs: list[tuple[float, dict[str, int]]] = []  # of its rows since then
        self._interval = self._next_partial = self._next_whole = 0.0
        self._held: deque[_Held] = deque()
        self._check_seconds = 0.0
        self.machines: list[dict[str, Any]] = []  # all kinds that have evaluated for this run

    def restore(self, shown: int, shown_changes: int, rows: Sequence[EliteRow]) -> None:
        """Go on after the last checkpoint of the file, whose elites are rows; the strategy and the logbook are as then."""
        self.shown, self._shown_changes = shown, shown_changes
        self._shown_births[[row.cell for row in rows]] = [row.birth for row in rows]
        self.saved_evaluations = self._strategy.evaluations
        self._saved_rows = len(self._logbook)
        self._saved_changes = len(self._store.cell_history())

    def start(self, interval: float) -> None:
        """Count the time to the next checkpoints from now: at least `interval` seconds between two.

        A partial one is due at once, after the first batch, so that a run which is killed again and again still advances.
        """
        self._interval = interval
        self._next_partial = time.perf_counter()
        self._next_whole = self._next_partial + interval

    def due(self, now: float) -> bool:
        """Whether a checkpoint of either kind is due at `now` (time.perf_counter). None is while one is being checked."""
        return not self._held and now >= min(self._next_partial, self._next_whole)

    def whole_due(self, now: float) -> bool:
        return now >= self._next_whole

    def saved(self, began: float, whole: bool) -> None:
        """A checkpoint that began at `began` is done: set the time of the next."""
        now = time.perf_counter()
        later = now + max(self._interval, _SAVE_SHARE * (now - began), _CHECK_SHARE * self._check_seconds)
        if whole:
            self._next_whole, self._next_partial = later, now + self._interval
        else:
            self._next_partial = later

    def add_cost(self, seconds: float, paid: dict[str, int]) -> None:
        """The seconds of search at the next row of the logbook, and what a black box was asked by then."""
        self._costs.append((seconds, paid))

    def take(self, state: Mapping[str, Any], evaluator: Evaluator, whole: bool, end: bool = False) -> None:
        """Take a checkpoint of the search as it is now; `write` writes it. state: values of meta that the search lacks.

        end: genomes that the search would go on with are not left stored by their parents, so that an evofool with other
        operators can go on with it.
        """
        s = self._strategy
        self.machines += [kind for kind in evaluator.machines if kind not in self.machines]
        changed = np.flatnonzero(s.archive.birth != self._shown_births) if whole else _NO_CELLS
        workers = evaluator.workers()
        elites = self._rescorer.elites(changed, s.committed)
        changes = self._saved_changes + len(s.cell_history)
        parents = {birth: genome for order in evaluator.pending() for birth, genome in order.parents.items()}
        if whole:
            self.shown, self._shown_changes = s.committed, changes
        self._held.append(
            _Held(
                evaluator.mark(),
                Checkpoint(
                    state={
                        **state,
                        "committed": s.committed,
                        "shown": self.shown,
                        "shown_changes": self._shown_changes,
                        "last_progress": s.last_progress,
                        "workers": WorkersRecord(time=time.time(), workers=workers),
                        **self._machine(),
                        **self._turned_away(),
                    },
                    genomes=list(s.offspring),
                    cell_history=list(s.cell_history),
                    methods=dict(s.methods),
                    runners_up=list(s.runners_up),
                    elites=elites,
                    metrics=[
                        MetricsRow(row["gen"], seconds, _json_values(row) | paid)
                        for (seconds, paid), row in zip(self._costs, self._logbook[self._saved_rows :], strict=True)
                    ],
                    pending=[
                        Pending(o.batch, o.mothers, o.fathers, o.incumbents, o.thresholds, o.drawn_after)
                        for o in evaluator.pending()
                    ],
                    quarantine=[
                        QuarantineRow(q.birth, q.batch, q.mother, q.father, s.encoding.pack(q.genome[0]), q.reason)
                        for q in s.quarantined
                    ],
                    commits=list(s.commits) if self._keep_commits else (),
                    whole=s.stored_genomes.whole({**parents, **s.archive.held()}) if end else {},
                ),
                s.evaluations,
            )
        )
        self._shown_births[changed] = s.archive.birth[changed]
        for records in (s.offspring, s.methods, s.cell_history, s.runners_up, s.quarantined, s.commits, self._costs):
            records.clear()
        self._saved_changes, self._saved_rows = changes, len(self._logbook)

    def write(self, evaluator: Evaluator) -> None:
        """Write the checkpoints that all workers agree on, each in one transaction."""
        while self._held and evaluator.confirmed(self._held[0].mark):
            self._store.save(self._held[0].checkpoint)
            self.saved_evaluations = self._held.popleft().evaluations
        self._check_seconds = evaluator.check_seconds

    def _machine(self) -> dict[str, Any]:
        """What meta's "machine" is to be; as it was while nothing was evaluated."""
        if not self.machines:
            return {}
        return {"machine": self.machines[0] if len(self.machines) == 1 else {"several kinds": self.machines}}

    def _turned_away(self) -> dict[str, Any]:
        """What meta's "unlike" is to be."""
        if self._unlike is None:
            return {}
        return {"unlike": self._unlike.model_copy(update={"turned_away": self._strategy.turned_away.tolist()})}


def row_after(batch: int) -> int:
    """The batch of the metrics row that follows one at `batch`: rows lie 2% apart, so a curve has as many at either end."""
    return max(batch + 1, ceil(batch * _ROW_GROWTH))


def _json_values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()}
