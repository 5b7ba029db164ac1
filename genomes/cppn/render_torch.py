"""The torch renderer: all genomes of a batch at once, level by level; on the CPU equal to render_numpy to the bit.

A node's level is the length of its longest path from the inputs. Nodes of a level read lower levels only, so those of all
genomes are evaluated together, each value a row of pixels. What keeps it exact: every operation is a separate call, so that
no compiler contracts a product and a sum into one rounding; the k-th edges of all nodes are one step, so that sums are in
the program's order; and no division is by a Python number, which torch replaces by a product on CUDA. Operations that are
exact anyway (doubling, negation, adding 0) are merged across activations, since calls dominate the cost of small images on
a GPU. On a GPU, which it has not been tested on, at most 1e-4 of the pixels may differ by 1 grey level.
"""

from typing import NamedTuple

import numba
import numpy as np
import torch

from genomes.cppn import activations as A
from genomes.cppn.arrays import N_IN
from genomes.cppn.program import Programs

MEMORY, MEMORY_CPU = 1 << 30, 1 << 26
"""Bytes that a batch may use besides its images, on a GPU and on a CPU, where more would exceed the caches (measured)."""

# Neighbours share their calls: the sines, then the activations that need an exponential.
_ORDER = (
    "linear", "abs", "relu", "step", "clip3", "square", "sin", "cos", "gauss", "sigmoid", "bipolar", "tanh", "tanh5",
)  # fmt: skip
_RANK = np.array([_ORDER.index(name) for name in A.NAMES])
_SINES, _GAUSS, _LOGISTIC = _ORDER.index("sin"), _ORDER.index("gauss"), _ORDER.index("sigmoid")
# For sine and cosine the shift in units of pi; for the others scale, over and shift in over / (1 + exp(scale z)) + shift.
_NUMBERS = {
    "cos": (0.5, 0, 0),
    "sigmoid": (-1, 1, 0),
    "bipolar": (-1, 2, -1),
    "tanh": (2, -2, 1),
    "tanh5": (10, -2, 1),
}
_COLUMNS = np.array([_NUMBERS.get(name, (0, 0, 0)) for name in _ORDER], np.float32)

_LIMIT, _HALF, _MAGIC, _EXP_LIMIT = float(A.LIMIT), float(A.HALF), float(A.MAGIC), float(A.EXP_LIMIT)
_INV_PI, _PI_A, _PI_B, _PI_C = float(A.INV_PI), float(A.PI_A), float(A.PI_B), float(A.PI_C)
_S3, _S5, _S7, _S9 = float(A.S3), float(A.S5), float(A.S7), float(A.S9)
_LOG2_E, _LN2_A, _LN2_B = float(A.LOG2_E), float(A.LN2_A), float(A.LN2_B)
_E0, _E1, _E2, _E3, _E4, _E5 = (float(e) for e in (A.E0, A.E1, A.E2, A.E3, A.E4, A.E5))


