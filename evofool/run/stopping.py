"""When a run ends by its own rules: the limits of its recipe."""

from typing import Protocol

import numpy as np

from evofool.recipe import Recipe
from evofool.run.rescore import Rescorer
from evofool.scores import needed_log_odds
from evofool.search.evolve import MapElites


class Search(Protocol):
    """What of a run is looked at."""

    recipe: Recipe
    strategy: MapElites
    rescorer: Rescorer

    @property
    def seconds(self) -> float: ...

    @property
    def answers(self) -> int: ...

    def best(self) -> np.ndarray: ...


def stop_reason(run: Search) -> str | None:
    """The first limit that is reached, which begins with its key; None if none is."""
    stop, s = run.recipe.stop, run.strategy
    if s.committed == 0:
        return None
    if stop.confidence is not None and _all_reach(run, needed_log_odds(stop.confidence)):
        return f"stop.confidence = {stop.confidence:g} is reached in every class"
    if stop.evaluations is not None and s.evaluations >= stop.evaluations:
        return f"stop.evaluations = {stop.evaluations:,} is reached"
    if stop.answers is not None and run.answers >= stop.answers:
        return f"stop.answers = {stop.answers:,} is reached ({run.answers:,} answers)"
    if stop.no_progress is not None and s.committed - 1 - s.last_progress >= stop.no_progress:
        return f"stop.no_progress = {stop.no_progress:,} is reached: no elite was replaced in the last batches"
    if stop.seconds is not None and run.seconds >= stop.seconds:
        return f"stop.seconds = {stop.seconds:g} is reached"
    return None


def seconds_left(run: Search, rate: float) -> float | None:
    """To the limit on evaluations or seconds, whichever is nearer, at so many evaluations per second; None without one."""
    stop, left = run.recipe.stop, []
    if stop.evaluations is not None and rate > 0:
        left.append(max(0.0, (stop.evaluations - run.strategy.evaluations) / rate))
    if stop.seconds is not None:
        left.append(max(0.0, stop.seconds - run.seconds))
    return min(left, default=None)


def _all_reach(run: Search, level: float) -> bool:
    wanted = run.strategy.classes
    if run.strategy.archive.best()[wanted].min() < level:
        return False
    run.rescorer.rescore(run.strategy.committed)
    return bool(run.best()[wanted].min() >= level)
