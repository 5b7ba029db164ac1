"""Recipes and networks for tests of runs, and all that a run has stored."""

from pathlib import Path
from typing import Any

import numpy as np

import evofool
from evofool.errors import StoreError
from evofool.recipe import Recipe, parse
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.targets import Target
from tests.stored import content
from tests.synthetic import CLASSES, fake

HOME = Path(evofool.__file__).parent.parent
ENCODINGS: dict[str, dict[str, Any]] = {
    "cppn": {"kind": "cppn"},
    "direct": {"kind": "direct", "crossover": 0.3},
    "canvas": {"kind": "canvas", "mirror": 1},
    "latent": {"kind": "latent"},
}


def parity(images: np.ndarray, high: float) -> np.ndarray:
    """Two answers are all there is: class 0 by whether the first pixel is odd."""
    z = np.full((len(images), CLASSES), -1.0, np.float32)
    z[:, 0] += (images[:, 0, 0, 0] % 2) * high
    return z


def recipe(encoding: str = "direct", stop: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    search = {"seed": 3, "batch": 8, **parts.pop("search", {})}
    data = {
        "target": "fake",
        "encoding": ENCODINGS[encoding],
        "search": search,
        "stop": stop or {"evaluations": 480},
        **parts,
    }
    return parse(data, "test")


def unbroken(folder: Path, what: Recipe, target: Target | None = None) -> dict[str, Any]:
    with Run.start(what, folder, target or fake()) as run:
        assert run.advance()
    return content(folder)


def committed(folder: Path) -> int:
    try:
        with Store.open(folder) as store:
            return int(store.meta().committed)
    except StoreError:
        return -1
