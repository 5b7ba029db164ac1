"""One cell of a benchmark: a target, an arm and a seed, as an ordinary run that is verified when it is done."""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evofool.attacks.run import METHODS, run_baseline
from evofool.attacks.session import AttackProgress
from evofool.bench.arms import attack_plan, evolves, search_recipe
from evofool.bench.cell_job import CellJob
from evofool.bench.real_features import FeatureProbe, RealFeatures
from evofool.bench.seen_answers import FILE as SEEN_FILE
from evofool.bench.seen_answers import SeenAnswers, Similarity
from evofool.cluster.folder_transfer import restore_folder
from evofool.errors import StoreError, TargetError
from evofool.json_file import write_json
from evofool.machine import keep_memory, machine, torch_threads
from evofool.run.lock import wait_for_lock
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import Verdict, verify
from evofool.search.evaluate import Order, on_host
from evofool.search.local_evaluator import LocalEvaluator
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.network import FLOAT32
from evofool.whole_file import write_whole

RECORD = "cell.json"  # beside the run, once the cell is done
JOB = "job.json"  # the identity of the job that the cell was started for
ASIDE = "aside"
LOGITS = "logits.safetensors"  # the target's outputs for the saved images
OnCellProgress = Callable[[Mapping[str, Any]], bool]
"""Called often with {"done": the number of queries}; returns True once the cell should save and end."""

_RECORD: dict[str, type] = {
    "fingerprint": str,
    "answers": int,
    "forwards": int,
    "backwards": int,
    "faults": list,
    "comparison": str,
    "seconds": float,
    "peak_memory_mb": float,
    "device": str,
    "machine": dict,
}
"""The types of the values of a record that are read."""
_OPTIONAL: dict[str, type] = {"surrogate_forwards": int, "surrogate_backwards": int}
"""The same of values that only cells of the arm `surrogate` have."""

_loaded: dict[str, Target] = {}  # the last one, so that the cells of a target load it once


def run_cell(job: Mapping[str, Any], on_progress: OnCellProgress = lambda report: False) -> dict[str, Any] | None:
    """Run a cell (CellJob.to_dict), or continue it where it was interrupted; its record, None if it is interrupted again.

    A cell in the same folder that was made for another job is moved aside, not deleted.

    The record: fingerprint, answers (all outputs that were requested for the cell, verification included), forwards,
    backwards, faults (of verify: the saved images do not score what was stored), comparison (how verify compared them),
    seconds, peak_memory_mb, machine; of the arm surrogate also the passes of the surrogates, which are no queries.
    TargetError if the target or a surrogate is not the job's.
    """
    cell = CellJob.from_dict(job)
    folder = cell.folder
    if is_done(cell):
        return read_record(folder)
    wait_for_lock(folder)
    target = _target(cell.target, folder)
    if cell.fingerprint and target.fingerprint() != cell.fingerprint:
        raise TargetError(f"{target.name} has changed since: its labels, preprocessing or weights differ")
    clear_folder(cell)
    write_json(folder / JOB, cell.identity)
    keep_memory()
    with torch_threads(1):
        seconds = _search(cell, target, on_progress)
        if seconds is None:
            return None
        before, began = target.queries, time.perf_counter()
        with StoredRun(folder) as stored:
            verdict = verify(stored, target, tick=lambda: on_progress({"done": cell.queries}))
            _save_logits(verdict, folder / LOGITS)
            forwards, backwards = count_passes(stored, target.crops * target.queries_per_image)
            answers = stored.meta.answers + (0 if target.counts_persist else target.queries - before)
            made_by, climbed = stored.meta.machine, stored.meta.surrogates
        record = {
            "fingerprint": target.fingerprint(),
            "answers": answers,
            "forwards": forwards,
            "backwards": backwards,
            "faults": list(verdict.faults),
            "comparison": verdict.comparison,
            "seconds": seconds + time.perf_counter() - began,
            "peak_memory_mb": _peak_memory(),
            "device": target.details.get("device", "elsewhere"),
            "machine": made_by,
            "verified_on": machine(1),
        }
        if climbed:
            record |= {"surrogate_forwards": climbed.forwards, "surrogate_backwards": climbed.backwards}
    write_json(folder / RECORD, record)
    return record


