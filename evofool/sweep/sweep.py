"""A sweep: the runs of one recipe against several targets from several seeds; the same call continues it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evofool.cluster.settings import RayOptions
from evofool.errors import EvofoolError, RecipeError, StoreError, TargetError
from evofool.export.image_file import file_name
from evofool.json_file import read_json, write_json
from evofool.recipe import Recipe, parse
from evofool.run.reader import FILE
from evofool.run.resume_checks import flat
from evofool.run.stored import StoredRun
from evofool.sweep.folder import is_folder_name, locked_folder
from evofool.sweep.runner import Job, JobsOutcome, OnProgress, Workers, run_jobs
from evofool.sweep.status import FILE as STATUS
from evofool.sweep.status import StatusFile, read_status
from evofool.targets import check_spec

MANIFEST, SCHEMA, VERSION = "sweep.json", "evofool.sweep", 1
_REMEDY = "a sweep of another version cannot be continued: take another --out"


@dataclass(frozen=True)
class Sweep:
    """Which runs: one for each target and seed. recipe: theirs, but for name, target and seed.

    targets: by the name of its folder, the spec of each. Runs are done in this process, or by recipe.compute.workers
    workers; each worker reserves what recipe.compute.ray says, and does whole runs.
    """

    folder: Path
    recipe: Recipe
    targets: Mapping[str, str]
    seeds: tuple[int, ...]

    @property
    def jobs(self) -> list[Job]:
        """A job for each run, target by target."""
        total = self.recipe.stop.evaluations or 0
        return [
            Job(
                f"{name}/seed-{seed}",
                {
                    "folder": str((self.folder / name / f"seed-{seed}").absolute()),
                    "target": spec,
                    "recipe": self._recipe_of(f"{name}-seed-{seed}", spec, seed).model_dump(mode="json", exclude_none=True),
                },
                total,
            )
            for name, spec in self.targets.items()
            for seed in self.seeds
        ]

    def _recipe_of(self, name: str, spec: str, seed: int) -> Recipe:
        """A run's recipe. Its worker is the only one; runs side by side classify in one thread each."""
        r = self.recipe
        compute = r.compute.model_copy(update={"workers": 0, "streams": 1 if r.compute.workers > 1 else r.compute.streams})
        search = r.search.model_copy(update={"seed": seed})
        return r.model_copy(update={"name": name, "target": spec, "search": search, "compute": compute})


def plan_sweep(recipe: Recipe, folder: Path, targets: Sequence[str], seeds: Sequence[int]) -> Sweep:
    """The sweep of these targets and seeds in a folder. Targets that are there already keep the names of their folders.

    RecipeError if the folder has a sweep of another recipe, or a target or a seed is given twice or is none.
    """
    for what, given in (("targets", targets), ("seeds", seeds)):
        if not given or len(set(given)) < len(given):
            raise RecipeError(f"{what} have to be given, each once; given are {', '.join(map(str, given)) or 'none'}")
    for spec in targets:
        try:
            check_spec(spec)
        except TargetError as error:
            raise RecipeError(f"targets: {error}") from None
    return Sweep(folder, recipe, _names(targets, _stored(folder, recipe)), tuple(seeds))


def stored_sweep(folder: Path) -> tuple[Recipe, list[str], list[int]]:
    """The recipe, targets and seeds of the last sweep in a folder, as sweep.json and status.json have them.

    StoreError if there is none, or one that was killed before it had listed its runs.
    """
    recipe, named = _read(folder / MANIFEST)
    pairs = [re.fullmatch(r"(.*)/seed-(\d{1,18})", job.name, re.DOTALL) for job in read_status(folder).jobs]
    found = [(named[pair[1]], int(pair[2])) for pair in pairs if pair and pair[1] in named]
    if not found:
        raise StoreError(f"{folder} has a sweep whose runs are not listed in {STATUS}; repeat the command that started it")
    specs, seeds = zip(*found, strict=True)
    return recipe, list(dict.fromkeys(specs)), list(dict.fromkeys(seeds))


