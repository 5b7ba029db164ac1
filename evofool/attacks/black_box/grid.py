"""Low-frequency images: a coarse grid of colours drawn large."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from evofool.images import quantise


def enlarged(grid: torch.Tensor, height: int, width: int) -> np.ndarray:
    """uint8 (C, height, width) of one grid (C, h, w), bilinear; values on [0, 1], others are clipped after enlarging.

    One image a call: what is enlarged beside it could change last bits.
    """
    return quantise(interpolate(grid[None], (height, width), mode="bilinear", align_corners=False)[0].numpy())
