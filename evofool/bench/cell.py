"""One cell of a benchmark: a target, an arm and a seed, as an ordinary run that is verified when it is done."""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from evofool.attacks.run import AttackProgress, run_baseline
from evofool.bench.arms import ARMS, baseline_plan, search_recipe, settings_for
from evofool.bench.json_file import write_json
from evofool.cluster.folder_transfer import restore_folder
from evofool.errors import StoreError, TargetError
from evofool.machine import keep_memory, machine, torch_threads
from evofool.run.lock import LOCK
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import Verdict, verify
from evofool.targets import Target
from evofool.targets import target as load_target

RECORD = "cell.json"  # beside the run: it is there once the cell is done
JOB = "job.json"  # what the cell was begun for
ASIDE = "aside"
LOGITS = "logits.safetensors"  # what the target answers to the saved images
Say = Callable[[Mapping[str, Any]], bool]
_PATIENCE = 60.0  # seconds
_loaded: dict[str, Target] = {}  # the last one, so that the cells of a target load it once


@dataclass(frozen=True)
class Job:
    """What a cell is to do. target: a spec; fingerprint: of that target, "" if any will do.

    queries: in all. classes: the numbers of those that it is about. changes: --set of the arm. format: the number format
    that a search ranks by.
    """

    folder: Path
    target: str
    arm: str
    seed: int
    queries: int
    classes: tuple[int, ...]
    changes: tuple[str, ...] = ()
    format: str = "float32"
    rank: str = "margin"
    fingerprint: str = ""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Job":
        """From what `plain` has made of one."""
        changed = {"folder": Path(told["folder"]), "classes": tuple(told["classes"]), "changes": tuple(told["changes"])}
        return cls(**{**told, **changed})

    def plain(self) -> dict[str, Any]:
        """Plain values, for other processes."""
        return asdict(self) | {"folder": str(self.folder), "classes": list(self.classes), "changes": list(self.changes)}

    @property
    def bound_to(self) -> dict[str, Any]:
        """What a cell has to have been made for, to be this job's."""
        return {key: value for key, value in self.plain().items() if key not in ("folder", "target")}

    @property
    def done(self) -> bool:
        """Whether the cell is, for this very job. StoreError if its record is damaged."""
        return record(self.folder) is not None and _begun_for(self.folder) == self.bound_to


def run_cell(told: Mapping[str, Any], on_progress: Say = lambda told: False) -> dict[str, Any] | None:
    """Do a job (Job.plain), or go on with it where it was broken off; its record, None if it was broken off again.

    A cell that stands in its folder and was made for another job is set aside, not lost. on_progress is called often with
    a mapping that says how far it is; it returns True once the cell should save and end.

    The record: fingerprint, answers (everything that was asked for the cell, verification included), forwards, backwards,
    faults (of verify: the saved images do not score what was stored), seconds, peak_memory_mb, machine. TargetError if the
    target is not the job's.
    """
    job = Job.of(told)
    folder = job.folder
    if job.done:
        return record(folder)
    _await(folder)
    target = _target(job.target, folder)
    if job.fingerprint and target.fingerprint() != job.fingerprint:
        raise TargetError(f"{target.name} has changed since: its labels, preprocessing or weights differ")
    make_way(job)
    write_json(folder / JOB, job.bound_to)
    keep_memory()
    with torch_threads(1):
        seconds = _do(job, target, folder, on_progress)
        if seconds is None:
            return None
        before, began = target.queries, time.perf_counter()
        with StoredRun(folder) as stored:
            verdict = verify(stored, target)
            _save_logits(verdict, folder / LOGITS)
            forwards, backwards = passes(stored, target.crops)
            answers = int(stored.meta["answers"]) + (0 if target.counts_persist else target.queries - before)
            made_by = stored.meta["machine"]
        made = {
            "fingerprint": target.fingerprint(),
            "answers": answers,
            "forwards": forwards,
            "backwards": backwards,
            "faults": list(verdict.faults),
            "seconds": seconds + time.perf_counter() - began,
            "peak_memory_mb": _peak_memory(),
            "device": target.details.get("device", "elsewhere"),
            "machine": made_by,
            "verified_on": machine(1),
        }
    write_json(folder / RECORD, made)
    return made


