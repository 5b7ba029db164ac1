"""The differentiable renderer: gradients of an image with respect to the weights of its CPPN.

In float32 it evaluates the operations of render_numba in the same order, so that its image, rounded, is equal to the bit.
In float64 sine and exponential are those of libm, so that it can be compared with finite differences. One numba kernel
computes node values and their reverse pass in blocks of pixels. No values are kept for the backward pass, which computes
them again. Colours are torch operations.

Derivatives hold almost everywhere: that of a `step` node is 0, and so is that of a value at a limit or a colour beyond black
and white. The 2015 modes truncate their outputs to whole numbers, which would leave no gradient; there the gradient is
passed straight through.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch.autograd.function import once_differentiable

from genomes.cppn import activations as A
from genomes.cppn import color
from genomes.cppn.arrays import N_IN
from genomes.cppn.program import Programs, compile_programs

# numba's cache does not notice when these are edited; touch this file then.
from genomes.cppn.render_numba import _activate, _clamp, _cos, _sin, _sum
from genomes.encoding import Genomes

BLOCK = 512
"""Pixels per block: 2 kB of float32 for each of a node's value, sum and derivative."""


def render(genomes: Genomes, weights: torch.Tensor, coordinates: np.ndarray, mode: str) -> torch.Tensor:
    """The images of P genomes with these weights instead of their own; once differentiable in the weights.

    weights is float32 or float64 (P, max_edges), finite, in the order of the records' edges; columns beyond a genome's
    edges are not used. coordinates is float32 (4, pixels). Returns (P, outputs, pixels) on [0, 1] in the weights' dtype
    and on their device; the kernel runs on the CPU. In float32, 255 x rounded half up is render_numba's image. An image and
    its gradient do not depend on the batch, to the bit.
    """
    if weights.dtype not in (torch.float32, torch.float64) or weights.shape != genomes["weight"].shape:
        raise ValueError(
            f"weights have to be float32 or float64 {genomes['weight'].shape}, not {weights.dtype} {tuple(weights.shape)}"
        )
    programs, owner, edge = _edges(genomes, color.outputs(mode))
    flat = weights[torch.from_numpy(owner).to(weights.device), torch.from_numpy(edge).to(weights.device)]
    return to_unit(mode, _Outputs.apply(flat, programs, coordinates))


def _edges(genomes: Genomes, n_outputs: int) -> tuple[Programs, np.ndarray, np.ndarray]:
    """The programs, and for each of their edges (int64): its genome, and its position in the genome's record."""
    numbered = genomes.copy()
    numbered["weight"] = np.arange(genomes["weight"].shape[1])  # at most 32767: exact in float32
    programs = compile_programs(numbered, n_outputs)
    lengths = np.diff(programs.edge_ptr[programs.node_ptr])
    return programs, np.repeat(np.arange(len(genomes)), lengths), programs.weight.astype(np.int64)


