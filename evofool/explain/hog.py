"""Histograms of oriented gradients: the 31 features of Felzenszwalb 2010, differentiable, and a picture of them."""

import math
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from evofool.images import quantise

CELL = 8
"""Pixels, the side of a cell."""
ORIENTATIONS = 9
"""Directions of an edge, without its sign."""
CHANNELS = 3 * ORIENTATIONS + 4
"""Of a cell: 18 directions of the gradient, 9 directions of an edge, 4 energies."""
_CLIP = 0.2
_EPSILON = 1e-4  # of squared gradients of 0..255: as in the authors' code it only prevents a division by 0
_ENERGY = 1 / math.sqrt(2 * ORIENTATIONS)  # of the energies, 0.2357
_LUMA = (0.299, 0.587, 0.114)
_GLYPH = 15  # pixels, the side of a cell in `glyphs`


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 (C, H, W), C 1 or 3, as float32 (H, W) in [0, 1]; RGB by the luma of ITU-R 601."""
    weights = np.array(_LUMA if image.shape[0] == 3 else (1.0,), np.float32)
    return np.tensordot(weights, image.astype(np.float32) / 255.0, 1)


def hog(images: torch.Tensor) -> torch.Tensor:
    """float (B, H, W), grey, in [0, 1], to float (B, H // 8, W // 8, 31), differentiable. What is left over is cut.

    Each pixel's gradient (central differences, 0 at the border) is shared linearly by its two nearest of 18 directions and
    its four nearest cells. The 18 sums of a cell and the 9 of opposite directions together are divided by the norms of the
    four blocks of 2 x 2 cells that it belongs to, cut at 0.2 and averaged (times 2, as in the authors' code); four energies,
    one a block, come last. At the border the outermost cells are repeated. Source: Felzenszwalb 2010, section 6, with the
    directions shared as in Mahendran & Vedaldi 2014, so that the gradient is defined almost everywhere.
    """
    rows, columns = images.shape[1] // CELL, images.shape[2] // CELL
    x = 255.0 * images[:, : rows * CELL, : columns * CELL]
    across, down = (F.pad(x[:, :, 2:] - x[:, :, :-2], (1, 1)), F.pad(x[:, 2:] - x[:, :-2], (0, 0, 1, 1)))
    flat = across**2 + down**2 < 1e-12  # where neither the norm nor the angle has a derivative
    across = across.masked_fill(flat, 1.0)
    norm = (across**2 + down**2).sqrt().masked_fill(flat, 0.0)
    steps = torch.atan2(down, across) * (ORIENTATIONS / math.pi)
    directions = torch.arange(2 * ORIENTATIONS, device=x.device)[:, None, None]
    away = (steps[:, None] - directions + ORIENTATIONS).remainder(2 * ORIENTATIONS) - ORIENTATIONS
    shares = norm[:, None] * (1 - away.abs()).relu()
    cells = _pooling(rows).to(x) @ shares @ _pooling(columns).to(x).T
    edges = cells[:, :ORIENTATIONS] + cells[:, ORIENTATIONS:]
    energy = F.pad((edges**2).sum(1), (1, 1, 1, 1), mode="replicate")
    blocks = (energy[:, :-1, :-1] + energy[:, :-1, 1:] + energy[:, 1:, :-1] + energy[:, 1:, 1:] + _EPSILON).sqrt()
    found, energies = torch.zeros_like(torch.cat([cells, edges], 1)), []
    for block in (blocks[:, :-1, :-1], blocks[:, :-1, 1:], blocks[:, 1:, :-1], blocks[:, 1:, 1:]):
        signed = (cells / block[:, None]).clamp(max=_CLIP)
        unsigned = (edges / block[:, None]).clamp(max=_CLIP)
        found = found + 0.5 * torch.cat([signed, unsigned], 1)
        energies.append(_ENERGY * signed.sum(1))
    return torch.cat([found, torch.stack(energies, 1)], 1).permute(0, 2, 3, 1)


def hog_of(image: np.ndarray) -> np.ndarray:
    """The features of uint8 (C, H, W), of its grey values: float32 (H // 8, W // 8, 31)."""
    with torch.no_grad():
        return hog(torch.from_numpy(grey(image))[None])[0].numpy()


def glyphs(features: np.ndarray) -> np.ndarray:
    """The usual picture of features (h, w, 31): uint8 (1, 15 h, 15 w), a bright stroke along every edge direction."""
    strength = np.maximum(features[..., 2 * ORIENTATIONS : 3 * ORIENTATIONS], 0)
    drawn = np.tensordot(strength, _strokes(), 1)  # (h, w, 15, 15)
    high, wide = features.shape[:2]
    picture = drawn.transpose(0, 2, 1, 3).reshape(1, high * _GLYPH, wide * _GLYPH)
    # The root, so that weak edges can be seen too.
    return quantise(np.sqrt(picture / max(float(np.quantile(picture, 0.995)), 1e-9)))


@cache
def _pooling(cells: int) -> torch.Tensor:
    """(cells, 8 cells): the share that each cell takes of each pixel, by the distance of their centres."""
    centres = (torch.arange(cells) + 0.5) * CELL
    pixels = torch.arange(cells * CELL) + 0.5
    return (1 - (pixels - centres[:, None]).abs() / CELL).relu()


@cache
def _strokes() -> np.ndarray:
    """(9, 15, 15) in [0, 1]: a line through the centre, at a right angle to each direction of the gradient."""
    y, x = np.mgrid[:_GLYPH, :_GLYPH] - (_GLYPH - 1) / 2
    angles = np.arange(ORIENTATIONS)[:, None, None] * math.pi / ORIENTATIONS
    away = np.abs(np.cos(angles) * x + np.sin(angles) * y)
    return np.clip(1.2 - away, 0, 1) * (np.hypot(x, y) <= _GLYPH / 2)
