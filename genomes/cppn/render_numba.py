"""The fast renderer: an interpreter of programs over blocks of pixels, bit for bit equal to render_numpy.

What makes it fast (measured): the inner loops run over a block of pixels that stays in the first-level cache and
vectorise, because sine and exponential are polynomials and every offset is unsigned; a node's block of scratch memory is
reused as soon as its last reader is done; coordinates are loaded once per block for all genomes. What keeps it exact: no
fast-math flags, and sums in the program's order. All kernels are in this file, since numba's on-disk cache
does not notice edits in another.
"""

import numba
import numpy as np

from genomes.cppn import activations as A
from genomes.cppn.arrays import N_IN
from genomes.cppn.color import MODES
from genomes.cppn.program import Programs

BLOCK = 784
"""Pixels per block: 3 kB of float32 per node."""

_U, _f = np.uint64, np.float32
_LIMIT, _NLIMIT, _HALF, _ONE, _TWO, _THREE, _FIVE, _ZERO = (
    A.LIMIT, -A.LIMIT, A.HALF, A.ONE, A.TWO, A.THREE, A.FIVE, A.ZERO,
)  # fmt: skip
_MAGIC, _INV_PI, _PI_A, _PI_B, _PI_C = A.MAGIC, A.INV_PI, A.PI_A, A.PI_B, A.PI_C
_S3, _S5, _S7, _S9 = A.S3, A.S5, A.S7, A.S9
_LOG2_E, _LN2_A, _LN2_B, _XMAX, _XMIN = A.LOG2_E, A.LN2_A, A.LN2_B, A.EXP_LIMIT, -A.EXP_LIMIT
_E0, _E1, _E2, _E3, _E4, _E5 = A.E0, A.E1, A.E2, A.E3, A.E4, A.E5
_255, _6, _4, _THIRTIETH = _f(255), _f(6), _f(4), _f(1 / 30)
_LIN, _SIN, _COS, _GAUSS, _SIG, _TANH, _ABS, _RELU, _STEP, _BIPOLAR, _CLIP3, _TANH5, _SQUARE = range(len(A.NAMES))
_GREY, _RGB, _HSV, _GREY2015, _HLS2015 = range(len(MODES))
_INPUTS = N_IN


def render(programs: Programs, coordinates: np.ndarray, mode: str, block: int = BLOCK) -> np.ndarray:
    """coordinates float32 (4, pixels); returns uint8 (P, outputs, pixels). Releases the GIL.

    block is the number of pixels per block; it changes the speed, but not the result.
    """
    p = programs
    out = np.empty((len(p.node_ptr) - 1, p.n_outputs, coordinates.shape[1]), np.uint8)
    kernel(
        p.node_ptr, p.act, p.edge_ptr, p.src, p.weight, p.n_outputs, coordinates, MODES.index(mode),
        min(block, coordinates.shape[1]), out,
    )  # fmt: skip
    return out


_inline = numba.njit(inline="always", error_model="numpy")
_kernel = numba.njit(error_model="numpy")


@_inline
def _clamp(z: np.float32) -> np.float32:
    return min(max(z, _NLIMIT), _LIMIT)


@_inline
def _sine_of(r: np.float32, n: np.float32) -> np.float32:
    odd = n - _TWO * ((n * _HALF + _MAGIC) - _MAGIC)
    sign = _ONE - _TWO * (odd * odd)
    r2 = r * r
    return ((((_S9 * r2 + _S7) * r2 + _S5) * r2 + _S3) * r2 * r + r) * sign


@_inline
def _sin(z: np.float32) -> np.float32:
    n = (z * _INV_PI + _MAGIC) - _MAGIC
    return _sine_of(((z - n * _PI_A) - n * _PI_B) - n * _PI_C, n)


@_inline
def _cos(z: np.float32) -> np.float32:
    n = (z * _INV_PI + _HALF + _MAGIC) - _MAGIC
    h = n - _HALF
    return _sine_of(((z - h * _PI_A) - h * _PI_B) - h * _PI_C, n)


