"""Small targets: logits that are one line of numpy, and a network with gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from evofool.targets import Preprocessing, Target

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


def network(seed: int, shape: tuple[int, int, int] = (1, 12, 12), labels: Sequence[str] = (), whole: bool = True) -> Target:
    """A convnet with the labels of `fake`, or others; whole: it takes images of any size."""
    labels = labels or [f"class {c}" for c in range(CLASSES)]
    torch.manual_seed(seed)
    pool: nn.Module = nn.AdaptiveAvgPool2d(3) if whole else nn.MaxPool2d(shape[1] // 3)
    module = nn.Sequential(nn.Conv2d(shape[0], 8, 3), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(len(labels)))
    module(torch.zeros(1, *shape))
    return Target.from_module(module, list(labels), shape, Preprocessing(scale=1 / 255), f"network {seed}")
