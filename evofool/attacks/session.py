"""An attack's run in progress: its items are attacked group after group, and a group is saved when it is done."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from evofool.ascend.loop import AscentResult, Tick
from evofool.errors import DriftError
from evofool.run.attack_file import close_attack, mark_drift, metrics_row
from evofool.run.checkpoints import row_after
from evofool.run.meta import AttackState
from evofool.run.schema import ImprovementRow
from evofool.run.store import Store
from evofool.scores import confidence
from evofool.targets import Target


@dataclass(frozen=True)
class AttackProgress:
    """How far an attack is, for a display. Of a polishing run, read elites for classes."""

    classes: int
    done: int  # classes that are done and saved
    group: int  # classes that are attacked now
    step: int
    steps: int
    done_here: int  # classes done since the attack was started or resumed
    forwards: int  # forward passes that these used
    took: float  # seconds that these took
    seconds: float  # since the attack was started or resumed


class Session:
    """A context that keeps an attack's state, reports its progress, and closes its file in the end.

    state: from run.attack_file.open_attack. target: is attacked. items: the number of classes or elites in all.
    on_step(progress) is called after every step; True stops the attack. A run without any saved group is deleted.
    """

    def __init__(
        self, store: Store, state: AttackState, target: Target, items: int, on_step: Callable[[AttackProgress], bool]
    ) -> None:
        self.store, self.items = store, items
        self._target = target
        self.state = state
        self._on_step, self._stopped = on_step, False
        self._start, self._began = state, time.perf_counter()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, DriftError) and self.state.done:
            mark_drift(self.store, self._target, error)
        close_attack(self.store, self.state, failed=error is not None)

    @property
    def done(self) -> int:
        """The items that are saved."""
        return self.state.done

    @property
    def goes_on(self) -> bool:
        """Whether there is another group to attack."""
        return self.done < self.items and not self._stopped

    def tick(self, group: int) -> Tick:
        """For the ascent of the next group, of so many items."""
        done, forwards = self.state.done - self._start.done, self.state.forwards - self._start.forwards
        took = time.perf_counter() - self._began

        def tick(step: int, steps: int) -> bool:
            seconds = time.perf_counter() - self._began
            progress = AttackProgress(self.items, self.done, group, step, steps, done, forwards, took, seconds)
            self._stopped = self._on_step(progress)
            return self._stopped

        return tick

    def state_after(self, result: AscentResult, notes: Sequence[str]) -> AttackState:
        """The state once the group with this result, an item for each class or elite, is saved. notes: the group's."""
        forwards, backwards = int(result.forwards.sum()), int(result.backwards.sum())
        return self.state.advanced(len(result.scores), forwards, backwards, [*self.state.notes, *notes])


def metrics_rows(improvements: Sequence[ImprovementRow], classes: int) -> list[tuple[int, dict[str, Any]]]:
    """(forward passes per class, metrics row) as if all classes were attacked at the same time.

    improvements: as Store.improvements() has them; the last one of a class has the passes that it used in all. Classes are
    independent, so the order in which they were attacked does not matter. evaluations: forward passes of all classes.
    Classes without an image count with confidence 0.
    """
    by_cell: dict[int, list[tuple[int, float]]] = {}
    for row in improvements:
        by_cell.setdefault(row.cell, []).append((row.forwards, row.log_odds))
    histories = list(by_cell.values())
    ends = np.array([history[-1][0] for history in histories], np.int64)
    p, position = np.zeros(max(classes, len(histories))), [0] * len(histories)
    found = np.zeros(len(histories), bool)
    rows, at = [], 0
    while len(ends) and at < ends.max():
        at = row_after(at)
        for k, history in enumerate(histories):
            while position[k] < len(history) and history[position[k]][0] <= at:
                odds = history[position[k]][1]
                if odds > -math.inf:
                    p[k], found[k] = confidence(odds), True
                position[k] += 1
        rows.append((at, metrics_row(p, at, int(np.minimum(ends, at).sum()), int(found.sum()))))
    return rows
