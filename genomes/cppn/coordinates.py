"""The inputs of a CPPN for each pixel."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=16)
def centred(height: int, width: int) -> np.ndarray:
    """float32 (4, height * width), read-only: x, y in (-1, 1), d = sqrt(x^2 + y^2), bias 1, at the pixels' centres.

    x = (2i + 1) / width - 1, so coordinates do not depend on the size: those of every third pixel of an 84 x 84 grid equal
    those of a 28 x 28 grid to the bit.
    """
    x = ((2 * np.arange(width) + 1) / width - 1).astype(np.float32)
    y = ((2 * np.arange(height) + 1) / height - 1).astype(np.float32)
    return planes(x, y, x, y)


@lru_cache(maxsize=16)
def raw(height: int, width: int, native_height: int, native_width: int) -> np.ndarray:
    """float32 (4, height * width), read-only: x, y as in the 2015 code: pixel indices 0 .. native size - 1.

    d and the bias are as in `centred`. At another size than the native one the indices are interpolated.
    """
    x = ((np.arange(width) + 0.5) * (native_width / width) - 0.5).astype(np.float32)
    y = ((np.arange(height) + 0.5) * (native_height / height) - 0.5).astype(np.float32)
    around = centred(height, width).reshape(4, height, width)
    return planes(x, y, around[0, 0], around[1, :, 0])


def planes(x: np.ndarray, y: np.ndarray, cx: np.ndarray, cy: np.ndarray) -> np.ndarray:
    """float32 (4, height * width), read-only, of any grid: x (width,), y (height,); d is the distance sqrt(cx^2 + cy^2)."""
    shape = (len(y), len(x))
    d = np.sqrt(cx[None, :] * cx[None, :] + cy[:, None] * cy[:, None])
    inputs = [np.broadcast_to(x[None, :], shape), np.broadcast_to(y[:, None], shape), d, np.ones(shape)]
    out = np.stack(inputs).astype(np.float32).reshape(4, -1)
    out.flags.writeable = False
    return out
