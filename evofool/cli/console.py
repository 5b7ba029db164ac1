"""What the commands print of a run: progress, summaries, tables. Plain text to standard output."""

import contextlib
import math
import os
import signal
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evofool.cli.console_unlike import print_turned_away, unlike_text
from evofool.errors import StoreError, TargetError
from evofool.printer import Table, duration, leave_terminal, print_json, print_lines, show_cursor, status
from evofool.whole_file import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

    from evofool.run.run import Run
    from evofool.run.stored import Elite, ListedElite, StoredRun

_SHOWN_WORKERS = 8
SHEET, BEST_SHEET, CURVE = "elites.png", "best.png", "curve.png"
"""The pictures in a run's folder."""
_BEST = 100  # the most images on best.png
_NAMED = 10  # the most elites that a line names


@contextlib.contextmanager
def interrupts(message: str = "Finishing the batch and saving ...") -> Iterator[list[int]]:
    """Append Ctrl-C, SIGTERM and SIGHUP to the list and print the message, so that the work can end soon.

    A second one exits. A terminal that closes sends more than one SIGHUP, so that those after the first are ignored, and
    so are all of them where they were ignored before (nohup).
    """
    caught: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
            if caught:
                return
        if caught:
            # As after a kill, the run's file has its last checkpoint.
            show_cursor()
            print_lines("Stopped immediately; everything up to the last checkpoint is saved", error=True)
            os._exit(130)
        caught.append(number)
        print_lines("", f"{message}", error=True)

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in handled}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(run: "Run") -> None:
    """Print the target: one line each for preprocessing, weights, and how the search runs it."""
    from evofool.targets.kinds import fed_by_server

    details, c = run.target.details, run.recipe.compute
    fed = details.get("preprocessing", {})
    usual = {"crops": 1, "interpolation": fed.get("interpolation")}
    shown = ", ".join(f"{k} {_value_text(v)}" for k, v in fed.items() if v is not None and v != usual.get(k))
    if fed_by_server(details):  # these are of photographs only
        shown = "preprocessed by the server"
    print_lines(f"  images   {'x'.join(map(str, run.target.shape))}; {shown}; outputs {details.get('outputs', 'logits')}")
    if "file_sha256" in details:
        print_lines(f"  weights  SHA-256 {details['file_sha256'][:16]}...  {details.get('file', '(bundled)')}")
    threads = f"{c.threads} torch thread{'s' if c.threads > 1 else ''} each"
    parallel = (
        f"{c.workers} Ray worker{'s' if c.workers > 1 else ''} ({c.ray.address})"
        if c.workers
        else f"{run.evaluator.at_once} pass{'es' if run.evaluator.at_once > 1 else ''} at a time"
    )
    how = f"{c.format}, {run.recipe.chunk} images per pass, {parallel}, {threads}"
    if c.format != "float32":
        how += "; elites are scored again in float32"
    where = details.get("device") or details.get("file", "?")
    print_lines(f"  runs on  {where} ({details.get('backend', '?')}): {how}")
    if run.surrogates and (part := run.recipe.search.surrogate):
        names = ", ".join(network.name for network in run.surrogates.networks)
        later = f" from evaluation {part.after:,} on" if part.after else ""
        print_lines(
            f"  climbs   {part.share:.0%} of the children{later}: {part.steps} steps along the gradients of {names}, whose "
            "passes are no queries of the target"
        )
    if run.recipe.search.unlike:
        print_lines(f"  unlike   {unlike_text(run.recipe.search.unlike)}")
    if run.target.monitor is not None:
        print_lines(f"  checks   {run.target.monitor.plan()}")


