"""A target whose evidence is known: only the brightness of one patch counts."""

import numpy as np

from evofool.targets import Target

SHAPE = (1, 32, 32)
PATCH = np.zeros(SHAPE[1:], bool)
PATCH[4:12, 20:28] = True
WEIGHT = 8.0


def one_patch(weight: float = WEIGHT) -> Target:
    """The log-odds of class 0 are weight times the patch's mean brightness on [0, 1], less half of weight."""

    def logits(images: np.ndarray) -> np.ndarray:
        first = weight * (images[:, 0, PATCH].mean(1) / 255 - 0.5)
        return np.stack([first, np.zeros(len(images))], 1).astype(np.float32)

    return Target("one patch", ["bright", "dark"], SHAPE, logits, {})


def lit() -> np.ndarray:
    """uint8 (1, 32, 32): black, the patch white."""
    return np.where(PATCH, 255, 0).astype(np.uint8)[None]
