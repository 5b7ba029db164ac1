"""The transfer stage of a benchmark: every target classifies the elites of every other target."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.prepare import PreparedTarget
from evofool.bench.transfer.matrix import matrix
from evofool.bench.transfer.shares import TargetElites
from evofool.errors import EvofoolError
from evofool.run.stored import StoredRun


def transferred(
    arm: str, targets: Sequence[tuple[PreparedTarget, Mapping[int, Path]]], report: Callable[[str], None]
) -> tuple[Any, list[str]]:
    """(matrix, notes): TransferMatrix.as_json of an arm's elites between all valid targets, None if fewer than two.

    targets: each with the folders of its valid cells of the arm, by seed.
    """
    measured = [(prepared, seeds) for prepared, seeds in targets if seeds]
    if len(measured) < 2:
        return None, [f"transfer needs two targets with valid cells of {arm}, and there are {len(measured)}"]
    rows = [_row(index, seeds) for index, (_, seeds) in enumerate(measured)]
    classifiers = [prepared.target for prepared, _ in measured]
    calibrations = [prepared.calibration for prepared, _ in measured]
    names = [prepared.name for prepared, _ in measured]
    try:
        found = matrix(rows, classifiers, calibrations, names=names, on_progress=report)
        return found.as_json(), list(found.notes)
    except EvofoolError as error:
        return None, [f"transfer was not measured: {error}"]


def accepted_by(arm: str, found: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """By target, scores.transfer of its result: which share of each other target's elites it accepts, and their median.

    found: TransferMatrix.as_json, None if it was not measured. A share is None where the other target has no elite.
    """
    if found is None:
        return {}
    rows = {}
    for j, name in enumerate(found["targets"]):
        shares = {other: found["share"][i][j] for i, other in enumerate(found["targets"]) if i != j}
        known = [share for share in shares.values() if share is not None]
        rows[name] = {"arm": arm, "of": shares, "median": float(np.median(known)) if known else None}
    return rows


def _row(target: int, seeds: Mapping[int, Path]) -> TargetElites:
    runs, run, classes, births, pngs = [], [], [], [], []
    for index, (seed, folder) in enumerate(seeds.items()):
        runs.append(f"seed {seed}")
        with StoredRun(folder) as stored:
            for elite in stored.elites():
                run.append(index)
                classes.append(elite.row.class_id)
                births.append(elite.row.birth)
                pngs.append(elite.row.png)
    return TargetElites(target, runs, np.array(run, np.int64), np.array(classes, np.int64), np.array(births, np.int64), pngs)
