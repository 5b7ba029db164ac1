"""Reading the done cells of a target: the valid ones with what scores are computed from, and why others are left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.acceptance import FEATURES, MARGIN
from evofool.bench.cell import read_logits, read_record
from evofool.bench.cell_job import CellJob
from evofool.bench.cell_plan import CellPlan
from evofool.bench.prepare import PreparedTarget
from evofool.bench.scoring import CellData
from evofool.bench.seen_answers import read_seen
from evofool.bench.trace import Trace, read_trace, read_trace_of_score
from evofool.errors import EvofoolError
from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class DoneCell:
    """A valid cell: its folder, its record (cell.json) and what is read of its run."""

    folder: Path
    record: dict[str, Any]
    data: CellData


@dataclass(frozen=True)
class CollectedCells:
    """The cells of a target.

    valid: by arm and seed. invalid: by arm and seed (as text), why a cell is left out of every figure. guarded: by detector
    and seed, the folders of valid cells against the detector. warnings: on those that are not valid.
    """

    plan: CellPlan
    valid: dict[str, dict[int, DoneCell]]
    invalid: dict[str, dict[str, str]]
    guarded: dict[str, dict[int, Path]]
    warnings: tuple[str, ...]

    @property
    def prepared(self) -> PreparedTarget:
        """The target."""
        return self.plan.prepared

    @property
    def data(self) -> dict[str, dict[int, CellData]]:
        """By arm and seed, what scores are computed from."""
        return {arm: {seed: cell.data for seed, cell in cells.items()} for arm, cells in self.valid.items()}

    @property
    def folders(self) -> dict[str, dict[int, Path]]:
        """By arm and seed, the folders of the valid cells."""
        return {arm: {seed: cell.folder for seed, cell in cells.items()} for arm, cells in self.valid.items()}

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of the valid cells."""
        return [cell.record for cells in self.valid.values() for cell in cells.values()]


def collect_cells(plan: CellPlan, failures: Mapping[Path, str]) -> CollectedCells:
    """Read the cells of a plan. failures: by folder, why a cell failed in this process."""
    valid: dict[str, dict[int, DoneCell]] = {}
    invalid: dict[str, dict[str, str]] = {}
    for job in plan.cells:
        cell = failures.get(job.folder, "") or _read(job, plan.prepared)
        if isinstance(cell, str):
            invalid.setdefault(job.arm, {})[str(job.seed)] = cell
        else:
            valid.setdefault(job.arm, {})[job.seed] = cell
    guarded, warnings = _collect_guarded(plan.guarded, failures)
    return CollectedCells(plan, valid, invalid, guarded, tuple(warnings))


def _read(job: CellJob, prepared: PreparedTarget) -> DoneCell | str:
    """A done cell, or why it cannot be used."""
    calibration = prepared.calibration
    try:
        record = read_record(job.folder)
        if record is None:
            return "it is not done"
        if record["fingerprint"] != job.fingerprint:
            return "it was made with another target (labels, preprocessing or weights differ)"
        if record["faults"]:
            return _does_not_reproduce(record)
        classes, logits = read_logits(job.folder)
        if logits.shape[1] != len(calibration.labels):
            return f"its outputs are of {logits.shape[1]} classes, not {len(calibration.labels)}"
        if not np.isfinite(logits).all():
            return "the target returns NaN or infinity for an image of it"
        with StoredRun(job.folder) as stored:
            scored = np.flatnonzero(calibration.scored).tolist()
            trace = read_trace(stored, scored, job.queries, job.queries_per_image)
            by_score = _other_traces(job, stored, prepared)
        kept = calibration.scored[classes]
        passes = record["forwards"], record["backwards"], record["answers"]
        climbs = record.get("surrogate_forwards", 0), record.get("surrogate_backwards", 0)
        return DoneCell(job.folder, record, CellData(trace, classes[kept], logits[kept], *passes, *climbs, by_score))
    except EvofoolError as error:
        return str(error)


def _other_traces(job: CellJob, stored: StoredRun, prepared: PreparedTarget) -> dict[str, Trace]:
    """The traces of the acceptance scores other than the margin; without those that not all records have."""
    seen, acceptance = read_seen(job.folder), prepared.acceptance
    if seen is None:
        return {}
    classes = np.flatnonzero(prepared.calibration.scored).tolist()
    # A session that could not read the features leaves records without them, and other images without any record.
    partial_features = bool(np.isnan(seen["similarity"][np.isin(seen["class"], classes)]).any())
    return {
        name: read_trace_of_score(
            stored, seen, classes, job.queries, partial(acceptance.values, name), job.queries_per_image
        )
        for name in acceptance.scores
        if name != MARGIN and not (name == FEATURES and partial_features)
    }


def _collect_guarded(
    guarded: Mapping[str, Sequence[CellJob]], failures: Mapping[Path, str]
) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """By detector and seed, the folders of valid cells of guarded targets; and warnings on the others."""
    found: dict[str, dict[int, Path]] = {}
    left_out: dict[tuple[str, str], int] = {}
    for detector, jobs in guarded.items():
        for job in jobs:
            reason = failures.get(job.folder, "") or _fault_of_guarded(job)
            if reason:
                key = f"{job.arm} against {detector}", reason
                left_out[key] = left_out.get(key, 0) + 1
            else:
                found.setdefault(detector, {})[job.seed] = job.folder
    return found, [f"{what}: {number} cell(s) are left out: {reason}" for (what, reason), number in left_out.items()]


def _fault_of_guarded(job: CellJob) -> str:
    """Why a cell of a guarded target cannot be used; "" if it can."""
    try:
        record = read_record(job.folder)
    except EvofoolError as error:
        return str(error)
    if record is None:
        return "it is not done"
    if record["fingerprint"] != job.fingerprint:
        return "it was made with another detector or target"
    return _does_not_reproduce(record) if record["faults"] else ""


def _does_not_reproduce(record: Mapping[str, Any]) -> str:
    return f"its saved images do not score what was stored: {record['faults'][0]}"
