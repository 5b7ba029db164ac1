"""Preparing a target of a benchmark: it is loaded, validated and calibrated on the real images, or found to be invalid."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from evofool.bench.acceptance import FEW, AcceptanceScores
from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.entries import Entry
from evofool.bench.manifest import CalibratedAs, Manifest
from evofool.bench.plan import BenchRecipe
from evofool.bench.real import RealImages, classes_without, listing, real_images, sha256, with_progress
from evofool.bench.real_features import RealFeatures
from evofool.bench.training_images import trained_on
from evofool.errors import EvofoolError, RecipeError
from evofool.explain.features import Features
from evofool.machine import keep_memory, torch_threads
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.validation import published_top1, validate

FOLDER = "calibration"


@dataclass(frozen=True)
class TargetFeatures:
    """The features of a target's real images, in a file; None if there are none, and fault says why.

    likeness: (N,) float64, the values of the real images (RealFeatures.of_real).
    """

    file: Path | None
    fault: str = ""
    likeness: np.ndarray | None = None


@dataclass(frozen=True)
class PreparedTarget:
    """A target that can be measured.

    declared_top1: the accuracy that it is declared or published to have. suspected_training: whether it may have been
    trained on the real images; trained_on: on how many of them it certainly was. warnings: for the user. features: of
    the real images.
    """

    entry: Entry
    target: Target
    real: RealImages
    calibration: Calibration
    declared_top1: float | None = None
    suspected_training: bool = False
    warnings: tuple[str, ...] = ()
    features: TargetFeatures = TargetFeatures(None, "they were not computed")
    trained_on: int = 0

    @property
    def name(self) -> str:
        """Its name in the results."""
        return self.entry.name

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that are scored: those with real images, or so many of them as the recipe says."""
        return tuple(np.flatnonzero(self.calibration.scored).tolist())

    @cached_property
    def acceptance(self) -> AcceptanceScores:
        """The scores under which images are accepted."""
        return self.calibration.acceptance(self.target.top_k, self.features.likeness, self.features.fault)


@dataclass(frozen=True)
class InvalidTarget:
    """A target that cannot be measured. fault: why. The rest is as far as it was found out before."""

    entry: Entry
    fault: str
    target: Target | None = None
    calibration: Calibration | None = None
    declared_top1: float | None = None
    suspected_training: bool = False
    warnings: tuple[str, ...] = ()
    trained_on: int = 0

    @property
    def name(self) -> str:
        """Its name in the results."""
        return self.entry.name


@dataclass(frozen=True)
class _Loaded:
    """A target with its real images, before it is calibrated."""

    entry: Entry
    target: Target
    real: RealImages
    declared_top1: float | None


@dataclass(frozen=True)
class _Calibrated:
    """The result of calibrating: a calibration, or None where there is none; what is wrong, or ""; notes of validation."""

    calibration: Calibration | None
    fault: str = ""
    notes: tuple[str, ...] = ()


