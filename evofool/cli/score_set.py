"""The command `evofool score-set`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evofool.bench.sets.scored_set import CountedShare, CountedShares, ScoredSet
    from evofool.targets import Target

WHAT = typer.Argument(
    metavar="DIR|RUN",
    help="Fooling images: a folder for each class, or files named CLASS_anything.png; what evofool export wrote; or a run.",
)
TARGET = typer.Option("--target", metavar="SPEC", help="Who is to judge (evofool targets list); a run's own unless given.")
IMAGES = typer.Option(
    metavar="DIR|digits", help="Labelled real images, which thresholds are taken from; without them there are none."
)
JSON = typer.Option("--json", metavar="FILE", help="Write all figures there, those of every image among them.")
SHEET = typer.Option(metavar="FILE", help="Draw the best image of every class, a PNG.")
SKIP = typer.Option("--skip-unreadable", help="Leave out, and name, pictures that cannot be read.")
TRUST = typer.Option("--trust", help="Follow a run's target that is code to import or a server to ask.")

_SHOWN = 5  # classes of each end
_NAMED = 5  # pictures that were left out


def score_set(
    what: Annotated[Path, WHAT],
    target: Annotated[str | None, TARGET] = None,
    images: Annotated[str | None, IMAGES] = None,
    json: Annotated[Path | None, JSON] = None,
    sheet: Annotated[Path | None, SHEET] = None,
    skip_unreadable: Annotated[bool, SKIP] = False,
    trust: Annotated[bool, TRUST] = False,
) -> None:
    """Score fooling images that exist, one's own or anybody's: nothing is evolved, each is asked about once.

    For each image: what it is called, and log-odds and margin of the class that it is meant for. With --images: whether it
    is accepted, that is called as meant and as clearly as 95% (tau_5), or half (tau_50), of the real images that the target
    gets right. Pictures of another size are scaled whole. A class counts if one of its images does.
    """
    from evofool.bench.json_file import write_json
    from evofool.bench.sets.image_set import image_set
    from evofool.bench.sets.score_set import score_set as ask
    from evofool.cli.console import refuse_place, status
    from evofool.cli.console_bench import calibrated
    from evofool.machine import keep_memory
    from evofool.targets.public import name_of

    for path in (json, sheet):
        refuse_place(path)
    judge = _target(what, target, trust)
    found = image_set(what, judge)
    keep_memory()
    before = judge.queries
    try:
        with status() as show:
            say: Callable[[str], None] = lambda words: show(lambda: words)  # noqa: E731
            calibration = None if images is None else calibrated(judge, images, say)
            real = judge.queries - before
            scored = ask(found, judge, calibration, skip_unreadable=skip_unreadable, say=say)
    except KeyboardInterrupt:
        print("Interrupted: nothing was written")
        raise typer.Exit(130) from None
    _print(scored)
    of_real = f", {real:,} for real images" if images else ""
    print(f"\nQueries: {scored.queries:,} for the set{of_real}")
    if json is not None:
        told = scored.as_json()
        if images is not None:
            told["real"] |= {"source": name_of(images), "queries": real}
        write_json(json, told)
        print(f"Written: {json}")
    if sheet is not None:
        _draw(sheet, scored)
        print(f"Written: {sheet}")


def _target(what: Path, spec: str | None, trust: bool) -> "Target":
    from evofool.bench.sets.image_set import is_run, refuse_nothing
    from evofool.errors import TargetError
    from evofool.run.stored import StoredRun
    from evofool.targets import target as load

    refuse_nothing(what)
    if spec is not None:
        return load(spec)
    if not is_run(what):
        raise TargetError(
            f"{what} is no run, which would have a target of its own; name the one that judges: --target lenet"
        )
    with StoredRun(what) as stored:
        return stored.own_target(trust=trust, way_out=". To score it by what it is now, name it by --target")


def _print(scored: "ScoredSet") -> None:
    from rich.markup import escape
    from rich.table import Table

    from evofool.cli.console import table_console
    from evofool.targets.labels import is_rejection

    c, target = scored.calibration, scored.target
    things = sum(not is_rejection(label) for label in target.labels)
    print(
        f"{scored.images.source}: {len(scored.rows):,} images of {len(scored.best):,} of {things:,} classes, "
        f"judged by {target.name}"
    )
    if left_out := scored.images.left_out:
        print(f"{left_out:,} more are of a class that stands for no thing, and are left out: nobody is fooled by it")
    _print_skipped(scored)
    if target.top_k < len(target.labels):
        print(f"It tells of its {target.top_k} likeliest classes alone: of the others log-odds and margins are bounds")
    if c is None:
        print("No --images: whether any of it would be accepted beside real images cannot be told, only calls and p.")
    elif not scored.judged.all():
        left = len(scored.rows) - int(scored.judged.sum())
        print(f"{left:,} images are of classes without real images, and are judged by no threshold")
    table = Table(box=None, pad_edge=False)
    for head in ("share, with 95% limits (Wilson)", "of images", "of classes"):
        table.add_column(escape(head), justify="right" if head.startswith("of") else "left")
    words = {"called": "called as meant", "tau5": "accepted at tau_5", "tau50": "accepted at tau_50"}
    for name, shares in scored.totals.items():
        table.add_row(words[name], *_cells(shares))
    for p, shares in scored.sure.items():
        table.add_row(f"p >= {p:g}", *_cells(shares))
    table_console().print(table)
    _print_classes(scored)


def _cells(shares: "CountedShares") -> tuple[str, str]:
    from evofool.cli.console_bench import share as said

    def words(share: "CountedShare") -> str:
        if share.value is None or share.low is None or share.high is None:
            return "none"
        return f"{said(share.value)} [{said(share.low)}, {said(share.high)}] {share.count:,} of {share.of:,}"

    return words(shares.images), words(shares.classes)


def _print_skipped(scored: "ScoredSet") -> None:
    if scored.skipped:
        print(f"{len(scored.skipped)} that cannot be read were left out:")
        for name, why in scored.skipped[:_NAMED]:
            print(f"  {why}" if name in why else f"  {name}: {why}")
        if len(scored.skipped) > _NAMED:
            print("  ...")


def _print_classes(scored: "ScoredSet") -> None:
    """The classes whose best image leads by most and by least; of few classes all."""
    from rich.markup import escape
    from rich.table import Table

    from evofool.cli.console import table_console

    c, labels = scored.calibration, scored.target.labels
    order = sorted(scored.best, key=lambda row: -scored.margins[row])
    few = len(order) <= 2 * _SHOWN + 2
    print("\nThe best image of " + ("each class:" if few else f"{_SHOWN} classes that fool it most, and {_SHOWN} least:"))
    heads = ["class", "label", "image", "is called", "p", "log-odds", "margin"]
    heads += [] if c is None else ["percentile of real margins", "p fitted", "accepted at"]
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in ("label", "image", "is called", "accepted at") else "right")
    for row in order if few else [*order[:_SHOWN], None, *order[-_SHOWN:]]:
        if row is None:
            table.add_row("...")
            continue
        scores = [f"{scored.p[row]:.6f}", f"{scored.log_odds[row]:.3f}", f"{scored.margins[row]:.3f}"]
        if c is not None:
            levels = [name for name in ("tau5", "tau50") if scored.accepted[name][row]]
            at = levels[-1].replace("tau", "tau_") if levels else "none" if scored.judged[row] else "no threshold"
            fitted = "-" if scored.calibrated_confidence is None else f"{scored.calibrated_confidence[row]:.6f}"
            scores += [f"{c.percentile(scored.margins[row]):.1f}", fitted, at]
        k, name = int(scored.classes[row]), scored.images.names[scored.rows[row]]
        table.add_row(str(k), escape(labels[k]), escape(name), escape(labels[scored.called[row]]), *scores)
    table_console().print(table)


def _draw(path: Path, scored: "ScoredSet") -> None:
    from evofool.cli.console import write
    from evofool.pages.sheet import Tile, contact_sheet
    from evofool.targets.public import short_name

    labels, tiles = scored.target.labels, []
    for row in scored.best:
        meant, called = labels[scored.classes[row]], labels[scored.called[row]]
        note = "" if scored.margins[row] > 0 else f"is called {called}"
        image = scored.images.image(int(scored.rows[row]))
        tiles.append(Tile(image, meant, float(scored.p[row]), note, float(scored.log_odds[row])))
    title = f"The image of each class with the highest margin, by {short_name(scored.target.name)}"
    drawn = contact_sheet(tiles, title=title)
    write(path, lambda: drawn.save(path, "PNG"))
