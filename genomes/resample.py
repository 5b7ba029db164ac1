"""Pictures at another size: a triangle filter, in whole numbers of grey levels that are the same on any machine."""

from functools import lru_cache

import numba
import numpy as np


def resampled(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (B, C, H, W) at another height and width, with the same edges.

    Enlarged, it interpolates linearly between pixels' centres (bilinear). Reduced, every new pixel is the mean of old ones,
    weighted by a triangle as wide as two new pixels. Values are rounded half up after each of the two passes.
    """
    across = _along_rows(images, width)
    return np.ascontiguousarray(_along_rows(across.swapaxes(2, 3), height).swapaxes(2, 3))


def _along_rows(images: np.ndarray, width: int) -> np.ndarray:
    if images.shape[3] == width:
        return images
    out = np.empty((*images.shape[:3], width), np.uint8)
    first, weights = weights_of(images.shape[3], width)
    _filter(np.ascontiguousarray(images).reshape(-1, images.shape[3]), first, weights, out.reshape(-1, width))
    return out


@lru_cache(maxsize=16)
def weights_of(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """For each new pixel the first old one that counts (int64), and the weights from there on, float64, sum about 1."""
    reach = max(1.0, old / new)
    taps = min(old, int(2 * reach) + 2)
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.clip(np.ceil(centres - reach).astype(np.int64), 0, old - taps)
    weights = np.maximum(0.0, 1.0 - np.abs(first[:, None] + np.arange(taps)[None, :] - centres[:, None]) / reach)
    total = np.zeros(new)
    for k in range(taps):  # in this order on any machine
        total = total + weights[:, k]
    return first, weights / total[:, None]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _filter(rows: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    for r in range(rows.shape[0]):
        for i in range(out.shape[1]):
            total = 0.5
            for k in range(weights.shape[1]):
                total += weights[i, k] * rows[r, first[i] + k]
            out[r, i] = np.uint8(min(total, 255.0))