def _value_text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return " ".join(map(_value_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def display(run: "Run") -> Iterator[Any]:
    """A function that shows the progress of the run it is called with: live on a terminal, in lines elsewhere."""
    warn = _warner()
    with status() as show_status:

        def show_progress(run: "Run") -> None:
            warn(run)
            show_status(lambda: _progress_text(run), lambda: _worker_lines(run))

        yield show_progress
    warn(run)


def _warner() -> "Callable[[Run], None]":
    """A function that prints each warning of a run once."""
    printed: set[str] = set()

    def warn(run: "Run") -> None:
        for warning in run.warnings:
            if warning not in printed:
                printed.add(warning)
                print_lines(f"Warning: {warning}.")

    return warn


def _progress_text(run: "Run") -> str:
    p = run.progress()
    left = "" if p.seconds_left is None else f", at most {duration(p.seconds_left)} left"
    requests = f"; {p.requests:,} requests, {p.answers:,} answers" if p.requests else ""
    requests += f"; {p.passes:,} passes of surrogates" if p.passes else ""
    requests += f"; {p.turned_away:,} turned away" if p.turned_away else ""
    rate = f", {p.rate:,.0f}/s" if p.rate else ""  # none yet: the first batch compiles
    workers = run.evaluator.workers()
    if workers:
        working = [worker for worker in workers if worker["state"] == "working"]
        busy = statistics.fmean(worker["busy"] for worker in working) if working else 0.0
        restarts = sum(worker["restarts"] for worker in workers)
        rate += f", {len(working)} of {len(workers)} workers {busy:.0%} busy" + (
            f", {restarts} replaced" if restarts else ""
        )
    median = confidence_text(p.median, statistics.median(run.best()[run.strategy.classes].tolist()))
    return (
        f"{p.evaluations:,} evaluations{rate}{left}; median confidence {median}, "
        f"{p.at_99}/{len(p.confidences)} classes at 0.99, {p.distinct} different images{requests}"
    )


def _worker_lines(run: "Run") -> list[str]:
    """A line for each worker, of at most as many as a terminal has room for."""
    workers = run.evaluator.workers()
    lines = [
        f"  worker {worker['worker']}: {worker['images_per_second']:,.0f} images/s, {worker['busy']:.0%} busy, "
        f"{worker['in_flight']} in flight, {worker['restarts']} restarts, {worker['device'] or worker['state']}"
        for worker in workers[:_SHOWN_WORKERS]
    ]
    more = len(workers) - _SHOWN_WORKERS
    return lines + ([f"  and {more} more: evofool show {run.folder} --workers"] if more > 0 else [])


def confidence_text(confidence: float, log_odds: float) -> str:
    """A confidence with four decimals, and its log-odds where it rounds to 1: "0.9876", "1.0000 (log-odds 11.2)"."""
    text = f"{confidence:.4f}"
    return f"{text} (log-odds {log_odds:.1f})" if text == "1.0000" else text


def draw_pictures(stored: "StoredRun", elites: "list[Elite]") -> str:
    """Write elites.png, curve.png and, for more than 100 elites, best.png into a run's folder.

    Returns why the curve is not drawn; "" if it is.
    """
    from evofool.images import save_picture
    from evofool.pages.curve import curve
    from evofool.pages.sheet import Tile, contact_sheet
    from evofool.targets.redaction import short_name

    folder = stored.folder
    title = f"{stored.recipe.name}: {short_name(stored.recipe.target)}, {_spent(stored)}"
    tiles = [Tile(e.image, e.label, e.confidence, log_odds=e.row.log_odds) for e in elites]
    sheet, best, plot = folder / SHEET, folder / BEST_SHEET, folder / CURVE
    save_picture(contact_sheet(tiles, title=title), sheet)
    if len(elites) > _BEST:
        save_picture(_best_sheet(elites, title), best)
    rows = stored.rows()
    if not rows:
        return "no batch was committed"
    ranked = stored.recipe.compute.format
    by = "" if ranked == "float32" else f" (scores of the search, in {ranked})"
    unit = "forward passes" if stored.meta.attack else "evaluations"
    try:
        write_whole(plot, curve(rows, title + by, len(stored.classes), unit))
    except ValueError as error:  # metrics of a damaged file; its elites may be sound
        return str(error)
    return ""


def report(folder: Path, reason: str | None) -> None:
    """Print a run's summary and write its contact sheet and its curve."""
    from evofool.run.stored import StoredRun

    with StoredRun(folder) as stored:
        elites, classes = stored.elites(), len(stored.classes)
        without_curve = draw_pictures(stored, elites)
        if without_curve and stored.rows():
            print_lines(f"Warning: the curve is not drawn: {without_curve}; evofool verify {folder} says more.")
        best = _best_of_classes(elites)
        sure = sum(e.confidence >= 0.99 for e in best.values())
        very = sum(e.confidence >= 0.9999 for e in best.values())
        seconds = stored.meta.seconds
        without = classes - len(best)
        median = confidence_text(
            statistics.median([*(e.confidence for e in best.values()), *[0.0] * without]),
            statistics.median([*(e.row.log_odds for e in best.values()), *[-math.inf] * without]),
        )
        print_lines(
            f"{_spent(stored)} in {duration(seconds)}: {sure} of {classes} classes at 0.99 or more, "
            f"{very} at 0.9999 or more; median {median}."
        )
        print_surrogates(stored)
        print_turned_away(stored)
        wanted = stored.recipe.stop.confidence
        if reason and wanted is not None:
            late = [
                f"{e.label} ({confidence_text(e.confidence, e.row.log_odds)})"
                for e in best.values()
                if e.confidence < wanted
            ]
            late += [f"{stored.labels[c]} (no elite)" for c in stored.classes if c not in best]
            if late:
                names = ", ".join(late[:10]) + (" ..." if len(late) > 10 else "")
                print_lines(f"Below {wanted:g}: {names}. Another seed may give better results: --set search.seed=N")
        print_lines(
            f"Contact sheet: {folder / SHEET}"
            + (f" (the best {_BEST}: {folder / BEST_SHEET})" if len(elites) > _BEST else "")
        )
        if not without_curve:
            print_lines(f"Curve:         {folder / CURVE}")


def _spent(stored: "StoredRun") -> str:
    """What a run has spent so far: evaluations, or the passes of a baseline; and climbs by surrogates."""
    attack, surrogates = stored.meta.attack, stored.meta.surrogates
    climbs = f", {surrogates.children:,} climbs by surrogates" if surrogates else ""
    if attack is None:
        return f"{stored.evaluations:,} evaluations{climbs}"
    return f"{attack.forwards:,} forward and {attack.backwards:,} backward passes{climbs}"


def _best_sheet(elites: "list[Elite]", title: str) -> "Image":
    """The most confident elites, best first, one image per genome, since one genome can hold several classes."""
    from evofool.pages.sheet import Tile, contact_sheet

    seen: dict[int, Elite] = {}
    for elite in sorted(elites, key=lambda e: -e.row.log_odds):
        seen.setdefault(elite.row.birth, elite)
    tiles = [Tile(e.image, e.label, e.confidence, log_odds=e.row.log_odds) for e in list(seen.values())[:_BEST]]
    return contact_sheet(tiles, title=f"{title}: the {len(tiles)} surest")


def _best_of_classes(elites: "list[Elite]") -> "dict[int, Elite]":
    best: dict[int, Elite] = {}
    for elite in elites:
        if elite.row.class_id not in best or elite.row.log_odds > best[elite.row.class_id].row.log_odds:
            best[elite.row.class_id] = elite
    return best


def print_table(stored: "StoredRun", elites: "Sequence[ListedElite]") -> None:
    from evofool.quiz.of_run import people_say

    table = Table()
    niches, people = stored.recipe.niches is not None, people_say(stored)
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
        *(["people"] if people else []),
    ]:
        table.column(name, right=name not in ("label", "parents", "people"))
    for e in elites:
        r = e.row
        first = "random" if r.method == "evolved" else r.method
        parents = first if r.mother < 0 else f"{r.mother}" if r.father < 0 else f"{r.mother}, {r.father}"
        parents += f" ({r.method})" if r.mother >= 0 and r.method != "evolved" else ""
        niche = [str(r.niche)] if niches else []
        scores = [f"{e.confidence:.6f}", f"{r.log_odds:.3f}", f"{r.margin:.3f}"]
        table.row(
            f"~{r.class_id}" if e.drifted else r.class_id,
            e.label,
            *niche,
            *scores,
            r.birth,
            parents,
            f"{r.bytes_per_pixel:.2f}",
            *([said.with_counts(stored.labels) if (said := people.get(r.cell)) else ""] if people else []),
        )
    table.print()
    wins, switches = stored.store.counts()
    meta = stored.meta
    if meta.shown < meta.committed:
        as_of = f"{stored.elites_as_of:,} evaluations"
        print_lines("", f"As of {as_of}, when elites were last saved; the search has continued since.")
    state = f"ended: {meta.finished}" if meta.finished else "not ended yet"
    share = f"{switches / wins:.1%}" if wins else "0%"
    # A merged run has no history of its searches.
    won = f"{wins:,} elite replacements, {share} of them goal switches; " if meta.searched else ""
    distinct = len({e.row.birth for e in elites})
    print_lines("", f"{len(elites)} elites, {distinct} different images; {_spent(stored)}; {won}{state}")
    print_surrogates(stored)
    print_turned_away(stored)
    print_drifts(stored)
    quarantine = stored.quarantine()
    if quarantine:
        print_lines("", f"{len(quarantine)} images in quarantine: they are kept in the run's file and not evaluated again:")
    for row in quarantine:
        print_lines(
            f"  birth {row['birth']} in batch {row['batch']} ({_parents(row['mother'], row['father'])}): {row['reason']}"
        )


def print_surrogates(stored: "StoredRun") -> None:
    """Print what the surrogates of a run did; nothing if it has none."""
    found = stored.meta.surrogates
    if found is not None:
        print_lines(
            f"{found.children:,} images climbed the gradients of {', '.join(n.name for n in found.networks)}, in "
            f"{found.forwards:,} forward and {found.backwards:,} backward passes, which are no queries of "
            f"{stored.recipe.target}"
        )


def print_drifts(stored: "StoredRun") -> None:
    """Print which elites are marked, because the black box that scored them may have changed by then."""
    if stored.drifts:
        elites = stored.listed()
        marked = [elite.label for elite in elites if elite.drifted]
        names = ", ".join(marked[:_NAMED]) + (" ..." if len(marked) > _NAMED else "")
        print_lines(
            f"{len(marked)} of {len(elites)} elites are marked (~): at request {stored.drifts[-1].requests:,} the target "
            "answered known images differently, and it may have changed before it scored these"
            + (f": {names}" if marked else "")
        )


def show_one(
    stored: "StoredRun",
    which: str,
    as_json: bool,
    trust: bool = False,
    image: Path | None = None,
    graph: Path | None = None,
) -> None:
    """One elite in full, printed; its image and the graph of its CPPN are written where files are named."""
    import numpy as np

    from evofool.image_metrics.names import HAS_OWN_SHAPE
    from evofool.machine import torch_threads
    from evofool.quiz.of_run import people_say
    from evofool.quiz.verdicts import verdict_columns
    from evofool.scores import confidence, log_odds

    elite = max(stored.elites(stored.class_id(which)), key=lambda e: e.row.log_odds)
    row = elite.row
    seen: list[dict[str, Any]] | None = None
    unknown = ""
    try:
        target = stored.target(trust)
        with torch_threads(stored.recipe.compute.threads):
            odds = log_odds(target.logits(elite.image[None], pad_to=stored.recipe.chunk), target.multilabel)[0]
        others = [int(c) for c in np.argsort(-odds, kind="stable") if c != row.class_id][:5]
        seen = [{"class": c, "label": stored.labels[c], "confidence": float(confidence(odds[c]))} for c in others]
    except (TargetError, StoreError) as error:
        unknown = f"unknown: {error}"
    genome = stored.genome_json(elite)
    cppn = genome if genome["format"] == "evofool.cppn" else genome.get("cppn")  # of a canvas, if it is still one
    if cppn is None and graph is not None:
        raise StoreError(f"{stored.folder}: a {stored.recipe.encoding.kind} image has no graph; leave --graph out")
    if image is not None:
        write_whole(image, row.png)
    if cppn is not None and graph is not None:
        from evofool.pages.graph import graph_svg

        write_whole(graph, graph_svg(cppn))
    said = people_say(stored).get(row.cell)
    if as_json:
        print_json({**elite.summary(), **verdict_columns(said, stored.labels), "runners_up": seen, "genome": genome})
        return
    print_lines(
        f"class {row.class_id} ({elite.label}): confidence {elite.confidence:.8f}, "
        f"log-odds {row.log_odds:.4f}, margin {row.margin:.4f}"
    )
    print_lines("runners-up  " + (", ".join(f"{s['label']} ({s['confidence']:.2e})" for s in seen) if seen else unknown))
    print_lines(f"birth       {row.birth} in batch {row.batch}; {_parents(row.mother, row.father, row.method)}")
    if elite.drifted:
        print_lines("marked      made after the last check that agreed; the target then answered known images differently")
    verdict = f"; people: {said.with_counts(stored.labels)}" if said else "; nobody was asked what they see"
    print_lines(f"image       {row.bytes_per_pixel:.2f} bytes a pixel as PNG{verdict}")
    if row.image_metrics:
        told = [f"{m.name.replace('_', ' ')} {m.value:.4g}" for m in row.image_metrics if m.name != HAS_OWN_SHAPE]
        shaped = ["shaped like its class"] if any(m.name == HAS_OWN_SHAPE and m.value for m in row.image_metrics) else []
        print_lines("measured    " + ", ".join([*shaped, *told]))
    if "mirror" in genome:
        print_lines(
            f"canvas      {genome['size']} x {genome['size']} pixels, mirrored {genome['mirror']} x {genome['mirror']}"
        )
    if cppn is not None:
        from genomes.cppn.json_ import identity

        print_lines(f"genome      {len(cppn['nodes'])} nodes, {len(cppn['edges'])} edges, SHA-256 {identity(cppn)[:16]}...")
    if image is not None:
        print_lines(f"picture     {image}")
    if graph is not None:
        print_lines(f"graph       {graph}")


def _parents(mother: int, father: int, method: str = "evolved") -> str:
    by = "" if method == "evolved" else f", made by {method}"
    if mother < 0:
        return f"no parents{by or ': a random genome'}"
    return (f"mother {mother}" if father < 0 else f"mother {mother}, father {father}") + by


def refuse_unwritable(path: Path | None) -> None:
    """StoreError for a file that cannot be written, before minutes of work whose result it is to hold."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        raise StoreError(f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StoreError(f"{path} cannot be written: its folder is not writable ({error.strerror or error})") from None
