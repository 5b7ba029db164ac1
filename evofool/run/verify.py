"""Are the stored elites what they say? Hashes, then every PNG read back and scored again."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from evofool.errors import ImageError, StoreError
from evofool.machine import machine, torch_threads
from evofool.run.seeding import seeds_of
from evofool.run.stored import Elite, StoredRun
from evofool.scores import log_odds, margin
from evofool.targets import Target

TOLERANCE = 1e-3
"""How far log-odds may lie from the stored ones on another kind of machine."""


_AT_ONCE = 256  # genomes read at once: pixels are big


@dataclass(frozen=True)
class Verdict:
    """What verify found. faults name their class; the run is sound if there are none.

    classes (n,) int64 and logits (n, K) float32: of the elites whose picture could be read, what the target answers now.
    """

    elites: int
    exact: bool  # equal bits were asked for
    largest_difference: float  # of log-odds
    faults: tuple[str, ...]
    classes: np.ndarray = field(compare=False, repr=False)
    logits: np.ndarray = field(compare=False, repr=False)


def verify(run: StoredRun, target: Target | None = None, trust: bool = False) -> Verdict:
    """Check a run's file, hashes and scores.

    SQLite's integrity check; a SHA-256 over class, niche, birth, scores and PNG of each elite; every genome drawn again,
    which has to give the PNG's pixels to the bit on any machine; the stored labels and shape of the target against its own;
    then every PNG is scored in chunks of the recipe's size, the last one padded. On the kind of machine that made the run
    (CPU, torch, threads; nothing over a network, no GPU) log-odds and margins have to be equal to the bit, elsewhere within
    TOLERANCE. target defaults to the run's own (StoredRun.target, for trust too).
    """
    if not run.meta.get("committed"):
        raise StoreError(f"{run.folder} has saved nothing yet")
    faults = [f"the file: {fault}" for fault in run.store.faults()]
    elites: list[Elite] = []
    try:
        cell_history = run.store.cell_history()
        won = {change.cell for change in cell_history[: run.meta["shown_changes"]]}
        missing = {cell // run.niches for cell in won - run.store.cells()}
        faults += [f"class {c} ({run.labels[c]}): an elite of it is missing" for c in sorted(missing)]
        elites = run.elites()
        # Everything that the file holds is read once, so that damage anywhere is found.
        seeds = seeds_of(run.store, run.meta, len(run.labels))
        births = sorted({change.birth for change in cell_history} | set(range(seeds.number if seeds else 0)))
        for at in range(0, len(births), _AT_ONCE):
            run.unpack(list(run.store.genomes(births[at : at + _AT_ONCE]).values()))
        run.store.metrics()
        run.store.pending()
        run.store.commits()
        run.store.origins()
        run.store.methods()
        run.store.improvements()
        run.unpack([row.genome for row in run.store.quarantine()])
    except (StoreError, IndexError) as error:
        faults.append(str(error))
    target = run.own_target(target, trust, ignore_cache=True)
    if list(target.labels) != run.labels or target.shape != run.shape:
        faults.append(f"the labels or the shape that are stored of {target.name} are not its own")
    exact = _same_bits(run, target)
    whole: list[tuple[Elite, np.ndarray]] = []
    for elite in elites:
        who = f"class {elite.row.class_id} ({elite.label})"
        if elite.row.digest() != elite.row.sha256:
            faults.append(f"{who}: its hash does not fit; class, birth, score or picture was changed")
        try:
            image = elite.image
        except ImageError as error:
            faults.append(str(error))
            continue
        if image.shape != run.shape:
            faults.append(f"{who}: its picture is {image.shape}, not {run.shape}")
            continue
        try:
            if not np.array_equal(run.encoding.render(run.unpack([elite.row.genome]))[0], image):
                faults.append(f"{who}: its genome draws another picture than the stored one")
        except StoreError as error:
            faults.append(f"{who}: {error}")
        whole.append((elite, image))
    largest = 0.0
    chunk = run.recipe.chunk
    parts = [whole[at : at + chunk] for at in range(0, len(whole), chunk)]
    threads = run.recipe.compute.threads
    with torch_threads(threads), ThreadPoolExecutor(target.streams, "verify", torch.set_num_threads, (threads,)) as pool:
        try:
            answers = list(pool.map(lambda part: target.logits(np.stack([image for _, image in part]), chunk), parts))
        except BaseException:
            target.cancel()
            raise
        for part, logits in zip(parts, answers, strict=True):
            for (elite, _), odds, gaps in zip(part, log_odds(logits), margin(logits), strict=True):
                row = elite.row
                difference = abs(float(odds[row.class_id]) - row.log_odds)
                off = max(difference, abs(float(gaps[row.class_id]) - row.margin))
                largest = max(largest, difference)
                if not off <= (0.0 if exact else TOLERANCE):
                    faults.append(
                        f"class {row.class_id} ({elite.label}): scored again it has log-odds {odds[row.class_id]:.6f}, "
                        f"stored are {row.log_odds:.6f}"
                    )
    classes = np.array([elite.row.class_id for elite, _ in whole], np.int64)
    told = np.concatenate([np.zeros((0, len(target.labels)), np.float32), *answers])
    return Verdict(len(elites), exact, largest, tuple(faults), classes, told)


def _same_bits(run: StoredRun, target: Target) -> bool:
    """Whether the same network runs here by the same means."""
    then, now = run.meta["target"]["details"], target.details
    on_cpu = str(now.get("device", "cpu")) == str(then.get("device", "cpu")) == "cpu"
    same = now.get("backend") == then.get("backend") and run.meta["machine"] == machine(run.recipe.compute.threads)
    return on_cpu and same and not target.counts_persist
