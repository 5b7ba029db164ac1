"""The transfer part of a benchmark: every target asked about the elites of every other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.ready import Ready
from evofool.bench.transfer.matrix import matrix
from evofool.bench.transfer.shares import TargetElites
from evofool.errors import EvofoolError
from evofool.run.stored import StoredRun

Valid = Mapping[str, Mapping[str, Mapping[int, Path]]]


def transferred(arm: str, ready: Sequence[Ready], valid: Valid, say: Callable[[str], None]) -> tuple[Any, list[str]]:
    """The matrix of an arm's elites between all valid targets, as Transfer.as_json has it; None where there are fewer than
    two. And what is to be said of it."""
    there = [one for one in ready if one.calibration is not None and valid.get(one.entry.name, {}).get(arm)]
    if len(there) < 2:
        return None, [f"transfer needs two targets with valid cells of {arm}, and there are {len(there)}"]
    rows = [_row(place, valid[one.entry.name][arm]) for place, one in enumerate(there)]
    targets = [one.target for one in there if one.target is not None]
    calibrations = [one.calibration for one in there if one.calibration is not None]
    names = [one.entry.name for one in there]
    try:
        return matrix(rows, targets, calibrations, names=names, say=say).as_json(), []
    except EvofoolError as error:
        return None, [f"transfer was not measured: {error}"]


def _row(target: int, seeds: Mapping[int, Path]) -> TargetElites:
    runs, of, classes, births, pngs = [], [], [], [], []
    for place, (seed, home) in enumerate(seeds.items()):
        runs.append(f"seed {seed}")
        with StoredRun(home) as stored:
            for elite in stored.elites():
                of.append(place)
                classes.append(elite.row.class_id)
                births.append(elite.row.birth)
                pngs.append(elite.row.png)
    return TargetElites(target, runs, np.array(of, np.int64), np.array(classes, np.int64), np.array(births, np.int64), pngs)
