"""The scores of a target, and its results as one JSON. docs/protocol.md describes it, key by key."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.acceptance import LEVELS
from evofool.bench.arms import ARMS, is_applicable
from evofool.bench.calibration import Calibration
from evofool.bench.collect import CollectedCells
from evofool.bench.detector_stage import DetectorScores, score_detectors
from evofool.bench.headline import SUITE
from evofool.bench.plan import BenchRecipe
from evofool.bench.prepare import InvalidTarget, PreparedTarget
from evofool.bench.real import content_sha256
from evofool.bench.result_file import SCHEMA, VERSION
from evofool.bench.scoring import Scoring, flags
from evofool.bench.statistics import quantiles
from evofool.bench.surrogate_stage import kinship_rows
from evofool.scores import margin
from evofool.targets.averaged import is_random
from evofool.targets.kinds import OUTER
from evofool.targets.redaction import name_of, public_name


@dataclass(frozen=True)
class ScoredTarget:
    """A target with its scores.

    control: the figures of the disjoint half of the real images; control_fault: what is wrong with it, or "". arms: by arm,
    its figures, of those with a valid cell. valid: whether anything was measured. detectors: their scores, none where the
    target is not valid.
    """

    cells: CollectedCells
    scoring: Scoring
    control: dict[str, Any]
    control_fault: str
    arms: dict[str, dict[str, Any]]
    valid: bool
    detectors: DetectorScores

    @property
    def prepared(self) -> PreparedTarget:
        """The target."""
        return self.cells.prepared

    @property
    def name(self) -> str:
        """Its name in the results."""
        return self.prepared.name

    @property
    def folders(self) -> dict[str, dict[int, Path]]:
        """By arm and seed, the folders of its valid cells; none where the target is not valid."""
        return self.cells.folders if self.valid else {}


def score_target(recipe: BenchRecipe, cells: CollectedCells) -> ScoredTarget:
    """Score the arms of a target, and its detectors."""
    prepared, detectors = cells.prepared, cells.plan.detectors
    scoring = Scoring(prepared.calibration, cells.data, recipe.budgets, acceptance=prepared.acceptance)
    arms = {arm: scoring.arm(arm) for arm in recipe.arms if cells.valid.get(arm)}
    control, fault = _control(prepared.calibration)
    # A fault of the real images makes the target invalid; a fault of a cell only that cell.
    valid = not fault and bool(arms)
    detector_scores = DetectorScores()
    if recipe.detectors and detectors and valid:
        arm = recipe.detectors.arm
        detector_scores = score_detectors(prepared, detectors, arm, cells.folders.get(arm, {}), cells.guarded)
    return ScoredTarget(cells, scoring, control, fault, arms, valid, detector_scores)


def scored_json(
    recipe: BenchRecipe,
    scored: ScoredTarget,
    image_metrics: Mapping[str, Any],
    likeness: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON of a target that was measured.

    image_metrics: its figures (image_metrics_stage), {} if there are none. likeness: those of likeness_stage.
    """
    cells, prepared, calibration = scored.cells, scored.prepared, scored.prepared.calibration
    arms = {
        arm: scored.arms.get(arm, {"kind": ARMS[arm].kind, "seeds": []})
        | {"invalid": cells.invalid.get(arm, {})}
        | _climbed(arm, cells)
        for arm in recipe.arms
        if arm in scored.arms or arm in cells.invalid
    }
    faults = [scored.control_fault] if scored.control_fault else []
    faults += [
        f"{arm}: {len(reasons)} cell(s) are left out of every figure: {'; '.join(sorted(set(reasons.values())))}"
        for arm, reasons in cells.invalid.items()
    ]
    warnings = [*prepared.warnings, *cells.plan.warnings, *cells.warnings, *calibration.doubts(), *_luck(cells)]
    return {
        **_head(recipe, prepared),
        "valid": scored.valid,
        "flags": [
            *_flags("invalid", *faults),
            *flags(scored.arms),
            *_flags("warning", *warnings, *scored.detectors.warnings),
        ],
        "scores": {
            "headline": scored.scoring.headline(_missing(recipe, cells)) if scored.valid else None,
            "controls": {"real": scored.control},
            "arms": arms,
            "spread": _spread(scored),
            "sharing": scored.scoring.sharing(),
            "detectors": list(scored.detectors.rows),
            "image_metrics": dict(image_metrics),
            "likeness": None if likeness is None else dict(likeness),
        },
        "raw": {
            "tau5": float(np.median(calibration.tau5)),
            "tau50": float(np.median(calibration.tau50)),
            "temperature": calibration.raw_temperature,
            "confidence": {arm: scored.scoring.raw(arm) for arm in scored.arms},
        },
        "timings": _timings(cells),
        **_surrogates(cells),
        **_gradients(cells),
    }


