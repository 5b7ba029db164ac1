"""Repeat a search from its record: draw and commit the batches in the same order, then compare everything.

The order in which a search in free mode commits its batches depends on how fast its workers are. Its file keeps that
order, so it can be repeated to the bit. A reproducible search can be repeated from its recipe alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evofool.errors import RecipeError, StoreError
from evofool.machine import machine
from evofool.recipe_parts import StopPart
from evofool.run.lags import drawn_after
from evofool.run.run import Run
from evofool.run.seeding import stored_parents
from evofool.run.stored import StoredRun
from evofool.run.surrogate_record import load_networks, refuse_other_surrogates
from evofool.search.archive import Winners
from evofool.search.evaluate import Evaluator, Measured, Order
from evofool.search.records import SURROGATE, Commit
from evofool.targets import Target
from genomes import Genomes


class RecordedEvaluator:
    """An Evaluator that yields the results of `inner` in the order of a record.

    record: the commits, in order; unfinished: batches that were drawn and never committed. climbed: by birth the genomes of
    children that climbed surrogates' gradients and entered a list; they are taken as they are.
    """

    def __init__(
        self,
        inner: Evaluator,
        record: Sequence[Commit],
        unfinished: Sequence[Commit],
        climbed: Callable[[Sequence[int]], Mapping[int, Genomes]] = lambda births: {},
    ) -> None:
        self.inner, self.record, self._climbed = inner, record, climbed
        self.at_once, self.notes, self.machines = inner.at_once, inner.notes, inner.machines
        self._drawn = sorted(commit.drawn_after for commit in [*record, *unfinished])
        self._committed = 0
        self._early: dict[int, tuple[Order, Winners]] = {}  # results that come later in the record

    @property
    def repeated(self) -> int:
        return self.inner.repeated

    @property
    def check_seconds(self) -> float:
        return self.inner.check_seconds

    @property
    def orders_in_progress(self) -> int:
        """The batches that were drawn after as many commits, and not committed."""
        return int(np.searchsorted(self._drawn, self._committed, "right")) - self._committed

    def submit(self, order: Order) -> None:
        births = order.first_birth + np.arange(order.size)
        known = self._climbed(births[order.climbed(births)].tolist())
        self.inner.submit(replace(order, parents={**order.parents, **known}) if known else order)

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

    def mark(self) -> int:
        return self.inner.mark()

    def confirmed(self, mark: int) -> bool:
        return self.inner.confirmed(mark)

    def confirm(self) -> None:
        self.inner.confirm()

    def rewind(self, committed: int) -> None:
        self.inner.rewind(committed)
        self._committed = committed
        self._early.clear()

    def measure_elsewhere(self, births: Sequence[int], genomes: Genomes) -> Measured | None:
        return self.inner.measure_elsewhere(births, genomes)

    def close(self) -> None:
        self.inner.close()


_MOST = 10_000_000  # batches that are replayed: their record is held in memory


@dataclass(frozen=True)
class Replay:
    """The result of a replay. differences name what is not equal; none if everything is."""

    batches: int  # that were repeated
    of: int  # that the run has committed
    same_machine: bool  # equal bits are claimed for one kind of machine
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
    """Repeat the search in `folder`, as a new run in `out`, and compare the two.

    Children that climbed surrogates' gradients are taken as they are if they entered a list; the others climb again.

    workers and address as in compute.workers and compute.ray.address; they do not change results. begun(run) is called once
    the new run is open, tick as by Run.advance. Every image keeps its row in a chunk, so a replay is exact even where logits
    depend on that (targets.position). StoreError, TargetError or RecipeError if the run has saved nothing, is merged or was
    made by an attack, if its target has changed, or if workers is 0 and images broke the target of a run with workers: they
    may end the process that scores them.
    """
    with StoredRun(folder) as stored, stored.store.snapshot():
        committed, recipe = stored.meta.committed, stored.recipe
        if stored.meta.merged is not None:
            raise StoreError(f"{folder} is merged from several runs; replay those")
        if stored.meta.attack is not None:
            raise StoreError(
                f"{folder} was not made by a search, and only searches can be replayed; evofool verify checks its images"
            )
        if not committed:
            raise StoreError(f"{folder} has saved nothing yet")
        aside = len(stored.store.quarantine())
        if aside and recipe.compute.workers and not workers:
            raise RecipeError(f"{folder}: images in its quarantine broke the target; replay it with workers: --workers 1")
        record = _record(stored)
        unfinished = [
            Commit(committed + i, order.batch, order.drawn_after) for i, order in enumerate(stored.store.pending())
        ]
        parents = stored_parents(stored.store)
        was = content(stored)
        same_machine = stored.meta.machine == machine(recipe.compute.threads)
        target = stored.own_target(target, trust)
        networks = load_networks(recipe, stored.folder, trust)
    # A run can come from anybody: the cluster and the runtime environment that it names are not used.
    # The quarantine of a run that was resumed may be larger than one session allows.
    part = recipe.compute.ray
    ray = part.model_copy(update={"address": address, "environment": {}, "quarantine": max(part.quarantine, aside)})
    compute = recipe.compute.model_copy(update={"workers": workers, "ray": ray})
    stop = StopPart(evaluations=committed * recipe.search.batch)
    recipe = recipe.model_copy(update={"compute": compute, "stop": stop})
    with StoredRun(folder) as stored, Run.start(recipe, out, target, parents=parents, surrogates=networks) as again:
        refuse_other_surrogates(again.store.meta().surrogates, stored.meta.surrogates, folder)
        again.evaluator = RecordedEvaluator(again.evaluator, record, unfinished, _climbed(stored))
        begun(again)
        again.advance(tick, batches=committed)
        done = again.strategy.committed
    with StoredRun(out) as stored:
        differing = differences(was, content(stored)) if done == committed else ()
    return Replay(done, committed, same_machine, tuple(differing))


def content(run: StoredRun) -> dict[str, Any]:
    """The course and the end of a search, by names for people, without times and without elites that are out of date."""
    history, runners_up = run.store.cell_history(), run.store.runners_up()
    births = {change.birth for change in history} | {entry.birth for entry in runners_up}
    return {
        "elites of each cell and their scores": history,
        "runners-up of each cell and their scores": runners_up,
        "genomes": run.store.genomes(births),
        "descent": run.store.ancestry(births),
        "methods that made genomes": run.store.methods(),
        "images that search.unlike turned away": run.meta.unlike,
        "quarantine": [row[:5] for row in run.store.quarantine()],
        "elites": [(row.birth, row.digest()) for row in run.store.elites()]
        if run.meta.shown_changes == len(history)
        else None,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The parts of content() that differ between two searches; none if their course and end are equal."""
    return [name for name in one if one[name] != other[name] and None not in (one[name], other[name])]


def _climbed(stored: StoredRun) -> Callable[[Sequence[int]], Mapping[int, Genomes]]:
    """A function that reads genomes that climbed, of those among these births that entered a list."""
    known = {birth for birth, method in stored.store.methods().items() if method == SURROGATE}

    def read(births: Sequence[int]) -> Mapping[int, Genomes]:
        wanted = [birth for birth in births if birth in known]
        if not wanted:
            return {}
        genomes = stored.genomes(wanted)
        return {birth: genomes[i : i + 1] for i, birth in enumerate(wanted)}

    return read


def _record(stored: StoredRun) -> list[Commit]:
    """The commits in order: as the file has them in free mode, else as its lags decide them."""
    committed, lag, lags = stored.meta.committed, stored.recipe.search.lag, stored.meta.lags
    if committed > _MOST:
        raise StoreError(f"{stored.store.path} has {committed:,} batches; at most {_MOST:,} can be replayed")
    if stored.recipe.search.mode == "reproducible":
        return [Commit(batch, batch, drawn_after(batch, lag, lags)) for batch in range(committed)]
    record = stored.store.commits()
    if len(record) != committed:
        raise StoreError(f"{stored.store.path} is damaged: its record of commits has {len(record)} of {committed} batches")
    return record