@_inline
def _exp(z: np.float32) -> np.float32:
    z = min(max(z, _XMIN), _XMAX)
    t = z * _LOG2_E + _MAGIC
    n = t - _MAGIC
    r = (z - n * _LN2_A) - n * _LN2_B
    q = (((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5) * (r * r) + r + _ONE
    return np.int32(_f(q).view(np.int32) + np.int32(_f(t).view(np.int32) << np.int32(23))).view(_f)


@_kernel
def _activate(kind: int, v: np.ndarray, z: np.uint64, n: np.uint64) -> None:
    """Apply the activation to v[z : z + n] in place; each kind has its own loop, so that it vectorises."""
    if kind == _LIN:
        for i in range(n):
            v[z + i] = _clamp(v[z + i])
    elif kind == _SIN:
        for i in range(n):
            v[z + i] = _sin(_clamp(v[z + i]))
    elif kind == _COS:
        for i in range(n):
            v[z + i] = _cos(_clamp(v[z + i]))
    elif kind == _GAUSS:
        for i in range(n):
            c = _clamp(v[z + i])
            v[z + i] = _exp(-(c * c))
    elif kind == _SIG:
        for i in range(n):
            v[z + i] = _ONE / (_ONE + _exp(-_clamp(v[z + i])))
    elif kind == _TANH:
        for i in range(n):
            v[z + i] = _ONE - _TWO / (_ONE + _exp(_TWO * _clamp(v[z + i])))
    elif kind == _ABS:
        for i in range(n):
            v[z + i] = abs(_clamp(v[z + i]))
    elif kind == _RELU:
        for i in range(n):
            v[z + i] = max(_clamp(v[z + i]), _ZERO)
    elif kind == _STEP:
        for i in range(n):
            v[z + i] = _ONE if v[z + i] > _ZERO else _ZERO
    elif kind == _BIPOLAR:
        for i in range(n):
            v[z + i] = _TWO / (_ONE + _exp(-_clamp(v[z + i]))) - _ONE
    elif kind == _CLIP3:
        for i in range(n):
            v[z + i] = min(max(v[z + i], -_THREE), _THREE) / _THREE
    elif kind == _TANH5:
        for i in range(n):
            v[z + i] = _ONE - _TWO / (_ONE + _exp(_TWO * (_FIVE * _clamp(v[z + i]))))
    elif kind == _SQUARE:
        for i in range(n):
            c = _clamp(v[z + i])
            v[z + i] = min(c * c, _LIMIT)


@_kernel
def _sum(
    v: np.ndarray, z: np.uint64, e: int, end: int, src: np.ndarray, weight: np.ndarray, stride: np.uint64, n: np.uint64
) -> None:
    """Set v[z : z + n] to the weighted sum of its sources, added from the first to the last."""
    if e == end:
        for i in range(n):
            v[z + i] = _ZERO
        return
    w0, a = weight[e], _U(src[e]) * stride
    if end - e == 1:
        for i in range(n):
            v[z + i] = w0 * v[a + i]
        return
    w1, b = weight[e + 1], _U(src[e + 1]) * stride
    if end - e == 2:
        for i in range(n):
            v[z + i] = w0 * v[a + i] + w1 * v[b + i]
        return
    w2, c = weight[e + 2], _U(src[e + 2]) * stride
    if end - e == 3:
        for i in range(n):
            v[z + i] = (w0 * v[a + i] + w1 * v[b + i]) + w2 * v[c + i]
        return
    w3, d = weight[e + 3], _U(src[e + 3]) * stride
    for i in range(n):
        v[z + i] = ((w0 * v[a + i] + w1 * v[b + i]) + w2 * v[c + i]) + w3 * v[d + i]
    e += 4
    while e + 1 < end:
        w0, a = weight[e], _U(src[e]) * stride
        w1, b = weight[e + 1], _U(src[e + 1]) * stride
        for i in range(n):
            v[z + i] = (v[z + i] + w0 * v[a + i]) + w1 * v[b + i]
        e += 2
    if e < end:
        w0, a = weight[e], _U(src[e]) * stride
        for i in range(n):
            v[z + i] = v[z + i] + w0 * v[a + i]


@_inline
def _clip(x: np.float32) -> np.float32:
    return min(max(x, _ZERO), _ONE)


@_inline
def _unit(x: np.float32) -> np.float32:
    return min(abs(x), _ONE)


@_inline
def _round(x: np.float32) -> np.uint8:
    return np.uint8(np.int32(x * _255 + _HALF))


@_inline
def _red(hue: np.float32) -> np.float32:
    return min(max(abs(hue - _THREE) - _ONE, _ZERO), _ONE)


@_inline
def _tent(hue: np.float32, centre: np.float32) -> np.float32:
    return min(max(_TWO - abs(hue - centre), _ZERO), _ONE)


@_kernel
def _color(
    mode: int, v: np.ndarray, z: np.uint64, stride: np.uint64, n: np.uint64, out: np.ndarray, g: int, p0: int
) -> None:
    """Write the pixels p0 : p0 + n of genome g; the blocks of its outputs start at v[z], v[z + stride], ..."""
    if mode in (_GREY, _RGB):
        for c in range(out.shape[1]):
            row = out[g, c, p0 : p0 + n]
            for i in range(n):
                row[i] = _round(_clip(v[z + _U(c) * stride + i]))
        return
    if mode == _GREY2015:
        row = out[g, 0, p0 : p0 + n]
        for i in range(n):
            row[i] = np.uint8(np.int32(_unit(v[z + i]) * _255))
        return
    s, t = z + stride, z + stride + stride
    if mode == _HSV:
        for i in range(n):
            hue = v[z + i]
            v[z + i] = (hue - np.floor(hue)) * _6
        for i in range(n):
            value = _unit(v[t + i])
            v[s + i] = value * _clip(v[s + i])
            v[t + i] = value
        for c in range(3):
            row = out[g, c, p0 : p0 + n]
            if c == 0:
                for i in range(n):
                    row[i] = _round(v[t + i] - v[s + i] * (_ONE - _red(v[z + i])))
            else:
                centre = _TWO if c == 1 else _4
                for i in range(n):
                    row[i] = _round(v[t + i] - v[s + i] * (_ONE - _tent(v[z + i], centre)))
        return
    for i in range(n):
        hue = np.floor(_unit(v[z + i]) * _255) * _THIRTIETH
        v[z + i] = hue - _6 if hue >= _6 else hue
    for i in range(n):
        light = np.floor(_unit(v[s + i]) * _255) / _255
        saturation = np.floor(_unit(v[t + i]) * _255) / _255
        high = light * (_ONE + saturation) if light <= _HALF else light + saturation - light * saturation
        low = _TWO * light - high
        v[s + i] = low
        v[t + i] = high - low
    for c in range(3):
        row = out[g, c, p0 : p0 + n]
        if c == 0:
            for i in range(n):
                row[i] = _round(v[s + i] + v[t + i] * _red(v[z + i]))
        else:
            centre = _TWO if c == 1 else _4
            for i in range(n):
                row[i] = _round(v[s + i] + v[t + i] * _tent(v[z + i], centre))


@_kernel
def _allot(
    node_ptr: np.ndarray, edge_ptr: np.ndarray, src: np.ndarray, n_out: int, dst_slot: np.ndarray, src_slot: np.ndarray
) -> int:
    """Assign a block of scratch memory to each node: inputs and outputs keep theirs, a hidden node's block is reused after
    its last reader. Fills the slots of nodes and of edges' sources; returns the number of blocks of the largest program."""
    longest = 0
    for g in range(node_ptr.size - 1):
        longest = max(longest, node_ptr[g + 1] - node_ptr[g])
    last = np.empty(longest, np.int32)
    free = np.empty(longest, np.int32)
    needed = _INPUTS + n_out
    for g in range(node_ptr.size - 1):
        n0 = node_ptr[g]
        n = node_ptr[g + 1] - n0
        for j in range(n):
            for e in range(edge_ptr[n0 + j], edge_ptr[n0 + j + 1]):
                if src[e] >= _INPUTS:
                    last[src[e] - _INPUTS] = j
        n_free, fresh = 0, _INPUTS + n_out
        for j in range(n):
            for e in range(edge_ptr[n0 + j], edge_ptr[n0 + j + 1]):
                s = src[e]
                src_slot[e] = s if s < _INPUTS else dst_slot[n0 + s - _INPUTS]
            if j >= n - n_out:
                dst_slot[n0 + j] = _INPUTS + j - (n - n_out)
            elif n_free > 0:
                n_free -= 1
                dst_slot[n0 + j] = free[n_free]
            else:
                dst_slot[n0 + j] = fresh
                fresh += 1
            # Freed only now, after j has its own block: a sum must never overwrite what it still reads.
            for e in range(edge_ptr[n0 + j], edge_ptr[n0 + j + 1]):
                s = src[e] - _INPUTS
                if s >= 0 and last[s] == j:
                    free[n_free] = dst_slot[n0 + s]
                    n_free += 1
        needed = max(needed, fresh)
    return needed


@numba.njit(cache=True, nogil=True, error_model="numpy")
def kernel(
    node_ptr: np.ndarray,
    act: np.ndarray,
    edge_ptr: np.ndarray,
    src: np.ndarray,
    weight: np.ndarray,
    n_out: int,
    coordinates: np.ndarray,
    mode: int,
    block: int,
    out: np.ndarray,
) -> None:
    dst_slot = np.empty(act.size, np.int32)
    src_slot = np.empty(src.size, np.int32)
    slots = _allot(node_ptr, edge_ptr, src, n_out, dst_slot, src_slot)
    # 16 floats of padding between blocks, so that the same position in neighbours is in another cache set
    stride = _U((block + 15) // 16 * 16 + 16)
    v = np.empty(slots * np.int64(stride) + 16, np.float32)
    pixels = coordinates.shape[1]
    for p0 in range(0, pixels, block):
        length = min(pixels - p0, block)
        n = _U(length)
        for k in range(_INPUTS):
            z = _U(k) * stride
            for i in range(n):
                v[z + i] = coordinates[k, p0 + i]
        for g in range(node_ptr.size - 1):
            for j in range(node_ptr[g], node_ptr[g + 1]):
                z = _U(dst_slot[j]) * stride
                _sum(v, z, edge_ptr[j], edge_ptr[j + 1], src_slot, weight, stride, n)
                _activate(act[j], v, z, n)
            _color(mode, v, _U(_INPUTS) * stride, stride, n, out, g, p0)
