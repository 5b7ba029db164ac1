"""What the commands that judge images by a target's own thresholds have in common: the real images that set these."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evofool.bench.calibration import Calibration
    from evofool.targets import Target


def share(value: float) -> str:
    """0..1 by three decimals; 0.000 and 1.000 are said of nothing else."""
    return "<0.001" if 0 < value < 0.0005 else ">0.999" if 0.9995 <= value < 1 else f"{value:.3f}"


def calibrated(target: "Target", images: str, say: Callable[[str], None], name: str = "") -> "Calibration":
    """Ask a target about labelled real images (a folder, or "digits"), and print what they come to under this name.

    TargetError where nothing can be measured by them (Calibration.faults).
    """
    from evofool.bench.calibration import calibrate
    from evofool.bench.real import real_images
    from evofool.errors import TargetError
    from evofool.machine import torch_threads
    from evofool.targets.validation import published_top1

    name = name or target.name
    with torch_threads(1):
        made = calibrate(target, real_images(images, target), lambda words: say(f"{name}: {words}"))
    declared = published_top1(target)
    if faults := made.faults(target.name, declared):
        raise TargetError(f"{target.name}: {'; '.join(faults)}")
    told = made.summary()
    control = told["control"]
    doubt = ""
    if declared is not None and made.suspected(declared):
        doubt = f"; published are {share(declared)}: they may be images that it was trained on"
    print(
        f"{name}: top-1 {share(made.top1)} on {told['number']:,} real images of {told['classes']:,} classes{doubt}. "
        f"tau_5 is {told['tau5_of_scale']:.3f} of their median margin; of {control['of']:,} that set no threshold "
        f"{share(control['accepted'])} +- {control['standard_error']:.3f} reach it, as 0.95 should",
        flush=True,
    )
    return made
