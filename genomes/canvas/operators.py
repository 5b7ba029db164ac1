"""The operators that make a child of canvases: kernels over float32 pixels, with keyed draws and the same bits anywhere.

A child is made by one operator, drawn in proportion to the rates. Lengths are shares of the canvas's side, colours grey
levels on 0..255. A canvas of pixels is clipped to 0..255 and rounded half up; one of cosines (genomes/canvas/cosines.py) is
neither, but is projected onto its cosines. No libm function is called, no sum depends on the
machine, and there are no fast-math flags; normal draws are those of genomes.random.normal.

- field, low_field, local_field: adds a random low-frequency field (shapes.field) to the whole canvas or within a blob.
- blend, extrapolate: moves towards or away from the father, pixel by pixel. mask: takes one side of a soft border from the
  mother, the other from the father. paste, paste_moved: pastes a blob of the father, as it is or moved.
- paste_own: pastes a blob of the moved mother. move: moves the whole canvas. "Moved" is a random affine map (shapes.move).
- color: mixes the channels. contrast: scales all values around their mean. patch: paints a blob.
- cppn: the mutation of a canvas that is still a CPPN (genomes/canvas/encoding.py); any other canvas gets a field instead.

Where the father equals the mother, or there is none, the moved mother takes the father's place.
"""

from typing import NamedTuple

import numba
import numpy as np

# numba's cache does not notice when these are edited; touch this file then.
from genomes.canvas.cosines import kernel, ln, tables, to_coefficients, to_uint8, to_values
from genomes.canvas.shapes import Basis, basis, between, blob, field, log_between, move, soft_border
from genomes.cppn.render_numba import _exp
from genomes.random import Key, normal, start, uniform

VERSION = "canvas 1"
"""Of the operators and of random canvases: it changes whenever the same key may make another child."""


class Rates(NamedTuple):
    """How often each operator makes a child, relative to the others: >= 0, not all of them 0."""

    cppn: float = 1.0
    field: float = 1.0
    low_field: float = 1.0
    local_field: float = 1.0
    blend: float = 1.0
    extrapolate: float = 1.0
    mask: float = 1.0
    paste: float = 1.0
    paste_moved: float = 1.0
    paste_own: float = 1.0
    move: float = 1.0
    color: float = 1.0
    contrast: float = 1.0
    patch: float = 1.0


(
    _CPPN, _FIELD, _LOW_FIELD, _LOCAL_FIELD, _BLEND, _EXTRAPOLATE, _MASK, _PASTE, _PASTE_MOVED, _PASTE_OWN, _MOVE, _COLOR,
    _CONTRAST, _PATCH,
) = range(len(Rates._fields))  # fmt: skip
_WITH_FATHER = np.array([name in ("blend", "extrapolate", "mask", "paste", "paste_moved") for name in Rates._fields])

_f = np.float32
_ONE, _MIDDLE, _ZERO = _f(1), _f(128), _f(0)
_LN_2, _LN_5, _LN_10, _LN_15, _LN_50, _LN_90 = (ln(x) for x in (2, 5, 10, 15, 50, 90))


def drawn(n: int, rates: Rates, key: Key) -> np.ndarray:
    """(n,) int64: the numbers of the operators, in the order of Rates, that make the n children with this key."""
    out = np.empty(n, np.int64)
    _drawn(key.seed, key.batch, key.row, _cumulated(rates), out)
    return out


def uses_father(operators: np.ndarray) -> np.ndarray:
    """Which of these operators take something from the father; bool, same shape."""
    return _WITH_FATHER[operators]


class Parents(NamedTuple):
    """n canvases. pure: those that are still CPPNs, which have pixels and no coefficients."""

    pixels: np.ndarray  # uint8 (n, C, size, size)
    coefficients: np.ndarray  # int16 (n, C, bands, bands); bands is 0 for canvases of pixels
    pure: np.ndarray  # (n,) bool


