"""Lossless compression of 8-bit pictures: the same bytes on any machine, whatever the version of any library.

Each value is predicted from its neighbours on the left, above and above left (the median of LOCO-I: Weinberger, Seroussi &
Sapiro 2000). The difference is coded as the number of its bits, its sign and the bits below the first one, each as binary
decisions of an arithmetic coder (Mahoney's lpaq), whose probabilities adapt. They depend on how much the neighbours differ
and on the difference of the same pixel in the channel before.
"""

from typing import Any

import numba
import numpy as np

_ACTIVITIES, _BEFORE = 8, 6  # classes of neighbourhoods, and of differences in the channel before; the last one: no channel
_BITS = 9  # numbers of bits of a difference, 0 to 8
_CONTEXTS = _ACTIVITIES * _BEFORE
_MODELS = _CONTEXTS * _BITS + 3 + _BITS * 8
_EVEN, _SPEED = 1 << 15, 5  # a probability of 1/2 in 16 bits; it moves by 2**-5 of the way to what happens


def encode(pixels: np.ndarray) -> bytes:
    """The bytes of a picture, uint8 (C, H, W)."""
    out = np.empty(pixels.size * 26 + 64, np.uint8)  # no decision takes more than 12 bits, no difference more than 17
    return out[: _encode(np.ascontiguousarray(pixels), out)].tobytes()


def decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The picture, uint8 of this shape; None if data is not what encode gives for one."""
    out = np.empty(shape, np.uint8)
    return out if _decode(np.frombuffer(data, np.uint8), out) else None


_kernel = numba.njit(error_model="numpy", nogil=True)


@_kernel
def _prediction(row: np.ndarray, above: np.ndarray, w: int, first: bool) -> Any:
    """(what the value at w is predicted to be, the class of its neighbourhood)"""
    left = np.int64(row[w - 1]) if w > 0 else (np.int64(128) if first else np.int64(above[0]))
    up = left if first else np.int64(above[w])
    corner = up if first or w == 0 else np.int64(above[w - 1])
    low, high = min(left, up), max(left, up)
    guess = low if corner >= high else (high if corner <= low else left + up - corner)
    gradient = abs(left - corner) + abs(up - corner)
    return guess, min(_length(gradient), _ACTIVITIES - 1)


@_kernel
def _length(value: Any) -> int:
    bits = 0
    while value > 0:
        value >>= 1
        bits += 1
    return bits


@_kernel
def _context(activity: int, before: np.ndarray, h: int, w: int, channel: int) -> int:
    """The first model of a difference's number of bits."""
    kind = min(_length(abs(np.int64(before[h, w]))), _BEFORE - 2) if channel > 0 else _BEFORE - 1
    return (activity * _BEFORE + kind) * _BITS


@_kernel
def _sign_model(before: np.ndarray, h: int, w: int, channel: int) -> int:
    value = np.int64(before[h, w]) if channel > 0 else 0
    return _CONTEXTS * _BITS + (1 if value > 0 else (2 if value < 0 else 0))


@_kernel
def _middle(state: np.ndarray, models: np.ndarray, model: int) -> Any:
    """Where the interval state[0]..state[1] is cut: below is a one."""
    share = max(1, np.int64(models[model]) >> 4)
    return state[0] + ((state[1] - state[0]) >> 12) * share


@_kernel
def _learn(models: np.ndarray, model: int, bit: int) -> None:
    p = np.int64(models[model])
    models[model] = p + ((65535 - p) >> _SPEED) if bit else p - (p >> _SPEED)


@_kernel
def _write(state: np.ndarray, models: np.ndarray, model: int, bit: int, out: np.ndarray) -> None:
    """state: the interval's two ends, 32 bits each, and the number of bytes in out."""
    cut = _middle(state, models, model)
    if bit:
        state[1] = cut
    else:
        state[0] = cut + 1
    _learn(models, model, bit)
    while (state[0] ^ state[1]) < 1 << 24:
        out[state[2]] = np.uint8(state[1] >> 24)
        state[2] += 1
        state[0] = (state[0] << 8) & 0xFFFFFFFF
        state[1] = ((state[1] << 8) & 0xFFFFFFFF) | 255


