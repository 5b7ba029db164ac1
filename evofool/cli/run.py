"""The command `evofool run`."""

from contextlib import AbstractContextManager, nullcontext
from math import ceil
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.console import describe, display, interrupts, report
from evofool.cli.options import RAY, Trust
from evofool.printer import print_lines

if TYPE_CHECKING:
    from evofool.errors import BudgetError
    from evofool.recipe import Recipe
    from evofool.run.run import Run

_COST_OF_LAG = ((1, 1.23), (2, 1.48), (4, 1.87), (8, 2.55), (16, 3.7), (32, 5.57))
"""(lag, evaluations in multiples of those of lag 0) of mnist-direct: docs/measured.md, tests/perf/lag_curve.py."""


def run(
    recipe_or_run: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN",
            help="A shipped recipe's name (mnist-cppn, mnist-direct, imagenet-cppn-10k, ...; `evofool init` copies them "
            "all), a recipe file, or the folder of a run to continue.",
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value of the recipe: --set search.seed=3. May be repeated; an empty value "
            "(--set stop.confidence=) removes the key. In a run that has begun, only stop.*, save.*, search.lag, "
            "compute.streams, compute.workers, compute.ray.* and compute.recheck* can change, and target if it is still the "
            "same classifier (for example after its weights file was moved).",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of a new run; runs/NAME by default.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Classify in this number of Ray processes, here or on a cluster; 0: in this process."),
    ] = None,
    ray: Annotated[str | None, RAY] = None,
    parents: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Start from the elites of this run instead of random genomes; it is not modified."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Start a run, or continue one.

    Ctrl-C finishes the batch, saves, and prints the command that continues the run. A run that was killed continues from
    its last checkpoint. On one kind of machine its result is bit-identical to that of a run that was never stopped (with
    search.mode=free: evofool replay). A run that is continued by its folder keeps its stop.* and save.* values; one that is
    continued by its recipe gets those of the recipe, and the changes are printed. At the end it writes elites.png (every
    elite, that is the best image of a class, with its label and confidence) and curve.png.
    """
    from evofool.errors import BudgetError, ClusterError, DriftError, ScoreError, TargetError

    changes = list(changes or [])
    changes += [] if workers is None else [f"compute.workers={workers}"]
    changes += [] if ray is None else [f"compute.ray.address={ray}"]
    changes += [] if parents is None else [f"search.parents={parents.absolute()}"]
    folder, recipe, named = _which_run(recipe_or_run, changes, out)
    changed_lines: list[str] = []
    if recipe is None or (folder / "run.db").exists():
        if recipe is not None:
            changed_lines = _changed_lines(folder, recipe, changes)
        opened = _resume(folder, recipe, trust, named)
        start = f"Continuing {folder} at {opened.strategy.evaluations:,} evaluations"
    else:
        recipe, changed_lines = _with_lag(recipe)
        try:
            opened = _start(recipe, folder)
        except BudgetError as error:
            others = [change for change in changes if change.split("=")[0].strip() != "target"]
            command = ["evofool", "run", recipe_or_run, *(f"--set={change}" for change in others), f"--out={folder}"]
            error.args = (f"{error}; start again with:  {' '.join(map(quote, command))} {_raised(error)}",)
            raise
        given = opened.seeds
        begins = f", which begins with {given.number} genomes of {recipe.search.parents}" if given else ""
        start = f"New run in {folder}{begins}"
    from evofool.run.resume_checks import wants_trust

    with opened as search:
        r = search.recipe
        print_lines(
            f"{start}: {r.encoding.kind} against {r.target} ({len(search.target.labels)} classes), seed {r.search.seed}, "
            f"batch {r.search.batch}",
        )
        trust_option = " --trust" if wants_trust(r) else ""
        for line in changed_lines:
            print_lines(f"  {line}")
        describe(search)
        before = search.strategy.evaluations
        try:
            with interrupts() as interrupted, display(search) as show_progress:
                reason = search.advance(lambda run: show_progress(run) or bool(interrupted))
        except DriftError:
            raise  # it says how to go on
        except (ClusterError, ScoreError, TargetError) as error:
            again = _again(folder, error, wants_trust(r))
            saved = f"{search.progress().saved:,} evaluations are saved; continue with:  {again}"
            error.args = (f"{error} ({saved})",)
            raise
        if reason and before == search.strategy.evaluations:
            key = reason.split()[0]
            print_lines(
                f"This run has ended: {reason}. To continue it: --set {key}=VALUE, or --set {key}= to remove this limit"
            )
        elif reason:
            print_lines(f"Stopped: {reason}.")
        nothing_done = not search.strategy.committed
        checked = search.target.monitor.summary() if search.target.monitor is not None else ""
    if nothing_done:
        print_lines(
            f"Interrupted before the first batch was finished. Start again with:  evofool run {folder}{trust_option}"
        )
        raise typer.Exit(130)
    report(folder, reason)
    if checked:
        print_lines(f"{checked}.")
    if interrupted and not reason:
        print_lines(f"Interrupted and saved. Continue with:  evofool run {folder}{trust_option}")
        raise typer.Exit(130)


def _resume(folder: Path, recipe: "Recipe | None", trust: bool, named: set[str]) -> "Run":
    from evofool.errors import BudgetError
    from evofool.run.run import Run
    from evofool.targets.remote.client import NoResponseError

    try:
        return Run.resume(folder, recipe, trust=trust, named=named)
    except (BudgetError, NoResponseError) as error:
        error.args = (f"{error}; continue with:  {_again(folder, error, True)}",)
        raise


def _start(recipe: "Recipe", folder: Path) -> "Run":
    """Run.start. The Ray of its workers starts while PyTorch is imported and the target is loaded and validated.

    Errors of the specs are found before: they are told at once, since a Ray that starts has to be waited for.
    """
    from evofool.search.first_calls import compile_ahead
    from evofool.targets import check_spec, refuse_black_box

    for spec in (recipe.target, *(recipe.search.surrogate.targets if recipe.search.surrogate else ())):
        check_spec(spec)
    if recipe.compute.workers:
        refuse_black_box(recipe.target)
    compile_ahead(recipe.encoding.kind)
    with _ray_of(recipe):
        from evofool.run.run import Run

        return Run.start(recipe, folder)


def _ray_of(recipe: "Recipe") -> AbstractContextManager[None]:
    if not recipe.compute.workers:
        return nullcontext()
    from evofool.cluster.ahead import started_ahead
    from evofool.cluster.settings import RayOptions

    return started_ahead(RayOptions(**recipe.compute.ray.model_dump()), recipe.compute.workers)


def _with_lag(recipe: "Recipe") -> "tuple[Recipe, list[str]]":
    """The recipe of a new run with the lag that its workers need, unless it gives one; and what to print about it."""
    from evofool.cluster.settings import lag_for

    search, workers = recipe.search, recipe.compute.workers
    lag = lag_for(workers, ceil(search.batch / recipe.chunk), recipe.compute.ray.in_flight)
    if "lag" in search.model_fields_set or search.mode == "free" or lag <= search.lag:
        return recipe, []
    lines = [f"search.lag is {lag}, the least that keeps {workers} workers busy; the recipe has none (--set search.lag=N)"]
    if recipe.encoding.kind == "direct":
        most = _COST_OF_LAG[-1]
        beyond = f"over {most[1]:g} times (measured up to lag {most[0]})"
        cost = next((f"{times:g} times at lag {at}" for at, times in _COST_OF_LAG if at >= lag), beyond)
        lines.append(
            f"With pixels a lag costs evaluations: {cost} (mnist-direct on a LeNet, medians of 20 seeds). With --set "
            "search.mode=free parents are drawn when a worker is free, but results depend on which worker is faster"
        )
    return recipe.model_copy(update={"search": search.model_copy(update={"lag": lag})}), lines


def _again(folder: Path, error: Exception, trust: bool) -> str:
    """The command that continues a run after an error; for a cap on requests that was reached, with a higher one."""
    from evofool.errors import BudgetError

    again = f"evofool run {quote(str(folder))}"
    if not isinstance(error, BudgetError):
        return f"{again} --trust" if trust else again
    return f"{again} {_raised(error)}"


def _raised(error: "BudgetError") -> str:
    """The option that raises the cap on requests that was reached."""
    from evofool.targets.remote.url import redacted_url

    shown = redacted_url(error.raised)
    hint = "" if shown == error.raised else " (with the URL's own values in place of ...)"
    return f"--set {quote(f'target={shown}')}{hint}"


def _changed_lines(folder: Path, recipe: "Recipe", changes: list[str]) -> list[str]:
    """A line for each value of the run in folder that continues with another one: by --set, or from the recipe."""
    from evofool.run.resume_checks import changed_values
    from evofool.run.stored import StoredRun

    with StoredRun(folder) as stored:
        values = changed_values(recipe, stored.recipe)
    given = {change.split("=")[0].strip() for change in changes}
    text = lambda value: f"{value:,}" if type(value) is int else "none" if value is None else str(value)  # noqa: E731
    return [
        f"{key} is now {text(new)} (it was {text(old)})"
        if key in given
        else f"{key} is back to {text(new)} (the recipe's value; it was {text(old)})"
        for key, old, new in values
    ]


def _which_run(recipe_or_run: str, changes: list[str], out: Path | None) -> "tuple[Path, Recipe | None, set[str]]":
    """(folder, recipe, those of "target" and "ray" that the user gave); recipe is None where the stored one is meant."""
    from evofool.errors import RecipeError, StoreError
    from evofool.recipe import load, shipped_recipes

    path = Path(recipe_or_run)
    if path.name == "run.db":
        path = path.parent
    shipped = path.parent == Path() and path.name in {p.stem for p in shipped_recipes()}
    if _is_folder(path) and not (shipped and not (path / "run.db").is_file()):
        if not (path / "run.db").is_file():
            raise StoreError(f"{path} is a folder without a run (it has no run.db); name a run's folder or a recipe")
        if out is not None:
            raise RecipeError(f"{path} is a run, which is continued in its folder; --out is for new runs")
        from evofool.run.stored import StoredRun

        with StoredRun(path) as stored:
            recipe = stored.recipe.changed(changes, f"--set for {path}") if changes else None
        keys = [change.split("=")[0].strip() for change in changes]
        named = {"target"} if "target" in keys else set()
        return path, recipe, named | ({"ray"} if any(key.startswith("compute.ray") for key in keys) else set())
    recipe = load(recipe_or_run, changes)
    return out or Path("runs") / recipe.name, recipe, {"target", "ray"}


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a NUL
        return False
