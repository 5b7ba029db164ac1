"""Budgets from a number of minutes, for a benchmark that gives none: by the measured speed of its targets."""

import math
import time
from pathlib import Path

import numpy as np

from evofool.bench.arms import ARMS, SURROGATE, evolves, is_applicable, least_queries, settings_for
from evofool.bench.manifest import stored_recipe
from evofool.bench.plan import BenchRecipe
from evofool.bench.real import real_images
from evofool.errors import RecipeError
from evofool.machine import cpus, keep_memory, torch_threads
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.photos import patterns

_COSTS = {"search": 1.2, "black": 1.1, "surrogate": 1.2, "white": 4.0, "floor": 0.0}
"""The cost of a query of an arm, in forward passes: gradients are expensive, and rendering costs something too."""
_CLIMB = 40.0  # the same of a child's climb on one surrogate, if it is as large as the target: 14 passes forth and back
_VERIFIED = {"search": 1, "black": 2, "surrogate": 1, "white": 2, "floor": 3}
"""How often the best image of every class is classified at the end of an arm's cell."""
_SPARE = 0.2  # of the minutes, for loading, real images and the report
_OVER = 1.5  # times the minutes that a benchmark may take if it cannot take less
_TIMED = 16


def with_budget(recipe: BenchRecipe, minutes: float, folder: Path) -> tuple[BenchRecipe, str]:
    """The recipe with budgets that should take so many minutes here, or with those of the cells in folder; and a note.

    The largest is 1, 2 or 5 times a power of ten, and a third and a tenth of it are the smaller ones. If that is too small
    for the number of classes there are fewer seeds, at least two, unless the recipe gives their number; if it still takes
    longer, the note says how long, and RecipeError if it takes more than 1.5 times as long.
    """
    if not 0 < minutes < math.inf:
        raise RecipeError(f"--minutes has to be above 0, not {minutes:g}")
    named = "seeds" in recipe.model_fields_set
    if before := stored_recipe(folder):
        budgets, seeds = before.budgets, recipe.seeds if named else before.seeds
        listed = ", ".join(f"{budget:,}" for budget in budgets)
        note = f"{folder} was started with budgets of {listed} queries, which stay: --minutes is for a new folder"
        return recipe.model_copy(update={"budgets": budgets, "seeds": seeds}), note
    cost, ends, classes, least = 0.0, 0.0, 2, 1
    for part in recipe.targets:
        if part.target is None:
            raise RecipeError("--minutes is for --target SPEC; a benchmark that trains networks needs budgets")
        target = load_target(part.target)
        each, k = _pace(target, recipe.images)
        arms = [arm for arm in recipe.arms if is_applicable(arm, target)]
        climbs = _CLIMB * len(recipe.surrogates) if SURROGATE in arms else 0.0
        cost += each * max(1.0, climbs + sum(_COSTS[ARMS[arm].kind] for arm in arms))
        ends += each * k * sum(_VERIFIED[ARMS[arm].kind] for arm in arms)
        classes, least = max(classes, k), max(least, *(least_queries(arm, k, _settings(recipe, arm)) for arm in arms), 1)
    seconds = (1 - _SPARE) * 60 * minutes * max(1, min(recipe.workers, cpus()))
    fewest = recipe.seeds if named else min(2, recipe.seeds)

    def affordable(seeds: int) -> float:
        return (seconds / seeds - ends) / cost

    seeds = next((n for n in range(recipe.seeds, fewest, -1) if affordable(n) >= least), fewest)
    note = ""
    if affordable(seeds) < least:
        needed = minutes * seeds * (least * cost + ends) / seconds
        note = (
            f"{classes:,} classes need at least {least:,} queries of each arm and {seeds} seeds, about {math.ceil(needed)} "
            "minutes here; fewer --arms or --seeds take less"
        )
        if needed > _OVER * minutes:
            raise RecipeError(f"{minutes:g} minutes are not enough: {note}, or give --minutes {math.ceil(needed)}")
    # Rounded to a number that reads well, but not below what is needed.
    queries = max(affordable(seeds), least)
    power = 10 ** math.floor(math.log10(queries))
    most = max(int(power * max(f for f in (1, 2, 5) if f * power <= queries)), least)
    budgets = tuple(sorted({max(1, most // 10), max(1, most // 3), most}))
    return recipe.model_copy(update={"budgets": budgets, "seeds": seeds}), note


def _settings(recipe: BenchRecipe, arm: str) -> dict[str, object] | None:
    return None if evolves(arm) else settings_for(arm, recipe.changes(arm))


def _pace(target: Target, real: str) -> tuple[float, int]:
    """Seconds of a forward pass of one image in one thread, and the number of classes with real images."""
    if target.requests:
        raise RecipeError(f"{target.name}: every request counts, so its speed is not measured; give a --budget")
    classes = len(np.unique(real_images(real, target).classes))
    images = np.asarray(patterns(target.shape, _TIMED))
    keep_memory()
    with torch_threads(1):
        target.logits(images)
        took = []
        for _ in range(3):
            began = time.perf_counter()
            target.logits(images)
            took.append(time.perf_counter() - began)
    return sorted(took)[1] / _TIMED, classes
