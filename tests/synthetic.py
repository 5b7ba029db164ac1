"""Small targets whose logits are one line of numpy."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from evofool.targets import Target

CLASSES, SIDE = 5, 6


def linear(images: np.ndarray, classes: int = CLASSES, seed: int = 9) -> np.ndarray:
    """Logits linear in the pixels, in exact arithmetic: an image's do not depend on the rest of its batch."""
    weights = np.random.default_rng(seed).integers(-8, 9, (images[0].size, classes))
    return (images.reshape(len(images), -1).astype(np.int64) @ weights / 1024.0).astype(np.float32)


def fake(
    forward: Callable[[np.ndarray], np.ndarray] | None = None,
    shape: tuple[int, int, int] = (1, SIDE, SIDE),
    classes: int = CLASSES,
    *,
    seed: int = 9,
    name: str = "fake",
    **details: Any,
) -> Target:
    """A target with the logits of `forward`, or of `linear` with this seed."""
    logits = forward or partial(linear, classes=classes, seed=seed)
    return Target(name, [f"class {c}" for c in range(classes)], shape, logits, details)
