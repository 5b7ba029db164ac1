"""The colours of a CPPN's outputs: float32 operations that every renderer evaluates in the same order."""

import numpy as np

MODES = ("grey", "rgb", "hsv", "grey2015", "hls2015")
"""Kernels use the position in this tuple.

grey, rgb: round(255 v) per output, v clipped to [0, 1]: negative is black. (Measured on two digit networks: it needs half
the evaluations that |v| needs, since half of a random image is background then.)
hsv: hue v - floor(v), saturation v clipped to [0, 1], value min(|v|, 1); then as rgb.
grey2015: int(255 * |v|), as in the 2015 code.
hls2015: the 2015 code's colours: int(255 * |v|) taken as OpenCV's 8-bit hue, lightness and saturation. OpenCV's hue
runs to 180, so 255 wraps around (Nguyen 2015 calls the outputs HSV; the code [fooling repository] says HLS).
"""

f32 = np.float32


def outputs(mode: str) -> int:
    """The number of outputs of a CPPN in this mode, which is the number of channels."""
    return 1 if mode in ("grey", "grey2015") else 3


def to_uint8(mode: str, v: np.ndarray) -> np.ndarray:
    """v float32 (C, ...) raw outputs, finite; returns uint8 of the same shape. The numba kernel has the same definition."""
    if mode in ("grey", "rgb"):
        return _round(_clip(v))
    if mode == "grey2015":
        return (_unit(v) * f32(255)).astype(np.uint8)
    if mode == "hsv":
        hue = (v[0] - np.floor(v[0])) * f32(6)
        value = _unit(v[2])
        chroma = value * _clip(v[1])
        return np.stack([_round(value - chroma * (f32(1) - tent)) for tent in _tents(hue)])
    step = np.floor(_unit(v) * f32(255))
    hue = step[0] * f32(1 / 30)
    hue = np.where(hue >= f32(6), hue - f32(6), hue)
    light, saturation = step[1] / f32(255), step[2] / f32(255)
    high = np.where(light <= f32(0.5), light * (f32(1) + saturation), light + saturation - light * saturation)
    low = f32(2) * light - high
    return np.stack([_round(low + (high - low) * tent) for tent in _tents(hue)])


def _clip(v: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(v, f32(0)), f32(1))


def _unit(v: np.ndarray) -> np.ndarray:
    return np.minimum(np.abs(v), f32(1))


def _round(x: np.ndarray) -> np.ndarray:
    return (x * f32(255) + f32(0.5)).astype(np.uint8)


def _tents(hue: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shares of red, green and blue of a hue in [0, 6), each in [0, 1]."""
    red = np.minimum(np.maximum(np.abs(hue - f32(3)) - f32(1), f32(0)), f32(1))
    green = np.minimum(np.maximum(f32(2) - np.abs(hue - f32(2)), f32(0)), f32(1))
    blue = np.minimum(np.maximum(f32(2) - np.abs(hue - f32(4)), f32(0)), f32(1))
    return red, green, blue
