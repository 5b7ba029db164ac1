"""The Fourier magnitude of photographs, which MACO holds fixed: a table that is shipped, and its values at any size."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from evofool.json_file import read_json, write_json

COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""RGB of the three decorrelated colours, in columns, of photographs (lucid's `color_correlation`); up to a factor."""

SHIPPED = Path(__file__).with_name("photographs.json")
_SCHEMA, _VERSION = "evofool-photograph-spectrum", 1
_SIDE = 256  # pixels of the photographs that are measured
_RADII = np.geomspace(1.0, _SIDE / np.sqrt(2.0), 24)  # cycles per image
_ANGLES = np.linspace(0.0, np.pi / 2, 9)  # 0: the wave runs along the rows
_SMOOTHING = 0.7  # deviation of the averaging weights, in steps of the table


def photograph_magnitude(channels: int, height: int, width: int) -> np.ndarray:
    """(C, H, W // 2 + 1) float64 >= 0: the mean magnitude of photographs at the frequencies of numpy's rfft2.

    Three channels are decorrelated colours; any other number repeats the first of them, brightness. 0 at frequency 0. The
    unit is arbitrary. The table ends at 181 cycles per image, and what is beyond continues its last slope.
    """
    table = _table()
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    radius = np.hypot(fy, fx) * min(height, width)
    row = _position(np.log(np.maximum(radius, 1e-9)), np.log(_RADII))
    column = _position(np.arctan2(np.abs(fy), np.abs(fx)), _ANGLES)
    r = np.clip(np.floor(row).astype(int), 0, len(_RADII) - 2)
    a = np.clip(np.floor(column).astype(int), 0, len(_ANGLES) - 2)
    u, v = row - r, column - a
    log = (1 - u) * ((1 - v) * table[:, r, a] + v * table[:, r, a + 1])
    log += u * ((1 - v) * table[:, r + 1, a] + v * table[:, r + 1, a + 1])
    magnitude = np.exp(log) * (radius > 0)
    return magnitude if channels == 3 else np.repeat(magnitude[:1], channels, axis=0)


def measure_photographs(photographs: Sequence[np.ndarray]) -> np.ndarray:
    """(3, 24, 9) float64: the table, logarithms of the mean magnitude, of photographs uint8 (3, 256, 256)."""
    images = np.stack(photographs) / 255.0
    colors = np.einsum("dc,nchw->ndhw", np.linalg.inv(COLORS), images)
    magnitude = np.abs(np.fft.fft2(colors - colors.mean((2, 3), keepdims=True))).mean(0).reshape(3, -1)
    fy, fx = np.fft.fftfreq(_SIDE)[:, None] * _SIDE, np.fft.fftfreq(_SIDE)[None] * _SIDE
    known = np.hypot(fy, fx).ravel() > 0
    row = _position(np.log(np.hypot(fy, fx).ravel()[known]), np.log(_RADII))
    column = _position(np.arctan2(np.abs(fy), np.abs(fx)).ravel()[known], _ANGLES)
    table = np.empty((3, len(_RADII), len(_ANGLES)))
    for r in range(len(_RADII)):
        for a in range(len(_ANGLES)):
            weights = np.exp(-0.5 * ((row - r) ** 2 + (column - a) ** 2) / _SMOOTHING**2)
            table[:, r, a] = np.log(magnitude[:, known] @ weights / weights.sum())
    return table


def write_table(path: Path, table: np.ndarray, sources: Sequence[str]) -> None:
    """Write the table of measure_photographs as a file. sources: names of the photographs."""
    data = {"schema": _SCHEMA, "version": _VERSION, "photographs": list(sources), "log_magnitude": table.round(4).tolist()}
    write_json(path, data)


@cache
def _table() -> np.ndarray:
    data = read_json(SHIPPED, _SCHEMA, _VERSION, "install evofool again")
    return np.array(data["log_magnitude"])


def _position(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Where values are on an evenly spaced grid, in steps."""
    return (values - grid[0]) / (grid[1] - grid[0])
