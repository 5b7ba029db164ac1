"""A search done again from its record: batches drawn and committed as they were, then everything compared.

What a search in free mode commits depends on who was faster, and its file says in which order that was. So it can be
repeated to the bit, as a reproducible one can from its recipe alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evofool.errors import RecipeError, StoreError
from evofool.machine import machine
from evofool.recipe import StopPart
from evofool.run.run import Run
from evofool.run.seeding import stored_parents
from evofool.run.stored import StoredRun
from evofool.search.archive import Winners
from evofool.search.evaluate import Evaluator, Order
from evofool.search.records import Commit
from evofool.targets import Target
from genomes import Genomes


class Recorded:
    """An Evaluator whose results come in the order of a record, whatever the order is in which `inner` has them.

    record: the commits, in order; unfinished: batches that were drawn and never committed.
    """

    def __init__(self, inner: Evaluator, record: Sequence[Commit], unfinished: Sequence[Commit]) -> None:
        self.inner, self.record = inner, record
        self.at_once, self.notes, self.machines = inner.at_once, inner.notes, inner.machines
        self._drawn = sorted(commit.drawn_after for commit in [*record, *unfinished])
        self._committed = 0
        self._early: dict[int, tuple[Order, Winners]] = {}  # results whose turn has not come

    @property
    def orders_in_progress(self) -> int:
        """All that had been drawn by now and was not committed."""
        return int(np.searchsorted(self._drawn, self._committed, "right")) - self._committed

    def submit(self, order: Order) -> None:
        self.inner.submit(order)

    def results(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Order, Winners]]:
        coming = self.inner.results(give_up)
        while self._committed < len(self.record):
            batch = self.record[self._committed].batch
            while batch not in self._early:
                result = next(coming, None)
                if result is None:
                    return
                self._early[result[0].batch] = result
            self._committed += 1
            yield self._early.pop(batch)

    def pending(self) -> list[Order]:
        return sorted([*self.inner.pending(), *(order for order, _ in self._early.values())], key=lambda order: order.batch)

    def reference_logits(self, births: Sequence[int], genomes: Genomes) -> np.ndarray:
        return self.inner.reference_logits(births, genomes)

    def workers(self) -> list[dict[str, Any]]:
        return self.inner.workers()

    def close(self) -> None:
        self.inner.close()


@dataclass(frozen=True)
class Replay:
    """How a search came out the second time. differences name what is not the same; none if all is."""

    batches: int  # that were done again
    of: int  # that the run has committed
    same_machine: bool  # bits are the same for sure on one kind of machine alone
    differences: tuple[str, ...]


def replay(
    folder: Path,
    out: Path,
    target: Target | None = None,
    trust: bool = False,
    workers: int = 0,
    address: str = "local",
    begun: Callable[[Run], None] = lambda run: None,
    tick: Callable[[Run], bool] | None = None,
) -> Replay:
    """Do the search in `folder` again, as a new run in `out`, and compare the two.

    workers and address as in compute.workers and compute.ray.address; they change no bit. begun(run) is called once, tick
    as by Run.advance. StoreError, TargetError or RecipeError if the run has saved nothing or is merged, if its target is
    another one here, or if images broke the target and there is no worker to be broken again.
    """
    with StoredRun(folder) as stored, stored.store.snapshot():
        committed, recipe = stored.meta.committed, stored.recipe
        if stored.meta.merged is not None:
            raise StoreError(f"{folder} is merged from several runs; replay those")
        if stored.meta.attack is not None:
            raise StoreError(f"{folder} was made by no search that could be replayed; evofool verify checks its images")
        if not committed:
            raise StoreError(f"{folder} has saved nothing yet")
        aside = len(stored.store.quarantine())
        if aside and not workers:
            raise RecipeError(f"{folder}: images in its quarantine broke the target; replay it with workers: --workers 1")
        record = _record(stored)
        unfinished = [
            Commit(committed + i, order.batch, order.drawn_after) for i, order in enumerate(stored.store.pending())
        ]
        parents = stored_parents(stored.store)
        was = content(stored)
        same_machine = stored.meta.machine == machine(recipe.compute.threads)
        target = stored.own_target(target, trust)
    # A run can come from anybody: the cluster and the runtime environment that it names are not followed.
    # And all that several sittings set aside is set aside in one.
    part = recipe.compute.ray
    ray = part.model_copy(update={"address": address, "environment": {}, "quarantine": max(part.quarantine, aside)})
    compute = recipe.compute.model_copy(update={"workers": workers, "ray": ray})
    stop = StopPart(evaluations=committed * recipe.search.batch)
    with Run.start(recipe.model_copy(update={"compute": compute, "stop": stop}), out, target, parents=parents) as again:
        again.evaluator = Recorded(again.evaluator, record, unfinished)
        begun(again)
        again.advance(tick, batches=committed)
        done = again.strategy.committed
    with StoredRun(out) as stored:
        differing = differences(was, content(stored)) if done == committed else ()
    return Replay(done, committed, same_machine, tuple(differing))


def content(run: StoredRun) -> dict[str, Any]:
    """What the way and the end of a search are, by names for people, without clocks and elites that are out of date."""
    history = run.store.cell_history()
    births = {change.birth for change in history}
    return {
        "who held which cell, and what it scored": history,
        "genomes": run.store.genomes(births),
        "descent": run.store.ancestry(births),
        "quarantine": [row[:5] for row in run.store.quarantine()],
        "elites": [(row.birth, row.digest()) for row in run.store.elites()]
        if run.meta.shown_changes == len(history)
        else None,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two searches differ, as content() names it; none if they took the same way to the same end."""
    return [name for name in one if one[name] != other[name] and None not in (one[name], other[name])]


def _record(stored: StoredRun) -> list[Commit]:
    """The commits in order: as the file has them in free mode, else as the lag decides them."""
    committed, lag = stored.meta.committed, stored.recipe.search.lag
    if stored.recipe.search.mode == "reproducible":
        return [Commit(batch, batch, max(0, batch - lag)) for batch in range(committed)]
    record = stored.store.commits()
    if len(record) != committed:
        raise StoreError(f"{stored.store.path} is damaged: its record of commits has {len(record)} of {committed} batches")
    return record