def prepare(
    recipe: BenchRecipe, entry: Entry, manifest: Manifest, report: Callable[[str], None]
) -> PreparedTarget | InvalidTarget:
    """Load a target and calibrate it, or reuse the calibration that is stored in the folder.

    A calibration is stored if nothing is wrong with it. If the target or the images have changed since, a new one is made;
    but if there are cells, which depend on it, the target is invalid. report is called whenever real images are read; what
    it raises passes through, and answers received until then are stored. RecipeError for a budget that is too small for the
    number of classes and for settings that the target cannot have; everything else that is wrong makes the target invalid.
    """
    target: Target | None = None
    declared_top1: float | None = None
    warnings: tuple[str, ...] = ()
    try:
        target = load_target(entry.spec, manifest.folder / FOLDER / entry.name)
        recipe.refuse_settings(target)
        real = with_progress(real_images(recipe.images, target), report)
        declared_top1 = entry.top1 if entry.top1 is not None else published_top1(target)
        warnings = tuple(target.details.get("notes", ()))
        keep_memory()
        loaded = _Loaded(entry, target, real, declared_top1)
        calibrated = _stored_calibration(loaded, manifest)
        if calibrated is None:
            report("validating the target")
            calibrated = _new_calibration(loaded, manifest)
    except RecipeError:
        raise
    except EvofoolError as error:
        return InvalidTarget(entry, str(error), target, declared_top1=declared_top1, warnings=warnings)
    calibration, fault = calibrated.calibration, calibrated.fault
    if calibration is not None:
        calibration = replace(calibration, most=recipe.classes)
    warnings += calibrated.notes
    if calibration is None:
        return InvalidTarget(entry, fault, target, declared_top1=declared_top1, warnings=warnings)
    known = _trained_on(loaded, calibration, manifest)
    suspicion = _training_suspicion(loaded, calibration, known)
    warnings += _image_warnings(loaded, suspicion)
    fault = fault or "; ".join(calibration.faults(target.name, declared_top1))
    if fault:
        return InvalidTarget(entry, fault, target, calibration, declared_top1, bool(suspicion), warnings, known)
    with torch_threads(1):
        features = _features(loaded, calibration, manifest.folder / FOLDER / f"{entry.name}.features.safetensors")
    prepared = PreparedTarget(
        entry, target, real, calibration, declared_top1, bool(suspicion), warnings, features, trained_on=known
    )
    recipe.refuse_small(len(prepared.classes), entry.name, target.differentiable, target.queries_per_image)
    return prepared


def _stored_calibration(loaded: _Loaded, manifest: Manifest) -> _Calibrated | None:
    """The stored calibration, if it is still valid or cells depend on it; None if a new one is to be made."""
    name = loaded.entry.name
    calibrated_as, begun = manifest.calibrated_as(name), manifest.has_cells(name)
    if not calibrated_as.fingerprint:
        return None
    fault = _what_changed(loaded, manifest)
    if fault and not begun:
        return None
    stored = Calibration.load(_file(manifest.folder, name))
    if stored is None or (stored.fingerprint, stored.sha256) != (calibrated_as.fingerprint, calibrated_as.images):
        return _Calibrated(None, fault) if fault else None
    if not begun and stored.faults(name, loaded.declared_top1):
        return None  # a server may have been repaired, which no fingerprint shows
    return _Calibrated(stored, fault, calibrated_as.notes)


def _what_changed(loaded: _Loaded, manifest: Manifest) -> str:
    """Whether the target or the images differ from those of the stored calibration, as a sentence; "" if not."""
    name = loaded.entry.name
    calibrated_as, fingerprint = manifest.calibrated_as(name), loaded.target.fingerprint()
    if calibrated_as.fingerprint != fingerprint:
        return (
            "it has changed since this benchmark was started (labels, preprocessing or weights differ: fingerprint "
            f"{calibrated_as.fingerprint[:12]}..., now {fingerprint[:12]}...), so its earlier cells are of another "
            f"classifier: restore the old one, or {_remedy(name)}"
        )
    files = listing(loaded.real)
    if files and files == calibrated_as.listing:
        return ""
    if sha256(loaded.real) == calibrated_as.images:
        manifest.set_calibrated_as(name, replace(calibrated_as, listing=files))
        return ""
    return _images_changed(loaded)


def _new_calibration(loaded: _Loaded, manifest: Manifest) -> _Calibrated:
    """Validate the target and calibrate it; a calibration without faults is stored."""
    name, target = loaded.entry.name, loaded.target
    answers = manifest.folder / FOLDER / f"{name}.answers"
    if manifest.calibrated_as(name).faulty:
        target.ignore_cache()  # a server may have been repaired behind its address
    with torch_threads(1):
        checked = validate(target, 32, probe=True)  # as many images as calibrate scores at once
        notes = tuple(checked.notes)
        if checked.faults:
            return _Calibrated(None, "; ".join(checked.faults), notes)
        try:
            made = calibrate(target, loaded.real, keep=answers)
        except EvofoolError as error:
            return _Calibrated(None, str(error), notes)
    calibrated_as = replace(manifest.calibrated_as(name), faulty=bool(made.faults(name, loaded.declared_top1)))
    other = manifest.has_cells(name) and calibrated_as.images not in ("", made.sha256)
    if not other and not calibrated_as.faulty:
        made.save(_file(manifest.folder, name))
        calibrated_as = CalibratedAs(
            calibrated_as.spec, made.fingerprint, made.sha256, listing(loaded.real), notes, calibrated_as.faulty
        )
    manifest.set_calibrated_as(name, calibrated_as)
    answers.unlink(missing_ok=True)
    return _Calibrated(made, _images_changed(loaded) if other else "", notes)


