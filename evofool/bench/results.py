"""A target's results as one JSON, out of its calibration and its cells. docs/protocol.md describes it, key by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench import cell as cells
from evofool.bench.arms import ARMS
from evofool.bench.calibration import LEVELS, Calibration
from evofool.bench.json_file import SCHEMA, VERSION
from evofool.bench.plan import BenchRecipe
from evofool.bench.ready import Ready
from evofool.bench.scoring import ScoredCell, Scoring, flags
from evofool.bench.statistics import quantiles
from evofool.bench.trace import read_trace
from evofool.errors import EvofoolError
from evofool.run.stored import StoredRun
from evofool.targets.redaction import name_of, public_name


@dataclass(frozen=True)
class Place:
    """A cell: whose, and where. spec, fingerprint: of the target, guarded by `guard` where that names a detector."""

    ready: Ready
    arm: str
    seed: int
    folder: Path
    spec: str
    fingerprint: str
    guard: str = ""


def result(
    recipe: BenchRecipe, one: Ready, places: Sequence[Place], words: Mapping[Path, str]
) -> tuple[dict[str, Any], dict[str, dict[int, Path]]]:
    """The JSON of a target (its detectors and image metrics are filled in later), and the folders of its valid cells: none
    of a target that is not valid itself.

    places: the cells of its arms, guarded ones left out. words: by folder, why a cell came to nothing in this sitting.
    """
    told = {
        "schema": SCHEMA,
        "version": VERSION,
        "target": _target(one),
        "protocol": _protocol(recipe),
        "images": None if one.calibration is None else _images(recipe, one, one.calibration),
    }
    warnings = [{"level": "warning", "message": warning} for warning in one.warnings]
    if one.fault or one.calibration is None:
        nothing: dict[str, Any] = {"controls": {}, "arms": {}, "sharing": {}, "detectors": [], "image_metrics": {}}
        flagged = [{"level": "invalid", "message": one.fault}, *warnings]
        return {**told, "valid": False, "flags": flagged, "scores": nothing, "raw": {}, "timings": {}}, {}
    calibration = one.calibration
    cells = _gathered(places, words, calibration, recipe.budget)
    scoring = Scoring(calibration, cells.valid, recipe.budgets)
    scored = {arm: scoring.arm(arm) for arm in recipe.arms if cells.valid.get(arm)}
    arms = {
        arm: scored.get(arm, {"kind": ARMS[arm].kind, "seeds": []}) | {"invalid": cells.invalid.get(arm, {})}
        for arm in recipe.arms
        if arm in scored or arm in cells.invalid
    }
    control, fault = _control(calibration)
    # What is wrong with the images spoils all; what is wrong with a cell spoils that one.
    valid = not fault and bool(scored)
    flagged = [{"level": "invalid", "message": what} for what in [*fault, *cells.faults()]]
    flagged += flags(scored)
    flagged += [*warnings, *({"level": "warning", "message": doubt} for doubt in calibration.doubts())]
    return {
        **told,
        "valid": valid,
        "flags": flagged,
        "scores": {
            "controls": {"real": control},
            "arms": arms,
            "sharing": scoring.sharing(),
            "detectors": [],
            "image_metrics": {},
        },
        "raw": {
            "tau5": _median(calibration.tau5),
            "tau50": _median(calibration.tau50),
            "temperature": calibration.raw_temperature,
            "confidence": {arm: scoring.raw(arm) for arm in scored},
        },
        "timings": cells.timings(),
    }, cells.folders if valid else {}


@dataclass
class _Cells:
    """A target's cells: those that count, by arm and seed, and why the others do not."""

    valid: dict[str, dict[int, ScoredCell]]
    folders: dict[str, dict[int, Path]]
    invalid: dict[str, dict[str, str]]
    records: list[dict[str, Any]]

    def faults(self) -> list[str]:
        return [
            f"{arm}: {len(whys)} cell(s) are left out of every figure: {'; '.join(sorted(set(whys.values())))}"
            for arm, whys in self.invalid.items()
        ]

    def timings(self) -> dict[str, Any]:
        return {
            "wall_seconds": sum(record["seconds"] for record in self.records),
            "device": ", ".join(sorted({str(record["device"]) for record in self.records})),
            "machines": sorted({record["machine"].get("cpu", "?") for record in self.records}),
            "peak_memory_mb": max((record["peak_memory_mb"] for record in self.records), default=0.0),
        }


