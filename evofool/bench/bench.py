"""A benchmark: targets x arms x seeds, each cell an ordinary run; broken off at any moment, the same call goes on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evofool.bench.cell import record, run_cell
from evofool.bench.detect.detecting import guards
from evofool.bench.entries import entries, network, train
from evofool.bench.finish import Outcome, finish
from evofool.bench.plan import BenchRecipe
from evofool.bench.ready import Ready, prepare
from evofool.bench.results import Place, read_json, write_json
from evofool.errors import EvofoolError, RecipeError, StoreError
from evofool.machine import torch_threads

STATE, LOCK = "bench.json", "bench.lock"
CELLS = "cells"
SCHEMA = "evofool.bench.plan"


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

    A cell that is done is not done again. What cannot be measured (a target that fails its handshake, real images that are
    not its own, weights that changed since the folder was begun) is marked invalid and left out of every figure; the rest
    goes on. RecipeError or StoreError where nothing can be begun.
    """
    with _opened(recipe, folder):
        listed = entries(recipe, folder)
        training = [
            {"folder": str(network(one, folder).parent), "defence": one.defence, "copy": one.copy, "epochs": one.epochs}
            for one in listed
            if one.defence and not network(one, folder).is_file()
        ]
        failures, interrupted = _do("evofool.bench.entries:train", training, recipe, folder, tell, "training networks")
        if interrupted:
            return Outcome(folder, {}, {}, True, ())
        untrained = {job["folder"]: words for job, words in zip(training, failures, strict=True) if words}
        ready: list[Ready] = []
        for number, entry in enumerate(listed, 1):
            where = f"{entry.name} ({number} of {len(listed)})"
            why = untrained.get(str(network(entry, folder).parent)) if entry.defence else None
            if tell(Progress(where)):
                return Outcome(folder, {}, {}, True, ())
            say = partial(_tell, tell, f"{where}: ")
            ready.append(prepare(recipe, entry, folder, say, why or ""))
        places = [place for one in ready if not one.fault for place in _places(recipe, one, folder)]
        waiting = [place for place in places if not _is_done(place.folder)]
        jobs = [_job(recipe, place) for place in waiting]
        failures, interrupted = do_cells(jobs, recipe, folder, tell, len(places))
        if interrupted:
            return Outcome(folder, {}, {}, True, ())
        words = {place.folder: why for place, why in zip(waiting, failures, strict=True)}
        with torch_threads(1):  # whose number decides last bits
            return finish(recipe, ready, places, words, folder, partial(_tell, tell, ""))


def do_cells(
    jobs: Sequence[Mapping[str, Any]], recipe: BenchRecipe, folder: Path, tell: Tell, of: int = 0
) -> tuple[list[str], bool]:
    """Do cells (cell.run_cell), side by side where the recipe has workers; folder is above all of theirs.

    Returns why each came to nothing, "" where it did not, and whether tell broke it off. of: cells that there are in all.
    """
    return _do("evofool.bench.cell:run_cell", jobs, recipe, folder, tell, "", of)


def _tell(tell: Tell, before: str, words: str) -> None:
    tell(Progress(before + words))


def _places(recipe: BenchRecipe, one: Ready, folder: Path) -> list[Place]:
    """The cells of a target, those of its guarded ones behind them."""
    home = (folder / CELLS / one.entry.name).absolute()
    spec = one.spec
    found = [Place(one, arm, seed, home / f"{arm}-{seed}", spec) for arm in recipe.arms for seed in recipe.each_seed]
    if recipe.detectors:
        arm = recipe.detectors.arm
        for name, guarded in guards(recipe, one, folder).items():
            found += [
                Place(one, arm, seed, home / f"{arm}-against-{name}-{seed}", guarded, name) for seed in recipe.each_seed
            ]
    return found


def _job(recipe: BenchRecipe, place: Place) -> dict[str, Any]:
    return {
        "folder": str(place.folder),
        "target": place.spec,
        "arm": place.arm,
        "seed": place.seed,
        "queries": recipe.budget,
        "classes": place.ready.classes,
        "changes": list(recipe.changes(place.arm)),
        "format": recipe.format,
    }


def _is_done(folder: Path) -> bool:
    try:
        return record(folder) is not None
    except StoreError:
        return True  # that it is damaged is told with the results


def _do(
    work: str, jobs: Sequence[Mapping[str, Any]], recipe: BenchRecipe, folder: Path, tell: Tell, words: str, of: int = 0
) -> tuple[list[str], bool]:
    """Do jobs, here or by workers: why each came to nothing, "" where it did not; and whether tell broke it off."""
    failures = ["it was not begun"] * len(jobs)
    began, total = time.perf_counter(), of or len(jobs)
    before = total - len(jobs)
    done = 0
    over = False

    def hear(under_way: int, queries: float, note: str = "") -> bool:
        nonlocal over
        seconds = time.perf_counter() - began
        shown = words or note
        over = tell(Progress(shown, before + done, total, under_way, queries, done, seconds)) or over
        return over

    for index, why in _each(work, jobs, recipe, folder, hear):
        failures[index] = why
        done += 1
        if hear(0, 0.0):
            break
    return failures, over


def _each(
    work: str, jobs: Sequence[Mapping[str, Any]], recipe: BenchRecipe, folder: Path, hear: Callable[..., bool]
) -> Iterator[tuple[int, str]]:
    """(index, why it came to nothing, or "") of each job that ended, as they end."""
    if not jobs:
        return
    if recipe.workers:
        from evofool.cluster.farm import Failure, Standing, farm

        over = False

        def tick(standing: Standing) -> None:
            nonlocal over
            share = sum(min(1.0, told.get("queries", 0) / recipe.budget) for told in standing.under_way.values())
            over = hear(len(standing.under_way), share, standing.note)

        for index, told in farm(
            work,
            jobs,
            workers=min(recipe.workers, len(jobs)),
            shared=folder.absolute(),
            address=recipe.ray,
            stop=lambda: over,
            tick=tick,
        ):
            yield index, told.words if isinstance(told, Failure) else ""
        return
    does = {"evofool.bench.entries:train": train, "evofool.bench.cell:run_cell": run_cell}[work]
    for index, job in enumerate(jobs):
        try:
            told = does(job, lambda said: hear(1, min(1.0, said.get("queries", 0) / recipe.budget)))
        except EvofoolError as error:
            yield index, str(error)
        except MemoryError:
            yield index, "out of memory"
        else:
            if told is None:
                return
            yield index, ""


@contextmanager
def _opened(recipe: BenchRecipe, folder: Path) -> Iterator[None]:
    """The folder, made or gone on with, and nobody else's meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"{folder} is in use: another evofool is at work on this benchmark") from None
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror or error})") from None
    try:
        state = folder / STATE
        if state.is_file():
            began, wanted = read_json(state, SCHEMA)["fixed"], recipe.fixed()
            for key in sorted({*began, *wanted}):
                if began.get(key) != wanted.get(key):
                    raise RecipeError(
                        f"{folder} holds a benchmark with {key} = {began.get(key)!r}, asked for is {wanted.get(key)!r}; its "
                        "cells would not belong together: take another --out. Targets, arms, seeds and workers may change"
                    )
        elif any(path.name != LOCK for path in folder.iterdir()):
            raise StoreError(f"{folder} is not empty and holds no benchmark ({STATE}); take another --out")
        write_json(
            state, {"schema": SCHEMA, "version": 1, "fixed": recipe.fixed(), "recipe": recipe.model_dump(mode="json")}
        )
        yield
    finally:
        lock.release()
