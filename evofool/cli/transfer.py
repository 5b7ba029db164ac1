"""The command `evofool transfer`."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from evofool.bench.interval import Interval
from evofool.cli.options import Trust
from evofool.printer import Table, print_lines, status
from evofool.whole_file import write_whole

if TYPE_CHECKING:
    from evofool.bench.calibration import Calibration
    from evofool.bench.transfer.shares import TargetElites, TransferMatrix, TransferPair, TransferShare
    from evofool.run.stored import Elite
    from evofool.targets import Target

RUNS = typer.Argument(metavar="RUN...", help="Folders of runs; runs of one target are pooled.")
TARGETS = typer.Option(
    "--target", metavar="SPEC", help="Another target to score the elites with (evofool targets list); may be repeated."
)
IMAGES = typer.Option(
    metavar="DIR|digits",
    help="Labelled real images that set every target's threshold; without them there are no thresholds.",
)
JSON = typer.Option("--json", metavar="FILE", help="Write all results there.")
PLOT = typer.Option(metavar="FILE", help="Draw the matrix as a heat map there, an SVG; needs --images.")
TOP = typer.Option("--top", metavar="N", min=0, help="List the N images that the most targets accept.")


class _Loaded(NamedTuple):
    """A target, its name in tables, and the runs that were made on it, with their elites."""

    target: "Target"
    name: str
    runs: list[tuple[str, "list[Elite]"]]


def transfer(
    folders: Annotated[list[Path], RUNS],
    targets: Annotated[list[str] | None, TARGETS] = None,
    images: Annotated[str | None, IMAGES] = None,
    json: Annotated[Path | None, JSON] = None,
    plot: Annotated[Path | None, PLOT] = None,
    top: Annotated[int, TOP] = 0,
    trust: Trust = False,
) -> None:
    """Measure whether the elites evolved on one classifier fool others, at their own thresholds.

    Prints a matrix. Each row has the elites of one target's runs that this target accepts itself; each column is a target.
    A target accepts an image if its class has the highest logit, with a margin that 95% of the real images that the target
    classifies correctly reach (tau_5). Images of another size are resized. Classes are matched by number where the labels
    are the same, else by label.
    """
    from evofool.bench.transfer.matrix import matrix
    from evofool.cli.console import refuse_unwritable
    from evofool.cli.console_bench import calibrated
    from evofool.errors import TargetError
    from evofool.json_file import write_json
    from evofool.machine import keep_memory

    if plot is not None and images is None:
        raise TargetError("--plot draws the accepted shares, whose thresholds need real images: --images DIR")
    for path in (json, plot):
        refuse_unwritable(path)
    loaded = _loaded(folders, targets or [], trust)
    all_targets, names = [t.target for t in loaded], [t.name for t in loaded]
    _refuse_alone(names)
    keep_memory()
    try:
        with status() as show_status:
            report: Callable[[str], None] = lambda text: show_status(lambda: text)  # noqa: E731
            calibrations = None if images is None else [calibrated(t.target, images, report, t.name) for t in loaded]
            real = [target.queries for target in all_targets]
            rows = [_elites_of(index, t) for index, t in enumerate(loaded) if t.runs]
            found = matrix(rows, all_targets, calibrations, names=names, on_progress=report)
    except KeyboardInterrupt:
        print_lines("Interrupted; nothing was written")
        raise typer.Exit(130) from None
    _print(found, calibrations)
    for note in found.notes:
        print_lines("", f"Note: {note}")
    spent = ", ".join(f"{n} {q:,}" for n, q in zip(names, found.queries, strict=True))
    print_lines("", f"Queries: for elites {spent}; {'for real images ' + f'{sum(real):,}' if images else 'no real images'}")
    best = [
        {**image, "label": all_targets[names.index(image["target"])].labels[image["class"]]}
        for image in found.most_accepted(top)
    ]
    for image in best:
        by = f"{len(image['accepted_by'])} of {len(names)} targets ({', '.join(image['accepted_by'])})"
        print_lines(
            f"  class {image['class']} ({image['label']}) of {image['run']}, birth {image['birth']}: accepted by {by}"
        )
    if json is not None:
        described = _described(loaded, calibrations, images)
        write_json(json, {**found.as_json(), "most_accepted": best, "described": described})
        print_lines(f"Written: {json}")
    if plot is not None:
        _plot(plot, found)


# -- the targets and their runs


def _loaded(folders: Sequence[Path], specs: Sequence[str], trust: bool) -> list[_Loaded]:
    """Each target once, those of runs first. StoreError or TargetError where a target is not the one that its runs used."""
    from evofool.errors import StoreError
    from evofool.run.reader import FILE
    from evofool.run.stored import StoredRun
    from evofool.targets import target as load
    from evofool.targets.redaction import name_of
    from evofool.targets.spec import distinct

    found: dict[str, tuple[Target, list[tuple[str, list[Elite]]]]] = {}
    folder_of: dict[str, Path] = {}
    run_folders = [folder.parent if folder.name == FILE else folder for folder in folders]
    for folder, called in zip(folders, distinct(map(name_of, run_folders)), strict=True):
        with StoredRun(folder) as stored:
            elites, fingerprint = stored.elites(), stored.meta.target.fingerprint
            run = stored.meta.id
            if run in folder_of:
                raise StoreError(f"{folder} and {folder_of[run]} are the same run or copies of it; name it once")
            folder_of[run] = folder
            if fingerprint not in found:
                search_again = "; its elites belong to the old one: run the search again"
                found[fingerprint] = stored.own_target(trust=trust, way_out=search_again), []
            found[fingerprint][1].append((called, elites))
    for spec in specs:
        target = load(spec)
        found.setdefault(target.fingerprint(), (target, []))
    names = distinct(_short(target.name) for target, _ in found.values())
    return [_Loaded(target, name, runs) for name, (target, runs) in zip(names, found.values(), strict=True)]


def _short(name: str) -> str:
    """A spec without options and folders, but with the name of its weights' file, which tells networks of one kind apart."""
    from evofool.targets import KINDS
    from evofool.targets.redaction import public_name

    head, _, options = public_name(name).partition("?")
    kind, _, file = head.partition(":")
    if kind in KINDS and KINDS[kind].is_file:
        return f"{kind}:{Path(file).stem}"
    head = file if kind in ("torchvision", "timm", "hf") else head
    weights = re.search(r"(?:^|&)weights=([^&]+)", options)
    stem = Path(weights[1]).stem if weights else ""
    return head if stem in head else f"{head} {stem}"


