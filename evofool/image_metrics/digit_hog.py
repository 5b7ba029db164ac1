"""HOG of small grey images, many at once: in a search it is computed of every image that would win a place."""

import numpy as np

_CELL, _ORIENTATIONS = 4, 9
_EPSILON = 1e-5


def digit_hog(images: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients, float32 (B, 1296), of uint8 images (B, 1, 28, 28). Source: Dalal and Triggs 2005.

    As image_metrics.spaces.hog, which it equals but for rounding (1e-6), at a fifth of the time: 9 unsigned orientations,
    cells of 4 x 4 pixels, L2-Hys over blocks of 2 x 2 cells. An image's values do not depend on the others.
    """
    grey = images[:, 0].astype(np.int64)
    down, right = np.zeros_like(grey), np.zeros_like(grey)
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    right[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    lengths = np.sqrt(down * down + right * right)
    side = grey.shape[1] // _CELL
    cell = np.arange(grey.shape[1]) // _CELL
    cells = np.arange(len(grey))[:, None, None] * side * side + cell[:, None] * side + cell
    bins = cells * _ORIENTATIONS + _ORIENTATION[down + 255, right + 255]
    sums = np.bincount(bins.ravel(), lengths.ravel(), len(grey) * side * side * _ORIENTATIONS)
    histograms = sums.reshape(-1, side, side, _ORIENTATIONS) / _CELL**2
    corners = [histograms[:, i : side - 1 + i, j : side - 1 + j] for i in (0, 1) for j in (0, 1)]
    blocks = np.concatenate(corners, axis=3)
    blocks = np.minimum(_unit(blocks), 0.2)
    return _unit(blocks).reshape(len(grey), -1).astype(np.float32)


def _unit(blocks: np.ndarray) -> np.ndarray:
    return blocks / np.sqrt(np.square(blocks).sum(axis=-1, keepdims=True) + _EPSILON**2)


def _orientations() -> np.ndarray:
    """uint8 (511, 511): the bin of a gradient, by its part downwards and to the right, each + 255."""
    parts = np.arange(-255.0, 256.0)
    degrees = np.rad2deg(np.arctan2(parts[:, None], parts)) % 180
    return (degrees // (180 / _ORIENTATIONS)).astype(np.uint8)


_ORIENTATION = _orientations()
