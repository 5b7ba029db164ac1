"""A search in memory, for the scripts that count evaluations: a recipe's search without a run's file."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evofool.recipe import Recipe
from evofool.run.run import Run
from evofool.scores import confidence, needed_log_odds
from evofool.search.archive import Archive
from evofool.search.evaluate import BatchEvaluator
from evofool.search.evolve import Callbacks, MapElites, ea_map_elites, toolbox
from evofool.search.local_evaluator import LocalEvaluator
from evofool.targets import Target


@dataclass(frozen=True)
class Reached:
    """By level, evaluations until the first, the median and all classes were there; None if the cap came first."""

    first: dict[float, int | None]
    median: dict[float, int | None]
    all: dict[float, int | None]
    seconds: float
    confidences: np.ndarray  # (K,) at the end


def search(recipe: Recipe, target: Target, seed: int, cap: int, levels: Sequence[float]) -> Reached:
    """Run the recipe's search on target until every class is at every level or `cap` evaluations are spent."""
    encoding, s = recipe.encoding.build(target.shape), recipe.search
    batch_evaluator = BatchEvaluator(encoding, target, recipe.chunk, s.rank, s.competition, keep=s.keep)
    archive = Archive(encoding, len(target.labels), keep=s.keep)
    strategy = MapElites(
        archive, encoding, seed=seed, batch=s.batch, competition=s.competition, tournament=s.cells_per_draw, random=s.random
    )  # fmt: skip
    first: dict[float, int | None] = dict.fromkeys(levels)
    median, lowest = first.copy(), first.copy()

    def after(_batch: int) -> bool:
        best = archive.best()
        for level in levels:
            needed = needed_log_odds(level)
            if first[level] is None and best.max() >= needed:
                first[level] = strategy.evaluations
            if median[level] is None and np.median(best) >= needed:
                median[level] = strategy.evaluations
            if lowest[level] is None and best.min() >= needed:
                lowest[level] = strategy.evaluations
        return None not in lowest.values()

    started = time.perf_counter()
    ea_map_elites(
        toolbox(strategy, batch_evaluator, LocalEvaluator(batch_evaluator)),
        max(1, cap // s.batch),
        lag=s.lag,
        callbacks=Callbacks(record=lambda _: False, after=after),
    )
    seconds = time.perf_counter() - started
    return Reached(first, median, lowest, seconds, np.asarray(confidence(archive.best())))


def middle(values: list[int | None]) -> float:
    """The median, a missing value counting as more than any other: infinite if half or more are missing."""
    return float(np.median([np.inf if v is None else v for v in values]))


def await_workers(run: Run) -> None:
    """Until all workers of a run are ready, so that a clock can begin; what the evaluator notes meanwhile is printed."""
    while any(one["state"] != "working" for one in run.evaluator.workers()):
        run.evaluator._step()  # type: ignore[attr-defined]
        while run.evaluator.notes:
            print(f"  {run.evaluator.notes.pop()}", flush=True)
