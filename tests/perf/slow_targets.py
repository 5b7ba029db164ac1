"""Targets that take their time, or none, for the scripts that measure workers and break them; run from the repository root.

    evofool run mnist-cppn --set target=python:tests.perf.slow_targets:lenet_200ms

All are deterministic: how long an answer takes changes no bit of it. Sleeping leaves the processor to others, so more
workers than cores are still faster.
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from evofool import target

FOLDER = "EVOFOOL_SLOW_FOLDER"
"""Environment variable: the folder of uneven_20ms's lock file."""
LENET = "EVOFOOL_SLOW_LENET"
"""Environment variable: the LeNet that sleeps, the bundled one unless given."""
_LOOKED_AT = 8  # pixels that decide a logit


class Slow:
    """uint8 (B, C, H, W) to float32 (B, K): the output of `answer`, after so many seconds, whatever B is."""

    def __init__(
        self,
        answer: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, int, int],
        labels: tuple[str, ...],
        seconds: float,
    ) -> None:
        self.answer, self.shape, self.labels, self.seconds = answer, shape, labels, seconds

    def __call__(self, images: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        return self.answer(images)


def lenet_200ms() -> Slow:
    """A LeNet that sleeps 200 ms a forward pass."""
    return _lenet(0.2)


def lenet_1s() -> Slow:
    """A LeNet that sleeps a second a forward pass."""
    return _lenet(1.0)


def uneven_20ms() -> Slow:
    """sleep_20ms, but one worker sleeps 60 ms: whichever holds the lock on a file in the folder that FOLDER names.

    The lock goes with its process: when the slow worker dies, the next one that starts is the slow one.
    """
    return _pixels((1, 28, 28), 10, 0.06 if _is_worker() and _holds_lock() else 0.02)


def sleep_20ms() -> Slow:
    """Ten classes of 1x28x28 images without a network: a forward pass costs 20 ms and next to no processor."""
    return _pixels((1, 28, 28), 10, 0.02)


def free_1000() -> Slow:
    """1000 classes of 3x224x224 images without a network: what is left is the search's own cost, at ImageNet's size."""
    return _pixels((3, 224, 224), 1000, 0.0)


def free_1000_small() -> Slow:
    """1000 classes of 1x28x28 images without a network."""
    return _pixels((1, 28, 28), 1000, 0.0)


def _lenet(seconds: float) -> Slow:
    lenet = target(os.environ.get(LENET, "lenet"))
    return Slow(lenet.logits, lenet.shape, lenet.labels, seconds)


def _pixels(shape: tuple[int, int, int], classes: int, seconds: float) -> Slow:
    """Each logit is a sum of a few pixels, some of them subtracted: whole numbers, so exact whatever shares a pass."""
    draw = np.random.default_rng(0)
    places = draw.integers(0, int(np.prod(shape)), (classes, _LOOKED_AT))
    signs = draw.choice(np.array([-1, 1], np.int16), (classes, _LOOKED_AT))

    def answer(images: np.ndarray) -> np.ndarray:
        seen = images.reshape(len(images), -1)[:, places].astype(np.int16)
        return (seen * signs).sum(axis=2, dtype=np.int16).astype(np.float32) / 64

    return Slow(answer, shape, tuple(str(k) for k in range(classes)), seconds)


def _is_worker() -> bool:
    """Whether this process is one of Ray's actors: the search asks its target too, and is not to take the lock."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


@cache
def _holds_lock() -> bool:
    """Once a process, which keeps the lock until it ends."""
    if FOLDER not in os.environ:
        raise RuntimeError(f"the environment variable {FOLDER} names no folder for the lock file")
    file = os.open(Path(os.environ[FOLDER]) / "slow.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    return True
