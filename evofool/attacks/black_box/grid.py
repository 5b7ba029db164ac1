"""Low-frequency images: a coarse grid of colours, enlarged."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from evofool.images import quantise


def enlarged(grid: torch.Tensor, height: int, width: int) -> np.ndarray:
    """uint8 (C, height, width) of one grid (C, h, w), bilinear; values beyond [0, 1] are clipped after enlarging.

    It takes a single image, since the last bits could depend on other images in the batch.
    """
    return quantise(interpolate(grid[None], (height, width), mode="bilinear", align_corners=False)[0].numpy())