def record(folder: Path) -> dict[str, Any] | None:
    """What run_cell has written of a cell that is done; None of any other."""
    path = folder / RECORD
    if not path.is_file() or not (folder / FILE).is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(told, dict) and isinstance(told["fingerprint"], str) and isinstance(told["faults"], list):
            return told
    except (OSError, ValueError, KeyError):
        pass
    raise StoreError(f"{folder.parent.name}/{folder.name}/{RECORD} is damaged; delete it, and the cell is verified again")


def logits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(n,) classes that a done cell has an image of, ascending, and the target's answers to these, (n, K) float32."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / LOGITS
    try:
        tensors = load_file(path)
        return tensors["classes"], tensors["logits"]
    except (SafetensorError, OSError, KeyError) as error:
        raise StoreError(
            f"{path} is damaged ({error}); delete it and {RECORD} beside it, and the cell is verified again"
        ) from None


def passes(stored: StoredRun, crops: int = 1) -> tuple[int, int]:
    """(forward, backward) passes that a run's search has made, crops counted: each is a pass."""
    state = stored.meta.get("baseline")
    if state is not None:
        return int(state["forwards"]) * crops, int(state["backwards"]) * crops
    return stored.evaluations * crops, 0


def _do(job: Job, target: Target, folder: Path, say: Say) -> float | None:
    """The seconds that the run took, over all sittings; None if it was broken off."""
    if ARMS[job.arm].kind == "search":
        recipe = search_recipe(
            job.arm,
            target,
            seed=job.seed,
            queries=job.queries,
            name=folder.name,
            classes=job.classes,
            changes=job.changes,
            number_format=job.format,
            rank=job.rank,
        )
        begun = (folder / FILE).exists()
        run = Run.resume(folder, recipe, target, trust=True) if begun else Run.start(recipe, folder, target)
        with run:
            reason = run.advance(lambda run: say({"queries": run.strategy.evaluations}))
            return run.seconds if reason else None
    settings = settings_for(job.arm, job.changes)
    plan = baseline_plan(job.arm, classes=job.classes, seed=job.seed, queries=job.queries, settings=settings, rank=job.rank)

    def tick(p: AttackProgress) -> bool:
        share = (p.done + p.group * min(1.0, p.step / max(1, p.steps))) / p.classes
        return say({"queries": int(share * job.queries)})

    outcome = run_baseline(plan, target, folder, streams=1, tick=tick)
    if outcome.done < outcome.classes:
        return None
    with StoredRun(folder) as stored:
        return float(stored.meta["seconds"])


def _begun_for(folder: Path) -> dict[str, Any] | None:
    try:
        told = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def make_way(job: Job) -> None:
    """Take back what a worker's files were taking the place of, and set aside what was made for another job: to aside/NAME-N
    beside the folder, where nothing reads it."""
    folder = job.folder
    restore_folder(folder)
    if not (folder / FILE).exists() or _begun_for(folder) == job.bound_to:
        return
    _await(folder)
    others = folder.parent / ASIDE
    try:
        others.mkdir(exist_ok=True)
        folder.rename(next(place for n in count(1) if not (place := others / f"{folder.name}-{n}").exists()))
    except OSError as error:
        raise StoreError(f"{folder} was made for another job, and cannot be set aside ({error.strerror or error})") from None


def _await(folder: Path) -> None:
    """Let the worker of a driver that was killed come to its end: it may be at this cell still."""
    if (folder / LOCK).exists():
        # If it does not end, whoever opens the run says so.
        with suppress(Timeout, OSError), FileLock(folder / LOCK).acquire(timeout=_PATIENCE):
            pass


def _save_logits(verdict: Verdict, path: Path) -> None:
    from safetensors.numpy import save

    draft = path.with_name(path.name + ".new")
    draft.write_bytes(save({"classes": verdict.classes, "logits": verdict.logits}))
    draft.replace(path)


def _target(spec: str, folder: Path) -> Target:
    """The target, loaded once for cells that follow one another; a black box keeps its answers with the cell."""
    if spec not in _loaded:
        found = load_target(spec, folder)
        if found.counts_persist or found.requests:
            return found
        _loaded.clear()
        _loaded[spec] = found
    return _loaded[spec]


def _peak_memory() -> float:
    """MiB that this process has held at the most, earlier cells included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
