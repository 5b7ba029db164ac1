"""The command line. It imports the rest only when a command needs it, so that help comes at once."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evofool.elites import Elite, StoredRun
    from evofool.run import Run

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
""",
)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for example runs/mnist-cppn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable, exact numbers.")]


@app.command()
def run(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN",
            help="A shipped recipe's name (mnist-cppn, mnist-direct, mnist-cppn-nguyen2015, mnist-direct-nguyen2015), "
            "a recipe file of your own, or the folder of a run to go on with.",
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value of the recipe: --set search.seed=3. May be given several times; an empty value "
            "(--set stop.confidence=) takes the key out. A run that has begun takes stop.* and save.* only.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of a new run; runs/NAME unless given.")] = None,
) -> None:
    """Start a run, or go on with one.

    Ctrl-C finishes the batch, saves and says how to go on; even a killed run goes on from its last checkpoint and
    ends with the same bits as one that was never stopped. At the end: elites.png (every elite with its label and confidence)
    and curve.png.
    """
    from evofool.run import Run

    folder, recipe = _which_run(what, changes or [], out)
    if recipe is None or (folder / "run.db").exists():
        opened = Run.resume(folder, recipe)
        going_on = f"Going on with {folder} at {opened.strategy.evaluations:,} evaluations"
    else:
        opened = Run.start(recipe, folder)
        going_on = f"New run in {folder}"
    with opened as search:
        r = search.recipe
        print(
            f"{going_on}: {r.encoding.kind} against {r.target} ({len(search.target.labels)} classes), seed {r.search.seed}, "
            f"batch {r.search.batch}",
            flush=True,
        )
        finished_before = search.finished
        with _interrupts() as interrupted, _display(search) as draw:
            reason = search.advance(lambda run: draw(run) or bool(interrupted))
        if finished_before and reason:
            print(f"This run had ended: {reason}. To go further, move its limit: --set stop.evaluations=N")
    _report(folder, reason)
    if interrupted and not reason:
        print(f"Interrupted and saved. Go on with:  evofool run {folder}")
        raise typer.Exit(130)


@app.command()
def show(
    folder: RunFolder,
    which: Annotated[str | None, typer.Option("--class", help="One elite in full: a class number or a label.")] = None,
    as_json: AsJson = False,
) -> None:
    """The elites of a run as a table, or one of them in full.

    In full: its scores, what else the classifier saw, its parents and, for a CPPN, its genome, with the picture
    and the graph written beside the run. Works while the run goes on.
    """
    from evofool.elites import StoredRun, to_json

    with StoredRun(folder) as stored:
        if which is not None:
            _show_one(stored, which, as_json)
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
                        "evaluations": stored.meta["committed"] * stored.recipe.search.batch,
                        "seconds": stored.meta["seconds"],
                        "finished": stored.meta["finished"],
                        "warnings": stored.meta.get("warnings", []),
                        "metrics": rows,
                        "elites": [elite.summary() for elite in elites],
                    }
                )
            )
            return
        _print_table(stored, elites)


@app.command()
def export(
    folder: RunFolder,
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if it is not there.")],
    size: Annotated[
        int | None, typer.Option(min=1, max=16384, help="Redraw CPPNs this many pixels wide: they have no resolution.")
    ] = None,
) -> None:
    """Write the elites as PNGs in ImageFolder layout, with a CSV and, for CPPNs, their genomes as JSON.

    File names carry label, confidence and birth id: DIR/3_3/3_0.999912_5120.png. Works while the run goes on.
    """
    from evofool.elites import StoredRun
    from evofool.export import export as write

    with StoredRun(folder) as stored:
        print(f"{write(stored, to, size)} elites written to {to}")


@app.command()
def verify(folder: RunFolder) -> None:
    """Check that every stored image is what its record says, and scores what it says.

    The file's integrity; a SHA-256 over class, birth, score and PNG of each elite; then every PNG is read back and scored
    again: equal bits on the kind of machine that made it, elsewhere within 1e-3 of log-odds. Exits with 1 and names the
    class if anything is off.
    """
    from evofool.elites import StoredRun
    from evofool.errors import VerifyError
    from evofool.verify import TOLERANCE
    from evofool.verify import verify as check

    with StoredRun(folder) as stored:
        verdict = check(stored)
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
    from evofool.elites import StoredRun, to_json
    from evofool.lineage import classes_passed
    from evofool.lineage import lineage as trace
    from evofool.pages.descent import Step, descent_strip

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
        _write(path, lambda: strip.save(path))
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

    from evofool.recipe import shipped_recipes

    _write(folder, lambda: folder.mkdir(parents=True, exist_ok=True))
    for recipe in shipped_recipes():
        to = folder / recipe.name
        if to.exists():
            print(f"kept    {to}")
        else:
            _write(to, lambda recipe=recipe, to=to: shutil.copyfile(recipe, to))
            print(f"written {to}")
    print(f"Edit one and run it:  evofool run {folder / 'mnist-cppn.toml'}")


