"""A benchmark: targets x arms x seeds, each cell an ordinary run; broken off at any moment, the same call goes on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from evofool.bench.arms import can_do
from evofool.bench.bound import CELLS, STATE, Bound
from evofool.bench.cell import Job, make_way, run_cell
from evofool.bench.detector_stage import guards
from evofool.bench.entries import entries, network, train
from evofool.bench.finish import Outcome, finish
from evofool.bench.plan import BenchRecipe
from evofool.bench.ready import Ready, prepare
from evofool.bench.real import DIGITS
from evofool.bench.results import Place
from evofool.errors import EvofoolError, Interrupted, RecipeError, StoreError, TargetError
from evofool.machine import torch_threads
from evofool.targets import check_spec, is_black_box
from evofool.targets import target as load_target

LOCK = "bench.lock"
_OURS = (LOCK, f"{STATE}.new")  # the latter of one that was killed as it began


@dataclass(frozen=True)
class Progress:
    """How far a benchmark is. words: what it does now, where that is not cells."""

    words: str = ""
    done: int = 0  # cells, of these
    cells: int = 0
    under_way: int = 0
    queries: float = 0.0  # of the cells under way, in cells
    done_here: int = 0  # cells in this sitting, and in how many seconds
    seconds: float = 0.0


Tell = Callable[[Progress], bool]
"""Hears how far it is, often; true once it should save and end."""


def run_bench(recipe: BenchRecipe, folder: Path, tell: Tell = lambda progress: False) -> Outcome:
    """Do what a recipe says in a folder, or go on with it there; write results, tables and the report.

    A cell that is done is not done again. What cannot be measured (a target that fails its validation, real images that are
    not its own, weights that changed since the folder was begun) is marked invalid and left out of every figure; the rest
    goes on. RecipeError or StoreError where nothing can be begun.
    """
    with _opened(recipe, folder) as bound:
        try:
            return _measured(recipe, bound, tell)
        except Interrupted:
            return Outcome(folder, {}, {}, True, ())


def _measured(recipe: BenchRecipe, bound: Bound, tell: Tell) -> Outcome:
    """As run_bench, in a folder that is open; Interrupted where tell breaks it off."""
    folder = bound.folder
    _refuse_missing(recipe)
    listed = entries(recipe, folder, bound.pinned())
    bound.name(listed)
    training = [
        {"folder": str(network(one, folder).parent), "defence": one.defence, "copy": one.copy, "epochs": one.epochs}
        for one in listed
        if one.defence and not network(one, folder).is_file()
    ]
    work = _Work("evofool.bench.entries:train", folder, recipe.workers, recipe.ray)
    failures, interrupted = _do(work, training, tell, "training networks")
    if interrupted:
        raise Interrupted
    untrained = {job["folder"]: words for job, words in zip(training, failures, strict=True) if words}
    ready: list[Ready] = []
    for number, entry in enumerate(listed, 1):
        where = f"{entry.name} ({number} of {len(listed)})"
        why = untrained.get(str(network(entry, folder).parent)) if entry.defence else None
        saying(tell)(where)
        ready.append(prepare(recipe, entry, bound, saying(tell, f"{where}: "), why or ""))
    with torch_threads(1), threadpool_limits(1):  # whose number decides the last bits of what detectors are fitted to
        places = [place for one in ready if not one.fault for place in _places(recipe, one, folder)]
    jobs = {place.folder: _job(recipe, place) for place in places}
    waiting = [place for place in places if not _is_done(jobs[place.folder])]
    failures, interrupted = do_cells(
        [jobs[place.folder] for place in waiting],
        folder,
        tell,
        workers=recipe.workers,
        ray=recipe.ray,
        of=len(places),
    )
    if interrupted:
        raise Interrupted
    words = {place.folder: why for place, why in zip(waiting, failures, strict=True)}
    with torch_threads(1):  # whose number decides last bits
        return finish(recipe, ready, places, words, folder, saying(tell))


def _refuse_missing(recipe: BenchRecipe) -> None:
    """RecipeError for what is needed, at the end perhaps, and is not there."""
    for part in recipe.targets:
        if part.target is not None:
            try:
                check_spec(part.target)
            except TargetError as error:
                raise RecipeError(f"targets: {error}") from None
    if recipe.images != DIGITS and not Path(recipe.images).is_dir():
        raise RecipeError(f"images: there is no folder {recipe.images} of labelled real images (or write {DIGITS})")
    if recipe.detectors and recipe.detectors.fit not in (None, DIGITS) and not Path(recipe.detectors.fit or "").is_dir():
        raise RecipeError(f"detectors.fit: there is no folder {recipe.detectors.fit} of real images")
    if recipe.image_metrics and recipe.image_metrics.network:
        try:
            load_target(recipe.image_metrics.network)
        except TargetError as error:
            raise RecipeError(f"image_metrics.network: {error}") from None


def do_cells(
    jobs: Sequence[Job], folder: Path, tell: Tell, *, workers: int = 0, ray: str = "local", of: int = 0
) -> tuple[list[str], bool]:
    """Do cells (cell.run_cell), side by side where there are workers; folder is above all of theirs.

    Returns why each came to nothing, "" where it did not, and whether tell broke it off. of: cells that there are in all.
    Those of black boxes are done here, one after the other, once the workers are done: their bills and rates are a
    process's.
    """
    for job in jobs:  # here, since a worker may not see this disk
        make_way(job)
    work = _Work("evofool.bench.cell:run_cell", folder, workers, ray)
    return _do(work, [job.plain() for job in jobs], tell, "", of)


def saying(tell: Tell, before: str = "") -> Callable[[str], None]:
    """What tells words to tell, and raises Interrupted where that answers that it is enough."""

    def say(words: str) -> None:
        if tell(Progress(before + words)):
            raise Interrupted

    return say


def _places(recipe: BenchRecipe, one: Ready, folder: Path) -> list[Place]:
    """The cells of a target, those of its guarded ones behind them."""
    assert one.target is not None
    home = (folder / CELLS / one.entry.name).absolute()
    spec, mark = one.spec, one.target.fingerprint()
    arms = [arm for arm in recipe.arms if can_do(arm, one.target)]
    if left_out := [arm for arm in recipe.arms if arm not in arms]:
        one.warnings.append(f"{', '.join(left_out)}: need gradients, and this target gives none; left out")
    found = [Place(one, arm, seed, home / f"{arm}-{seed}", spec, mark) for arm in arms for seed in recipe.each_seed]
    if recipe.detectors:
        arm = recipe.detectors.arm
        for name, guarded in guards(recipe, one, folder).items():
            mark = load_target(guarded).fingerprint()
            found += [
                Place(one, arm, seed, home / f"{arm}-against-{name}-{seed}", guarded, mark, name)
                for seed in recipe.each_seed
            ]
    if is_black_box(spec):
        one.warnings.append(
            "a black box: its calibration and each of its cells keep bills of their own, and max_requests is the cap of each"
        )
    return found


def _job(recipe: BenchRecipe, place: Place) -> Job:
    return Job(
        folder=place.folder,
        target=place.spec,
        arm=place.arm,
        seed=place.seed,
        queries=recipe.budget,
        classes=tuple(place.ready.classes),
        changes=tuple(recipe.changes(place.arm)),
        format=recipe.format,
        fingerprint=place.fingerprint,
    )


def _is_done(job: Job) -> bool:
    try:
        return job.done
    except StoreError:
        return True  # that it is damaged is told with the results


@dataclass(frozen=True)
class _Work:
    """What jobs are given to, as "package.module:function", and who does them. folder is above all of theirs."""

    name: str
    folder: Path
    workers: int
    ray: str


def _do(work: _Work, jobs: Sequence[Mapping[str, Any]], tell: Tell, words: str, of: int = 0) -> tuple[list[str], bool]:
    """Do jobs, here or by workers: why each came to nothing, "" where it did not; and whether tell broke it off."""
    failures = ["it was not begun"] * len(jobs)
    began, total = time.perf_counter(), of or len(jobs)
    before = total - len(jobs)
    done = 0
    over = False

    def hear(under_way: int, share: float, note: str = "") -> bool:
        nonlocal over
        seconds = time.perf_counter() - began
        over = tell(Progress(words or note, before + done, total, under_way, share, done, seconds)) or over
        return over

    for index, why in _each(work, jobs, hear):
        failures[index] = why
        done += 1
        if hear(0, 0.0):
            break
    return failures, over


def _each(work: _Work, jobs: Sequence[Mapping[str, Any]], hear: Callable[..., bool]) -> Iterator[tuple[int, str]]:
    """(index, why it came to nothing, or "") of each job that ended, as they end."""
    here = [index for index, job in enumerate(jobs) if not work.workers or is_black_box(job.get("target", ""))]
    there = [index for index in range(len(jobs)) if index not in set(here)]
    over = False
    if there:
        from evofool.cluster.settings import RayOptions
        from evofool.cluster.tasks import JobFailure, JobsProgress, run_jobs

        def on_progress(progress: JobsProgress) -> None:
            nonlocal over
            share = sum(_share(jobs[there[index]], told) for index, told in progress.running.items())
            over = hear(len(progress.running), share, progress.note)

        for index, told in run_jobs(
            work.name,
            [jobs[index] for index in there],
            RayOptions(address=work.ray),
            workers=min(work.workers, len(there)),
            shared=work.folder.absolute(),
            stop=lambda: over,
            on_progress=on_progress,
        ):
            yield there[index], told.message if isinstance(told, JobFailure) else ""
    does = {"evofool.bench.entries:train": train, "evofool.bench.cell:run_cell": run_cell}[work.name]
    for index in () if over else here:
        job = jobs[index]
        try:
            told = does(job, partial(_heard, hear, job))
        except EvofoolError as error:
            yield index, str(error)
        except MemoryError:
            yield index, "out of memory"
        else:
            if told is None:
                return
            yield index, ""


def _heard(hear: Callable[..., bool], job: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    return hear(1, _share(job, said))


def _share(job: Mapping[str, Any], said: Mapping[str, Any]) -> float:
    """Of a job under way, the part that is done."""
    return min(1.0, said.get("queries", 0) / job["queries"]) if "queries" in job else 0.0


@contextmanager
def _opened(recipe: BenchRecipe, folder: Path) -> Iterator[Bound]:
    """The folder, made or gone on with, and nobody else's meanwhile."""
    with alone_in(folder):
        if not (folder / STATE).is_file() and any(path.name not in _OURS for path in folder.iterdir()):
            raise StoreError(f"{folder} is not empty and holds no benchmark ({STATE}); take another --out")
        yield Bound(recipe, folder)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The folder, made if it is not there, and nobody else's meanwhile. StoreError if it is somebody's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{folder} is in use: another evofool is at work on this benchmark") from None
    except OSError as error:
        if folder.is_file():
            raise StoreError(f"{folder} is a file; a folder is made for all of this: take another --out") from None
        raise StoreError(f"{folder} cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()
