"""A run: started from a recipe, advanced, saved, resumed. Killed at any moment, it ends with the same bits as any other."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from evofool.ascend.surrogates import Surrogates
from evofool.errors import ClusterError, ScoreError, TargetError
from evofool.machine import torch_threads
from evofool.recipe import Recipe, parse
from evofool.run.checkpoints import CheckpointWriter, row_after
from evofool.run.drift_marks import DriftMarks, configure
from evofool.run.evaluators import make_batch_evaluator, make_evaluator, out_of_memory
from evofool.run.gain import GainCheck
from evofool.run.lags import with_lag
from evofool.run.meta import LagRecord, RunMeta, Seeds
from evofool.run.opening import decoder_of, new_meta, recipe_to_resume, with_encoding
from evofool.run.progress import Progress
from evofool.run.remeasure import differing_elites
from evofool.run.rescore import Rescorer
from evofool.run.resume import restore
from evofool.run.resume_checks import (
    refuse_missing_classes,
    refuse_other_target,
    refuse_wrong_types,
    with_settled_compute,
)
from evofool.run.seeding import Parents, read_parents
from evofool.run.stopping import stop_reason
from evofool.run.store import Store
from evofool.run.surrogate_record import build_surrogates, load_networks, record_of, refuse_other_surrogates
from evofool.search.archive import Archive
from evofool.search.evaluate import AnswersWithdrawn, Evaluator
from evofool.search.evolve import Callbacks, MapElites, ea_map_elites, new_logbook, row_of, statistics, toolbox
from evofool.targets import Target, refuse_black_box, stored_target
from evofool.targets import target as load_target
from evofool.targets.position import Position
from evofool.targets.validation import validate
from genomes import Encoding


class Run:
    """One search and its file. Make it with start or resume; a `with` statement closes it."""

    def __init__(
        self,
        recipe: Recipe,
        target: Target,
        store: Store,
        encoding: Encoding,
        surrogates: Surrogates | None = None,
    ) -> None:
        self.recipe = recipe
        self.target = target
        self.store = store
        self.folder = store.path.parent
        self.encoding = encoding
        meta = store.meta()
        self._position = Position(**meta.position.model_dump())
        self.marks = DriftMarks(target, recipe.compute, meta, self.folder)
        self.surrogates, position = surrogates, self._position.tolerance or 0.0
        self.batch_evaluator = make_batch_evaluator(recipe, target, self.encoding, position, surrogates)
        self.evaluator: Evaluator = make_evaluator(recipe, self.batch_evaluator)
        self._begin_search()
        self.warnings: list[str] = []
        self.seeds: Seeds | None = None  # the elites of another run that it began with
        self.lags: list[LagRecord] = []  # RunMeta.lags
        self.finished: str | None = None  # why the run ended by its own rules
        self._earlier_seconds = 0.0
        self._earlier_answers = -target.queries  # queries before this run do not count
        self._earlier_repeated = 0
        self._gain = GainCheck(recipe.search.lag, recipe.search.batch, recipe.search.random)
        self._began = 0.0
        self._rate_base: tuple[float, int] | None = None

    def _begin_search(self) -> None:
        """An empty search."""
        recipe = self.recipe
        self.archive = Archive(self.encoding, len(self.target.labels), self.batch_evaluator.niches, recipe.search.keep)
        self.strategy = MapElites(
            self.archive,
            self.encoding,
            seed=recipe.search.seed,
            batch=recipe.search.batch,
            competition=recipe.search.competition,
            tournament=recipe.search.cells_per_draw,
            random=recipe.search.random,
            classes=recipe.search.classes,
        )
        if self.surrogates and (part := recipe.search.surrogate):
            self.strategy.use_surrogates(part.share, part.after, self.surrogates.costs)
        # Images that another device draws may differ from the stored ones.
        exact_images = not (self.batch_evaluator.resident or (recipe.compute.workers and recipe.compute.ray.gpus))
        self.rescorer = Rescorer(self.archive, self.batch_evaluator, self.evaluator, exact_images)
        self.logbook = new_logbook(statistics())
        free = recipe.search.mode == "free"
        self.checkpoints = CheckpointWriter(self.store, self.strategy, self.rescorer, self.logbook, keep_commits=free)
        self._next_row = 0

    # -- opening

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        folder: Path | str,
        target: Target | None = None,
        encoding: Encoding | None = None,
        parents: Parents | None = None,
        surrogates: Sequence[Target] | None = None,
    ) -> "Run":
        """A new run of recipe in folder. target replaces the one that the recipe names, also in the stored recipe.

        encoding replaces the recipe's, with the same genomes but another variation (search.per_individual); it has to be
        passed to resume too. parents replace the elites of recipe.search.parents. Both are copied into the run's file.
        surrogates replace the networks that recipe.search.surrogate names.
        """
        refuse_wrong_types(recipe, folder, target)
        queries_before = target.queries if target else 0
        if target is None:
            if recipe.compute.workers:
                refuse_black_box(recipe.target)
            # The ledger of a black box is in the folder before its first request, so that failed attempts are counted too.
            target = load_target(recipe.target, Path(folder))
        recipe = recipe.model_copy(update={"target": target.name})
        configure(target, recipe.compute)
        # Checked before the folder is made.
        recipe, own_encoding = with_encoding(recipe, target.shape)
        refuse_missing_classes(recipe, target)
        if parents is None and recipe.search.parents:
            parents = read_parents(recipe, own_encoding, target.labels)
        networks = load_networks(recipe, Path(folder), trust=True) if surrogates is None else surrogates
        recipe, climbed = build_surrogates(recipe, networks, target, encoding or own_encoding)
        with torch_threads(recipe.compute.threads):
            recipe, speed = with_settled_compute(recipe, target)
            validation = validate(target, recipe.chunk, Path(folder))
        answers = target.queries - queries_before  # those of the validation count even if the run is killed now
        meta = new_meta(recipe, target, validation, speed, answers, climbed, Path(folder))
        store = Store.create(Path(folder), meta, decoder_of(own_encoding))
        try:
            run = cls(recipe, target, store, encoding or own_encoding, climbed)
            if parents:
                run._store_parents(parents)
        except BaseException:
            store.withdraw()
            raise
        run.warnings = list(meta.warnings)
        run._earlier_answers = -queries_before
        target.store_in(run.folder)
        return run

    @classmethod
    def resume(
        cls,
        folder: Path | str,
        recipe: Recipe | None = None,
        target: Target | None = None,
        encoding: Encoding | None = None,
        trust: bool = False,
        named: Collection[str] = (),
        surrogates: Sequence[Target] | None = None,
    ) -> "Run":
        """Resume the run in folder from its last checkpoint.

        recipe defaults to the stored one. Another may differ in stop, save, workers and lag (run/lags.py), and in the spec
        of the same target, for example a new path of its weights or a higher cap on requests; otherwise RecipeError. If it
        gives no lag, the lag stays. A run's file may come from somebody else, so trust is needed for a target that is code
        or a server (targets.stored_target), for a cluster to join, and for a runtime environment. named: "target" or "ray"
        if the user has just named them, so that they are trusted; so is what recipe names differently from the file.
        """
        store = Store.open(Path(folder), write=True)
        try:
            meta = store.meta()
            stored = parse(meta.recipe, str(store.path))
            refuse_wrong_types(stored if recipe is None else recipe, folder, target)
            recipe = recipe_to_resume(recipe, stored, meta, folder, trust or "ray" in named)
            trust = trust or "target" in named
            trusts_others = trust or recipe.search.surrogate != stored.search.surrogate
            networks = surrogates or load_networks(recipe, store.path.parent, trusts_others)
            trust = trust or recipe.target != stored.target
            target = target or stored_target(recipe.target, store.path.parent, trust)
            refuse_other_target(target, recipe, meta, folder)
            target.store_in(store.path.parent)
            encoding = encoding or recipe.build_encoding(target.shape, store.decoder())
            recipe, climbed = build_surrogates(recipe, networks, target, encoding)
            refuse_other_surrogates(record_of(climbed), meta.surrogates, folder)
            run = cls(recipe.model_copy(update={"target": target.name}), target, store, encoding, climbed)
            try:
                run._restore(meta, stored.search.lag)
                if recipe.search.parents and not meta.seeds:  # killed before they were stored
                    run._store_parents(read_parents(recipe, run.encoding, target.labels))
            except BaseException:
                run.evaluator.close()
                raise
        except BaseException:
            store.close(failed=True)
            raise
        return run

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        self.evaluator.close()
        self.store.close(failed=kind is not None)

    # -- searching

    def advance(
        self, tick: Callable[["Run"], bool] | None = None, every: float = 0.25, batches: int | None = None
    ) -> str | None:
        """Search until a stop rule applies, tick returns true, or so many batches are done; then save.

        tick(run) is called at most once in `every` seconds. Returns why the run ended, None if it was interrupted.
        """
        ended_before, self.finished = self.finished is not None, stop_reason(self)
        if (self.finished and ended_before) or batches == 0:
            if self.strategy.committed:
                # The recipe may have changed; and if the run was killed as it ended, its elites are not up to date.
                with torch_threads(self.recipe.compute.threads):
                    self.save(whole=self.checkpoints.shown < self.strategy.committed)
            return self.finished
        self._began = time.perf_counter()
        self.checkpoints.start(self.recipe.save.seconds)
        next_tick = self._began + every
        self._rate_base = None
        random_batches, done_here, stopped = self.recipe.search.lag + 1, 0, False
        goal = self.strategy.committed + batches if batches is not None else 1 << 62

        def give_up() -> bool:
            nonlocal next_tick, stopped
            now = time.perf_counter()
            self.checkpoints.write(self.evaluator)
            if stopped or (self.recipe.stop.seconds is not None and self.seconds >= self.recipe.stop.seconds):
                return True  # even if no result comes
            if not tick or now < next_tick:
                return False
            next_tick = now + every
            self._collect_notes()
            stopped = tick(self)
            return stopped

        def after(batch: int) -> bool:
            nonlocal done_here
            now = time.perf_counter()
            # The first batches compile kernels and warm torch up; they would distort the rate for minutes.
            done_here += 1
            if self._rate_base is None and done_here > random_batches:
                self._rate_base = now, self.strategy.evaluations
            self.marks.note(self.strategy.committed)
            self.finished = stop_reason(self)
            stop = give_up() or self.finished is not None
            # A search that begins with elites may not improve on them.
            if not self.seeds and (warning := self._gain.after_commit(self.strategy, self.target)):
                self.warnings.append(warning)
            if self.checkpoints.due(now) and not stop:
                whole = self.checkpoints.whole_due(now)
                for part in (False, True) if whole else (False,):
                    self._take_checkpoint(part)
                self.checkpoints.saved(now, whole)
            return stop

        with torch_threads(self.recipe.compute.threads):
            while True:
                try:
                    self.finished = stop_reason(self)  # also of what is left after the run was rewound
                    self._search(goal - self.strategy.committed, Callbacks(self._due, after, give_up))
                    break
                except AnswersWithdrawn as withdrawn:
                    self._rewind(str(withdrawn))
        self._earlier_seconds = self.seconds
        self._began = 0.0
        return self.finished

    def _search(self, batches: int, callbacks: Callbacks) -> None:
        """Search for so many more batches, and save. AnswersWithdrawn if the run has to be rewound."""
        box, lag = toolbox(self.strategy, self.batch_evaluator, self.evaluator), self.recipe.search.lag
        try:
            if not self.finished:
                ea_map_elites(box, batches, statistics(), lag=lag, logbook=self.logbook, callbacks=callbacks)
            self.marks.end(self.strategy.committed, stop_reason(self))
        except (ClusterError, ScoreError, TargetError, MemoryError, torch.OutOfMemoryError) as error:
            # The failed batch was not committed and is still pending; save the batches before it.
            drifted = self.marks.stopped(error, self.strategy.committed, self.archive.birth // self.strategy.size)
            self.finished = None if drifted else self.finished
            if self.strategy.committed:
                self.save(whole=drifted)
            if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
                raise out_of_memory(self.batch_evaluator, self.evaluator) from None
            raise
        if not self.strategy.committed:
            return
        self.finished = self.finished or stop_reason(self)
        if self.finished and self.logbook[-1]["gen"] != self.strategy.committed - 1:
            self._note_costs()
            self.logbook.record(**row_of(self.strategy))
        reason, self.finished = self.finished, None
        self._save(whole=True, end=True)
        if reason:
            self._measure_elites_again()
            self.finished = reason
            self._save(whole=False)

    def _measure_elites_again(self) -> None:
        """TargetError if elites do not have their stored scores when another process measures them."""
        before = self.repeated
        text = differing_elites(self.archive, self.rescorer, self.evaluator, self._position, self.target)
        self.warnings += [text] if text else []
        if self.repeated > before:
            self._save(whole=False)
        if text:
            raise TargetError(text)

    def save(self, whole: bool = True) -> None:
        """One checkpoint: everything since the last one, in one transaction.

        A whole one brings the file's elites up to date: new ones are drawn and, where the search does not rank by float32,
        rescored. A partial one has all that the run needs to go on, and costs little. A whole one is preceded by a partial
        one, because drawing and rescoring take time, and workers may have died.
        """
        try:
            self._save(whole)
        except AnswersWithdrawn as withdrawn:
            self._rewind(str(withdrawn))
            if self.strategy.committed:
                self._save(whole=False)  # the warnings

    def _save(self, whole: bool, end: bool = False) -> None:
        """As save. AnswersWithdrawn, and nothing is written, if the run has to be rewound. end: CheckpointWriter.take."""
        if whole:
            self._save(whole=False)
        self._take_checkpoint(whole, end)
        self.evaluator.confirm()
        self.checkpoints.write(self.evaluator)

    def _take_checkpoint(self, whole: bool, end: bool = False) -> None:
        """What all workers agree on already is written now, the rest later."""
        self._collect_notes()
        for q in self.strategy.quarantined:
            self.warnings.append(f"birth {q.birth}, of batch {q.batch}, is quarantined: {q.reason}")
        state = {
            "seconds": self.seconds,
            "finished": self.finished,
            "recipe": self.recipe.model_dump(mode="json", exclude_none=True),
            "warnings": list(self.warnings),
            "answers": self.answers,
            "lags": self.lags,
            "repeated": self.repeated,
            "surrogates": record_of(self.surrogates, self.strategy, self.evaluator.pending()),
            **self.marks.state(),
        }
        self.checkpoints.take(state, self.evaluator, whole, end)
        self.checkpoints.write(self.evaluator)

    @property
    def seconds(self) -> float:
        """Seconds of search, over all sessions."""
        return self._earlier_seconds + (time.perf_counter() - self._began if self._began else 0.0)

    @property
    def answers(self) -> int:
        """Images that the target answered for this run, over all sessions."""
        return self.target.queries if self.target.counts_persist else self._earlier_answers + self.target.queries

    @property
    def repeated(self) -> int:
        """Images that were evaluated again, over all sessions: to compare workers, or since the run was rewound."""
        return self._earlier_repeated + self.evaluator.repeated

    def best(self) -> np.ndarray:
        """(K,) float64: every class's highest log-odds over its niches, in float32 where elites were rescored."""
        return self.rescorer.best()

    def progress(self) -> Progress:
        now, done = time.perf_counter(), self.strategy.evaluations
        base_time, base_done = self._rate_base or (now, done)
        rate = (done - base_done) / max(now - base_time, 1e-9)
        return Progress.of(self, rate, self.checkpoints.saved_evaluations, self.target.requests)

    # -- inside

    def _store_parents(self, parents: Parents) -> None:
        """Copy parents into the run's file, and begin the search with them."""
        self.store.save(parents.checkpoint(self.strategy.size))
        self.seeds = parents.seeds
        self.strategy.seed_with(parents.packed, parents.seeds.classes)

    def _collect_notes(self) -> None:
        """Add the new notes of the target and the evaluator to the warnings: both grow while the run goes on."""
        notes = [*self.target.details.get("notes", ()), *self.evaluator.notes]
        self.warnings += [note for note in notes if note not in self.warnings]

    def _due(self, batch: int) -> bool:
        """Whether this commit gets a row in the logbook."""
        if batch < self._next_row:
            return False
        self._next_row = row_after(batch)
        self._note_costs()
        return True

    def _note_costs(self) -> None:
        """Note the seconds at a row of the logbook and, for a black box, its answers and requests."""
        paid = {"answers": self.answers, "requests": self.target.requests} if self.target.counts_persist else {}
        self.checkpoints.add_cost(self.seconds, paid)

    def _restore(self, meta: RunMeta, lag_before: int) -> None:
        self._earlier_seconds = meta.seconds
        self._earlier_answers += meta.answers
        self._earlier_repeated = meta.repeated
        self.finished = meta.finished
        self.warnings = list(meta.warnings)
        self.seeds = meta.seeds
        if meta.committed:
            self.checkpoints.machines = meta.machines
        self._restore_search(meta)
        lag, s = self.recipe.search.lag, self.strategy
        self.lags = with_lag(meta.lags, lag_before, lag, next_batch=s.next_batch, committed=s.committed)
        if lag != lag_before:
            self.save(whole=False)  # before a batch is drawn with it

    def _restore_search(self, meta: RunMeta) -> None:
        rows, orders = restore(self.strategy, self.store, meta, self.recipe.search.rank)
        self.rescorer.restore(rows)
        for order in orders:
            self.evaluator.submit(order)
        for saved in self.store.metrics():
            self.logbook.record(**saved.row)
            self._next_row = row_after(saved.batch)
        self.checkpoints.restore(meta.shown, meta.shown_changes, rows)

    def _rewind(self, reason: str) -> None:
        """Go back to the last checkpoint, because answers since then are wrong. What was not saved is evaluated again."""
        meta, machines, evaluations = self.store.meta(), self.checkpoints.machines, self.strategy.evaluations
        self._collect_notes()
        self.evaluator.rewind(meta.committed)
        self._begin_search()
        self._restore_search(meta)
        self.checkpoints.machines = machines
        self.checkpoints.start(self.recipe.save.seconds)
        self._earlier_repeated += max(0, evaluations - self.strategy.evaluations)
        self._earlier_answers = meta.answers - self.target.queries
        self._rate_base, self.finished = None, None
        where = "the last checkpoint at which all workers agreed" if meta.committed else "its beginning"
        self.warnings.append(
            f"rewound to {self.strategy.evaluations:,} evaluations, {where}, from {evaluations:,}, because {reason}"
        )