def vary(mothers: Parents, fathers: Parents, rates: Rates, key: Key) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The children's pixels and coefficients, as of Parents, and (n,) bool: those that a CPPN's mutation has to make.

    The values of children that are not made here are undefined.
    """
    pixels, coefficients = np.empty_like(mothers.pixels), np.empty_like(mothers.coefficients)
    graphs = np.zeros(len(pixels), np.bool_)
    size = pixels.shape[-1]
    _vary(
        mothers, fathers, _cumulated(rates), basis(size), tables(coefficients.shape[-1], size), key, pixels, coefficients,
        graphs,
    )  # fmt: skip
    return pixels, coefficients, graphs


def waves(n: int, channels: int, size: int, key: Key) -> np.ndarray:
    """n random canvases: one field of any band each, of 20 to 80 grey levels, on a random colour."""
    out = np.empty((n, channels, size, size), np.uint8)
    b = basis(size)
    _waves(b.cosines, b.log_bands, key.seed, key.batch, key.row, out)
    return out


def noise(n: int, channels: int, size: int, key: Key) -> np.ndarray:
    """n canvases of independent values, uniform on 0..255."""
    out = np.empty((n, channels, size, size), np.uint8)
    _noise(key.seed, key.batch, key.row, out.reshape(n, channels * size * size))
    return out


def _cumulated(rates: Rates) -> np.ndarray:
    return np.cumsum(np.array(rates, np.float64))


@kernel
def _operator(stream: np.ndarray, cumulated: np.ndarray) -> int:
    """The operator of a child: the first draw of its stream."""
    level = uniform(stream) * cumulated[-1]
    for k in range(cumulated.size - 1):
        if level < cumulated[k]:
            return k
    last = cumulated.size - 1
    while last > 0 and cumulated[last] == cumulated[last - 1]:  # rounding must not draw an operator of rate 0
        last -= 1
    return last


@kernel
def _mix(mother: np.ndarray, other: np.ndarray, share: np.ndarray, x: np.ndarray) -> None:
    """Set x to mother + share * (other - mother); share is (1, S, S)."""
    for c in range(x.shape[0]):
        for h in range(x.shape[1]):
            a, b, k, line = mother[c, h], other[c, h], share[0, h], x[c, h]
            for w in range(line.size):
                m = _f(a[w])
                line[w] = m + k[w] * (_f(b[w]) - m)


@kernel
def _mean(values: np.ndarray) -> float:
    total = 0.0
    flat = values.reshape(-1)
    for k in range(flat.size):
        total += flat[k]
    return total / flat.size


@kernel
def _add(mother: np.ndarray, share: np.ndarray, local: bool, x: np.ndarray) -> None:
    """Add the mother to x, which is first multiplied by share, (1, S, S), if local."""
    for c in range(x.shape[0]):
        for h in range(x.shape[1]):
            m, k, line = mother[c, h], share[0, h], x[c, h]
            if local:
                for w in range(line.size):
                    line[w] *= k[w]
            for w in range(line.size):
                line[w] += _f(m[w])


@kernel
def _toward(mother: np.ndarray, father: np.ndarray, share: float, contrast: float, x: np.ndarray) -> None:
    """Set x to mother + share * (father - mother), each channel's contrast scaled around its mean."""
    b = _f(share)
    for c in range(x.shape[0]):
        mean = _f(_mean(mother[c]) * (1.0 - share) + _mean(father[c]) * share)
        scale = _f(contrast)
        for h in range(x.shape[1]):
            m, f, line = mother[c, h], father[c, h], x[c, h]
            for w in range(line.size):
                value = _f(m[w]) + b * (_f(f[w]) - _f(m[w]))
                line[w] = mean + scale * (value - mean)