def invalid_json(recipe: BenchRecipe, invalid: InvalidTarget) -> dict[str, Any]:
    """The JSON of a target that could not be measured."""
    return {
        **_head(recipe, invalid),
        "valid": False,
        "flags": [*_flags("invalid", invalid.fault), *_flags("warning", *invalid.warnings)],
        "scores": {
            "headline": None,
            "controls": {},
            "arms": {},
            "sharing": {},
            "detectors": [],
            "image_metrics": {},
            "likeness": None,
        },
        "raw": {},
        "timings": {},
    }


def _flags(level: str, *messages: str) -> list[dict[str, str]]:
    return [{"level": level, "message": message} for message in messages]


def _head(recipe: BenchRecipe, target: PreparedTarget | InvalidTarget) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "target": _target_json(target),
        "protocol": _protocol(recipe),
        "images": None if target.calibration is None else _images(recipe, target, target.calibration),
    }


def _control(calibration: Calibration) -> tuple[dict[str, Any], str]:
    """The figures of the disjoint half of the real images, and what is wrong with it, or ""."""
    share, number, error = calibration.control_accepted()
    # With ties at the threshold it keeps more than 0.95.
    met = calibration.margin_score.control_met
    figures = {
        "accepted": share,
        "images": number,
        "standard_error": error,
        "met": met,
        "scaled_margins": quantiles(calibration.margins / calibration.scale),
    }
    if met:
        return figures, ""
    return figures, (
        f"of the disjoint half of the real images {share:.3f} are accepted, not 0.95 within 3 standard errors "
        f"({error:.3f}): the two halves differ, or a threshold is wrong"
    )


def _spread(scored: ScoredTarget) -> dict[str, Any]:
    """Scoring.spread, with the positive control of each score."""
    spread = scored.scoring.spread()
    controls = {}
    for name, score in scored.scoring.scores.scores.items():
        share, number, error = score.control_accepted()
        controls[name] = {"accepted": share, "images": number, "standard_error": error}
    rows = {name: {**row, "control": controls[name]} for name, row in spread["scores"].items()}
    return {**spread, "scores": rows}


def _target_json(target: PreparedTarget | InvalidTarget) -> dict[str, Any]:
    found: dict[str, Any] = {"name": target.name, "group": target.entry.group, "spec": public_name(target.entry.spec)}
    if defence := target.entry.stated_defence or target.entry.defence:
        found["defence"] = defence
    if target.target is not None:
        labels = list(target.target.labels)
        found |= {
            "spec": public_name(target.target.name),
            "fingerprint": target.target.fingerprint(),
            "classes": len(labels),
        }
        found |= {option: value for option in OUTER if (value := target.target.details.get(option))}
        found |= {"scored_classes": 0, "shape": list(target.target.shape), "labels": labels}
    if target.calibration is not None:
        found |= {"fingerprint": target.calibration.fingerprint, "scored_classes": int(target.calibration.scored.sum())}
    return found


def _protocol(recipe: BenchRecipe) -> dict[str, Any]:
    return {
        "budgets": list(recipe.budgets),
        "seeds": list(recipe.each_seed),
        "arms": list(recipe.arms),
        "settings": {arm: list(recipe.changes(arm)) for arm in recipe.arms if recipe.changes(arm)},
        **({} if recipe.classes is None else {"classes": recipe.classes}),
        "rank": "margin",
        "format": recipe.format,
        "levels": LEVELS,
        "confidence": 0.95,
        "evofool": version("evofool"),
    }


