"""Lossless compression of 8-bit pictures: the same bytes on any machine, whatever the version of any library.

Each value is predicted from its neighbours on the left, above and above left (the median of LOCO-I); the differences are
written as Golomb-Rice codes, whose parameter follows the mean difference among similar neighbourhoods (Weinberger, Seroussi
& Sapiro 2000, "The LOCO-I lossless image compression algorithm", without its runs and its correction of bias).
"""

from typing import Any

import numba
import numpy as np

_CONTEXTS = 8
_MOST_ZEROS = 23  # of a code; after so many the difference follows in 8 bits
_FORGET = 64  # a mean's count and sum are halved at this count


def encode(pixels: np.ndarray) -> bytes:
    """The bytes of a picture, uint8 (C, H, W)."""
    out = np.empty(pixels.size * 4 + 8, np.uint8)  # a code has at most 32 bits
    return out[: _encode(np.ascontiguousarray(pixels), out)].tobytes()


def decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The picture, uint8 of this shape; None if data is not what encode gives for one."""
    out = np.empty(shape, np.uint8)
    given = np.frombuffer(data, np.uint8)
    if not _decode(given, out) or encode(out) != data:
        return None
    return out


_inline = numba.njit(inline="always", error_model="numpy")


@_inline
def _prediction(row: np.ndarray, above: np.ndarray, w: int, first: bool) -> Any:
    """(what the value at w is predicted to be, the context of its difference)"""
    left = np.int64(row[w - 1]) if w > 0 else (np.int64(128) if first else np.int64(above[0]))
    up = left if first else np.int64(above[w])
    corner = up if first or w == 0 else np.int64(above[w - 1])
    low, high = min(left, up), max(left, up)
    guess: Any = low if corner >= high else (high if corner <= low else left + up - corner)
    gradient = abs(left - corner) + abs(up - corner)
    context = 0
    while context < _CONTEXTS - 1 and gradient > 0:
        gradient >>= 1
        context += 1
    return guess, context


@_inline
def _parameter(count: int, total: int) -> int:
    k = 0
    while count << k < total:
        k += 1
    return k


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _encode(pixels: np.ndarray, out: np.ndarray) -> int:
    counts, totals = np.ones(_CONTEXTS, np.int64), np.full(_CONTEXTS, 4, np.int64)
    bits, held, length = np.uint64(0), 0, 0  # the last `held` bits of `bits` are not in out yet
    for c in range(pixels.shape[0]):
        for h in range(pixels.shape[1]):
            row, above = pixels[c, h], pixels[c, max(h - 1, 0)]
            for w in range(row.size):
                guess, context = _prediction(row, above, w, h == 0)
                difference = ((np.int64(row[w]) - guess + 128) & 255) - 128
                code = 2 * difference if difference >= 0 else -2 * difference - 1
                k = _parameter(counts[context], totals[context])
                zeros = code >> k
                if zeros < _MOST_ZEROS:
                    value, width = (1 << k) | (code & ((1 << k) - 1)), zeros + 1 + k
                else:
                    value, width = (1 << 8) | code, _MOST_ZEROS + 9
                bits, held = (bits << np.uint64(width)) | np.uint64(value), held + width
                while held >= 8:
                    held -= 8
                    out[length] = np.uint8((bits >> np.uint64(held)) & np.uint64(255))
                    length += 1
                counts[context] += 1
                totals[context] += code
                if counts[context] == _FORGET:
                    counts[context] >>= 1
                    totals[context] >>= 1
    if held:
        out[length] = np.uint8((bits << np.uint64(8 - held)) & np.uint64(255))
        length += 1
    return length


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _decode(data: np.ndarray, out: np.ndarray) -> bool:
    counts, totals = np.ones(_CONTEXTS, np.int64), np.full(_CONTEXTS, 4, np.int64)
    bits, held, at = np.uint64(0), 0, 0
    for c in range(out.shape[0]):
        for h in range(out.shape[1]):
            row, above = out[c, h], out[c, max(h - 1, 0)]
            for w in range(row.size):
                guess, context = _prediction(row, above, w, h == 0)
                k = _parameter(counts[context], totals[context])
                while held <= 48 and at < data.size:
                    bits = (bits << np.uint64(8)) | np.uint64(data[at])
                    held, at = held + 8, at + 1
                zeros = 0
                while held > 0 and not (bits >> np.uint64(held - 1)) & np.uint64(1):
                    held, zeros = held - 1, zeros + 1
                    if zeros > _MOST_ZEROS:
                        return False
                width = 8 if zeros == _MOST_ZEROS else k
                if held <= width:
                    return False
                held -= 1 + width
                low: Any = np.int64((bits >> np.uint64(held)) & np.uint64((1 << width) - 1))
                code = low if zeros == _MOST_ZEROS else (zeros << k) | low
                difference = code >> 1 if code & 1 == 0 else -((code + 1) >> 1)
                row[w] = np.uint8((guess + difference) & 255)
                counts[context] += 1
                totals[context] += code
                if counts[context] == _FORGET:
                    counts[context] >>= 1
                    totals[context] >>= 1
    return at == data.size
