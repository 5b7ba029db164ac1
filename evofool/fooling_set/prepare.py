"""Before the cells of a set: networks are trained, classifiers loaded and validated, and the cells of each are planned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evofool.bench.arms import ARMS, is_applicable, refuse_small
from evofool.bench.calibration import scored_classes
from evofool.bench.cell_job import CellJob
from evofool.bench.entries import Entry, entries, training_jobs
from evofool.bench.gradient_stage import choose_gradients
from evofool.bench.manifest import CELLS
from evofool.bench.scheduler import train_networks
from evofool.errors import Interrupted, RecipeError, StoreError, TargetError
from evofool.fooling_set.recipe import GroupPart, SetRecipe
from evofool.machine import keep_memory, torch_threads
from evofool.sweep.runner import OnProgress, Workers
from evofool.sweep.status import StatusFile
from evofool.targets import Target, check_spec
from evofool.targets import target as load_target
from evofool.targets.labels import class_of
from evofool.targets.validation import validate

RANK = "log_odds"
"""What elites are compared by, as in runs by default: the log-odds of their class. A benchmark compares margins."""


@dataclass(frozen=True)
class SetClassifier:
    """A classifier of a set. classes: those that images are made for, ascending; cells: the jobs that make them.

    notes: what a reader of the set should know of it, in sentences.
    """

    group: GroupPart
    entry: Entry
    target: Target
    classes: tuple[int, ...]
    cells: tuple[CellJob, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in the set."""
        return self.entry.name


def listed_entries(recipe: SetRecipe, folder: Path) -> list[tuple[GroupPart, Entry]]:
    """All classifiers of a set in order. RecipeError where two have one name, and for what is no target's spec."""
    found = [(group, entry) for group in recipe.groups for entry in entries(recipe.bench(group), folder)]
    names = [entry.name for _, entry in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"two classifiers of the set are called {twice[0]}; give one of them another name")
    for group, entry in found:
        try:
            if not entry.defence:
                check_spec(entry.spec)
        except TargetError as error:
            raise RecipeError(f"groups: {group.name}: {error}") from None
    return found


def train_missing(
    listed: Sequence[tuple[GroupPart, Entry]], folder: Path, workers: Workers, on_progress: OnProgress, status: StatusFile
) -> None:
    """Train the networks that are not there yet. Interrupted if that was ended; StoreError if one could not be trained."""
    jobs = training_jobs([entry for _, entry in listed], folder)
    if not jobs:
        return
    outcome = train_networks(jobs, folder, workers, on_progress, status)
    if outcome.interrupted:
        raise Interrupted
    if failures := [failure for failure in outcome.failures if failure]:
        raise StoreError(f"{len(failures)} networks of the set were not trained; the first: {failures[0]}")


def prepare(
    recipe: SetRecipe, listed: Sequence[tuple[GroupPart, Entry]], folder: Path, report: Callable[[str], None]
) -> list[SetClassifier]:
    """Load and validate every classifier, and plan its cells. report is called often; what it raises passes through.

    TargetError for one that cannot be in a set: its validation fails. RecipeError for a class that it has not, and for a
    budget that is too small.
    """
    keep_memory()
    prepared = []
    for number, (group, entry) in enumerate(listed, 1):
        report(f"preparing {entry.name} ({number} of {len(listed)})")
        with torch_threads(1):
            prepared.append(_prepare(recipe, group, entry, folder))
    return prepared


def _prepare(recipe: SetRecipe, group: GroupPart, entry: Entry, folder: Path) -> SetClassifier:
    bench = recipe.bench(group)
    target = load_target(entry.spec)
    bench.refuse_settings(target)
    validation = validate(target, 32)
    if validation.faults:
        raise TargetError(f"{entry.name} cannot be in a set: {'; '.join(validation.faults)}")
    classes = _classes(group, target)
    for arm in bench.arms:
        if is_applicable(arm, target):
            each = group.budget_of(arm)
            refuse_small([arm], each, len(classes), entry.name, bench.settings(), target.queries_per_image)
    budget = min((group.budget_of(arm) for arm in bench.arms if ARMS[arm].kind == "white"), default=group.budget)
    gradients = choose_gradients(target, bench.arms, budget, len(classes), bench.settings())
    notes = [*target.details.get("notes", ()), *validation.notes]
    left_out = [arm for arm in bench.arms if not is_applicable(arm, target) or arm in gradients.left_out]
    if gradients.masked:
        notes.append(gradients.message(bench.arms))
    elif left_out:
        notes.append(f"{', '.join(left_out)}: need gradients, and this classifier gives none; left out")
    fingerprint = target.fingerprint()
    cells = tuple(
        CellJob(
            (folder / CELLS / entry.name / f"{arm}-{seed}").absolute(),
            target.name,
            arm,
            seed,
            group.budget_of(arm),
            classes,
            tuple(bench.changes(arm)),
            bench.format,
            RANK,
            fingerprint=fingerprint,
            gradients=gradients.of(arm),
            queries_per_image=target.queries_per_image,
        )
        for arm in bench.arms
        if arm not in left_out
        for seed in bench.each_seed
    )
    return SetClassifier(group, entry, target, classes, cells, tuple(notes))


def _classes(group: GroupPart, target: Target) -> tuple[int, ...]:
    """The classes that images are made for, ascending."""
    every = len(target.labels)
    if group.classes is None or isinstance(group.classes, int):
        return tuple(np.flatnonzero(scored_classes(np.arange(every), every, group.classes)).tolist())
    return tuple(sorted({class_of(str(given), target.labels, f"groups: {group.name}: classes") for given in group.classes}))
