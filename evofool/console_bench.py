"""What the commands that judge images by a target's own thresholds have in common: the real images that set these."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evofool.bench.calibration import Calibration
    from evofool.targets import Target


def calibrated(target: "Target", images: str, say: Callable[[str], None], name: str = "") -> "Calibration":
    """Ask a target about labelled real images (a folder, or "digits"), and print what they come to under this name.

    TargetError where nothing can be measured by them (Calibration.faults).
    """
    from evofool.bench.calibration import calibrate
    from evofool.bench.real import real_images
    from evofool.errors import TargetError
    from evofool.machine import torch_threads
    from evofool.targets.handshake import published_top1

    name = name or target.name
    with torch_threads(1):
        made = calibrate(target, real_images(images, target), lambda words: say(f"{name}: {words}"))
    declared = published_top1(target)
    if faults := made.faults(target.name, declared):
        raise TargetError(f"{target.name}: {'; '.join(faults)}")
    told = made.summary()
    control = told["control"]
    doubt = f"; published are {declared:.3f}: they may be images that it was trained on" if made.suspected(declared) else ""
    print(
        f"{name}: top-1 {made.top1:.3f} on {told['number']:,} real images of {told['classes']:,} classes{doubt}. tau_5 is "
        f"{told['tau5_of_scale']:.3f} of their median margin; of {control['of']:,} that set no threshold "
        f"{control['accepted']:.3f} +- {control['standard_error']:.3f} reach it, as 0.95 should",
        flush=True,
    )
    return made
