"""A limit on likeness: images that are no further from their class's digits, in shape, than most real ones are refused."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from evofool.image_metrics.own_shape import OwnShape, both_polarities

OTHERS = "others"
_NEAR = 1e-3  # squared distances nearer than this to the limit are computed again, exactly; float32 is wrong by 1e-5
_REMEMBERED = 1 << 10  # images; many children draw what their mothers draw


class Unlike:
    """Which images may be elites of a class: those whose distance to its real images, by OwnShape, is above a limit.

    measure: what the limit, 0 <= limit < 100, is a percentile of. "shape": the distances of held-out real images of the
    class, so that it is nearest_own_shape_percentile; "others": those of held-out real images of other classes.
    Real images uint8 (N, 1, H, W), their classes (N,) and the held-out rows as OwnShape takes them. A call with images
    uint8 (B, 1, H, W), rows (n,) and classes (n,) answers (n,) bool, of each of images[rows] whether it may be an elite of
    its class; exactly as OwnShape's distances say, and for each image alone. May be called from several threads.
    distances: by class the least distance that is above the limit. settings: the arguments, to make another.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, held_out: np.ndarray, measure: str, limit: float) -> None:
        self.settings = images, labels, held_out, measure, limit
        self._shape = OwnShape(images, labels, held_out)
        self.distances = self._shape.distances_above(limit, measure == OTHERS)
        self._points = lru_cache(_REMEMBERED)(_points)
        self._real = {}
        for c, points in self._shape.reference.items():
            real = torch.from_numpy(points.T.copy())
            self._real[c] = real, torch.square(real).sum(0)

    def __call__(self, images: np.ndarray, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows), bool)
        for k, (row, c) in enumerate(zip(rows.tolist(), classes.tolist(), strict=True)):
            image = images[row]
            ink, own_squares = self._points(image.tobytes(), image.shape)
            real, squares = self._real[c]
            least = float((own_squares + squares).sub_(ink @ real, alpha=2).min())
            least -= self.distances[c] ** 2
            if abs(least) > _NEAR:
                found[k] = least > 0
            else:
                found[k] = self._shape.distances(ink.numpy()[None], c)[0] >= self.distances[c]
        return found

    def same_as(self, distances: Sequence[float]) -> bool:
        """Whether another process, with the same real images, has these limits, up to rounding."""
        return len(distances) == len(self.distances) and np.allclose(distances, [*self.distances.values()], 1e-6, 0.0)


def sha256_of(images: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> str:
    """The SHA-256 of real images, their classes, and which of them are held out."""
    digest = hashlib.sha256(str(images.shape).encode())
    for part in (images, labels.astype("<i8"), held_out.astype("<i8")):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _points(image: bytes, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, D) float32, of both polarities, and the sums of their squares, (2, 1)."""
    points = torch.from_numpy(both_polarities(np.frombuffer(image, np.uint8).reshape(1, *shape))[0])
    return points, torch.square(points).sum(1, keepdim=True)
