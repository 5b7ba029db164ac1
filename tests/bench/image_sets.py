"""Small sets of fooling images and the targets that score them."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.real import RealImages
from evofool.bench.sets.image_set import image_set
from evofool.bench.sets.score_set import score_set
from evofool.bench.sets.scored_set import ScoredSet
from evofool.images import save_png
from evofool.recipe import load
from evofool.run.run import Run
from evofool.targets import Target
from evofool.targets import target as named
from evofool.targets.guarded import DetectorRule, guard

SHAPE, LABELS = (1, 6, 5), ("ant", "big bee", "cow", "dog")


def network(gain: float = 1.0, shape: tuple[int, int, int] = SHAPE) -> Target:
    weights = np.random.default_rng(4).normal(size=(int(np.prod(shape)), len(LABELS))).astype(np.float32)

    def forward(images: np.ndarray) -> np.ndarray:
        # Row by row: the rest of a batch must not change last bits.
        rows = (images.reshape(len(images), -1).astype(np.float32) - 127.5) / 64
        return np.stack([row @ weights for row in rows]) * np.float32(gain)

    return Target("network", LABELS, shape, forward, {"gain": gain})


def noise(count: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def calibration(target: Target, classes: Sequence[int] = (0, 1, 2, 3)) -> Calibration:
    """A calibration with images of these classes, most of them classified correctly."""
    images = noise(500, 1)
    meant = target.logits(images).argmax(axis=1).astype(np.int64)
    meant[::10] = (meant[::10] + 1) % len(LABELS)
    images, meant = images[np.isin(meant, classes)], meant[np.isin(meant, classes)]

    def read(batch: int) -> Any:
        for begin in range(0, len(images), batch):
            part = images[begin : begin + batch]
            yield part, np.arange(begin, begin + len(part))

    return calibrate(target, RealImages("noise", meant, read))


def noise_set(folder: Path, count: int = 60) -> Path:
    """A folder of noise for each class; the target does not always predict that class."""
    meant = np.random.default_rng(3).integers(0, 4, count)
    for k, (image, c) in enumerate(zip(noise(count, 2), meant, strict=True)):
        class_folder = folder / LABELS[c].replace(" ", "_")
        class_folder.mkdir(parents=True, exist_ok=True)
        save_png(image, class_folder / f"{k}.png")
    return folder


def scored(folder: Path, target: Target, real: Calibration | None = None, **options: Any) -> ScoredSet:
    return score_set(image_set(folder, target), target, real, **options)


def guarded_run(folder: Path) -> Path:
    """A run on the bundled network behind a detector; its eleventh class is "rejected"."""
    rule = DetectorRule("max-logit", threshold=-1.0, median=-3.0, scale=2.0, temperature=1.0)
    spec = guard(named("lenet"), SimpleNamespace(rule=rule), folder / "guard.safetensors")
    recipe = load("mnist-cppn", [f"target={spec}", "stop.evaluations=160", "stop.confidence=", "search.batch=16"])
    with Run.start(recipe, folder / "run") as search:
        search.advance()
    return folder / "run"
