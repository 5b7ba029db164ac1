"""The command `evofool run`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.console import describe, display, interrupts, report
from evofool.cli.options import Trust

if TYPE_CHECKING:
    from evofool.recipe import Recipe


def run(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN",
            help="A shipped recipe's name (mnist-cppn, mnist-direct, imagenet-cppn-10k, ...; evofool init copies them all "
            "out), a recipe file of your own, or the folder of a run to go on with.",
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value of the recipe: --set search.seed=3. May be given several times; an empty value "
            "(--set stop.confidence=) takes the key out. A run that has begun takes stop.*, save.*, compute.streams, "
            "compute.workers, compute.ray.*, and other words for the same target.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of a new run; runs/NAME unless given.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Classify in so many processes of Ray's, here or on a cluster; 0: in this one."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="local|auto|HOST:PORT", help="The Ray cluster to join; local starts one for this run."),
    ] = None,
    parents: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Begin with the elites of this run instead of random genomes; it is only read."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Start a run, or go on with one.

    Ctrl-C finishes the batch, saves and says how to go on; even a killed run goes on from its last checkpoint and
    ends with the same bits as one that was never stopped. At the end: elites.png (every elite with its label and confidence)
    and curve.png.
    """
    from evofool.errors import ScoreError, TargetError
    from evofool.run.resume_checks import wants_trust
    from evofool.run.run import Run

    changes = list(changes or [])
    changes += [] if workers is None else [f"compute.workers={workers}"]
    changes += [] if ray is None else [f"compute.ray.address={ray}"]
    changes += [] if parents is None else [f"search.parents={parents.absolute()}"]
    folder, recipe, named = _which_run(what, changes, out)
    if recipe is None or (folder / "run.db").exists():
        opened = Run.resume(folder, recipe, trust=trust, named=named)
        going_on = f"Going on with {folder} at {opened.strategy.evaluations:,} evaluations"
    else:
        opened = Run.start(recipe, folder)
        given = opened.seeds
        begins = f", which begins with {given.number} genomes of {recipe.search.parents}" if given else ""
        going_on = f"New run in {folder}{begins}"
    with opened as search:
        r = search.recipe
        print(
            f"{going_on}: {r.encoding.kind} against {r.target} ({len(search.target.labels)} classes), seed {r.search.seed}, "
            f"batch {r.search.batch}",
            flush=True,
        )
        trusting = " --trust" if wants_trust(r) else ""
        describe(search)
        before = search.strategy.evaluations
        try:
            with interrupts() as interrupted, display(search) as draw:
                reason = search.advance(lambda run: draw(run) or bool(interrupted))
        except (ScoreError, TargetError) as error:
            saved = f"{search.progress().saved:,} evaluations are saved; go on with:  evofool run {folder}{trusting}"
            error.args = (f"{error} ({saved})",)
            raise
        if reason and before == search.strategy.evaluations:
            print(f"This run had ended: {reason}. To go further, move its limit: --set stop.evaluations=N")
        nothing = not search.strategy.committed
    if nothing:
        print(f"Interrupted before the first batch was done. Begin again with:  evofool run {folder}{trusting}")
        raise typer.Exit(130)
    report(folder, reason)
    if interrupted and not reason:
        print(f"Interrupted and saved. Go on with:  evofool run {folder}{trusting}")
        raise typer.Exit(130)


def _which_run(what: str, changes: list[str], out: Path | None) -> "tuple[Path, Recipe | None, set[str]]":
    """(folder, recipe, what the user has named, and not a run: target, ray); recipe None for the stored one."""
    from evofool.errors import RecipeError, StoreError
    from evofool.recipe import load, shipped_recipes
    from evofool.run.stored import StoredRun

    path = Path(what)
    if path.name == "run.db":
        path = path.parent
    shipped = path.parent == Path() and path.name in {p.stem for p in shipped_recipes()}
    if _is_folder(path) and not (shipped and not (path / "run.db").is_file()):
        if not (path / "run.db").is_file():
            raise StoreError(f"{path} is a folder without a run (no run.db) and no recipe")
        if out is not None:
            raise RecipeError(f"{path} is a run and stays where it is; --out is for new ones")
        with StoredRun(path) as stored:
            recipe = stored.recipe.changed(changes, f"--set for {path}") if changes else None
        keys = [change.split("=")[0].strip() for change in changes]
        named = {"target"} if "target" in keys else set()
        return path, recipe, named | ({"ray"} if any(key.startswith("compute.ray") for key in keys) else set())
    recipe = load(what, changes)
    return out or Path("runs") / recipe.name, recipe, {"target", "ray"}


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a NUL
        return False
