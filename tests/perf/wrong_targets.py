"""The bundled LeNet in a worker that is wrong: of all processes that are workers, the first one. For wrong_workers.py."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from evofool import target

FOLDER = "EVOFOOL_WRONG_FOLDER"
"""Environment variable: the folder where the first worker leaves its mark, and when it was wrong first."""


class Faulty:
    """The LeNet's logits, changed by `fault` from the process's image number `after` on, at one call in `one_in`."""

    def __init__(self, fault: Callable[[np.ndarray], np.ndarray] = lambda z: z, after: int = 0, one_in: int = 1) -> None:
        self._lenet = target("lenet")
        self.shape, self.labels = self._lenet.shape, self._lenet.labels
        self._fault, self._after, self._one_in = fault, after, one_in
        self._seen = self._calls = 0
        self.wrong = _is_worker() and _made(Path(os.environ[FOLDER]) / "is_wrong")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        logits = self._lenet.logits(images)
        self._seen += len(images)
        if not self.wrong or self._seen <= self._after:
            return logits
        self._calls += 1
        if self._calls % self._one_in:
            return logits
        first = Path(os.environ[FOLDER]) / "first.json"
        if not first.exists():
            first.write_text(json.dumps({"time": time.time(), "pid": os.getpid()}))
        return self._fault(logits.copy())


def right() -> Faulty:
    return Faulty()


def doubles() -> Faulty:
    return Faulty(lambda z: z * 2)


def adds() -> Faulty:
    """0.01 times a fixed random vector."""
    return Faulty(lambda z: z + np.float32(0.01) * np.random.default_rng(1).normal(size=z.shape[1]).astype(np.float32))


def nan() -> Faulty:
    """NaN for one image at one call in 25."""
    return Faulty(_one_nan, after=100, one_in=25)


def later() -> Faulty:
    """Doubles after 1,000 images."""
    return Faulty(lambda z: z * 2, after=1000)


def other_torch() -> Faulty:
    """Other last bits, and another version."""
    answer = Faulty(lambda z: np.nextafter(z, np.float32(np.inf)))
    if answer.wrong:
        torch.__version__ = "2.9.9"  # type: ignore[assignment]
    return answer


def _one_nan(logits: np.ndarray) -> np.ndarray:
    logits[len(logits) // 2] = np.nan
    return logits


def _is_worker() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


def _made(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
