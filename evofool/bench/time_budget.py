"""Budgets from a number of minutes, for a benchmark that gives none: by the measured speed of its targets."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evofool.bench.arms import ARMS, SURROGATE, evolves, is_applicable, least_queries, settings_for
from evofool.bench.headline import PER_CLASS, SUITE
from evofool.bench.manifest import stored_recipe
from evofool.bench.plan import BenchRecipe
from evofool.bench.real import real_images
from evofool.errors import RecipeError
from evofool.machine import cpus, keep_memory, torch_threads
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.photos import patterns

MANY_CLASSES = (100, 50)
"""If there are more classes than the first number, that many are scored, or the second number if each of the first would get
fewer than PER_CLASS queries."""
_LEADING = (1, 1.5, 2, 3, 4, 5, 6, 8)  # a budget is one of these times a power of ten
_COSTS = {"search": 1.2, "black": 1.1, "surrogate": 1.2, "white": 4.0, "floor": 0.0}
"""The cost of a query of an arm, in forward passes: gradients are expensive, and rendering costs something too."""
_BACKWARD = 2.0  # of these, one backward pass
_CLIMB = 40.0  # the same of a child's climb on one surrogate, if it is as large as the target: 14 passes forth and back
_VERIFIED = {"search": 1, "black": 2, "surrogate": 1, "white": 2, "floor": 3}
"""How often the best image of every class is classified at the end of an arm's cell."""
_SPARE = 0.2  # of the minutes, for loading, real images and the report
_OVER = 1.5  # times the minutes that a benchmark may take if it cannot take less
_TIMED = 16


