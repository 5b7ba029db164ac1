"""Agreement of views: a graded answer of a target that says nothing but the class.

Where only the arg-max is known, all images of a class tie, and a search has nothing to climb. So an image is also shown
shifted, with noise, and with some pixels changed: how many of these views get a class says how clearly the image is of it.
Decision-based attacks use the same (Brendel 2018; Chen 2020), and so does randomized smoothing (Cohen 2019).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.targets.classifier import Forward, Target
from evofool.targets.through import Through, combined

LEAST, MOST = 4, 256
SHIFT, NOISE, PIXELS = 1 / 5, 96.0, 0.1
"""The strongest views: a shift, as a share of the longer side; the standard deviation of noise, in grey levels; and the
share of the pixels that become black or white."""
_KEY = 0x71E5


class View(NamedTuple):
    """One way to change images of a shape (C, H, W): shift by (rows, columns), add noise, set pixels to black or white.

    noise: (C, H, W) int16, or None. at: (n,) positions in H * W; values: (n,) uint8, of all channels.
    """

    shift: tuple[int, int] = (0, 0)
    noise: np.ndarray | None = None
    at: np.ndarray = np.zeros(0, np.int64)
    values: np.ndarray = np.zeros(0, np.uint8)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) to the same. Shifted images repeat their edge; noise is clipped to 0..255."""
        rows, columns = (
            np.clip(np.arange(side) - by, 0, side - 1) for side, by in zip(images.shape[2:], self.shift, strict=True)
        )
        seen = images[:, :, rows[:, None], columns]
        if self.noise is not None:
            seen = np.clip(seen.astype(np.int16) + self.noise, 0, 255).astype(np.uint8)
        if len(self.at):
            seen.reshape(*seen.shape[:2], -1)[:, :, self.at] = self.values
        return seen


def vote(target: Target, count: int) -> None:
    """From now on a target's answer to an image is the share of its views that get each class, plus 1 for its own class.

    Its own class is that of the unchanged image, the first view, so that the arg-max stays what the target says. The other
    views are `views`. Each is a query. Answers count as logits; there are no gradients, layers or crops.
    """
    if not LEAST <= count <= MOST:
        raise TargetError(f"{target.name}: views is {count}; it has to be from {LEAST} to {MOST}")
    if target.multilabel:
        raise TargetError(f"{target.name}: views= counts the class of each view, and its labels do not exclude each other")
    outputs, crops, through, shown = target.outputs, target.crops, target.through, views(target.shape, count)
    classes = len(target.labels)
    target.wrap(lambda forward: _Votes(forward, shown, classes, lambda raw: _called(raw, outputs, crops, through)))
    target.network, target.outputs, target.crops, target.top_k = None, "logits", 1, classes
    target.through = None  # the views' images go through it
    target.queries_per_image *= count
    target.details |= {"views": count}


def views(shape: tuple[int, int, int], count: int) -> list[View]:
    """`count` fixed views of images of a shape: the image itself, then shifts, noise and changed pixels in turn.

    They get stronger from one pixel, or hardly any noise, up to SHIFT, NOISE and PIXELS. Keyed by shape and place.
    """
    _, height, width = shape
    found = [View()]
    for k in range(1, count):
        strength, draw = k / (count - 1), np.random.default_rng([_KEY, *shape, k])
        if k % 3 == 1:
            angle, distance = draw.uniform(0, 2 * np.pi), max(1.0, strength * SHIFT * max(height, width))
            rows, columns = round(distance * np.sin(angle)), round(distance * np.cos(angle))
            found.append(View((int(rows), int(columns))))
        elif k % 3 == 2:
            found.append(View(noise=np.rint(draw.normal(0, strength * NOISE, shape)).astype(np.int16)))
        else:
            at = draw.permutation(height * width)[: max(1, round(strength * PIXELS * height * width))]
            found.append(View(at=at, values=(255 * draw.integers(0, 2, len(at))).astype(np.uint8)))
    return found


class _Votes:
    """The forward function of a target that answers by its views."""

    def __init__(
        self, forward: Forward, shown: list[View], classes: int, called: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self._forward, self._shown, self._classes, self._called = forward, shown, classes, called

    def __call__(self, images: np.ndarray) -> np.ndarray:
        rows, counts = np.arange(len(images)), np.zeros((len(images), self._classes), np.int64)
        own = np.zeros(0, np.int64)
        for k, view in enumerate(self._shown):
            called = self._called(self._forward(view(images)))
            counts[rows, called] += 1
            own = called if k == 0 else own
        shares = (counts / len(self._shown)).astype(np.float32)
        shares[rows, own] += 1
        return shares


def _called(raw: np.ndarray, outputs: str, crops: int, through: Through | None) -> np.ndarray:
    """(B,) the arg-max class; of equal ones the lowest."""
    return combined(torch.from_numpy(raw), outputs, crops, through).numpy().argmax(axis=1)