def main() -> None:
    """The console command: a fault of the user's making ends in one sentence on standard error."""
    from evofool.errors import EvofoolError, VerifyError

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
    except KeyboardInterrupt:
        _fail("stopped; what was saved at the last checkpoint is safe", 130)


def _fail(message: str, status: int) -> None:
    print(f"evofool: {message}", file=sys.stderr)
    sys.exit(status)


def _write(path: Path, action: Any) -> None:
    from evofool.errors import StoreError

    try:
        action()
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None


def _which_run(what: str, changes: list[str], out: Path | None) -> tuple[Path, Any]:
    """(folder, recipe): recipe None to go on with the stored one."""
    from evofool.elites import StoredRun
    from evofool.errors import RecipeError, StoreError
    from evofool.recipe import load

    path = Path(what)
    if path.name == "run.db":
        path = path.parent
    if path.is_dir() or (path / "run.db").exists():
        if not (path / "run.db").is_file():
            raise StoreError(f"{path} is a folder without a run (no run.db) and no recipe")
        if out is not None:
            raise RecipeError(f"{path} is a run and stays where it is; --out is for new ones")
        with StoredRun(path) as stored:
            return path, stored.recipe.changed(changes, f"--set for {path}") if changes else None
    recipe = load(what, changes)
    return out or Path("runs") / recipe.name, recipe


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted in the list, for the search to end after its batch; a second one stops at once."""
    caught: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        print("\nFinishing the batch and saving ...", file=sys.stderr)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _display(run: "Run") -> Iterator[Any]:
    """A function to be called with the run now and then: a live line on a terminal, plain lines elsewhere."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        last = [time.perf_counter(), 2.0]

        def plain(run: "Run") -> None:
            if time.perf_counter() - last[0] >= last[1]:
                # 2, 3, 4.5 ... up to 60 seconds apart: a short run says something, a long one does not fill a log.
                last[:] = time.perf_counter(), min(60.0, last[1] * 1.5)
                print(_progress_text(run), flush=True)

        yield plain
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    total = run.recipe.stop.evaluations
    with Bar(TextColumn("{task.description}"), BarColumn(bar_width=24), console=console, transient=True) as bar:
        task = bar.add_task("starting ...", total=total)

        def live(run: "Run") -> None:
            bar.update(task, completed=run.strategy.evaluations, description=_progress_text(run))

        yield live


