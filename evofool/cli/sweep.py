"""The group `evofool sweep`: run (the default command) and show."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.options import RAY, AsJson, Trust, WithDefault
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.printer import print_lines

if TYPE_CHECKING:
    from evofool.recipe import Recipe

sweep = typer.Typer(
    cls=WithDefault,
    no_args_is_help=True,
    help="""Run a recipe from several seeds and against several targets.

    evofool sweep mnist-cppn --seeds 0:20 --workers 2       twenty runs, two at a time
    evofool sweep RECIPE --targets A,B --seeds 0:5          five runs against each target
    evofool sweep runs/mnist-cppn-sweep                     continue a sweep that was interrupted
    evofool sweep show runs/mnist-cppn-sweep                how far each run is
""",
)

_MOST = 10_000  # seeds

RECIPE = typer.Argument(
    metavar="RECIPE|DIR",
    help="A shipped recipe's name (mnist-cppn, ...), a recipe file, or a sweep's folder to continue it.",
)
SEEDS = typer.Option(
    metavar="A:B",
    help="Seeds A to B - 1; also a list such as 0:5,17. By default the recipe's one seed (search.seed), or those of DIR.",
)
TARGETS = typer.Option(
    "--targets",
    metavar="SPEC,SPEC",
    help="Classifiers (`evofool targets list`); may be repeated. By default the recipe's, or those of DIR.",
)
CHANGES = typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe, for all runs; may be repeated.")
OUT = typer.Option(metavar="DIR", help="Folder of the sweep; runs/NAME-sweep by default. One begun there is continued.")
WORKERS = typer.Option(
    min=0,
    help="Run this number of runs at once, each in a Ray process; 0: one after the other, in this process. compute.ray.* "
    "says what each process reserves. Does not change results.",
)


@sweep.command("run")
def run(
    recipe: Annotated[str, RECIPE],
    seeds: Annotated[str | None, SEEDS] = None,
    targets: Annotated[list[str] | None, TARGETS] = None,
    changes: Annotated[list[str] | None, CHANGES] = None,
    out: Annotated[Path | None, OUT] = None,
    workers: Annotated[int | None, WORKERS] = None,
    ray: Annotated[str | None, RAY] = None,
    trust: Trust = False,
) -> None:
    """Run a recipe from several seeds and against several targets (default command).

    Each run is an ordinary one, in DIR/TARGET/seed-N: `evofool show` and all other commands read it, and its result and
    pictures are those of `evofool run` with the same values. Ctrl-C saves, and the same command continues, also with more
    seeds or targets; so does `evofool sweep DIR`. A run that fails does not stop the others; then the exit status is 2.
    """
    from evofool.bench.report.formatting import counted
    from evofool.cli.console_jobs import print_jobs, run_figures_of, work_display
    from evofool.run.resume_checks import wants_trust
    from evofool.sweep.status import read_status
    from evofool.sweep.sweep import plan_sweep, run_sweep
    from evofool.targets import needs_trust

    changes = list(changes or [])
    changes += [] if workers is None else [f"compute.workers={workers}"]
    changes += [] if ray is None else [f"compute.ray.address={ray}"]
    given = [spec for text in targets or [] for spec in split_specs(text)]
    folder, loaded, specs, numbers = _which_sweep(recipe, changes, out, given, trust)
    if seeds is not None:
        numbers = seed_numbers(seeds)
    plan = plan_sweep(loaded, folder, specs, numbers)
    number, at_once = len(plan.jobs), loaded.compute.workers
    sizes = f"{counted(len(specs), 'target')} x {counted(len(numbers), 'seed')} = {counted(number, 'run')}"
    print_lines(
        f"Sweep in {folder}: {sizes} of {loaded.name}",
        *(f"  {name}: {spec}" for name, spec in plan.targets.items() if name != spec),
        *([f"  workers  {at_once}"] if at_once else []),
    )
    with work_display("run") as on_progress:
        outcome = run_sweep(plan, on_progress)
    if outcome.interrupted:
        trusting = " --trust" if wants_trust(loaded) or any(map(needs_trust, specs)) else ""
        print_lines(f"Interrupted and saved. The same command continues, and so does:  evofool sweep {folder}{trusting}")
        raise typer.Exit(130)
    print_jobs(read_status(folder), "run", run_figures_of(folder))
    for job in plan.jobs:
        _draw(Path(job.arguments["folder"]))
    failed = [(job.name, failure) for job, failure in zip(plan.jobs, outcome.failures, strict=True) if failure]
    for name, failure in failed:
        print_lines(f"evofool: {name} failed: {failure}", error=True)
    if failed:
        total = counted(number, "run")
        print_lines(f"evofool: {len(failed)} of {total} failed; the same command tries them again", error=True)
        raise typer.Exit(2)


def _which_sweep(
    recipe_or_folder: str, changes: list[str], out: Path | None, given: list[str], trust: bool
) -> "tuple[Path, Recipe, list[str], list[int]]":
    """(folder, recipe, targets, seeds) of a new sweep, or of the one in a folder. given: the targets that were given.

    A folder may come from anyone, as a run's may: code, a server or a cluster that only its files name needs trust.
    """
    from evofool.recipe import load
    from evofool.run.resume_checks import refuse_stored_cluster
    from evofool.sweep.sweep import MANIFEST, stored_sweep
    from evofool.targets import needs_trust, trust_reason
    from evofool.targets.remote.url import shown_spec

    folder = Path(recipe_or_folder)
    if not os.path.isfile(folder / MANIFEST):
        loaded = load(recipe_or_folder, changes)
        return out or Path("runs") / f"{loaded.name}-sweep", loaded, given or [loaded.target], [loaded.search.seed]
    if out is not None:
        raise RecipeError(f"{folder} is a sweep, which is continued in its folder; --out is for new sweeps")
    stored, specs, numbers = stored_sweep(folder)
    loaded = stored.changed(changes, f"--set for {folder}") if changes else stored
    refuse_stored_cluster(loaded, stored, folder, trust)
    surrogates = loaded.search.surrogate.targets if loaded.search.surrogate else ()
    foreign = [spec for spec in (*(given or specs), *surrogates) if spec not in given and needs_trust(spec)]
    if foreign and not trust:
        named = ", ".join(f"{shown_spec(spec)}, {trust_reason(spec)}" for spec in foreign)
        raise TargetError(f"{folder}: it names {named}, and a sweep may come from anyone; if you trust it, add --trust")
    return folder, loaded, given or specs, numbers


def _draw(folder: Path) -> None:
    """The pictures of a run, unless they are there and it has not been continued since."""
    from evofool.cli.console import SHEET, draw_pictures
    from evofool.run.reader import FILE
    from evofool.run.stored import StoredRun

    run, sheet = folder / FILE, folder / SHEET
    if not run.is_file() or (sheet.is_file() and sheet.stat().st_mtime > run.stat().st_mtime):
        return
    try:
        with StoredRun(folder) as stored:
            draw_pictures(stored, stored.elites())
    except StoreError as error:
        print_lines(f"Warning: {error}")


@sweep.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a sweep.")], as_json: AsJson = False
) -> None:
    """Show how far each run of a sweep is, also while it goes on in another process, and after that was killed."""
    from evofool.cli.console_jobs import show_jobs

    show_jobs(folder, as_json)


def seed_numbers(text: str) -> list[int]:
    """The seeds of a list like "0:5,17": a range A:B has A to B - 1."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?::\s*(\d{1,18})\s*)?", part)
        low = int(match[1]) if match else 0
        end = int(match[2] or low + 1) if match else 0
        if not low < end:
            raise RecipeError(f'--seeds "{text}" has to be whole numbers and ranges, as in 0:20 or 0:5,17')
        if len(found) + end - low > _MOST:
            raise RecipeError(f"--seeds {text} are more than {_MOST:,} seeds")
        found += range(low, end)
    return found


def split_specs(text: str) -> list[str]:
    """The targets of a list. A comma before a digit, a sign or a point belongs to an option, as in mean=0.1,0.2."""
    return [spec.strip() for spec in re.split(r",(?!\s*[-+.\d])", text) if spec.strip()]