def run_sweep(sweep: Sweep, on_progress: OnProgress = lambda progress: False) -> JobsOutcome:
    """Run what is missing; failures are those of sweep.jobs. A run that fails leaves the others alone.

    StoreError if the folder is in use, or has other files. Interrupted runs are saved.
    """
    folder, jobs = sweep.folder, sweep.jobs
    with locked_folder(folder, "sweep", MANIFEST):
        named = _stored(folder, sweep.recipe) | dict(sweep.targets)
        recipe = sweep.recipe.model_dump(mode="json", exclude_none=True)
        write_json(folder / MANIFEST, {"schema": SCHEMA, "version": VERSION, "recipe": recipe, "targets": named})
        with StatusFile(folder) as status:
            done = {number for number, job in enumerate(jobs) if is_done(job)}
            missing = [number for number in range(len(jobs)) if number not in done]
            compute = sweep.recipe.compute
            outcome = run_jobs(
                "evofool.sweep.run_job:run_job",
                [jobs[number] for number in missing],
                folder,
                Workers(compute.workers, RayOptions(**compute.ray.model_dump())),
                on_progress,
                settled=[(jobs[number], "") for number in sorted(done)],
                status=status,
            )
            if outcome.interrupted:
                status.state = "interrupted"
    failures = dict(zip(missing, outcome.failures, strict=True))
    return JobsOutcome(tuple(failures.get(number, "") for number in range(len(jobs))), outcome.interrupted)


def is_done(job: Job) -> bool:
    """Whether a run has ended by the limits that its job has."""
    if not (job.folder / FILE).is_file():
        return False
    try:
        with StoredRun(job.folder) as stored:
            stop = job.arguments["recipe"]["stop"]
            return stored.meta.finished is not None and stored.recipe.stop.model_dump(exclude_none=True) == stop
    except EvofoolError:
        return False  # the job will say what is wrong


def _names(targets: Sequence[str], stored: Mapping[str, str]) -> dict[str, str]:
    """By the name of its folder, the spec of each target: the stored name, else the first that is free."""
    names = {spec: name for name, spec in stored.items()}
    taken = set(stored)
    for spec in targets:
        if spec not in names:
            name = file_name(spec.partition("?")[0]).lower()
            numbered = [name, *(f"{name}-{n}" for n in range(2, len(targets) + len(stored) + 2))]
            names[spec] = next(text for text in numbered if text not in taken)
            taken.add(names[spec])
    return {names[spec]: spec for spec in targets}


def _stored(folder: Path, recipe: Recipe) -> dict[str, str]:
    """The targets of the sweep in a folder, by name; {} if there is none. RecipeError if its runs have another recipe."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    stored, targets = _read(path)
    before, now = _fixed(stored), _fixed(recipe)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and any(folder.glob(f"*/*/{FILE}")):
            raise RecipeError(
                f"{folder} holds a sweep with {key} = {before.get(key)!r}, not {now.get(key)!r}. Its runs keep theirs: "
                "only targets, seeds, stop.*, save.*, compute.streams, compute.workers and compute.ray.* may change; take "
                "another --out"
            )
    return targets


def _read(path: Path) -> tuple[Recipe, dict[str, str]]:
    """The recipe and the targets, by name, of a sweep.json."""
    record = read_json(path, SCHEMA, VERSION, _REMEDY)
    recipe, targets = record.get("recipe"), record.get("targets")
    if not isinstance(recipe, dict) or not isinstance(targets, dict):
        raise StoreError(f"{path} is damaged: it has no recipe or no targets")
    for name, spec in targets.items():
        if not is_folder_name(name) or not isinstance(spec, str):
            raise StoreError(f"{path} is damaged: {name!r:.80} cannot be the name of a target, or {spec!r:.80} no target")
    return parse(recipe, str(path)), targets


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """What the runs of a sweep have in common and cannot change, by key."""
    return {key: value for key, value in flat(recipe.fixed()).items() if key != "search.seed"}
