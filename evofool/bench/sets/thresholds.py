"""Thresholds for a set of fooling images: a target is calibrated with labelled real images, or it is said why not."""

from collections.abc import Callable

from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.real import RealImages, real_images
from evofool.errors import TargetError
from evofool.machine import torch_threads
from evofool.targets import Target
from evofool.targets.validation import published_top1


def thresholds(
    target: Target, images: str, report: Callable[[str], None] = lambda _: None
) -> tuple[RealImages, Calibration]:
    """Calibrate a target with labelled real images, a folder or "digits".

    TargetError where the images cannot set thresholds (Calibration.faults). report is called after each batch.
    """
    with torch_threads(1):
        real = real_images(images, target)
        calibration = calibrate(target, real, report)
    if faults := calibration.faults(target.name, published_top1(target)):
        raise TargetError(f"{target.name}: {'; '.join(faults)}")
    return real, calibration