def is_done(job: CellJob) -> bool:
    """Whether the cell is done, for this very job. StoreError if its record is damaged."""
    return read_record(job.folder) is not None and _stored_identity(job.folder) == job.identity


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record that run_cell wrote of a done cell; None if the cell is not done. StoreError if it is damaged."""
    path = folder / RECORD
    if not path.is_file() or not (folder / FILE).is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        needed = isinstance(record, dict) and all(_is_valid(record[key], kind) for key, kind in _RECORD.items())
        if needed and all(_is_valid(record[key], kind) for key, kind in _OPTIONAL.items() if key in record):
            return dict(record)
    except (OSError, ValueError, KeyError, RecursionError):
        pass
    raise StoreError(f"{folder.parent.name}/{folder.name}/{RECORD} is damaged; delete it, and the cell is verified again")


def _is_valid(value: Any, kind: type) -> bool:
    """Whether a value of a record has this type; numbers are finite and not negative, lists are of texts."""
    if kind is float:
        return type(value) in (int, float) and 0 <= value < math.inf
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind is int:
        return type(value) is int and value >= 0
    return type(value) is kind


def read_logits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(n,) classes that a done cell has an image of, ascending, and the target's outputs for these, (n, K) float32."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / LOGITS
    try:
        tensors = load_file(path)
        classes, logits = tensors["classes"], tensors["logits"]
        kinds = classes.dtype == np.int64 and logits.dtype == np.float32
        if not kinds or classes.ndim != 1 or logits.ndim != 2 or len(classes) != len(logits):
            raise ValueError(f"classes {classes.dtype} {classes.shape}, logits {logits.dtype} {logits.shape}")
        if len(classes) and not (classes[0] >= 0 and (np.diff(classes) >= 0).all() and classes[-1] < logits.shape[1]):
            raise ValueError("its classes do not ascend, or have no logit")
        return classes, logits
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged ({error}); delete it and {RECORD} beside it, and the cell is verified again"
        ) from None


def count_passes(stored: StoredRun, crops: int = 1) -> tuple[int, int]:
    """(forward, backward) passes that a run's search has made; each crop, and each of several answers, is a pass."""
    state = stored.meta.attack
    if state is not None:
        return state.forwards * crops, state.backwards * crops
    return stored.evaluations * crops, 0


def clear_folder(job: CellJob) -> None:
    """Prepare the folder for a job: restore files that a worker had replaced, and move a run of another job aside.

    It is moved to aside/NAME-N beside the folder, where nothing reads it.
    """
    folder = job.folder
    restore_folder(folder)
    if not (folder / FILE).exists() or _stored_identity(folder) == job.identity:
        return
    wait_for_lock(folder)
    others = folder.parent / ASIDE
    try:
        others.mkdir(exist_ok=True)
        folder.rename(next(path for n in count(1) if not (path := others / f"{folder.name}-{n}").exists()))
    except OSError as error:
        raise StoreError(f"{folder} is of another job and cannot be moved aside ({error.strerror or error})") from None