@_kernel
def _read(state: np.ndarray, models: np.ndarray, model: int, data: np.ndarray) -> int:
    """state: the interval's two ends, the number of bytes that were read, and the code's next 32 bits."""
    cut = _middle(state, models, model)
    bit = 1 if state[3] <= cut else 0
    if bit:
        state[1] = cut
    else:
        state[0] = cut + 1
    _learn(models, model, bit)
    while (state[0] ^ state[1]) < 1 << 24:
        state[0] = (state[0] << 8) & 0xFFFFFFFF
        state[1] = ((state[1] << 8) & 0xFFFFFFFF) | 255
        _next(state, data)
    return bit


@_kernel
def _next(state: np.ndarray, data: np.ndarray) -> None:
    byte = np.int64(data[state[2]]) if state[2] < data.size else np.int64(0)
    state[3] = ((state[3] << 8) & 0xFFFFFFFF) | byte
    state[2] += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _encode(pixels: np.ndarray, out: np.ndarray) -> int:
    models = np.full(_MODELS, _EVEN, np.int32)
    before = np.zeros((pixels.shape[1], pixels.shape[2]), np.int16)
    state = np.array([0, 0xFFFFFFFF, 0], np.int64)
    for c in range(pixels.shape[0]):
        for h in range(pixels.shape[1]):
            row, above = pixels[c, h], pixels[c, max(h - 1, 0)]
            for w in range(row.size):
                guess, activity = _prediction(row, above, w, h == 0)
                difference = ((np.int64(row[w]) - guess + 128) & 255) - 128
                size, bits = abs(difference), _length(abs(difference))
                model, sign = _context(activity, before, h, w, c), _sign_model(before, h, w, c)
                for k in range(min(bits + 1, _BITS - 1)):
                    _write(state, models, model + k, 1 if k < bits else 0, out)
                if bits:
                    _write(state, models, sign, 1 if difference < 0 else 0, out)
                for k in range(bits - 2, -1, -1):
                    _write(state, models, _CONTEXTS * _BITS + 3 + bits * 8 + k, (size >> k) & 1, out)
                before[h, w] = difference
    out[state[2]] = np.uint8((state[0] >> 24) + 1)  # the shortest code in the interval; what follows is read as zeros
    return state[2] + 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _decode(data: np.ndarray, out: np.ndarray) -> bool:
    models = np.full(_MODELS, _EVEN, np.int32)
    before = np.zeros((out.shape[1], out.shape[2]), np.int16)
    state = np.array([0, 0xFFFFFFFF, 0, 0], np.int64)
    for _ in range(4):
        _next(state, data)
    for c in range(out.shape[0]):
        for h in range(out.shape[1]):
            row, above = out[c, h], out[c, max(h - 1, 0)]
            for w in range(row.size):
                guess, activity = _prediction(row, above, w, h == 0)
                model, sign = _context(activity, before, h, w, c), _sign_model(before, h, w, c)
                bits = 0
                while bits < _BITS - 1 and _read(state, models, model + bits, data):
                    bits += 1
                negative = _read(state, models, sign, data) if bits else 0
                size = 1 if bits else 0
                for k in range(bits - 2, -1, -1):
                    size = (size << 1) | _read(state, models, _CONTEXTS * _BITS + 3 + bits * 8 + k, data)
                difference = -size if negative else size
                row[w] = np.uint8((guess + difference) & 255)
                before[h, w] = difference
                if size > 127 + negative or state[2] > data.size + 4:
                    return False
    # Every byte but the last has decided something, so these are what encode gives exactly if the last one is, too.
    return state[2] - 3 == data.size and data[data.size - 1] == (state[0] >> 24) + 1