def _images(recipe: BenchRecipe, target: PreparedTarget | InvalidTarget, calibration: Calibration) -> dict[str, Any]:
    labels = np.array(calibration.labels, object)
    content = content_sha256(target.real, calibration.labels) or None if isinstance(target, PreparedTarget) else None
    return {
        "source": recipe.images if recipe.images == "digits" else name_of(recipe.images),
        "sha256": calibration.sha256,
        **({} if content is None else {"content_sha256": content}),
        "number": len(calibration.classes),
        "calibration": int((~calibration.control).sum()),
        "control": int(calibration.control.sum()),
        "correct": int(calibration.correct.sum()),
        "top1": calibration.top1,
        "declared_top1": target.declared_top1,
        "suspected_training": target.suspected_training,
        "trained_on": target.trained_on,
        "classes_with_own_threshold": int(calibration.has_own_threshold.sum()),
        "classes_without_images": labels[~calibration.has_images].tolist(),
        **(
            {}
            if recipe.classes is None
            else {"classes_left_out": labels[calibration.has_images & ~calibration.scored].tolist()}
        ),
    }


def _luck(cells: CollectedCells) -> list[str]:
    """How much of what was accepted was luck, for a target whose answers are random."""
    prepared = cells.prepared
    if not is_random(prepared.target, prepared.warnings):
        return []
    calibration = prepared.calibration
    scored, first, again = np.flatnonzero(calibration.scored), 0, 0
    for cell in (cell for seeds in cells.data.values() for cell in seeds.values()):
        best = cell.trace.best()[np.searchsorted(scored, cell.classes)]
        repeated = margin(cell.logits)[np.arange(len(cell.classes)), cell.classes]
        accepted = calibration.accepted(best, cell.classes)
        first += int(accepted.sum())
        again += int((accepted & calibration.accepted(repeated, cell.classes)).sum())
    return [
        f"answers are random, and searches keep lucky ones: of {first:,} images that were accepted, {again:,} are accepted "
        "when they are scored again"
    ]


def _climbed(arm: str, cells: CollectedCells) -> dict[str, str]:
    """What a white-box arm climbed instead of masked gradients; nothing for the others."""
    source = cells.plan.gradients.of(arm)
    return {} if source is None else {"gradients": source.kind}


def _missing(recipe: BenchRecipe, cells: CollectedCells) -> dict[str, str]:
    """By arm of the headline's suite without a valid cell, the reason."""
    reasons = {}
    for arm in SUITE:
        if arm not in recipe.arms:
            reasons[arm] = "not among the arms of this benchmark"
        elif not is_applicable(arm, cells.prepared.target):
            reasons[arm] = "needs gradients, and this target gives none"
        elif arm in cells.plan.gradients.left_out:
            reasons[arm] = "gradients are masked, and the budget is too small to train a substitute model"
        elif not cells.valid.get(arm):
            reasons[arm] = "no seed is valid"
    return reasons


def _surrogates(cells: CollectedCells) -> dict[str, Any]:
    """The surrogates of the arm of that name; nothing for a target without it."""
    rows = kinship_rows(cells.plan.surrogates)
    return {"surrogates": [row | {"name": public_name(row["name"])} for row in rows]} if rows else {}


def _gradients(cells: CollectedCells) -> dict[str, Any]:
    """What is wrong with masked gradients, and what white-box arms climb instead; nothing for a target with its own."""
    chosen = cells.plan.gradients
    if not chosen.masked:
        return {}
    source = {key: value for key, value in asdict(chosen.source).items() if value} if chosen.source else {}
    return {"gradients": {"masked": chosen.masked, **source, "left_out": list(chosen.left_out)}}


def _timings(cells: CollectedCells) -> dict[str, Any]:
    records = cells.records
    return {
        "wall_seconds": sum(record["seconds"] for record in records),
        "device": ", ".join(sorted({str(record["device"]) for record in records})),
        "machines": sorted({record["machine"].get("cpu", "?") for record in records}),
        "peak_memory_mb": max((record["peak_memory_mb"] for record in records), default=0.0),
    }
