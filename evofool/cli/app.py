"""The command line. It imports the rest only when a command needs it, so that help comes at once."""

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.baseline import baseline
from evofool.cli.bench import bench
from evofool.cli.console import describe, display, interrupts, print_table, report, show_one, write
from evofool.cli.explain import explain
from evofool.cli.export import export
from evofool.cli.gate import gate
from evofool.cli.judge import judge
from evofool.cli.merge import merge
from evofool.cli.polish import polish
from evofool.cli.replay import replay
from evofool.cli.retrain import retrain
from evofool.cli.score_set import score_set
from evofool.cli.targets import serve_target, targets
from evofool.cli.transfer import transfer
from evofool.cli.workers import workers

if TYPE_CHECKING:
    from evofool.recipe import Recipe

app = typer.Typer(
    name="evofool",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Evolve fooling images: pictures that a classifier is sure about and that are nothing of the kind.

A [bold]run[/bold] keeps the best image of every class in a folder, as one SQLite file. Begin with

    evofool run mnist-cppn            ten digits out of abstract patterns, in seconds
    evofool show runs/mnist-cppn      what came of it
    evofool targets list              what else can be attacked
""",
)

app.add_typer(bench, name="bench")
app.add_typer(targets, name="targets")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for example runs/mnist-cppn.")]
Trust = Annotated[bool, typer.Option("--trust", help="Follow a stored target that is code to import or a server to ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable, exact numbers.")]


@app.command()
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
    from evofool.run.run import Run, wants_trust

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
        given = opened.given
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


@app.command()
def show(
    folder: RunFolder,
    which: Annotated[str | None, typer.Option("--class", help="One elite in full: a class number or a label.")] = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """The elites of a run as a table, or one of them in full.

    In full: its scores, what else the classifier saw, its parents and, for a CPPN, its genome, with the picture
    and the graph written beside the run. Works while the run goes on.
    """
    from evofool.run.stored import StoredRun, to_json

    with StoredRun(folder) as stored:
        if which is not None:
            show_one(stored, which, as_json, trust)
            return
        elites = stored.elites()
        if as_json:
            rows = stored.rows()
            print(
                to_json(
                    {
                        "run": str(folder),
                        "recipe": stored.meta["recipe"],
                        "target": stored.meta["target"],
                        "machine": stored.meta["machine"],
                        "evaluations": stored.evaluations,
                        "seconds": stored.meta["seconds"],
                        "elites_as_of": stored.elites_as_of,
                        "finished": stored.meta["finished"],
                        "warnings": stored.meta.get("warnings", []),
                        "quarantine": stored.quarantine(),
                        "metrics": rows,
                        "references": stored.store.references(),
                        "elites": [elite.summary() for elite in elites],
                    }
                )
            )
            return
        print_table(stored, elites)


@app.command()
def verify(folder: RunFolder, trust: Trust = False) -> None:
    """Check that every stored image is what its record says, and scores what it says.

    The file's integrity; a SHA-256 over class, birth, score and PNG of each elite; every genome drawn again; then every PNG
    is read back and scored again: equal bits on the kind of machine that made it, elsewhere within 1e-3 of log-odds.
    Exits with 1 and names the class if anything is off.
    """
    from evofool.errors import VerifyError
    from evofool.run.stored import StoredRun
    from evofool.run.verify import TOLERANCE
    from evofool.run.verify import verify as check

    with StoredRun(folder) as stored:
        verdict = check(stored, trust=trust)
    if verdict.faults:
        raise VerifyError(f"{folder} does not hold:\n  " + "\n  ".join(verdict.faults))
    how = "equal to the bit" if verdict.exact else f"within {TOLERANCE:g} (another kind of machine)"
    print(
        f"{folder} holds: {verdict.elites} elites, hashes right, every PNG scored again, log-odds {how} "
        f"(largest difference {verdict.largest_difference:.2g})"
    )


@app.command()
def lineage(
    folder: RunFolder,
    which: Annotated[str, typer.Option("--class", help="A class number or a label.")],
    as_json: AsJson = False,
) -> None:
    """The line of descent of a class's elite, along its mothers, and the classes that it passed through.

    A line that wins a class which neither parent held has switched its goal. Writes lineage-CLASS.png into the run's folder.
    """
    from evofool.pages.descent import Step, descent_strip
    from evofool.run.lineage import classes_passed
    from evofool.run.lineage import lineage as trace
    from evofool.run.stored import StoredRun, to_json

    with StoredRun(folder) as stored:
        class_id = stored.class_id(which)
        elite = max(stored.elites(class_id), key=lambda e: e.row.log_odds)
        line = trace(stored, elite.row.birth)
        names = lambda held: " ".join(stored.labels[c] for c in held)  # noqa: E731
        if as_json:
            steps = [
                {"birth": a.birth, "batch": a.batch, "mother": a.mother, "father": a.father, "switched": a.switched,
                 "held": [stored.labels[c] for c in a.held]}
                for a in line
            ]  # fmt: skip
            print(to_json({"class": class_id, "label": elite.label, "line": steps}))
            return
        strip = descent_strip(
            [Step(a.image, a.birth, names(a.held), "goal switch" if a.switched else "", a.switched) for a in line]
        )
        path = folder / f"lineage-{class_id}.png"
        write(path, lambda: strip.save(path))
        for ancestor in line:
            mark = "  goal switch" if ancestor.switched else ""
            print(f"birth {ancestor.birth:>8}  batch {ancestor.batch:>7}  held {names(ancestor.held)}{mark}")
        passed = " -> ".join(names(held) for held in classes_passed(line))
        switches = sum(a.switched for a in line)
        print(f"\n{elite.label} descends from {len(line) - 1} ancestors with {switches} goal switches: {passed}")
        print(f"Picture: {path}")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to copy the recipes; made if it is not there.")],
) -> None:
    """Copy the shipped recipes into a folder, to be edited and run from there. Files that are there stay as they are."""
    import shutil
    from functools import partial

    from evofool.recipe import shipped_benches, shipped_recipes

    write(folder, lambda: folder.mkdir(parents=True, exist_ok=True))
    for recipe in [*shipped_recipes(), *shipped_benches()]:
        to = folder / recipe.name
        if to.exists():
            print(f"kept    {to}")
        else:
            write(to, partial(shutil.copyfile, recipe, to))
            print(f"written {to}")
    print(f"Edit one and run it:  evofool run {folder / 'mnist-cppn.toml'}")


app.command()(baseline)
app.command()(explain)
app.command()(export)
app.command()(gate)
app.command()(judge)
app.command()(merge)
app.command()(polish)
app.command()(replay)
app.command()(retrain)
app.command("score-set")(score_set)
app.command()(transfer)
app.command()(workers)
app.command("serve-target")(serve_target)


def main() -> None:
    """The console command: a fault of the user's making ends in one sentence on standard error."""
    from evofool.errors import EvofoolError, VerifyError

    # A label that the terminal's encoding lacks is escaped instead of ending the command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except VerifyError as error:
        _fail(str(error), 1)
    except EvofoolError as error:
        _fail(str(error), 2)
    except ModuleNotFoundError as error:
        _fail(f"the Python package {error.name} is missing; install evofool again with pip", 2)
    except MemoryError:
        _fail("out of memory; a smaller search.batch or compute.chunk needs less", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("EVOFOOL_TRACEBACK"):
            raise
        _fail(f"{type(error).__name__}: {error}. This is a fault of evofool's; EVOFOOL_TRACEBACK=1 shows where", 70)


def _fail(message: str, status: int) -> None:
    print(f"evofool: {message}", file=sys.stderr)
    sys.exit(status)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a NUL
        return False


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


if __name__ == "__main__":
    main()