@kernel
def _recolor(stream: np.ndarray, mother: np.ndarray, x: np.ndarray) -> None:
    """Set each channel of x to a random mixture of the mother's, mainly its own, around mid-grey, and shift it."""
    channels = x.shape[0]
    for c in range(channels):
        shift = _f(normal(stream) * 12.0) + _MIDDLE
        for h in range(x.shape[1]):
            line = x[c, h]
            for w in range(line.size):
                line[w] = shift
        for d in range(channels):
            weight = _f(normal(stream) * 0.2) + (_ONE if c == d else _ZERO)
            for h in range(x.shape[1]):
                m, line = mother[d, h], x[c, h]
                for w in range(line.size):
                    line[w] += weight * (_f(m[w]) - _MIDDLE)


@kernel
def _paint(stream: np.ndarray, mother: np.ndarray, share: np.ndarray, x: np.ndarray) -> None:
    """Set x to the mother, within the shares faded by a random factor and painted with a random colour."""
    fade = _f(uniform(stream))
    for c in range(x.shape[0]):
        color = _f(normal(stream) * 70.0)
        for h in range(x.shape[1]):
            a, k, line = mother[c, h], share[0, h], x[c, h]
            for w in range(line.size):
                m = _f(a[w])
                line[w] = m + k[w] * (m * fade + color - m)


@kernel
def _scale(stream: np.ndarray, mother: np.ndarray, x: np.ndarray) -> None:
    """Set x to the mother with another contrast and brightness."""
    mean, factor = _f(_mean(mother)), _exp(_f(normal(stream) * 0.25))
    level = mean + _f(normal(stream) * 8.0)
    for c in range(x.shape[0]):
        for h in range(x.shape[1]):
            m, line = mother[c, h], x[c, h]
            for w in range(line.size):
                line[w] = level + factor * (_f(m[w]) - mean)


@kernel
def _round(x: np.ndarray, out: np.ndarray) -> None:
    for c in range(x.shape[0]):
        for h in range(x.shape[1]):
            line, row = x[c, h], out[c, h]
            for w in range(line.size):
                row[w] = to_uint8(line[w])


@kernel
def _copy(image: np.ndarray, x: np.ndarray) -> None:
    for c in range(x.shape[0]):
        for h in range(x.shape[1]):
            row, line = image[c, h], x[c, h]
            for w in range(line.size):
                line[w] = _f(row[w])


@kernel
def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    for c in range(a.shape[0]):
        for h in range(a.shape[1]):
            one, other = a[c, h], b[c, h]
            for w in range(one.size):
                if one[w] != other[w]:
                    return False
    return True


@kernel
def _child(
    operator: int,
    mother: np.ndarray,
    father: np.ndarray,
    stream: np.ndarray,
    cosines: np.ndarray,
    log_bands: float,
    share: np.ndarray,
    moved: np.ndarray,
    x: np.ndarray,
) -> None:
    """Set x to the child that the operator makes, before rounding. share and moved are scratch memory."""
    if operator in (_BLEND, _EXTRAPOLATE, _MASK, _PASTE) and _equal(mother, father):
        move(stream, mother, moved)
        father = moved
    if operator in (_CPPN, _FIELD):
        field(stream, cosines, log_between(stream, _LN_2, log_bands), log_between(stream, _LN_5, _LN_50), x)
        _add(mother, share, False, x)
    elif operator == _LOW_FIELD:
        field(stream, cosines, between(stream, 2.0, 10.0), log_between(stream, _LN_10, _LN_50), x)
        _add(mother, share, False, x)
    elif operator == _LOCAL_FIELD:
        blob(stream, share)
        field(stream, cosines, log_between(stream, _LN_2, log_bands), log_between(stream, _LN_15, _LN_90), x)
        _add(mother, share, True, x)
    elif operator == _BLEND:
        _toward(mother, father, between(stream, 0.15, 0.7), between(stream, 1.0, 1.4), x)
    elif operator == _EXTRAPOLATE:
        _toward(mother, father, -between(stream, 0.1, 0.6), 1.0, x)
    elif operator == _MASK:
        soft_border(stream, cosines, share)
        _mix(mother, father, share, x)
    elif operator == _PASTE:
        blob(stream, share)
        _mix(mother, father, share, x)
    elif operator == _PASTE_MOVED:
        blob(stream, share)
        move(stream, father, moved)
        _mix(mother, moved, share, x)
    elif operator == _PASTE_OWN:
        blob(stream, share)
        move(stream, mother, moved)
        _mix(mother, moved, share, x)
    elif operator == _MOVE:
        move(stream, mother, moved)
        _copy(moved, x)
    elif operator == _COLOR:
        _recolor(stream, mother, x)
    elif operator == _CONTRAST:
        _scale(stream, mother, x)
    elif operator == _PATCH:
        blob(stream, share)
        _paint(stream, mother, share, x)