def _trained_on(loaded: _Loaded, calibration: Calibration, manifest: Manifest) -> int:
    """How many real images the target was trained on. Kept with the calibration, so that pictures are read once."""
    name = loaded.entry.name
    kept = manifest.calibrated_as(name)
    of_these = (kept.fingerprint, kept.images) == (calibration.fingerprint, calibration.sha256)
    if of_these and kept.trained_on >= 0:
        return kept.trained_on
    number = trained_on(loaded.target, loaded.real)
    if of_these:
        manifest.set_calibrated_as(name, replace(kept, trained_on=number))
    return number


def _features(loaded: _Loaded, calibration: Calibration, path: Path) -> TargetFeatures:
    """The features of the real images, from the file or computed now: one more forward pass for each image."""
    target, rows = loaded.target, calibration.margin_score.rows
    number = np.bincount(calibration.classes[rows], minlength=len(calibration.labels))[calibration.scored]
    if target.network is None:
        return TargetFeatures(None, "a target without a PyTorch network gives no features")
    if target.rows_per_image > 1 or target.queries_per_image > 1:
        return TargetFeatures(None, "an image of several crops or answers has several features")
    if number.min() < FEW:
        return TargetFeatures(
            None,
            f"a class has {number.min()} correctly classified real images to compare with, and at least {FEW} are needed",
        )
    made_for = f"{calibration.fingerprint} {calibration.sha256} {int(rows.sum())}"
    known = RealFeatures.load(path)
    if known is None or known.made_for != made_for:
        try:
            with Features(target) as features:
                parts = [features(images) for images, _ in loaded.real.batches(32)]
                known = RealFeatures(features.name, np.concatenate(parts), calibration.classes, rows, made_for)
        except EvofoolError as error:
            return TargetFeatures(None, str(error))
        known.save(path)
    return TargetFeatures(path, "", known.of_real())


def _file(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.safetensors"


def _images_changed(loaded: _Loaded) -> str:
    return (
        f"the real images in {loaded.real.source} have changed since this benchmark was started (pixels or classes of "
        f"{len(loaded.real):,} differ from those of its thresholds): restore the old ones, or "
        f"{_remedy(loaded.entry.name)}"
    )


def _remedy(name: str) -> str:
    return f"measure it in another folder (--out), or delete its cells (cells/{name}) to measure it again"


def _training_suspicion(loaded: _Loaded, calibration: Calibration, known: int) -> str:
    """Why the target may have been trained on the real images; "" if nothing suggests it. known: of so many it is known."""
    lower = "on new images margins are lower, and so are thresholds"
    if known:
        return f"suspected training images: its weights were trained on {known:,} of the {len(loaded.real):,}; {lower}"
    if calibration.suspected(loaded.declared_top1):
        return (
            f"suspected training images: top-1 on them is {calibration.top1:.3f}, declared is {loaded.declared_top1:.3f}; "
            f"{lower}"
        )
    return ""


def _image_warnings(loaded: _Loaded, suspicion: str) -> tuple[str, ...]:
    """What a user should know of the real images and of the outputs."""
    found = []
    if missing := classes_without(loaded.real, loaded.target):
        some = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        found.append(f"{len(missing)} classes have no real image and are left out of every score: {some}")
    if suspicion:
        found.append(suspicion)
    top_k = loaded.target.top_k
    if top_k < len(loaded.target.labels):
        found.append(
            f"it returns its top {top_k} classes only: "
            + ("margins are those of its confidence" if top_k == 1 else "an image in a lower class scores nothing there")
        )
    return tuple(found)