def _elites_of(index: int, loaded: _Loaded) -> "TargetElites":
    import numpy as np

    from evofool.bench.transfer.shares import TargetElites

    cells = [(r, elite.row) for r, (_, elites) in enumerate(loaded.runs) for elite in elites]
    run, classes, births = np.array([(r, row.class_id, row.birth) for r, row in cells], np.int64).T
    return TargetElites(index, [name for name, _ in loaded.runs], run, classes, births, [row.png for _, row in cells])


def _refuse_alone(names: Sequence[str]) -> None:
    from evofool.errors import TargetError

    if len(names) < 2:
        raise TargetError(
            f"all runs are of one target, {names[0]}, and transfer needs a second: --target SPEC, or a run on another target"
        )


# -- output


def _print(found: "TransferMatrix", calibrations: "Sequence[Calibration] | None") -> None:
    from evofool.cli.console_bench import format_share

    accepts = (
        "accepts at its own tau_5"
        if found.thresholds
        else "gives the highest logit to their class (thresholds need --images)"
    )
    print_lines("", f"Share of a row's images that the column's target {accepts}, with 95% limits:")
    table = Table()
    for head in ("evolved on", *found.names, "images", "of elites"):
        table.column(head, right=head != "evolved on")
    for evolved in found.rows:
        shares = [pair.images or pair.agreement for pair in evolved.pairs]
        cells = [_share(s) if b != evolved.row.target else "-" for b, s in enumerate(shares)]
        accepted = f"{evolved.accepted} of {len(evolved.row.classes)}"
        table.row(found.names[evolved.row.target], *cells, len(evolved.kept), accepted)
    table.print()
    print_lines("A row has only the elites that its own target accepts (last column), so its share on its own target is 1.")
    print_lines(*_limits_notes(found))
    median = found.off_diagonal_median
    if median is not None:
        print_lines(f"Median over the pairs: {format_share(median)}")
    for evolved in found.rows:
        for b, pair in enumerate(evolved.pairs):
            if b != evolved.row.target:
                print_lines("", *_pair_lines(found.names[evolved.row.target], found.names[b], pair))


