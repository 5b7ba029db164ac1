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
from evofool.bench.scoring import Cell, Scoring, flags
from evofool.bench.statistics import quantiles
from evofool.bench.trace import read
from evofool.elites import StoredRun
from evofool.errors import EvofoolError
from evofool.targets.public import name_of, public_name


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
    """The JSON of a target (its detectors and looks are left for others to fill), and the folders of its valid cells: none
    of a target that is not valid itself.

    places: the cells of its arms, guarded ones left out. words: by folder, why a cell came to nothing in this sitting.
    """
    calibration = one.calibration
    if calibration is None or one.target is None:
        return _nothing(recipe, one), {}
    faults = [one.fault] if one.fault else []
    invalid: dict[str, dict[str, str]] = {}
    valid: dict[str, dict[int, Cell]] = {}
    folders: dict[str, dict[int, Path]] = {}
    records: list[dict[str, Any]] = []
    for place in places:
        why = words.get(place.folder, "")
        found, why = (None, why) if why else _cell(place, calibration, recipe.budget)
        if found is None:
            invalid.setdefault(place.arm, {})[str(place.seed)] = why
            continue
        told, record = found
        valid.setdefault(place.arm, {})[place.seed] = told
        folders.setdefault(place.arm, {})[place.seed] = place.folder
        records.append(record)
    scoring = Scoring(calibration, valid, recipe.budgets) if not faults else None
    arms = {arm: scoring.arm(arm) for arm in recipe.arms if valid.get(arm)} if scoring else {}
    for arm in recipe.arms:
        if arm in arms or arm in invalid:
            arms.setdefault(arm, {"kind": ARMS[arm].kind, "seeds": []})["invalid"] = invalid.get(arm, {})
    scored = {arm: told for arm, told in arms.items() if told["seeds"]}
    share, of, error = calibration.control_accepted() if not faults else (None, 0, None)
    control = {
        "accepted": share,
        "of": of,
        "standard_error": error,
        "holds": None if share is None or error is None else bool(abs(share - 0.95) <= 3 * error),
        "margins_of_scale": None if faults else quantiles(calibration.margins / calibration.scale),
    }
    flagged = [{"level": "invalid", "what": words} for words in faults]
    if control["holds"] is False:
        flagged.append(
            {
                "level": "invalid",
                "what": f"of the disjoint half of the real images {share:.3f} are accepted, not 0.95 within 3 standard "
                f"errors ({error:.3f}): the two halves differ, or a threshold is off",
            }
        )
    for arm, whys in invalid.items():
        each = "; ".join(sorted(set(whys.values())))
        flagged.append({"level": "invalid", "what": f"{arm}: {len(whys)} cell(s) are left out of every figure: {each}"})
    flagged += flags(scored)
    doubts = [] if faults else calibration.doubts()
    flagged += [{"level": "warning", "what": told} for told in [*one.warnings, *doubts]]
    found_out = {
        "schema": SCHEMA,
        "version": VERSION,
        "target": _target(one) | {"fingerprint": calibration.fingerprint, "scored": int(calibration.scored.sum())},
        "protocol": _protocol(recipe),
        "images": _images(recipe, one, calibration),
        # What is wrong with the images spoils all; what is wrong with a cell spoils that one.
        "valid": not faults and control["holds"] is not False and bool(scored),
        "flags": flagged,
        "scores": {
            "controls": {"real": control},
            "arms": arms,
            "sharing": scoring.sharing() if scoring else {},
            "detectors": [],
            "looks": {},
        },
        "raw": {
            "tau5": _median(calibration.tau5) if not faults else None,
            "tau50": _median(calibration.tau50) if not faults else None,
            "temperature": calibration.raw_temperature if not faults else None,
            "p": {arm: scoring.raw(arm) for arm in scored} if scoring else {},
        },
        "timings": {
            "wall_seconds": sum(record["seconds"] for record in records),
            "device": ", ".join(sorted({str(record["device"]) for record in records})),
            "machines": sorted({record["machine"].get("cpu", "?") for record in records}),
            "peak_memory_mb": max((record["peak_memory_mb"] for record in records), default=0.0),
        },
    }
    return found_out, folders if found_out["valid"] else {}


def _nothing(recipe: BenchRecipe, one: Ready) -> dict[str, Any]:
    """The JSON of a target that could not even be asked."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "target": _target(one),
        "protocol": _protocol(recipe),
        "images": None,
        "valid": False,
        "flags": [{"level": "invalid", "what": one.fault}],
        "scores": {"controls": {}, "arms": {}, "sharing": {}, "detectors": [], "looks": {}},
        "raw": {},
        "timings": {},
    }


def _target(one: Ready) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.entry.name, "group": one.entry.group, "spec": public_name(one.entry.spec)}
    if one.target is not None:
        labels = list(one.target.labels)
        told |= {"spec": public_name(one.target.name), "fingerprint": one.target.fingerprint(), "classes": len(labels)}
        told |= {"scored": 0, "shape": list(one.target.shape), "labels": labels}
    return told


def _protocol(recipe: BenchRecipe) -> dict[str, Any]:
    return {
        "budgets": list(recipe.budgets),
        "seeds": list(recipe.each_seed),
        "arms": list(recipe.arms),
        "settings": {arm: list(part.set) for arm, part in recipe.arm.items() if part.set},
        "rank": "margin",
        "format": recipe.format,
        "levels": LEVELS,
        "confidence": 0.95,
        "evofool": version("evofool"),
    }


def _cell(place: Place, calibration: Calibration, budget: int) -> tuple[tuple[Cell, dict[str, Any]] | None, str]:
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
            trace = read(stored, np.flatnonzero(calibration.scored).tolist(), budget)
        kept = calibration.scored[classes]
        told = Cell(trace, classes[kept], logits[kept], record["forwards"], record["backwards"], record["answers"])
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
        "declared": one.top1,
        "suspected_training": any(words.startswith("suspected training images") for words in one.warnings),
        "classes_with_own_tau": int(calibration.own_tau.sum()),
        "classes_without": [label for label, there in zip(calibration.labels, calibration.scored, strict=True) if not there],
    }


def _median(values: np.ndarray) -> float:
    return float(np.median(values))
