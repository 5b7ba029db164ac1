"""What HOG leaves of an image: the image brought to whole cells, and its inverse by one method."""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from evofool.errors import ImageError
from evofool.explain.hog import CELL, grey, hog_of
from evofool.explain.hog_inversion import Likeness, invert, likeness
from evofool.explain.hog_model import FLAT, LONGEST, PIXELS, SIDE, HogModel
from evofool.images import from_pil, quantise, to_pil

LEAST_CELLS = 7
"""Of the shorter side; smaller images are enlarged, so that digits of 28 pixels get cells of 4 pixels."""
_MOST_PIXELS = 4_000_000  # a square of the largest size that `evofool invert` takes
_STRIDE = 2 * CELL  # pixels between the windows that are compared


class HogInverse(NamedTuple):
    """An image's inverse by one method.

    picture: uint8 (1, H, W), with the mean and the standard deviation of the image's grey values, which HOG does not keep.
    likeness: of every second window in each direction, if it shows something; its arrays are empty if none does.
    """

    method: str
    picture: np.ndarray
    likeness: Likeness


def to_cells(image: np.ndarray, longest: int | None = None) -> np.ndarray:
    """uint8 (C, H, W) resampled so that both sides are whole cells of 8 pixels, the shorter one at least 7 cells.

    longest: the longer side in pixels, about; None: the image's own, at most 320. Sides are rounded to the nearest cell,
    which changes the proportions a little. ImageError for an elongated image that would have more than 4,000,000 pixels.
    """
    height, width = image.shape[1:]
    scale = longest / max(height, width) if longest else min(1.0, LONGEST / max(height, width))
    scale = max(scale, LEAST_CELLS * CELL / min(height, width))
    size = (round(scale * width / CELL) * CELL, round(scale * height / CELL) * CELL)
    if size[0] * size[1] > _MOST_PIXELS:
        raise ImageError(
            f"the image has {width} x {height} pixels and would have {size[0]} x {size[1]} with a shorter side of at least "
            f"{LEAST_CELLS * CELL}, more than {_MOST_PIXELS:,} in all; crop it first"
        )
    return image if size == (width, height) else from_pil(to_pil(image).resize(size, Image.Resampling.LANCZOS))


def inverse(image: np.ndarray, method: str, model: HogModel, *, seed: int = 0) -> HogInverse:
    """Invert the features of uint8 (C, H, W), as `to_cells` returns it, by a method of hog_inversion.METHODS."""
    shown = grey(image)
    found = invert(hog_of(image), method, model, seed=seed)
    windows, originals = (
        sliding_window_view(x, (SIDE, SIDE))[::_STRIDE, ::_STRIDE].reshape(-1, PIXELS) for x in (found, shown)
    )
    kept = originals.std(1) > FLAT
    picture = quantise(shown.mean() + shown.std() * found)[None]
    return HogInverse(method, picture, likeness(windows[kept], originals[kept]))
