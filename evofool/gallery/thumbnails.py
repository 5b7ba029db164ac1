"""Small pictures for grids."""

import io

import numpy as np
from PIL import Image

from evofool.images import to_pil

SIDES = (56, 112, 224)


def thumbnail_png(image: np.ndarray, side: int) -> bytes:
    """A PNG of uint8 (C, H, W) whose longer side is at most `side` pixels. Smaller images stay as they are."""
    picture = to_pil(image)
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