def with_budget(recipe: BenchRecipe, minutes: float, folder: Path) -> tuple[BenchRecipe, str]:
    """The recipe with budgets that should take so many minutes here, or with those of the cells in folder; and a note.

    The largest is a round number, and a third and a tenth of it are the smaller ones. If a class would get fewer than 100
    queries, fewer classes, seeds and arms are measured (_affordable), unless the recipe gives them. If that is not enough
    for all arms to begin, the note says how long it takes, and RecipeError if it takes more than 1.5 times as long.
    """
    if not 0 < minutes < math.inf:
        raise RecipeError(f"--minutes has to be above 0, not {minutes:g}")
    if before := stored_recipe(folder):
        seeds = recipe.seeds if "seeds" in recipe.model_fields_set else before.seeds
        listed = ", ".join(f"{budget:,}" for budget in before.budgets)
        note = f"{folder} was started with budgets of {listed} queries, which stay: --minutes is for a new folder"
        arms = recipe.arms if "arms" in recipe.model_fields_set else before.arms
        classes = recipe.classes if recipe.classes is not None else before.classes  # other ones are refused
        kept = {"budgets": before.budgets, "seeds": seeds, "arms": arms, "classes": classes}
        return recipe.model_copy(update=kept), note
    paces = [_pace_of(recipe, part.target) for part in recipe.targets]
    recipe, plan, notes = _affordable(recipe, paces, minutes)
    if plan.queries < plan.least:
        needed = minutes * recipe.seeds * (plan.least * plan.cost + plan.ends) / plan.seconds
        short = (
            f"{plan.classes:,} classes need at least {plan.least:,} queries of each arm and {recipe.seeds} seeds, about "
            f"{math.ceil(needed)} minutes here; fewer --arms, --seeds or --classes take less"
        )
        if needed > _OVER * minutes:
            raise RecipeError(f"{minutes:g} minutes are not enough: {short}, or give --minutes {math.ceil(needed)}")
        notes = [*notes, short]
    # Rounded to a number that reads well, but not below what is needed.
    queries = max(plan.queries, plan.least)
    power = 10 ** math.floor(math.log10(queries))
    most = max(int(max(f * power for f in _LEADING if f * power <= queries)), plan.least)
    budgets = tuple(sorted({max(1, most // 10), max(1, most // 3), most}))
    return recipe.model_copy(update={"budgets": budgets}), "; ".join(notes)


def _affordable(recipe: BenchRecipe, paces: Sequence["_Pace"], minutes: float) -> tuple[BenchRecipe, "_Plan", list[str]]:
    """The recipe with so few classes, seeds and arms that each class gets PER_CLASS queries, if that can be reached.

    What the recipe states is kept. Otherwise these are given up, one after the other, until it is reached: classes, down to
    100 and 50; seeds, down to 3; the arms that are not of the headline's suite, `noise` and those that the recipe needs
    excepted; the third seed. The notes name what was.
    """
    given, known = recipe.model_fields_set, max(pace.classes for pace in paces)
    steps: list[dict[str, Any]] = [{}]
    if "classes" not in given and known > MANY_CLASSES[0]:
        steps = [{"classes": number} for number in MANY_CLASSES]
    smaller: list[dict[str, Any]] = []
    if "seeds" not in given:
        smaller.append({"seeds": min(3, recipe.seeds)})
    if "arms" not in given:
        named = {*SUITE, *recipe.arm, *([recipe.detectors.arm] if recipe.detectors else [])}
        smaller.append({"arms": tuple(arm for arm in recipe.arms if arm in named or ARMS[arm].kind == "floor")})
    if "seeds" not in given:
        smaller.append({"seeds": min(2, recipe.seeds)})
    for change in smaller:
        steps.append(steps[-1] | change)
    for step in steps:
        chosen = recipe.model_copy(update=step)
        plan = _Plan(chosen, paces, minutes)
        if plan.queries >= PER_CLASS * plan.classes:
            break
    notes = []
    if chosen.classes != recipe.classes:
        notes.append(f"{chosen.classes} of {known:,} classes are scored, evenly spaced; --classes N scores another number")
    if left_out := [arm for arm in recipe.arms if arm not in chosen.arms]:
        notes.append(f"{', '.join(left_out)}: left out for want of time; --arms names them")
    if chosen.seeds != recipe.seeds:
        notes.append(f"{chosen.seeds} seeds instead of {recipe.seeds}; more --minutes allow more")
    return chosen, plan, notes


class _Pace(NamedTuple):
    """Of a target: seconds of a query, the number of classes with real images, the arms that attack it, and the queries that
    an image takes.
    """

    seconds: float
    classes: int
    arms: list[str]
    per_image: int = 1


class _Plan:
    """What the cells of a benchmark cost, and the budget that so many minutes allow.

    cost: seconds per query of all arms; ends: seconds per seed besides; least: the smallest budget that all arms can begin
    with; seconds: that there are; queries: the budget of each cell, below 0 if there is no time for any.
    """

    def __init__(self, recipe: BenchRecipe, paces: Sequence[_Pace], minutes: float) -> None:
        self.cost, self.ends, self.classes, self.least = 0.0, 0.0, 2, 1
        for pace in paces:
            arms = [arm for arm in pace.arms if arm in recipe.arms]
            k = pace.classes if recipe.classes is None else min(recipe.classes, pace.classes)
            climbs = _CLIMB * len(recipe.surrogates) if SURROGATE in arms else 0.0
            self.cost += pace.seconds * max(1.0, climbs + sum(_cost(recipe, arm) for arm in arms))
            self.ends += pace.seconds * pace.per_image * k * sum(_VERIFIED[ARMS[arm].kind] for arm in arms)
            self.classes = max(self.classes, k)
            images = max(*(least_queries(arm, k, _settings(recipe, arm)) for arm in arms), 1)
            self.least = max(self.least, images * pace.per_image)
        self.seconds = (1 - _SPARE) * 60 * minutes * max(1, min(recipe.workers, cpus()))
        self.queries = (self.seconds / recipe.seeds - self.ends) / self.cost


def _pace_of(recipe: BenchRecipe, spec: str | None) -> _Pace:
    if spec is None:
        raise RecipeError("--minutes is for --target SPEC; a benchmark that trains networks needs budgets")
    target = load_target(spec)
    seconds, classes = _pace(target, recipe.images)
    arms = [arm for arm in recipe.arms if is_applicable(arm, target)]
    return _Pace(seconds, classes, arms, target.queries_per_image)


def _cost(recipe: BenchRecipe, arm: str) -> float:
    """The cost of a query, in forward passes; every loss but the first takes one more backward pass."""
    losses = str((_settings(recipe, arm) or {}).get("losses", ""))
    return _COSTS[ARMS[arm].kind] + _BACKWARD * losses.count("+")


def _settings(recipe: BenchRecipe, arm: str) -> dict[str, object] | None:
    return None if evolves(arm) else settings_for(arm, recipe.changes(arm))


def _pace(target: Target, real: str) -> tuple[float, int]:
    """Seconds of a query in one thread, and the number of classes with real images."""
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
    return sorted(took)[1] / (_TIMED * target.queries_per_image), classes
