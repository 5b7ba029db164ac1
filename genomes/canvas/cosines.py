"""Canvases as sums of cosines, which can be drawn with any number of pixels: kernels with the same bits on any machine.

Along each side, cosine k of a canvas is cos(pi k t) for t from 0 to 1, the DCT-II's. A coefficient is the amplitude of the
product of a cosine down and one across, an int16 in steps of 1/64 grey level; the sum is added to mid-grey, 128. As cosines
are even, the sum goes on beyond the canvas as its mirror image. No libm function is called, no sum depends on the machine.
"""

import math
import zlib
from decimal import Decimal
from functools import lru_cache

import numba
import numpy as np

STEPS = 64
"""Of a coefficient, per grey level."""

# numba's cache does not notice when these are edited; touch operators.py then.
kernel = numba.njit(error_model="numpy", nogil=True)

_f = np.float32
_MIDDLE, _ZERO, _HALF, _STEPS, _STEP, _MOST = _f(128), _f(0), _f(0.5), _f(STEPS), _f(1 / STEPS), _f(32767)
_PI = 3.141592653589793


def ln(x: float) -> float:
    """The natural logarithm, correctly rounded on any machine."""
    return float(Decimal(str(x)).ln())


@lru_cache(maxsize=64)
def cosines(bands: int, size: int, length: int, pixels: int) -> np.ndarray:
    """float32 (bands, pixels), read-only: cos(pi k t) of k < bands at the centres of `pixels` equal parts of a line.

    The line is length / size canvases long and begins at the canvas's edge.
    """
    shared = math.gcd(length, pixels)
    length, parts = length // shared, pixels // shared
    quarter = parts * size  # of a period, in units of the angle pi / (2 quarter)
    steps = np.arange(bands)[:, None] * (2 * np.arange(pixels) + 1)[None, :] * length % (4 * quarter)
    steps = np.where(steps > 2 * quarter, 4 * quarter - steps, steps)  # cos is even around pi ...
    sign = np.where(steps > quarter, -1.0, 1.0)
    steps = np.where(steps > quarter, 2 * quarter - steps, steps)  # ... and odd around pi / 2
    angle = steps * _PI / (2 * quarter)
    term, total = np.ones(angle.shape), np.ones(angle.shape)
    for k in range(1, 13):  # Taylor's series, below 1e-17 on 0..pi/2
        term = -term * (angle * angle) / ((2 * k - 1) * (2 * k))
        total = total + term
    table: np.ndarray = (sign * total).astype(np.float32)
    table.flags.writeable = False
    return table


def of_pixels(pixels: np.ndarray, bands: int) -> np.ndarray:
    """int16 (B, C, bands, bands): the coefficients nearest to uint8 pixels (B, C, S, S), in the sum of squares."""
    count, channels, size = pixels.shape[:3]
    out = np.empty((count, channels, bands, bands), np.int16)
    _of_pixels(np.ascontiguousarray(pixels), *tables(bands, size), out)
    return out


def tables(bands: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (bands, size), the cosines of a canvas, and (size, bands), the same."""
    waves = cosines(bands, size, size, size)
    return waves, np.ascontiguousarray(waves.T)


def drawn(coefficients: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """uint8 (B, C, H, W) of int16 (B, C, bands, bands), with cosines (bands, H) and (bands, W); rounded half up."""
    out = np.empty((*coefficients.shape[:2], down.shape[1], across.shape[1]), np.uint8)
    _drawn(np.ascontiguousarray(coefficients), down, across, out)
    return out


def packed(coefficients: np.ndarray) -> bytes:
    """int16 (C, bands, bands) as compressed bytes: the low bytes of all, then the high ones, by zlib."""
    halves = np.ascontiguousarray(coefficients, "<i2").reshape(-1).view(np.uint8).reshape(-1, 2)
    return zlib.compress(np.ascontiguousarray(halves.T).tobytes(), 9)


def unpacked(data: bytes, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The coefficients, int16 of this shape; None if data is not what `packed` gives for some."""
    count = 2 * math.prod(shape)
    inflate = zlib.decompressobj()
    try:
        halves = inflate.decompress(data, count + 1)
    except zlib.error:
        return None
    if len(halves) != count or not inflate.eof or inflate.unused_data:
        return None
    pairs = np.ascontiguousarray(np.frombuffer(halves, np.uint8).reshape(2, -1).T)
    return pairs.view("<i2").astype(np.int16).reshape(shape)


@kernel
def to_values(coefficients: np.ndarray, down: np.ndarray, across: np.ndarray, half: np.ndarray, out: np.ndarray) -> None:
    """Fill out, float32 (C, H, W), with grey levels, not rounded and not clipped. half: (bands, W), scratch memory."""
    for c in range(coefficients.shape[0]):
        for i in range(half.shape[0]):
            row = half[i]
            for w in range(row.size):
                row[w] = _ZERO
            for j in range(half.shape[0]):
                weight = _f(coefficients[c, i, j])
                if weight != _ZERO:
                    weight *= _STEP
                    wave = across[j]
                    for w in range(row.size):
                        row[w] += weight * wave[w]
        for h in range(out.shape[1]):
            line = out[c, h]
            for w in range(line.size):
                line[w] = _MIDDLE
            for i in range(half.shape[0]):
                weight, row = down[i, h], half[i]
                for w in range(line.size):
                    line[w] += weight * row[w]


@kernel
def to_coefficients(x: np.ndarray, waves: np.ndarray, by_place: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """Fill out, int16 (C, bands, bands), with the coefficients nearest to x, float32 (C, S, S), which are rounded and held
    within int16. waves, by_place: as of `tables`. row: (S,) float32, scratch memory."""
    size, bands = x.shape[1], waves.shape[0]
    sums = np.empty(bands, np.float32)
    for c in range(x.shape[0]):
        for i in range(bands):
            for w in range(size):
                row[w] = _ZERO
            for h in range(size):
                weight, line = waves[i, h], x[c, h]
                for w in range(size):
                    row[w] += weight * (line[w] - _MIDDLE)
            for j in range(bands):
                sums[j] = _ZERO
            for w in range(size):
                value, wave = row[w], by_place[w]
                for j in range(bands):
                    sums[j] += value * wave[j]
            scale = _STEPS / _f(size * size) * (_f(2) if i > 0 else _f(1))
            for j in range(bands):
                value = sums[j] * scale * (_f(2) if j > 0 else _f(1))
                out[c, i, j] = np.int16(np.floor(min(max(value, -_MOST), _MOST) + _HALF))


@kernel
def to_uint8(x: np.float32) -> np.uint8:
    """Rounded half up, within 0..255."""
    return np.uint8(np.int32(min(max(x, _ZERO), _f(255)) + _HALF))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _of_pixels(pixels: np.ndarray, waves: np.ndarray, by_place: np.ndarray, out: np.ndarray) -> None:
    x, row = np.empty(pixels.shape[1:], np.float32), np.empty(pixels.shape[3], np.float32)
    for b in range(pixels.shape[0]):
        x[:] = pixels[b]
        to_coefficients(x, waves, by_place, row, out[b])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _drawn(coefficients: np.ndarray, down: np.ndarray, across: np.ndarray, out: np.ndarray) -> None:
    x = np.empty((out.shape[1], out.shape[2], out.shape[3]), np.float32)
    half = np.empty((down.shape[0], across.shape[1]), np.float32)
    for b in range(out.shape[0]):
        to_values(coefficients[b], down, across, half, x)
        for c in range(x.shape[0]):
            for h in range(x.shape[1]):
                for w in range(x.shape[2]):
                    out[b, c, h, w] = to_uint8(x[c, h, w])