def _progress_text(run: "Run") -> str:
    p = run.progress()
    left = "" if p.seconds_left is None else f", at most {_duration(p.seconds_left)} left"
    return (
        f"{p.evaluations:,} evaluations, {p.rate:,.0f}/s{left}; median confidence {p.median:.4f}, "
        f"{p.at_99}/{len(p.confidences)} classes at 0.99, {p.distinct} distinct elites"
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _report(folder: Path, reason: str | None) -> None:
    """What a run leaves: its summary, the contact sheet and the curve."""
    from evofool.elites import StoredRun
    from evofool.pages.curve import curve
    from evofool.pages.sheet import Tile, contact_sheet

    with StoredRun(folder) as stored:
        for warning in stored.meta.get("warnings", []):
            print(f"Warning: {warning}.", file=sys.stderr)
        elites = stored.elites()
        evaluations = stored.meta["committed"] * stored.recipe.search.batch
        title = f"{stored.recipe.name}: {stored.recipe.target}, {evaluations:,} evaluations"
        tiles = [Tile(e.image, e.label, e.confidence) for e in elites]
        sheet, plot = folder / "elites.png", folder / "curve.png"
        _write(sheet, lambda: contact_sheet(tiles, title=title).save(sheet))
        rows = stored.rows()
        if rows:
            _write(plot, lambda: plot.write_bytes(curve(rows, title, len(stored.labels))))
        best = _best_of_classes(elites)
        sure = sum(e.confidence >= 0.99 for e in best.values())
        very = sum(e.confidence >= 0.9999 for e in best.values())
        seconds = stored.meta["seconds"]
        if reason:
            print(f"Done: {reason}.")
        print(
            f"{evaluations:,} evaluations in {_duration(seconds)}: {sure} of {len(stored.labels)} classes at 0.99 or more, "
            f"{very} at 0.9999 or more."
        )
        wanted = stored.recipe.stop.confidence
        if reason and wanted is not None:
            late = [e for e in best.values() if e.confidence < wanted]
            names = ", ".join(f"{e.label} ({e.confidence:.4f})" for e in late[:10])
            if late:
                print(
                    f"Below {wanted:g}: {names}{' ...' if len(late) > 10 else ''}. Another seed may do better: --set search.seed=N"
                )
        print(f"Contact sheet: {sheet}")
        if rows:
            print(f"Curve:         {plot}")


def _best_of_classes(elites: "list[Elite]") -> "dict[int, Elite]":
    best: dict[int, Elite] = {}
    for elite in elites:
        if elite.row.class_id not in best or elite.row.log_odds > best[elite.row.class_id].row.log_odds:
            best[elite.row.class_id] = elite
    return best


def _print_table(stored: "StoredRun", elites: "list[Elite]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    niches = stored.recipe.niches is not None
    for name in [
        "class",
        "label",
        *(["niche"] if niches else []),
        "confidence",
        "log-odds",
        "margin",
        "birth",
        "parents",
        "bytes/px",
    ]:
        table.add_column(name, justify="left" if name in ("label", "parents") else "right")
    for e in elites:
        r = e.row
        parents = "random" if r.mother < 0 else f"{r.mother}" if r.mother == r.father else f"{r.mother}, {r.father}"
        niche = [str(r.niche)] if niches else []
        table.add_row(
            str(r.class_id), e.label, *niche, f"{e.confidence:.6f}", f"{r.log_odds:.3f}", f"{r.margin:.3f}", str(r.birth),
            parents, f"{r.bytes_per_pixel:.2f}",
        )  # fmt: skip
    console = Console()
    # A pipe has no width of its own: never cut a number there.
    console = console if console.is_terminal else Console(width=200)
    console.print(table)
    wins, switches = stored.store.counts()
    meta = stored.meta
    state = f"ended: {meta['finished']}" if meta["finished"] else "not ended yet"
    share = f"{switches / wins:.1%}" if wins else "none"
    print(
        f"\n{len(elites)} elites, {len({e.row.birth for e in elites})} distinct; "
        f"{meta['committed'] * stored.recipe.search.batch:,} evaluations; "
        f"{wins:,} new champions, {share} by goal switch; {state}"
    )


def _show_one(stored: "StoredRun", which: str, as_json: bool) -> None:
    import numpy as np

    from evofool.elites import to_json
    from evofool.run import torch_threads
    from evofool.scores import confidence, log_odds
    from evofool.targets import target as load_target

    elite = max(stored.elites(stored.class_id(which)), key=lambda e: e.row.log_odds)
    row = elite.row
    target = load_target(stored.recipe.target)
    with torch_threads(stored.recipe.compute.threads):
        odds = log_odds(target.logits(elite.image[None], pad_to=stored.recipe.chunk))[0]
    runners = [int(c) for c in np.argsort(-odds, kind="stable") if c != row.class_id][:5]
    seen = [{"class": c, "label": stored.labels[c], "confidence": float(confidence(odds[c]))} for c in runners]
    genome = stored.genome_json(elite)
    picture = stored.folder / f"elite-{row.class_id}.png"
    _write(picture, lambda: picture.write_bytes(row.png))
    drawing = None
    if genome["format"] == "evofool.cppn":
        from evofool.pages.graph import graph_svg

        drawing = stored.folder / f"graph-{row.class_id}.svg"
        svg = graph_svg(genome)
        _write(drawing, lambda: drawing.write_text(svg, encoding="utf-8"))
    if as_json:
        print(to_json({**elite.summary(), "runners_up": seen, "genome": genome}))
        return
    print(
        f"class {row.class_id} ({elite.label}): confidence {elite.confidence:.8f}, "
        f"log-odds {row.log_odds:.4f}, margin {row.margin:.4f}"
    )
    print("runner-up   " + ", ".join(f"{s['label']} ({s['confidence']:.2e})" for s in seen))
    born = "no parents: it was random" if row.mother < 0 else f"mother {row.mother}, father {row.father}"
    print(f"birth       {row.birth} in batch {row.batch}; {born}")
    print(f"picture     {picture}, {row.bytes_per_pixel:.2f} bytes a pixel; {row.verdict}")
    if drawing:
        from genomes.cppn.json_ import identity

        print(f"genome      {len(genome['nodes'])} nodes, {len(genome['edges'])} edges, SHA-256 {identity(genome)[:16]}...")
        print(f"graph       {drawing}")


if __name__ == "__main__":
    main()