def _gathered(places: Sequence[Place], words: Mapping[Path, str], calibration: Calibration, budget: int) -> _Cells:
    found = _Cells({}, {}, {}, [])
    for place in places:
        why = words.get(place.folder, "")
        told, why = (None, why) if why else _cell(place, calibration, budget)
        if told is None:
            found.invalid.setdefault(place.arm, {})[str(place.seed)] = why
            continue
        cell, record = told
        found.valid.setdefault(place.arm, {})[place.seed] = cell
        found.folders.setdefault(place.arm, {})[place.seed] = place.folder
        found.records.append(record)
    return found


def _control(calibration: Calibration) -> tuple[dict[str, Any], list[str]]:
    """What is said of the disjoint half of the real images, and what is wrong with it."""
    share, of, error = calibration.control_accepted()
    holds = bool(abs(share - 0.95) <= 3 * error)
    told = {
        "accepted": share,
        "images": of,
        "standard_error": error,
        "holds": holds,
        "scaled_margins": quantiles(calibration.margins / calibration.scale),
    }
    fault = (
        f"of the disjoint half of the real images {share:.3f} are accepted, not 0.95 within 3 standard errors "
        f"({error:.3f}): the two halves differ, or a threshold is off"
    )
    return told, [] if holds else [fault]


def _target(one: Ready) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.entry.name, "group": one.entry.group, "spec": public_name(one.entry.spec)}
    if one.target is not None:
        labels = list(one.target.labels)
        told |= {"spec": public_name(one.target.name), "fingerprint": one.target.fingerprint(), "classes": len(labels)}
        told |= {"scored_classes": 0, "shape": list(one.target.shape), "labels": labels}
    if one.calibration is not None:
        told |= {"fingerprint": one.calibration.fingerprint, "scored_classes": int(one.calibration.scored.sum())}
    return told


def _protocol(recipe: BenchRecipe) -> dict[str, Any]:
    return {
        "budgets": list(recipe.budgets),
        "seeds": list(recipe.each_seed),
        "arms": list(recipe.arms),
        "settings": {arm: list(recipe.changes(arm)) for arm in recipe.arms if recipe.changes(arm)},
        "rank": "margin",
        "format": recipe.format,
        "levels": LEVELS,
        "confidence": 0.95,
        "evofool": version("evofool"),
    }


def _cell(place: Place, calibration: Calibration, budget: int) -> tuple[tuple[ScoredCell, dict[str, Any]] | None, str]:
    """A done cell and its record, or why it cannot be used."""
    folder = place.folder
    try:
        record = cells.record(folder)
        if record is None:
            return None, "it is not done"
        if record["fingerprint"] != place.fingerprint:
            return None, "it was made with another target (labels, preprocessing or weights differ)"
        if record["faults"]:
            return None, f"its saved images do not score what was stored: {record['faults'][0]}"
        classes, logits = cells.logits(folder)
        if not np.isfinite(logits).all():
            return None, "the target answers NaN or infinity for an image of it"
        with StoredRun(folder) as stored:
            trace = read_trace(stored, np.flatnonzero(calibration.scored).tolist(), budget)
        kept = calibration.scored[classes]
        told = ScoredCell(trace, classes[kept], logits[kept], record["forwards"], record["backwards"], record["answers"])
        return (told, record), ""
    except EvofoolError as error:
        return None, str(error)


def _images(recipe: BenchRecipe, one: Ready, calibration: Calibration) -> dict[str, Any]:
    return {
        "source": recipe.images if recipe.images == "digits" else name_of(recipe.images),
        "sha256": calibration.sha256,
        "number": len(calibration.classes),
        "calibration": int((~calibration.control).sum()),
        "control": int(calibration.control.sum()),
        "correct": int(calibration.correct.sum()),
        "top1": calibration.top1,
        "declared_top1": one.top1,
        "suspected_training": any(words.startswith("suspected training images") for words in one.warnings),
        "classes_with_own_threshold": int(calibration.has_own_threshold.sum()),
        "classes_without_images": [
            label for label, there in zip(calibration.labels, calibration.scored, strict=True) if not there
        ],
    }


def _median(values: np.ndarray) -> float:
    return float(np.median(values))
