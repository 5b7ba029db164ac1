"""A target of a benchmark made ready: loaded, validated, and measured on the real images; or why it cannot be."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.entries import Entry
from evofool.bench.plan import BenchRecipe
from evofool.bench.real import DIGITS, RealImages, classes_without, heard, listing, real_images, sha256
from evofool.errors import EvofoolError, RecipeError
from evofool.machine import keep_memory, torch_threads
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.validation import published_top1, validate

if TYPE_CHECKING:
    from evofool.bench.bound import Bound
    from evofool.bench.detect.detectors import Detector

FOLDER = "calibration"


@dataclass
class Ready:
    """A target and what the real images say of it. fault: why nothing can be measured; then the rest may be missing."""

    entry: Entry
    target: Target | None = None
    real: RealImages | None = None
    calibration: Calibration | None = None
    top1: float | None = None  # that it is declared to have
    fault: str = ""
    warnings: list[str] = field(default_factory=list)
    detectors: "dict[str, Detector]" = field(default_factory=dict)

    @property
    def spec(self) -> str:
        assert self.target is not None
        return self.target.name

    @property
    def classes(self) -> list[int]:
        """The classes that are scored."""
        assert self.calibration is not None
        return np.flatnonzero(self.calibration.scored).tolist()


def prepare(recipe: BenchRecipe, entry: Entry, bound: "Bound", say: Callable[[str], None], fault: str = "") -> Ready:
    """Load a target and calibrate it, or take up what was kept of that in the folder.

    A calibration is kept where nothing is wrong with it. If the target or the images are others since, it is made anew; but
    not where there are cells, which rest on it: then that is the fault. say hears whenever real images are read; what it
    raises passes through, and answers that were had by then need not be asked for again. RecipeError for a budget that does
    not go round the classes and for settings that a target cannot have; all else that is wrong is the fault.
    """
    one = Ready(entry, fault=fault)
    if fault:
        return one
    try:
        one.target = load_target(entry.spec, bound.folder / FOLDER / entry.name)
        recipe.refuse_settings(one.target)
        one.real = heard(real_images(recipe.images, one.target), say)
        one.top1 = entry.top1 if entry.top1 is not None else published_top1(one.target)
        one.warnings += one.target.details.get("notes", ())
        keep_memory()
        one.fault = _take_up(one, bound)
        if one.calibration is None and not one.fault:
            say("validating the target")
            one.fault = _measure(one, bound)
        if one.calibration is not None:
            one.fault = one.fault or "; ".join(one.calibration.faults(one.target.name, one.top1))
            _warn(one)
    except RecipeError:
        raise
    except EvofoolError as error:
        one.fault = str(error)
        return one
    if not one.fault:
        recipe.refuse_small(len(one.classes), entry.name, one.target.differentiable)
    return one


def _take_up(one: Ready, bound: "Bound") -> str:
    """Take the calibration that is kept, if it still holds or cells rest on it. Words where they do and it does not."""
    name = one.entry.name
    known, begun = bound.known(name), bound.begun(name)
    why = _changed(one, bound) if known.fingerprint else ""
    if not known.fingerprint or (why and not begun):
        return ""
    kept = Calibration.load(bound.folder / FOLDER / f"{name}.safetensors")
    if kept is None or (kept.fingerprint, kept.sha256) != (known.fingerprint, known.images):
        return why
    if not begun and kept.faults(name, one.top1):
        return ""  # they may have been mended where no hash tells: on a server
    one.calibration = kept
    one.warnings += known.notes
    return why


def _changed(one: Ready, bound: "Bound") -> str:
    """Words where the target or the images are not those that it was calibrated by."""
    assert one.target is not None
    assert one.real is not None
    name = one.entry.name
    known, now = bound.known(name), one.target.fingerprint()
    if known.fingerprint != now:
        return (
            "it has changed since this benchmark was begun (labels, preprocessing or weights differ: fingerprint "
            f"{known.fingerprint[:12]}..., now {now[:12]}...), so its earlier cells are another classifier's: bring the old "
            f"one back, or {_way_out(name)}"
        )
    files = listing(one.real)
    if files and files == known.listing:
        return ""
    if sha256(one.real) == known.images:
        bound.keep(name, replace(known, listing=files))
        return ""
    return _other_images(one)


def _measure(one: Ready, bound: "Bound") -> str:
    """Validate a target and calibrate it; what is without fault is kept. Words on what else is wrong."""
    assert one.target is not None
    assert one.real is not None
    name = one.entry.name
    answers = bound.folder / FOLDER / f"{name}.answers"
    if bound.known(name).faulty:
        one.target.ignore_cache()  # a server may have been mended behind its address
    with torch_threads(1):
        checked = validate(one.target)
        one.warnings += checked.notes
        if checked.faults:
            return "; ".join(checked.faults)
        one.calibration = made = calibrate(one.target, one.real, keep=answers)
    known = replace(bound.known(name), faulty=bool(made.faults(name, one.top1)))
    other = bound.begun(name) and known.images not in ("", made.sha256)
    if not other and not known.faulty:
        made.save(bound.folder / FOLDER / f"{name}.safetensors")
        known = replace(known, fingerprint=made.fingerprint, images=made.sha256, notes=tuple(checked.notes))
        known = replace(known, listing=listing(one.real))
    bound.keep(name, known)
    answers.unlink(missing_ok=True)
    return _other_images(one) if other else ""


def _other_images(one: Ready) -> str:
    assert one.real is not None
    return (
        f"the real images in {one.real.source} have changed since this benchmark was begun (pixels or classes of "
        f"{len(one.real):,} differ from what its thresholds are from): bring the old ones back, or "
        f"{_way_out(one.entry.name)}"
    )


def _way_out(name: str) -> str:
    return f"measure it in another folder (--out), or delete its cells (cells/{name}) to measure it anew"


def _warn(one: Ready) -> None:
    """What a user should know of the images."""
    assert one.calibration is not None
    assert one.target is not None
    assert one.real is not None
    missing = classes_without(one.real, one.target)
    if missing:
        some = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        one.warnings.append(f"{len(missing)} classes have no real image and are left out of every score: {some}")
    if one.real.source == DIGITS and one.target.name == "lenet":
        one.warnings.append("suspected training images: the bundled lenet was trained on all digits that are measured by")
    elif one.calibration.suspected(one.top1):
        one.warnings.append(
            f"suspected training images: top-1 on them is {one.calibration.top1:.3f}, declared is {one.top1:.3f}; on images "
            "that it has not seen margins are lower, and thresholds with them"
        )
    if one.target.top_k < len(one.target.labels):
        one.warnings.append(
            f"its answers tell of the likeliest {one.target.top_k} classes alone: "
            + ("margins are those of its confidence" if one.target.top_k == 1 else "an image that is lower wins nothing")
        )
