"""What the commands share that compare images with a target's thresholds: the real images that set these."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from evofool.printer import print_lines

if TYPE_CHECKING:
    from evofool.bench.calibration import Calibration
    from evofool.targets import Target


def format_share(value: float) -> str:
    """A share from 0 to 1 with three decimals; only 0 is "0.000" and only 1 is "1.000"."""
    return "<0.001" if 0 < value < 0.0005 else ">0.999" if 0.9995 <= value < 1 else f"{value:.3f}"


def calibrated(target: "Target", images: str, report: Callable[[str], None], name: str = "") -> "Calibration":
    """Calibrate a target with labelled real images (a folder, or "digits"), and print the result under this name.

    TargetError where the images cannot set thresholds (Calibration.faults).
    """
    from evofool.bench.sets.thresholds import thresholds
    from evofool.bench.training_images import trained_on
    from evofool.targets.validation import published_top1

    name = name or target.name
    real, calibration = thresholds(target, images, lambda text: report(f"{name}: {text}"))
    declared = published_top1(target)
    summary = calibration.summary()
    control = summary["control"]
    doubt = f", of which its weights were trained on {known:,}" if (known := trained_on(target, real)) else ""
    if not doubt and declared is not None and calibration.suspected(declared):
        doubt = f", but {format_share(declared)} is published: the target may have been trained on these images"
    print_lines(
        f"{name}: top-1 {format_share(calibration.top1)} on {summary['number']:,} real images of "
        f"{summary['classes']:,} classes{doubt}. "
        f"tau_5 = {summary['scaled_tau5']:.3f} x the median margin of the real images; the share of {control['images']:,} "
        f"held-out real images above it is {format_share(control['accepted'])} +- {control['standard_error']:.3f} "
        "(expected: 0.95)",
    )
    return calibration
