"""Whether a target's logits for an image depend on its row in a chunk and on the other images there.

Sums of floats are rounded, and a matrix product may add up in another order in another row: on some processors the last
bits of an image's logits then depend on its row. Code that scores an image again (verify, a benchmark's cell) can require
equal bits only if they do not. So the dependence is measured, at the chunk size of the run.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from evofool.images import is_large
from evofool.machine import mkl_mode
from evofool.targets.classifier import Target
from evofool.targets.photos import patterns

SAFETY = 4.0
"""The tolerance is this many times the largest difference that was measured: other images may differ by more."""


@dataclass(frozen=True)
class Position:
    """Whether logits at this chunk size depend on an image's row and on the images beside it, and by how much.

    tolerance: how far a logit may lie from the same image's in another row, as a share of the largest magnitude among the
    image's logits: SAFETY times the largest difference measured, 0.0 if there was none. None if nothing was measured: a
    target that is billed or keeps its answers counts as dependent, and is sent no images for this.
    """

    chunk: int
    dependent: bool
    tolerance: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def allowed(self, logits: np.ndarray) -> np.ndarray:
        """(B,) float64: how far log-odds and margins may lie from those of the same images in other rows.

        logits: (B, K), finite. Both are a logit less a (soft) maximum of others: neither changes by more than twice what
        the logits change by.
        """
        return 2.0 * (self.tolerance or 0.0) * np.abs(logits.astype(np.float64)).max(axis=1)

    def undecided(self, logits: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """(B,) bool: whether an image's margin is so near to a threshold that another row may change the decision.

        distances: (B, T), of the margins to T thresholds.
        """
        allowed = self.allowed(logits)[:, None]
        return np.asarray(((np.abs(distances) <= allowed) & (allowed > 0)).any(axis=1))

    def notes(self) -> tuple[str, ...]:
        """Notes for the user on a measured dependence; empty if there is none."""
        if not self.tolerance:
            return ()
        hint = ""
        if mkl_mode() == "off":
            hint = (
                "; torch multiplied matrices before evofool was imported, which may be why: import evofool first, or set "
                "MKL_CBWR=AUTO before Python starts"
            )
        return (
            f"logits depend on an image's row in a chunk of {self.chunk} or on the images beside it: images that are scored "
            f"again are compared within {self.tolerance:.2g} of the size of their logits ({SAFETY:g} times the largest "
            f"difference measured){hint}",
        )


def measure(target: Target, chunk: int, random: bool = False) -> Position:
    """Score one chunk of patterns in other rows and beside other images, and compare.

    Images are shifted cyclically by 1, 2, 4, ... rows (large images, images.is_large, by 1 alone), and half of them
    are scored without the other half. A shift by 1 compares every row with the next one, so few shifts find a dependence;
    if there is one, all other shifts follow. That is 3 passes at least and chunk + 1 at most, each of chunk images, which
    count as queries. A target that is billed or keeps its answers is sent nothing. Nothing is measured if a chunk does not
    fit into memory. random: answers are, so that a difference says nothing about rows, and no other shifts follow.
    """
    if target.counts_persist or target.requests:
        return Position(chunk, True, None)
    if chunk == 1:
        return Position(chunk, False, 0.0)
    images, half = patterns(target.shape, chunk), chunk // 2
    few = [1] if is_large(target.shape) else [1 << k for k in range((chunk - 1).bit_length())]
    try:
        first = target.logits(images)
        largest = _difference(first[half:], target.logits(images[half:], chunk))
        largest = max(largest, _shifted(target, images, first, few))
        if largest and not random:
            largest = max(largest, _shifted(target, images, first, sorted({*range(1, chunk)} - {*few})))
    except (MemoryError, torch.OutOfMemoryError):
        return Position(chunk, True, None)  # a search with such chunks ends with a memory error
    return Position(chunk, largest > 0, SAFETY * largest)


def measure_on(target: Target, chunk: int, images: np.ndarray, logits: np.ndarray) -> Position:
    """The same by images (B, C, H, W), B <= chunk, and their logits (B, K), over all shifts; black images fill the chunk."""
    padded = np.concatenate([images, np.zeros((chunk - len(images), *target.shape), np.uint8)])
    largest = _shifted(target, padded, logits, range(1, chunk))
    return Position(chunk, largest > 0, SAFETY * largest)


def _shifted(target: Target, images: np.ndarray, first: np.ndarray, shifts: Iterable[int]) -> float:
    """The largest difference between images in their rows and `shift` rows further on."""
    largest = 0.0
    for shift in shifts:
        logits = np.roll(target.logits(np.roll(images, shift, axis=0)), -shift, axis=0)
        largest = max(largest, _difference(first, logits[: len(first)]))
    return largest


def _difference(logits: np.ndarray, others: np.ndarray) -> float:
    """The largest difference of a logit as a share of the image's largest; rows that are not finite are left out."""
    sound = np.isfinite(logits).all(axis=1) & np.isfinite(others).all(axis=1)
    a, b = logits[sound].astype(np.float64), others[sound].astype(np.float64)
    difference = np.abs(a - b).max(axis=1, initial=0.0)
    size = np.maximum(np.abs(a), np.abs(b)).max(axis=1, initial=0.0)
    return float(np.divide(difference, size, out=np.zeros_like(difference), where=size > 0).max(initial=0.0))
