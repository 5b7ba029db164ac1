"""A target of a benchmark made ready: loaded, shaken hands with, and measured on the real images; or why it cannot be."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.entries import Entry
from evofool.bench.plan import BenchRecipe
from evofool.bench.real import DIGITS, RealImages, classes_without, real_images
from evofool.errors import EvofoolError, RecipeError
from evofool.machine import keep_memory, torch_threads
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.handshake import handshake, published_top1

if TYPE_CHECKING:
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


def prepare(recipe: BenchRecipe, entry: Entry, folder: Path, say: Callable[[str], None], fault: str = "") -> Ready:
    """Load a target and calibrate it, or take up what was kept of that in the folder.

    Never raises for what is the target's or the images' fault, apart from a budget that does not go round the classes.
    """
    one = Ready(entry, fault=fault)
    if fault:
        return one
    keep = folder / FOLDER / f"{entry.name}.safetensors"
    try:
        one.target = load_target(entry.spec, folder / FOLDER / entry.name)
        one.real = real_images(recipe.images, one.target)
        one.top1 = entry.top1 if entry.top1 is not None else published_top1(one.target)
        one.warnings += one.target.details.get("notes", ())
        keep_memory()
        one.calibration = Calibration.load(keep)
        if one.calibration is None:
            say("shaking hands")
            with torch_threads(1):
                met = handshake(one.target)
                one.warnings += met.notes
                if met.faults:
                    one.fault = "; ".join(met.faults)
                    return one
                one.calibration = calibrate(one.target, one.real, say)
            one.calibration.save(keep)
        one.fault = _changed(one) or "; ".join(one.calibration.faults(entry.name, one.top1))
        _warn(one)
    except RecipeError:
        raise
    except EvofoolError as error:
        one.fault = str(error)
        return one
    if not one.fault:
        recipe.refuse_small(len(one.classes), entry.name)
    return one


def _changed(one: Ready) -> str:
    """Words where the target or the images are not those that the folder was begun with."""
    assert one.calibration is not None
    assert one.target is not None
    assert one.real is not None
    if one.calibration.fingerprint != one.target.fingerprint():
        return (
            "it has changed since this benchmark was begun (labels, preprocessing or weights differ: fingerprint "
            f"{one.calibration.fingerprint[:12]}..., now {one.target.fingerprint()[:12]}...), so its earlier cells are "
            "another classifier's: bring the old one back, or measure the new one in another folder (--out)"
        )
    if not np.array_equal(one.calibration.classes, one.real.classes):
        return (
            f"the real images in {one.real.source} have changed since this benchmark was begun ({len(one.real):,} now, "
            f"{len(one.calibration.classes):,} then); bring the old ones back, or take another folder (--out)"
        )
    return ""


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
    if one.target.told < len(one.target.labels):
        one.warnings.append(
            f"its answers tell of the likeliest {one.target.told} classes alone: "
            + ("margins are those of its confidence" if one.target.told == 1 else "an image that is lower wins nothing")
        )