def _limits_notes(found: "TransferMatrix") -> list[str]:
    """The meaning of the limits of each row."""
    meanings = {
        "runs": "over runs (Wilson's, with the variance between runs)",
        "images": "over images as if independent (Wilson, bootstrap of thresholds): they hold for these runs only",
    }
    lines = []
    for evolved in found.rows:
        overs = {(pair.images or pair.agreement).over for pair in evolved.pairs} & meanings.keys()
        number = len(evolved.row.runs)
        for over in sorted(overs):
            runs = f"{number} run{'s' if number > 1 else ''}"
            lines.append(f"Limits of {found.names[evolved.row.target]} ({runs}) are {meanings[over]}.")
    return lines


def _pair_lines(source: str, other: str, pair: "TransferPair") -> list[str]:
    left = f"; {pair.left_out} left out, for whose class {other} has no label or no real images" if pair.left_out else ""
    of = pair.agreement.of
    if not of:
        return [f"{source} -> {other}: no images to score{left}"]
    lines = [f"{source} -> {other}: {of} images{left}"]
    if pair.images is not None and pair.classes is not None:
        lines.append(f"  accepted: {_share(pair.images)} of images, {_share(pair.classes)} of classes")
    lines.append(f"  the class has the highest logit: {_share(pair.agreement)} of images")
    lines.append(
        f"  median confidence: {pair.confidence_on_source:.4f} on {source}, {pair.confidence_on_other:.4f} on {other}"
    )
    lines.append(
        f"  at 99.99% or more on both: {pair.sure_on_both}; on {source} only: {pair.sure_on_source_only} (Nguyen 2015)"
    )
    return lines


def _share(share: "TransferShare") -> str:
    from evofool.cli.console_bench import format_share

    if share.value is None:
        return "none"
    return " ".join(Interval(share.value, share.low, share.high).text(format_share)).rstrip()


def _described(
    loaded: Sequence[_Loaded], calibrations: "Sequence[Calibration] | None", images: str | None
) -> list[dict[str, Any]]:
    """Each target's name, spec and fingerprint, and its calibration."""
    from evofool.targets.redaction import name_of, public_name

    out = []
    for index, (target, name, _) in enumerate(loaded):
        spec, fingerprint = public_name(target.name), target.fingerprint()
        entry: dict[str, Any] = {"name": name, "spec": spec, "fingerprint": fingerprint}
        if calibrations is not None and images is not None:
            entry["images"] = {"source": name_of(images), **calibrations[index].summary()}
        out.append(entry)
    return out


def _plot(path: Path, found: "TransferMatrix") -> None:
    from evofool.pages.bench_plots import transfer_heat

    data = found.as_json()
    svg = transfer_heat(data["targets"], data["share"], data["low"], data["high"])
    # The plot is made for a page; as a file of its own it needs a name space and a background.
    svg_tag = '<svg xmlns="http://www.w3.org/2000/svg" style="background: #fff"'
    write_whole(path, svg.replace("<svg", svg_tag, 1))
    print_lines(f"Written: {path}")
