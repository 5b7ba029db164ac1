"""Targets, images and runs of four classes for the tests of image metrics."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from evofool.bench.real import RealImages
from evofool.recipe import parse
from evofool.run.run import Run
from evofool.run.schema import ImageMetric
from evofool.run.store import Store
from evofool.targets import Target

SHAPE = (3, 12, 16)


class Net(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 3, 3)
            self.head = nn.Linear(3 * 64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).flatten(1))


def other(seed: int = 0) -> Target:
    """A network of grey 10x10 images, which are neither the shape nor the colour of ours."""
    return Target.from_module(Net(seed), list("abcd"), (1, 10, 10), outputs="logits", name="other")


def box(shape: tuple[int, int, int] = SHAPE, classes: int = 4) -> Target:
    labels = list("abcdefghij")[:classes]

    def answer(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :classes].astype(np.float32) / 25.0

    return Target("box", labels, shape, answer, {})


def random_images(count: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Images of different contrast, so that distances differ."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape)) * rng.uniform(0.1, 1, (count, 1, 1, 1))
    return images.astype(np.uint8)


def real(images: np.ndarray) -> RealImages:
    def read(batch: int):  # type: ignore[no-untyped-def]
        for begin in range(0, len(images), batch):
            yield images[begin : begin + batch], np.arange(begin, min(begin + batch, len(images)))

    return RealImages("mine", np.zeros(len(images), np.int64), read)


def started(folder: Path, evaluations: int = 80) -> Path:
    what = {"target": "box", "encoding": {"kind": "direct"}, "stop": {"evaluations": evaluations}, "search": {"batch": 8}}
    with Run.start(parse(what, "test"), folder, box()) as run:
        run.advance()
    return folder


def measured(folder: Path) -> list[tuple[ImageMetric, ...]]:
    with Store.open(folder) as store:
        return [row.image_metrics for row in store.elites()]