@numba.njit(cache=True, nogil=True)
def _drawn(seed: int, batch: int, row: int, cumulated: np.ndarray, out: np.ndarray) -> None:
    stream = np.empty(1, np.uint64)
    for i in range(out.size):
        start(stream, seed, batch, row + i)
        out[i] = _operator(stream, cumulated)


@kernel
def _read(parents: Parents, i: int, waves: np.ndarray, half: np.ndarray, x: np.ndarray) -> None:
    """Set x to the grey levels of parent i; those of cosines may lie outside 0..255."""
    if waves.shape[0] and not parents.pure[i]:
        to_values(parents.coefficients[i], waves, waves, half, x)
    else:
        _copy(parents.pixels[i], x)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vary(
    mothers: Parents,
    fathers: Parents,
    cumulated: np.ndarray,
    fields: Basis,
    cosines: tuple[np.ndarray, np.ndarray],
    key: Key,
    pixels: np.ndarray,
    coefficients: np.ndarray,
    graphs: np.ndarray,
) -> None:
    stream = np.empty(1, np.uint64)
    channels, size = pixels.shape[1], pixels.shape[2]
    waves, by_place = cosines
    shape = channels, size, size
    mother, father, moved, x = (
        np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.float32),
    )  # fmt: skip
    share, half = np.zeros((1, size, size), np.float32), np.empty((waves.shape[0], size), np.float32)
    row = np.empty(size, np.float32)
    for i in range(len(pixels)):
        start(stream, key.seed, key.batch, key.row + i)
        operator = _operator(stream, cumulated)
        if operator == _CPPN and mothers.pure[i]:
            graphs[i] = True
            continue
        _read(mothers, i, waves, half, mother)
        if operator in (_BLEND, _EXTRAPOLATE, _MASK, _PASTE, _PASTE_MOVED):
            _read(fathers, i, waves, half, father)
        _child(operator, mother, father, stream, fields.cosines, fields.log_bands, share, moved, x)
        if waves.shape[0]:
            to_coefficients(x, waves, by_place, row, coefficients[i])
            to_values(coefficients[i], waves, waves, half, x)
        _round(x, pixels[i])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _waves(cosines: np.ndarray, log_bands: float, seed: int, batch: int, row: int, out: np.ndarray) -> None:
    stream = np.empty(1, np.uint64)
    x = np.empty((out.shape[1], out.shape[2], out.shape[3]), np.float32)
    for i in range(out.shape[0]):
        start(stream, seed, batch, row + i)
        field(stream, cosines, log_between(stream, _LN_2, log_bands), between(stream, 20.0, 80.0), x)
        for c in range(x.shape[0]):
            level = _f(127.0 + normal(stream) * 40.0)
            for h in range(x.shape[1]):
                line = x[c, h]
                for w in range(line.size):
                    line[w] += level
        _round(x, out[i])


@numba.njit(cache=True, nogil=True)
def _noise(seed: int, batch: int, row: int, out: np.ndarray) -> None:
    stream = np.empty(1, np.uint64)
    for i in range(out.shape[0]):
        start(stream, seed, batch, row + i)
        for k in range(out.shape[1]):
            out[i, k] = np.uint8(uniform(stream) * 256.0)