def _search(job: CellJob, target: Target, on_progress: OnCellProgress) -> float | None:
    """Run the search or attack; the seconds that it took, over all sessions, or None if it was interrupted."""
    if evolves(job.arm):
        return _evolve(job, target, on_progress)

    def report(progress: AttackProgress) -> bool:
        share = (progress.done + progress.group * min(1.0, progress.step / max(1, progress.steps))) / progress.classes
        return on_progress({"done": int(share * job.queries)})

    plan, folder = attack_plan(job), job.folder
    shared = METHODS[plan.method].shared
    with ExitStack() as stack:
        seen = stack.enter_context(SeenAnswers(folder, _similarity(job, target, stack)))
        if done := _classes_done(folder):
            if (folder / SEEN_FILE).exists():  # else the cell was begun by a version that kept none
                seen.begin(lambda records: np.isin(records["class"], plan.classes[:done]))
        else:
            seen.begin(lambda records: np.zeros(len(records), bool))

        def note(classes: np.ndarray, forwards: np.ndarray, logits: np.ndarray) -> None:
            seen.note(None if shared else classes, forwards, logits)

        outcome = run_baseline(plan, target, folder, streams=1, tick=report, on_answers=note)
    if outcome.done < outcome.classes:
        return None
    with StoredRun(folder) as stored:
        return stored.meta.seconds


def _evolve(job: CellJob, target: Target, on_progress: OnCellProgress) -> float | None:
    """_search for an arm that evolves."""
    folder, recipe, networks = job.folder, search_recipe(job, target), _surrogates(job)
    if (folder / FILE).exists():
        run = Run.resume(folder, recipe, target, trust=True, surrogates=networks)
    else:
        run = Run.start(recipe, folder, target, surrogates=networks)
    with run, ExitStack() as stack:
        seen = stack.enter_context(SeenAnswers(folder, _similarity(job, target, stack)))
        done = run.strategy.evaluations
        if not done or (folder / SEEN_FILE).exists():  # else the cell was begun by a version that kept none
            seen.begin(lambda records: records["at"] <= done)

        def note(order: Order, logits: np.ndarray | torch.Tensor) -> None:
            at = order.first_birth + 1 + np.arange(len(logits), dtype=np.int64)
            seen.note(order.claims, at, on_host(logits), order.key.row % run.batch_evaluator.chunk)

        assert isinstance(run.evaluator, LocalEvaluator)
        run.evaluator.on_answers = note
        on_progress({"done": done * job.queries_per_image})
        reason = run.advance(lambda run: on_progress({"done": run.strategy.evaluations * job.queries_per_image}))
        return run.seconds if reason else None


def _similarity(job: CellJob, target: Target, stack: ExitStack) -> Similarity | None:
    """Compares images with the real ones by features; None where the job has none, or another number format."""
    real = RealFeatures.load(Path(job.features)) if job.features else None
    if real is None or job.gradients is not None or (evolves(job.arm) and job.format != FLOAT32):
        return None
    return stack.enter_context(FeatureProbe(target, real))


def _classes_done(folder: Path) -> int:
    """The classes that the attack in a folder has saved; 0 if there is none."""
    if not (folder / FILE).exists():
        return 0
    with StoredRun(folder) as stored:
        return stored.meta.attack.done if stored.meta.attack and stored.meta.committed else 0


def _surrogates(job: CellJob) -> list[Target]:
    """The job's surrogates. TargetError if one has changed since."""
    networks = [load_target(surrogate.spec) for surrogate in job.surrogates]
    for network, surrogate in zip(networks, job.surrogates, strict=True):
        if network.fingerprint() != surrogate.fingerprint:
            raise TargetError(f"the surrogate {network.name} has changed since: its labels, preprocessing or weights differ")
    return networks


def _stored_identity(folder: Path) -> dict[str, Any] | None:
    try:
        identity = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return identity if isinstance(identity, dict) else None


def _save_logits(verdict: Verdict, path: Path) -> None:
    from safetensors.numpy import save

    write_whole(path, save({"classes": verdict.classes, "logits": verdict.logits}))


def _target(spec: str, folder: Path) -> Target:
    """The target, loaded once for consecutive cells; a black box stores its answers with the cell."""
    if spec not in _loaded:
        target = load_target(spec, folder)
        if target.monitor is not None:  # it has the known images and answers of one cell
            return target
        _loaded.clear()
        _loaded[spec] = target
    return _loaded[spec]


def _peak_memory() -> float:
    """The most MiB that this process has used, earlier cells included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