def render(
    programs: Programs, coordinates: np.ndarray, mode: str, device: torch.device | str, memory: int | None = None
) -> torch.Tensor:
    """coordinates float32 (4, pixels); returns uint8 (P, outputs, pixels) on the device.

    memory: the bytes that nodes' values may use besides the images (None: MEMORY, MEMORY_CPU). Pixels are evaluated in
    blocks that fit, of at least one pixel. It does not change the result.
    """
    device = torch.device(device)
    memory = memory or (MEMORY_CPU if device.type == "cpu" else MEMORY)
    count, pixels = len(programs.node_ptr) - 1, coordinates.shape[1]
    out = torch.empty((count, programs.n_outputs, pixels), dtype=torch.uint8, device=device)
    if count == 0:
        return out
    plan = _plan(programs)
    block = min(pixels, max(1, memory // (4 * plan.rows_needed)))
    with torch.inference_mode():
        where = torch.tensor(coordinates, device=device)
        index, weight, columns = (torch.from_numpy(a).to(device) for a in (plan.gather, plan.weight, plan.columns))
        values = torch.empty(0, device=device)
        for p in range(0, pixels, block):
            part = where[:, p : p + block]
            if values.shape[-1] != part.shape[1]:
                values = torch.empty((len(columns), part.shape[1]), device=device)
            values[:N_IN] = part
            for level in plan.levels:
                _evaluate(values, level, index, weight, columns)
            ends = values.index_select(0, index[plan.outputs]).view(count, programs.n_outputs, -1)
            out[:, :, p : p + block] = to_uint8(mode, ends)
    return out


class _Level(NamedTuple):
    """Nodes that are evaluated together: the rows begin:end of the values, sorted by _ORDER."""

    begin: int
    end: int
    steps: list[slice]  # of gather and weight: the first edges of all nodes that have one, the second edges, ...
    sorted: slice  # of gather: sums, most edges first, to rows
    groups: list[int]  # the start of each activation of _ORDER in the level, and the level's length


class _RenderPlan(NamedTuple):
    levels: list[_Level]
    gather: np.ndarray  # int32: sources' rows of all steps, then the sums' positions by row, then the outputs' rows
    weight: np.ndarray  # float32 (edges, 1), beside the first part of gather
    columns: np.ndarray  # float32 (rows, 3): _COLUMNS of each row
    outputs: slice  # of gather
    rows_needed: int  # the most values of a pixel that are in memory at the same time


def _plan(p: Programs) -> _RenderPlan:
    nodes, edges = len(p.act), len(p.src)
    depth = _depths(p.node_ptr, p.edge_ptr, p.src)
    degree = np.diff(p.edge_ptr)
    kind = _RANK[p.act]
    by_kind, by_degree = np.lexsort((kind, depth)), np.lexsort((-degree, depth))
    row, rank = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    row[by_kind] = np.arange(N_IN, N_IN + nodes)
    rank[by_degree] = np.arange(nodes)

    reader = np.repeat(np.arange(nodes), degree)
    step = np.arange(edges) - p.edge_ptr[reader]
    order = np.lexsort((rank[reader], step, depth[reader]))
    first = np.repeat(p.node_ptr[:-1], np.diff(p.node_ptr))  # of each node's genome
    inside = p.src >= N_IN
    source = p.src.copy()
    source[inside] = row[first[reader[inside]] + p.src[inside] - N_IN]

    starts = np.searchsorted(depth[by_kind], np.arange(1, depth.max() + 2)).tolist()
    deep, wide = len(starts) - 1, int(degree.max(initial=0))
    steps = _counts(depth[reader] - 1, step, deep, wide)
    groups = np.pad(_counts(depth - 1, kind, deep, len(_ORDER)).cumsum(axis=1), ((0, 0), (1, 0))).tolist()
    levels, edge = [], 0
    for k in range(deep):
        slices = []
        for n in steps[k, steps[k] > 0].tolist():
            slices.append(slice(edge, edge + n))
            edge += n
        begin, end = starts[k], starts[k + 1]
        levels.append(_Level(N_IN + begin, N_IN + end, slices, slice(edges + begin, edges + end), groups[k]))

    in_level = rank[by_kind] - np.repeat(starts[:-1], np.diff(starts))
    ends = p.node_ptr[1:, None] + np.arange(-p.n_outputs, 0)
    index = np.concatenate([source[order], in_level, row[ends.ravel()]]).astype(np.int32)
    columns = np.concatenate([np.zeros((N_IN, 3), np.float32), _COLUMNS[kind[by_kind]]])
    largest = int(np.diff(starts).max())
    # Besides all nodes: a level's sums and added edges, or the temporaries of an activation or a colour.
    needed = N_IN + nodes + max(7 * largest, 9 * ends.size)
    return _RenderPlan(levels, index, p.weight[order, None], columns, slice(edges + nodes, None), needed)


def _counts(i: np.ndarray, k: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns): the number of occurrences of each pair (i, k)."""
    return np.bincount(i * columns + k, minlength=rows * columns).reshape(rows, columns)


@numba.njit(cache=True, nogil=True)
def _depths(node_ptr: np.ndarray, edge_ptr: np.ndarray, src: np.ndarray) -> np.ndarray:
    """int32 per node: 1 + the deepest of its sources, inputs being at 0."""
    depth = np.empty(node_ptr[-1], np.int32)
    for g in range(node_ptr.size - 1):
        first = node_ptr[g]
        for j in range(first, node_ptr[g + 1]):
            deepest = 0
            for e in range(edge_ptr[j], edge_ptr[j + 1]):
                if src[e] >= N_IN:
                    deepest = max(deepest, depth[first + src[e] - N_IN])
            depth[j] = deepest + 1
    return depth


def _evaluate(values: torch.Tensor, level: _Level, index: torch.Tensor, weight: torch.Tensor, columns: torch.Tensor) -> None:
    """Compute the level's rows of values from the rows before them."""
    v = values[level.begin : level.end]
    sums = torch.empty_like(v)
    summed = 0
    for k, step in enumerate(level.steps):
        term = values.index_select(0, index[step]).mul_(weight[step])
        if k == 0:
            summed = len(term)
            sums[:summed] = term
        else:
            sums[: len(term)] += term
    sums[summed:] = 0
    torch.index_select(sums, 0, index[level.sorted], out=v)
    del sums
    v.clamp_(-_LIMIT, _LIMIT)
    _activate(v, level.groups, columns[level.begin : level.end])


def _activate(v: torch.Tensor, groups: list[int], columns: torch.Tensor) -> None:
    """Apply activations to v (rows, pixels), clamped, in place; rows groups[i]:groups[i + 1] are of kind _ORDER[i]."""
    for i, name in enumerate(_ORDER[:_SINES]):
        z = v[groups[i] : groups[i + 1]]
        if len(z) == 0:
            continue
        match name:
            case "abs":
                z.abs_()
            case "relu":
                z.clamp_(min=0)
            case "step":
                z.copy_(z > 0)
            case "clip3":
                z.clamp_(-3, 3).div_(z.new_full((), 3.0))
            case "square":
                z.mul_(z).clamp_(max=_LIMIT)
    sines, gauss, logistic = groups[_SINES], groups[_GAUSS], groups[_LOGISTIC]
    if sines < gauss:
        z = v[sines:gauss]
        z.copy_(_sine(z, columns[sines:gauss, :1]))
    if gauss < len(v):
        z, bell, rest = v[gauss:], v[gauss:logistic], v[logistic:]
        bell.mul_(bell).neg_()
        scale, over, shift = columns[logistic:].split(1, dim=1)
        rest.mul_(scale)
        z.copy_(_exp(z))
        rest.copy_((over / rest.add_(1)).add_(shift))


def _sine(z: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    """The sine where half is 0, the cosine where it is 1/2."""
    t = z * _INV_PI + half + _MAGIC
    h = (t - _MAGIC) - half
    r = ((z - h * _PI_A) - h * _PI_B) - h * _PI_C
    r2 = r * r
    y = (((_S9 * r2 + _S7) * r2 + _S5) * r2 + _S3) * r2 * r + r
    # The last bit of t is that of the number of half turns; odd numbers change the sign.
    return (y.view(torch.int32) ^ (t.view(torch.int32) << 31)).view(torch.float32)


def _exp(z: torch.Tensor) -> torch.Tensor:
    z = z.clamp(-_EXP_LIMIT, _EXP_LIMIT)
    t = z * _LOG2_E + _MAGIC
    n = t - _MAGIC
    r = (z - n * _LN2_A) - n * _LN2_B
    q = (((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5) * (r * r) + r + 1.0
    return (q.view(torch.int32) + (t.view(torch.int32) << 23)).view(torch.float32)


def to_uint8(mode: str, v: torch.Tensor) -> torch.Tensor:
    """v float32 (P, C, pixels) raw outputs, finite; returns uint8 of the same shape, as color.to_uint8 defines it."""
    if mode in ("grey", "rgb"):
        return _round(v.clamp(0, 1))
    if mode == "grey2015":
        return (_unit(v) * 255.0).to(torch.uint8)
    if mode == "hsv":
        hue = (v[:, 0] - v[:, 0].floor()) * 6.0
        value = _unit(v[:, 2])
        chroma = value * v[:, 1].clamp(0, 1)
        return torch.stack([_round(value - chroma * (1.0 - tent)) for tent in _tents(hue)], 1)
    step = (_unit(v) * 255.0).floor()
    hue = step[:, 0] * float(np.float32(1 / 30))
    hue = torch.where(hue >= 6.0, hue - 6.0, hue)
    light, saturation = (step[:, 1:] / step.new_full((), 255.0)).unbind(1)
    high = torch.where(light <= 0.5, light * (1.0 + saturation), light + saturation - light * saturation)
    low = 2.0 * light - high
    return torch.stack([_round(low + (high - low) * tent) for tent in _tents(hue)], 1)


def _unit(v: torch.Tensor) -> torch.Tensor:
    return v.abs().clamp(max=1)


def _round(x: torch.Tensor) -> torch.Tensor:
    return (x * 255.0 + 0.5).to(torch.uint8)


def _tents(hue: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The shares of red, green and blue of a hue in [0, 6), each in [0, 1]."""
    red = ((hue - 3.0).abs() - 1.0).clamp(0, 1)
    green = (2.0 - (hue - 2.0).abs()).clamp(0, 1)
    blue = (2.0 - (hue - 4.0).abs()).clamp(0, 1)
    return red, green, blue