class _Outputs(torch.autograd.Function):
    """float (edges,) weights of programs to the values of the output nodes, float (P, outputs, pixels)."""

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, programs: Programs, coordinates: np.ndarray) -> torch.Tensor:
        w = weights.detach().cpu().numpy()
        where = coordinates.astype(w.dtype)
        values = np.empty((len(programs.node_ptr) - 1, programs.n_outputs, where.shape[1]), w.dtype)
        _run(programs, w, where, False, values, np.empty(0))
        ctx.inputs = programs, w, where
        return torch.from_numpy(values).to(weights.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        programs, w, where = ctx.inputs
        gradient = np.zeros(len(w))
        _run(programs, w, where, True, slope.contiguous().cpu().numpy(), gradient)
        return torch.from_numpy(gradient).to(slope), None, None


def _run(p: Programs, w: np.ndarray, where: np.ndarray, backward: bool, values: np.ndarray, gradient: np.ndarray) -> None:
    block, exact = min(BLOCK, where.shape[1]), w.dtype == np.float64
    _sweep(p.node_ptr, p.act, p.edge_ptr, p.src, w, p.n_outputs, where, block, exact, backward, values, gradient)


def to_unit(mode: str, v: torch.Tensor) -> torch.Tensor:
    """v float (P, C, ...) raw outputs to the colours that color.to_uint8 would round, on [0, 1], same shape."""
    if mode in ("grey", "rgb"):
        return v.clamp(0, 1)
    if mode == "grey2015":
        return _whole(_unit(v) * 255.0) / 255.0
    if mode == "hsv":
        hue = (v[:, 0] - v[:, 0].detach().floor()) * 6.0
        value = _unit(v[:, 2])
        chroma = value * v[:, 1].clamp(0, 1)
        return torch.stack([value - chroma * (1.0 - tent) for tent in _tents(hue)], 1)
    step = _whole(_unit(v) * 255.0)
    hue = step[:, 0] * float(np.float32(1 / 30))
    hue = torch.where(hue >= 6.0, hue - 6.0, hue)
    light, saturation = (step[:, 1:] / 255.0).unbind(1)
    high = torch.where(light <= 0.5, light * (1.0 + saturation), light + saturation - light * saturation)
    low = 2.0 * light - high
    return torch.stack([low + (high - low) * tent for tent in _tents(hue)], 1)


def _whole(x: torch.Tensor) -> torch.Tensor:
    """floor(x), with the derivative of x."""
    return x + (x.floor() - x).detach()  # exact: the fraction has the same format


def _unit(v: torch.Tensor) -> torch.Tensor:
    return v.abs().clamp(max=1)


def _tents(hue: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    red = ((hue - 3.0).abs() - 1.0).clamp(0, 1)
    green = (2.0 - (hue - 2.0).abs()).clamp(0, 1)
    blue = (2.0 - (hue - 4.0).abs()).clamp(0, 1)
    return red, green, blue


# Kernels. Sums of the forward pass are in the program's order; those of the gradient may be reordered to vectorise.

_U = np.uint64
_ZERO, _HALF, _ONE, _TWO, _THREE, _FIVE, _LIMIT = A.ZERO, A.HALF, A.ONE, A.TWO, A.THREE, A.FIVE, A.LIMIT
_LIN, _SIN, _COS, _GAUSS, _SIG, _TANH, _ABS, _RELU, _STEP, _BIPOLAR, _CLIP3, _TANH5, _SQUARE = range(len(A.NAMES))
_INPUTS = N_IN

_kernel = numba.njit(error_model="numpy")
_free = numba.njit(error_model="numpy", fastmath={"reassoc", "contract"})


@_kernel
def _exact(kind: int, z: Any) -> Any:
    """activations.apply of one number, float32 or float64, by libm."""
    z = _clamp(z)
    if kind == _SIN:
        return math.sin(z)
    if kind == _COS:
        return math.cos(z)
    if kind == _GAUSS:
        return math.exp(-z * z)
    if kind == _SIG:
        return _HALF + _HALF * math.tanh(_HALF * z)
    if kind == _BIPOLAR:
        return math.tanh(_HALF * z)
    if kind == _TANH:
        return math.tanh(z)
    if kind == _TANH5:
        return math.tanh(_FIVE * z)
    if kind == _ABS:
        return abs(z)
    if kind == _RELU:
        return max(z, _ZERO)
    if kind == _STEP:
        return _ONE if z > _ZERO else _ZERO
    if kind == _CLIP3:
        return min(max(z, -_THREE), _THREE) / _THREE
    if kind == _SQUARE:
        return min(z * z, _LIMIT)
    return z


@_free
def _derive(kind: int, exact: bool, g: np.ndarray, sums: np.ndarray, v: np.ndarray, z: np.uint64, n: np.uint64) -> None:
    """Multiply g[z : z + n] by the activation's derivative at sums, where its value is v; each kind has its own loop."""
    if kind == _SIN:
        if exact:
            for i in range(n):
                g[z + i] = g[z + i] * math.cos(sums[z + i]) if abs(sums[z + i]) <= _LIMIT else _ZERO
        else:
            for i in range(n):
                slope = _cos(_clamp(sums[z + i]))
                g[z + i] = g[z + i] * slope if abs(sums[z + i]) <= _LIMIT else _ZERO
    elif kind == _COS:
        if exact:
            for i in range(n):
                g[z + i] = -g[z + i] * math.sin(sums[z + i]) if abs(sums[z + i]) <= _LIMIT else _ZERO
        else:
            for i in range(n):
                slope = -_sin(_clamp(sums[z + i]))
                g[z + i] = g[z + i] * slope if abs(sums[z + i]) <= _LIMIT else _ZERO
    elif kind == _GAUSS:
        for i in range(n):
            g[z + i] = g[z + i] * (-_TWO * _clamp(sums[z + i]) * v[z + i])
    elif kind == _SIG:
        for i in range(n):
            g[z + i] = g[z + i] * (v[z + i] * (_ONE - v[z + i]))
    elif kind == _BIPOLAR:
        for i in range(n):
            g[z + i] = g[z + i] * (_HALF * (_ONE - v[z + i] * v[z + i]))
    elif kind == _TANH:
        for i in range(n):
            g[z + i] = g[z + i] * (_ONE - v[z + i] * v[z + i])
    elif kind == _TANH5:
        for i in range(n):
            g[z + i] = g[z + i] * (_FIVE * (_ONE - v[z + i] * v[z + i]))
    elif kind == _ABS:
        for i in range(n):
            right, left = _ZERO < sums[z + i] <= _LIMIT, -_LIMIT <= sums[z + i] < _ZERO
            g[z + i] = g[z + i] if right else (-g[z + i] if left else _ZERO)
    elif kind == _RELU:
        for i in range(n):
            g[z + i] = g[z + i] if _ZERO < sums[z + i] <= _LIMIT else _ZERO
    elif kind == _CLIP3:
        for i in range(n):
            g[z + i] = g[z + i] / _THREE if abs(sums[z + i]) <= _THREE else _ZERO
    elif kind == _SQUARE:
        for i in range(n):
            g[z + i] = g[z + i] * (_TWO * sums[z + i]) if v[z + i] < _LIMIT else _ZERO
    elif kind == _LIN:
        for i in range(n):
            g[z + i] = g[z + i] if abs(sums[z + i]) <= _LIMIT else _ZERO


@_free
def _dot(g: np.ndarray, z: np.uint64, v: np.ndarray, s: np.uint64, n: np.uint64) -> Any:
    total = _ZERO
    for i in range(n):
        total += g[z + i] * v[s + i]
    return total


@_free
def _add(g: np.ndarray, s: np.uint64, w: float, z: np.uint64, n: np.uint64) -> None:
    for i in range(n):
        g[s + i] += w * g[z + i]


@_kernel
def _forward(
    node_ptr: np.ndarray,
    act: np.ndarray,
    edge_ptr: np.ndarray,
    src: np.ndarray,
    weight: np.ndarray,
    p: int,
    exact: bool,
    v: np.ndarray,
    sums: np.ndarray,
    stride: np.uint64,
    n: np.uint64,
) -> None:
    """Fill the blocks of program p: v with its nodes' values, sums with the sums that they are the activation of."""
    for j in range(node_ptr[p], node_ptr[p + 1]):
        z = _U(_INPUTS + j - node_ptr[p]) * stride
        _sum(v, z, edge_ptr[j], edge_ptr[j + 1], src, weight, stride, n)
        for i in range(n):
            sums[z + i] = v[z + i]
        if exact:
            for i in range(n):
                v[z + i] = _exact(act[j], v[z + i])
        else:
            _activate(act[j], v, z, n)


@_kernel
def _rows(node_ptr: np.ndarray, block: int) -> tuple[np.uint64, int]:
    """The distance of two nodes' blocks in floats, and the number of blocks of the largest program."""
    longest = 0
    for p in range(node_ptr.size - 1):
        longest = max(longest, node_ptr[p + 1] - node_ptr[p])
    return _U((block + 15) // 16 * 16 + 16), _INPUTS + longest


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sweep(
    node_ptr: np.ndarray,
    act: np.ndarray,
    edge_ptr: np.ndarray,
    src: np.ndarray,
    weight: np.ndarray,
    n_out: int,
    coordinates: np.ndarray,
    block: int,
    exact: bool,
    backward: bool,
    values: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """Forward: fill values (P, outputs, pixels) with those of the output nodes. Backward: values is the derivative with
    respect to them; add the derivative with respect to the weights to gradient, float64 (edges,)."""
    stride, rows = _rows(node_ptr, block)
    v = np.empty(rows * np.int64(stride), weight.dtype)
    sums, g = np.empty_like(v), np.empty_like(v)
    pixels = coordinates.shape[1]
    for p0 in range(0, pixels, block):
        n = _U(min(pixels - p0, block))
        for k in range(_INPUTS):
            z = _U(k) * stride
            for i in range(n):
                v[z + i] = coordinates[k, p0 + i]
        for p in range(node_ptr.size - 1):
            first, last = node_ptr[p], node_ptr[p + 1]
            _forward(node_ptr, act, edge_ptr, src, weight, p, exact, v, sums, stride, n)
            ends = _U(_INPUTS + last - first - n_out) * stride
            if not backward:
                for c in range(n_out):
                    z = ends + _U(c) * stride
                    row = values[p, c, p0 : p0 + n]
                    for i in range(n):
                        row[i] = v[z + i]
                continue
            g[_U(_INPUTS) * stride : ends] = _ZERO
            for c in range(n_out):
                z = ends + _U(c) * stride
                row = values[p, c, p0 : p0 + n]
                for i in range(n):
                    g[z + i] = row[i]
            for j in range(last - 1, first - 1, -1):
                if act[j] == _STEP:
                    continue
                z = _U(_INPUTS + j - first) * stride
                _derive(act[j], exact, g, sums, v, z, n)
                for e in range(edge_ptr[j], edge_ptr[j + 1]):
                    s = _U(src[e]) * stride
                    gradient[e] += _dot(g, z, v, s, n)
                    if src[e] >= _INPUTS:
                        _add(g, s, weight[e], z, n)
