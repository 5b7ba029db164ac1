"""The nearest neighbours in a stream of points; and images as points by their pixels."""

from collections.abc import Callable

import numpy as np

Space = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, C, H, W) to points (B, D) float32."""


def pixels(images: np.ndarray) -> np.ndarray:
    """uint8 images (B, C, H, W) to float32 (B, C*H*W) on [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


class Neighbours:
    """The k nearest points of a stream, for each query point of (A, D); of equally near ones the earlier.

    owners (A,): the number that a query point has itself in the stream, so that it is not a neighbour of itself; -1: none.
    distances (A, k): Euclidean, ascending, to about 1e-5 of themselves, inf where the stream was shorter. which (A, k):
    their numbers.
    """

    def __init__(self, queries: np.ndarray, owners: np.ndarray, k: int) -> None:
        # Centred on their mean, so that float32 loses less.
        self.centre = queries.mean(0)
        self.queries, self.owners = queries - self.centre, owners
        self.squares = np.einsum("ij,ij->i", self.queries, self.queries)
        self.distances = np.full((len(queries), k), np.inf, np.float32)
        self.which = np.full((len(queries), k), -1)

    def add(self, points: np.ndarray, number: np.ndarray) -> None:
        """Add points (B, D) with these numbers (B,), ascending and higher than all before."""
        distances = self._distances(points - self.centre)
        distances[self.owners[:, None] == number] = np.inf
        both = np.concatenate([self.distances, distances], 1)
        numbers = np.concatenate([self.which, np.broadcast_to(number, distances.shape)], 1)
        # Stable, and earlier points come first: they win ties.
        best = np.argsort(both, axis=1, kind="stable")[:, : self.which.shape[1]]
        self.distances, self.which = np.take_along_axis(both, best, 1), np.take_along_axis(numbers, best, 1)

    def _distances(self, points: np.ndarray) -> np.ndarray:
        scale = self.squares[:, None] + np.einsum("ij,ij->i", points, points)
        squared = scale - 2 * (self.queries @ points.T)
        return np.sqrt(np.where(squared < 4e-6 * scale, 0.0, squared))  # distances within the rounding error are 0
