"""The command `evofool score-set`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.options import Trust
from evofool.printer import Table, print_lines, status

if TYPE_CHECKING:
    from evofool.bench.sets.scored_set import CountedShare, CountedShares, ScoredSet
    from evofool.targets import Target

IMAGES_OR_RUN = typer.Argument(
    metavar="DIR|RUN",
    help="Fooling images: one folder per class, files named CLASS_anything.png, an export of `evofool export`, or a run.",
)
TARGET = typer.Option(
    "--target", metavar="SPEC", help="The classifier that scores them (see `evofool targets list`); a run's own by default."
)
IMAGES = typer.Option(
    metavar="DIR|digits", help="Labelled real images that set the thresholds; without them there are no thresholds."
)
JSON = typer.Option("--json", metavar="FILE", help="Write all results there, with those of every image.")
SHEET = typer.Option(metavar="FILE", help="Draw the best image of every class there, a PNG.")
FOOLS = typer.Option(
    metavar="RULE",
    help="When an image fools, beside being predicted as intended: 'p>=0.99' (default), 'margin>=3', 'log_odds>=2'; with "
    "--images also tau_5 (then the default) or tau_50. Of a guarded target the default is 'margin>=0'.",
)
OUT = typer.Option(metavar="DIR", help="Write a page of the images that still fool there, index.html, and survivors.json.")
SKIP = typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and list them.")

_SHOWN = 5  # classes at each end of the ranking
_LISTED = 5  # images that were left out


def score_set(
    images_or_run: Annotated[Path, IMAGES_OR_RUN],
    target: Annotated[str | None, TARGET] = None,
    images: Annotated[str | None, IMAGES] = None,
    json: Annotated[Path | None, JSON] = None,
    sheet: Annotated[Path | None, SHEET] = None,
    fools: Annotated[str | None, FOOLS] = None,
    out: Annotated[Path | None, OUT] = None,
    skip_unreadable: Annotated[bool, SKIP] = False,
    trust: Trust = False,
) -> None:
    """Score existing fooling images, without evolving any.

    For each image: the predicted class, and the log-odds and margin of its intended class. With --images also whether it is
    accepted: its intended class is predicted, with a margin that 95% (tau_5) or half (tau_50) of the correctly classified
    real images reach. Images of another size are resized. A class counts as accepted if one of its images is.

    With --out, or --fools, also which images still fool the target: their intended class is predicted and reaches RULE. The
    pytest plugin tests the same: pytest --evofool-set DIR --evofool-target SPEC.
    """
    from contextlib import ExitStack

    from evofool.bench.sets.image_set import image_set
    from evofool.bench.sets.score_set import score_set as score_images
    from evofool.bench.sets.survivors import Survivors, fooling_rule
    from evofool.bench.sets.survivors_page import PAGE, survivors_folder
    from evofool.cli.console import refuse_unwritable
    from evofool.cli.console_bench import calibrated
    from evofool.json_file import write_json
    from evofool.machine import keep_memory
    from evofool.targets.redaction import name_of

    for path in (json, sheet):
        refuse_unwritable(path)
    classifier = _target(images_or_run, target, trust)
    rule = fooling_rule(fools, classifier, images is not None)
    found = image_set(images_or_run, classifier)
    keep_memory()
    before = classifier.queries
    with ExitStack() as stack:
        write = None if out is None else stack.enter_context(survivors_folder(out))
        try:
            with status() as show_status:
                report: Callable[[str], None] = lambda text: show_status(lambda: text)  # noqa: E731
                calibration = None if images is None else calibrated(classifier, images, report)
                real = classifier.queries - before
                scored = score_images(found, classifier, calibration, skip_unreadable=skip_unreadable, on_progress=report)
        except KeyboardInterrupt:
            print_lines("Interrupted; nothing was written")
            raise typer.Exit(130) from None
        survivors = Survivors(scored, rule)
        if write is not None:
            write(survivors)
    _print(scored)
    if out is not None or fools is not None:
        print_lines("", survivors.summary())
    for note in scored.position.notes():
        print_lines(
            "", f"Note: {note}; {scored.undecided:,} of {len(scored.rows):,} images are nearer to a threshold than that"
        )
    of_real = f", {real:,} for real images" if images else ""
    patterns = classifier.queries - before - real - scored.queries
    of_patterns = f", {patterns:,} for patterns that test the position in a batch" if patterns else ""
    print_lines("", f"Queries: {scored.queries:,} for the images of the set{of_real}{of_patterns}")
    if json is not None:
        data = scored.as_json()
        if images is not None:
            data["real"] |= {"source": name_of(images), "queries": real}
        write_json(json, data)
        print_lines(f"Written: {json}")
    if out is not None:
        print_lines(f"Written: {out / PAGE}")
    if sheet is not None:
        _draw(sheet, scored)
        print_lines(f"Written: {sheet}")


def _target(images_or_run: Path, spec: str | None, trust: bool) -> "Target":
    from evofool.bench.sets.image_set import is_run, refuse_nothing
    from evofool.errors import TargetError
    from evofool.run.stored import StoredRun
    from evofool.targets import target as load

    refuse_nothing(images_or_run)
    if spec is not None:
        return load(spec)
    if not is_run(images_or_run):
        raise TargetError(f"{images_or_run} is not a run and has no target of its own; name one: --target lenet")
    with StoredRun(images_or_run) as stored:
        return stored.own_target(trust=trust, way_out=". To use it as it is now, name it by --target")


def _print(scored: "ScoredSet") -> None:
    from evofool.targets.labels import is_rejection

    c, target = scored.calibration, scored.target
    things = sum(not is_rejection(label) for label in target.labels)
    print_lines(
        f"{scored.images.source}: {len(scored.rows):,} images of {len(scored.best):,} of {things:,} classes, "
        f"scored by {target.name}"
    )
    if left_out := scored.images.left_out:
        print_lines(f"{left_out:,} more are of a rejection class and are left out")
    for note in scored.images.notes():
        print_lines(note)
    _print_skipped(scored)
    if target.top_k < len(target.labels):
        print_lines(
            f"The target returns only its {target.top_k} likeliest classes; for others log-odds and margins are bounds"
        )
    if c is None:
        print_lines("Without --images there are no thresholds: only predictions and confidences are shown.")
    elif not scored.has_threshold.all():
        left = len(scored.rows) - int(scored.has_threshold.sum())
        print_lines(f"{left:,} images are of classes without real images, for which there is no threshold")
    table = Table()
    for head in ("", "share of images", "classes"):
        table.column(head, right=bool(head))
    names = {"called": "predicted as intended", "tau5": "accepted at tau_5", "tau50": "accepted at tau_50"}
    for name, shares in scored.totals.items():
        table.row(names[name], *_cells(shares))
    for p, shares in scored.sure.items():
        table.row(f"p >= {p:g}", *_cells(shares))
    table.print()
    print_lines("In brackets: 95% limits (Wilson), for images as if independent. Classes are fixed and are only counted.")
    _print_classes(scored)


def _cells(shares: "CountedShares") -> tuple[str, str]:
    from evofool.cli.console_bench import format_share

    def count(share: "CountedShare") -> str:
        return f"{share.count:,} of {share.of:,}" if share.of else "none"

    images = shares.images
    if images.value is None or images.low is None or images.high is None:
        return "none", count(shares.classes)
    limits = f"[{format_share(images.low)}, {format_share(images.high)}]"
    return f"{format_share(images.value)} {limits} {count(images)}", count(shares.classes)


def _print_skipped(scored: "ScoredSet") -> None:
    if scored.skipped:
        print_lines(f"{len(scored.skipped)} images that cannot be read were left out:")
        for name, why in scored.skipped[:_LISTED]:
            print_lines(f"  {why}" if name in why else f"  {name}: {why}")
        if len(scored.skipped) > _LISTED:
            print_lines("  ...")


def _print_classes(scored: "ScoredSet") -> None:
    """The classes whose best images have the largest and the smallest margins; all of them if they are few."""
    c, labels = scored.calibration, scored.target.labels
    order = sorted(scored.best, key=lambda row: -scored.margins[row])
    few = len(order) <= 2 * _SHOWN + 2
    print_lines(
        "",
        "The best image of "
        + ("each class:" if few else f"the {_SHOWN} classes with the largest and the {_SHOWN} with the smallest margins:"),
    )
    heads = ["class", "label", "image", "predicted", "p", "log-odds", "margin"]
    heads += [] if c is None else ["percentile of real margins", "p at fitted temperature", "accepted at"]
    table = Table()
    for head in heads:
        table.column(head, right=head not in ("label", "image", "predicted", "accepted at"))
    for row in order if few else [*order[:_SHOWN], None, *order[-_SHOWN:]]:
        if row is None:
            table.row("...")
            continue
        scores = [f"{scored.p[row]:.6f}", f"{scored.log_odds[row]:.3f}", f"{scored.margins[row]:.3f}"]
        if c is not None:
            levels = [name for name in ("tau5", "tau50") if scored.accepted[name][row]]
            at = levels[-1].replace("tau", "tau_") if levels else "none" if scored.has_threshold[row] else "no threshold"
            fitted = "-" if scored.calibrated_confidence is None else f"{scored.calibrated_confidence[row]:.6f}"
            scores += [f"{c.percentile(scored.margins[row]):.1f}", fitted, at]
        k, name = int(scored.classes[row]), scored.images.names[scored.rows[row]]
        table.row(k, labels[k], name, labels[scored.called[row]], *scores)
    table.print()


def _draw(path: Path, scored: "ScoredSet") -> None:
    from evofool.images import save_picture
    from evofool.pages.sheet import Tile, contact_sheet
    from evofool.targets.redaction import short_name

    labels, tiles = scored.target.labels, []
    for row in scored.best:
        meant, called = labels[scored.classes[row]], labels[scored.called[row]]
        note = "" if scored.margins[row] > 0 else f"predicted: {called}"
        image = scored.images.image(int(scored.rows[row]))
        tiles.append(Tile(image, meant, float(scored.p[row]), note, float(scored.log_odds[row])))
    title = f"The image of each class with the highest margin, by {short_name(scored.target.name)}"
    save_picture(contact_sheet(tiles, title=title), path)
