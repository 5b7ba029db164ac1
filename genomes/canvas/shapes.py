"""What the operators of canvases draw: low-frequency fields, soft borders, blobs, and pictures moved by affine maps.

Kernels with keyed draws and the same bits on any machine: no libm function is called, no sum depends on the machine, and
there are no fast-math flags. Lengths are shares of the canvas's side.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

# numba's cache does not notice when these are edited; touch operators.py then, and also when this file is edited.
from genomes.canvas.cosines import cosines, kernel, ln
from genomes.cppn.render_numba import _cos, _exp, _sin
from genomes.random import normal, uniform

BANDS = 24
"""The number of cosines along a side that fields are made of: up to 11.5 waves."""

_f = np.float32
_HALF, _ONE, _TWO, _ZERO, _STEEP = _f(0.5), _f(1), _f(2), _f(0), _f(30)
_PI = 3.141592653589793
_LN_LEAST_BLOB, _LN_LARGEST_BLOB = ln(0.08), ln(0.5)


class Basis(NamedTuple):
    """The cosines of a canvas's side, and the logarithm of their number."""

    cosines: np.ndarray  # float32 (bands, size): cos(pi k (i + 1/2) / size), the DCT-II
    log_bands: float


@lru_cache(maxsize=16)
def basis(size: int) -> Basis:
    """The basis of fields for canvases of this side; read-only."""
    bands = min(BANDS, size)
    return Basis(cosines(bands, size, size, size), ln(bands))


@kernel
def between(stream: np.ndarray, low: float, high: float) -> float:
    return low + (high - low) * uniform(stream)


@kernel
def log_between(stream: np.ndarray, ln_low: float, ln_high: float) -> float:
    """Uniform in the logarithm."""
    return float(_exp(_f(ln_low + (ln_high - ln_low) * uniform(stream))))


@kernel
def _sigmoid(z: np.float32) -> np.float32:
    return _ONE / (_ONE + _exp(-min(max(z, -_STEEP), _STEEP)))


@kernel
def field(stream: np.ndarray, cosines: np.ndarray, band: float, rms: float, out: np.ndarray) -> None:
    """Fill out, float32 (C, S, S), with a random sum of products of cosines of up to `band` half waves, scaled so that its
    standard deviation over all values is rms. In three of ten fields all channels are equal."""
    channels, size = out.shape[0], out.shape[1]
    n = min(max(2, int(band)), cosines.shape[0])
    coefficients = np.zeros((channels, n, n), np.float32)
    equal = uniform(stream) < 0.3
    mean, square = 0.0, 0.0  # over the field's values, by Parseval's theorem: a mean square is 1 for k = 0, else 1/2
    for c in range(channels):
        for i in range(n):
            for j in range(n):
                if c > 0 and equal:
                    coefficients[c, i, j] = coefficients[0, i, j]
                elif i * i + j * j <= band * band:
                    coefficients[c, i, j] = _f(normal(stream))
                value = float(coefficients[c, i, j])
                square += value * value * (0.5 if i > 0 else 1.0) * (0.5 if j > 0 else 1.0)
        mean += float(coefficients[c, 0, 0])
    mean, square = mean / channels, square / channels
    scale = _f(rms / (np.sqrt(max(square - mean * mean, 0.0)) + 1e-6))
    half = np.empty((n, size), np.float32)
    for c in range(channels):
        for i in range(n):
            row = half[i]
            for w in range(size):
                row[w] = _ZERO
            for j in range(n):
                weight, wave = coefficients[c, i, j] * scale, cosines[j]
                for w in range(size):
                    row[w] += weight * wave[w]
        for h in range(size):
            line = out[c, h]
            for w in range(size):
                line[w] = _ZERO
            for i in range(n):
                weight, wave = cosines[i, h], half[i]
                for w in range(size):
                    line[w] += weight * wave[w]


@kernel
def soft_border(stream: np.ndarray, cosines: np.ndarray, out: np.ndarray) -> None:
    """Fill out, float32 (1, S, S), with shares on 0..1: about 1 on one side of the zero lines of a field, 0 on the other."""
    field(stream, cosines, between(stream, 2.0, 8.0), 2.0 if uniform(stream) < 0.5 else 8.0, out)
    for h in range(out.shape[1]):
        line = out[0, h]
        for w in range(line.size):
            line[w] = _sigmoid(line[w])


@kernel
def blob(stream: np.ndarray, out: np.ndarray) -> None:
    """Fill out, float32 (1, S, S), with shares on 0..1: an ellipse of mean radius 0.08 to 0.5, its edge soft or sharp."""
    size = out.shape[1]
    cx, cy = _f(between(stream, 0.05, 0.95)), _f(between(stream, 0.05, 0.95))
    radius, stretch = log_between(stream, _LN_LEAST_BLOB, _LN_LARGEST_BLOB), float(_exp(_f(normal(stream) * 0.3)))
    angle = _f(uniform(stream) * _PI)
    sharp = _f(6.0) if uniform(stream) < 0.5 else _f(30.0)
    cos, sin = _cos(angle), _sin(angle)
    along, across = _f(1.0 / (radius * stretch)), _f(stretch / radius)
    for h in range(size):
        y = (_f(h) + _HALF) / _f(size) - cy
        line = out[0, h]
        for w in range(size):
            x = (_f(w) + _HALF) / _f(size) - cx
            u, v = (x * cos + y * sin) * along, (y * cos - x * sin) * across
            line[w] = _sigmoid((_ONE - np.sqrt(u * u + v * v)) * sharp)


@kernel
def _reflected(t: np.float32, size: int) -> Any:
    """The pixel at the place t, in sides, of a canvas that is mirrored without end."""
    t = abs(t - _TWO * np.floor((t + _ONE) * _HALF))
    return min(np.int32(t * _f(size)), np.int32(size - 1))


@kernel
def move(stream: np.ndarray, image: np.ndarray, out: np.ndarray) -> None:
    """Fill out with the image, float32 (C, S, S) both, scaled (1/2 to 2), turned (rms 29 degrees), shifted by up to 0.3
    sides and in three of ten cases flipped. The image is mirrored at its edges; the nearest pixel is taken."""
    size = image.shape[1]
    scale, angle = float(_exp(_f(between(stream, -0.7, 0.7)))), _f(normal(stream) * 0.5)
    cos, sin = _cos(angle) * _f(scale), _sin(angle) * _f(scale)
    tx, ty = _f(between(stream, -0.3, 0.3)) + _HALF, _f(between(stream, -0.3, 0.3)) + _HALF
    side = -_ONE if uniform(stream) < 0.3 else _ONE
    places = np.empty(size, np.int32)
    for h in range(size):
        y = (_f(h) + _HALF) / _f(size) - _HALF
        for w in range(size):
            x = side * ((_f(w) + _HALF) / _f(size) - _HALF)
            places[w] = _reflected(x * sin + y * cos + ty, size) * size + _reflected(x * cos - y * sin + tx, size)
        for c in range(image.shape[0]):
            source, line = image[c].reshape(-1), out[c, h]
            for w in range(size):
                line[w] = source[places[w]]
