"""The command `evofool show`."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evofool.cli.console import print_table, refuse_unwritable, show_one
from evofool.cli.options import AsJson, RunFolder, Trust
from evofool.printer import Table, print_json, print_lines

if TYPE_CHECKING:
    from evofool.run.stored import StoredRun

CLASS = typer.Option("--class", help="Show one elite in full: a class number or a label.")
WORKERS = typer.Option(
    "--workers", help="Show the workers as of the last checkpoint: images/s, share of time busy, restarts."
)
LIST = typer.Option(
    "--list",
    help="With --class: show the genomes that the search keeps of the class, the elite and the runners-up (search.keep), by "
    "the scores that it ranks by; --image FILE draws them.",
)
IMAGE = typer.Option(metavar="FILE", help="With --class: write the elite's image there, a PNG.")
GRAPH = typer.Option(metavar="FILE", help="With --class: write a drawing of the elite's CPPN there, an SVG.")


def show(
    folder: RunFolder,
    which: Annotated[str | None, CLASS] = None,
    listed: Annotated[bool, LIST] = False,
    workers: Annotated[bool, WORKERS] = False,
    image: Annotated[Path | None, IMAGE] = None,
    graph: Annotated[Path | None, GRAPH] = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Show a run's elites as a table, one elite in full, the runners-up of a class, or the run's workers.

    One elite in full: its scores, the classifier's other guesses, its parents and the size of its CPPN. Works while the
    run goes on, and writes nothing but the files that --image and --graph name.
    """
    from evofool.errors import StoreError
    from evofool.quiz.of_run import people_say
    from evofool.quiz.verdicts import verdict_columns
    from evofool.run.stored import StoredRun

    if which is None and (image is not None or graph is not None):
        raise StoreError(f"{'--graph' if image is None else '--image'} writes one elite's file; name the elite by --class")
    if workers and which is not None:
        raise StoreError("--workers shows the run's workers and --class one elite; give one of them")
    if listed and (which is None or graph is not None):
        raise StoreError("--list shows the runners-up of a class: name it by --class, and leave --graph out")
    for path in (image, graph):
        refuse_unwritable(path)
    with StoredRun(folder) as stored:
        if which is not None and listed:
            _show_list(stored, stored.class_id(which), as_json, image)
            return
        if which is not None:
            show_one(stored, which, as_json, trust, image, graph)
            return
        if workers:
            _print_workers(stored, as_json)
            return
        elites = stored.listed()
        if as_json:
            rows, people = stored.rows(), people_say(stored)
            print_json(
                {
                    "run": str(folder),
                    "recipe": stored.meta.recipe,
                    "target": stored.meta.target.model_dump(),
                    "machine": stored.meta.machine,
                    "evaluations": stored.evaluations,
                    "seconds": stored.meta.seconds,
                    "elites_as_of": stored.elites_as_of,
                    "finished": stored.meta.finished,
                    "warnings": stored.meta.warnings,
                    "surrogates": stored.meta.surrogates and stored.meta.surrogates.model_dump(exclude={"climbs"}),
                    "unlike": stored.meta.unlike and stored.meta.unlike.model_dump(),
                    "drifts": [drift.model_dump() for drift in stored.drifts],
                    "quarantine": stored.quarantine(),
                    "metrics": rows,
                    "references": stored.meta.references,
                    "elites": [
                        elite.summary() | verdict_columns(people.get(elite.row.cell), stored.labels) for elite in elites
                    ],
                }
            )
            return
        print_table(stored, elites)


def _show_list(stored: "StoredRun", class_id: int, as_json: bool, image: Path | None) -> None:
    """The genomes that the search keeps of a class, printed, and drawn where a file is named."""
    places, label = stored.class_list(class_id), stored.labels[class_id]
    if image is not None:
        from evofool.images import save_picture
        from evofool.pages.sheet import Tile, contact_sheet

        packed = stored.store.genomes(place.birth for place in places)
        images = stored.encoding.render(stored.unpack([packed[place.birth] for place in places]))
        tiles = [
            Tile(drawn, f"birth {place.birth}", place.confidence, log_odds=place.log_odds)
            for drawn, place in zip(images, places, strict=True)
        ]
        save_picture(contact_sheet(tiles, title=f"{label}: the genomes that the search keeps"), image)
    if as_json:
        rows = [{**asdict(place), "confidence": place.confidence} for place in places]
        print_json({"class": class_id, "label": label, "keep": stored.meta.keep, "list": rows})
        return
    table = Table()
    for name in ("niche", "place", "confidence", "log-odds", "margin", "birth", "mother", "father")[stored.niches == 1 :]:
        table.column(name, right=True)
    for p in places:
        own = p.place, f"{p.confidence:.6f}", f"{p.log_odds:.4f}", f"{p.margin:.4f}", p.birth
        parents = (parent if parent >= 0 else "" for parent in (p.mother, p.father))
        table.row(*([p.niche] if stored.niches > 1 else []), *own, *parents)
    table.print()
    print_lines("", f"{label}: {len(places)} genomes of at most {stored.meta.keep} a cell, as the search ranks them")
    if image is not None:
        print_lines(f"Picture: {image}")


def _print_workers(stored: "StoredRun", as_json: bool) -> None:
    """What each worker was doing at the run's last checkpoint."""
    from evofool.run.meta import WorkersRecord

    seen = stored.meta.workers or WorkersRecord(time=0.0, workers=[])
    finished = stored.meta.finished
    if as_json:
        print_json({**seen.model_dump(), "repeated": stored.meta.repeated})
        return
    if not seen.workers:
        print_lines(f"{stored.folder} has no workers; a search has some with evofool run ... --workers N")
        return
    table = Table()
    columns = ("worker", "state", "images/s", "busy", "in flight", "restarts", "images", "pid", "node", "device", "torch")
    for name in columns:
        table.column(name, right=name not in ("state", "node", "device", "torch"))
    for worker in seen.workers:
        table.row(
            worker.worker,
            worker.state,
            f"{worker.images_per_second:,.1f}",
            f"{worker.busy:.0%}",
            worker.in_flight,
            worker.restarts,
            f"{worker.images:,}",
            worker.pid or "",
            worker.node,
            worker.device,
            worker.torch,
        )
    table.print()
    total = sum(worker.images_per_second for worker in seen.workers)
    age = max(0.0, time.time() - seen.time)
    repeated = stored.meta.repeated
    print_lines(
        "",
        f"{total:,.1f} images/s together, {age:,.0f} s ago" + (f"; the run has ended: {finished}" if finished else ""),
        f"{repeated:,} images were evaluated again, to compare workers or after the run was rewound" if repeated else "",
    )
