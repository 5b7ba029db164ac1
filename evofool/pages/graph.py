"""A drawing of a CPPN as SVG: its nodes in layers, from the inputs on the left to the outputs on the right."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from evofool.pages.palette import FAINT, INK, PAPER
from evofool.text import escaped
from genomes.cppn import activations, arrays, json_
from genomes.cppn.arrays import INPUTS, N_IN

_CHANNELS = {
    "grey": ("grey",),
    "grey2015": ("grey",),
    "rgb": ("red", "green", "blue"),
    "hsv": ("hue", "saturation", "value"),
    "hls2015": ("hue", "lightness", "saturation"),
}
_BLUE, _RED, _LINE = "#2f6db3", "#c9413a", "#9a9ea6"
_WIDTH, _HEIGHT, _RADIUS = 76, 54, 20  # of a node's box, and of an input's circle
_STEP, _GAP, _PASSING, _MARGIN = (
    150,
    16,
    10,
    40,
)  # between layers; between nodes; for an edge that passes a layer; around all
_SWEEPS = 12

Edge = tuple[int, int, float]
Slot = tuple[int, int]
"""(0, node id), or (edge number + 1, layer) where an edge passes a layer between its ends."""


def graph_svg(genome: Mapping[str, Any]) -> str:
    """The graph of a CPPN's canonical JSON (genomes.cppn.json_) as a standalone SVG.

    A node shows its activation's name and the activation's curve over [-3, 3]. The outputs are the last column, in order.
    The width of an edge is proportional to the magnitude of its weight; blue is positive, red negative. Nodes and edges
    that reach no output are drawn faint. GenomeError for an invalid CPPN.
    """
    mode, nodes, edges = _read(genome)
    outputs = list(genome["outputs"])
    layer = _layers([*range(N_IN), *nodes], outputs, edges)
    paths = [_path(k, s, t, layer) for k, (s, t, _) in enumerate(edges)]
    columns = _order(_columns(layer, paths), paths)
    y = _heights(columns, paths)
    x = {slot: _MARGIN + _WIDTH / 2 + i * _STEP for i, column in enumerate(columns) for slot in column}
    alive = _reach(outputs, edges)

    heaviest = max((abs(w) for _, _, w in edges), default=0.0) or 1.0
    parts = []
    # Faint edges first, so that they lie below the others.
    for path, (s, t, w) in sorted(zip(paths, edges, strict=True), key=lambda pair: pair[1][1] in alive):
        name = f"{_name(s)} to {_name(t)}: {w:.4g}"
        parts.append(_edge([(x[p], y[p]) for p in path], w, abs(w) / heaviest, t in alive, name))
    for i in layer:
        at = x[0, i], y[0, i]
        parts.append(_input(i, at, i in alive) if i < N_IN else _node(i, nodes[i], at, i in alive, i in outputs))
    for i, channel in zip(outputs, _CHANNELS[mode], strict=True):
        parts.append(_text(x[0, i] + _WIDTH / 2 + 8, y[0, i] + 4, channel, 12, INK, "start"))

    width = max(470.0, 2 * _MARGIN + _WIDTH + (len(columns) - 1) * _STEP + 70)
    top = min(y.values()) - _HEIGHT / 2 - _MARGIN
    height = max(y.values()) + _HEIGHT / 2 + _MARGIN - top + 30
    hidden = len(nodes) - len(outputs)
    title = f"CPPN with {hidden} hidden nodes and {len(edges)} edges"
    parts.append(_legend(_MARGIN, top + height - 22))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {top:.1f} {width:.1f} {height:.1f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" font-family="system-ui, Helvetica, Arial, sans-serif">'
        f"<title>{escaped(title)}</title>"
        f'<rect x="0" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{PAPER}"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def _read(genome: Mapping[str, Any]) -> tuple[str, dict[int, str], list[Edge]]:
    """(colour mode, {node id: activation}, edges), after genomes has validated the graph."""
    data = dict(genome)
    mode, _, _ = json_.header(data)
    nodes, edges = json_.graph(data)
    dtype = arrays.record_dtype(len(nodes), len(edges))
    record = arrays.build(dtype, len(data["outputs"]), nodes, edges, float("inf"))[0]
    nodes, edges = arrays.nodes_and_edges(record)
    return mode, {i: activations.NAMES[act] for i, act in nodes}, edges


def _layers(ids: list[int], outputs: list[int], edges: list[Edge]) -> dict[int, int]:
    """The layer of each node: inputs 0, hidden nodes one more than their furthest source, outputs the last."""
    sources: dict[int, list[int]] = {i: [] for i in ids}
    for s, t, _ in edges:
        sources[t].append(s)
    layer = dict.fromkeys(range(N_IN), 0)
    left = [i for i in ids if i >= N_IN and i not in outputs]
    while left:  # terminates, because the graph has no cycle
        for i in [i for i in left if all(s in layer for s in sources[i])]:
            layer[i] = 1 + max((layer[s] for s in sources[i]), default=0)
        left = [i for i in left if i not in layer]
    last = 1 + max(layer.values())
    return layer | dict.fromkeys(outputs, last)


def _path(k: int, s: int, t: int, layer: Mapping[int, int]) -> list[Slot]:
    return [(0, s), *((k + 1, i) for i in range(layer[s] + 1, layer[t])), (0, t)]


def _columns(layer: Mapping[int, int], paths: list[list[Slot]]) -> list[list[Slot]]:
    columns: list[list[Slot]] = [[] for _ in range(1 + max(layer.values()))]
    for i, at in layer.items():
        columns[at].append((0, i))
    for path in paths:
        for slot in path[1:-1]:
            columns[slot[1]].append(slot)
    return columns


def _order(columns: list[list[Slot]], paths: list[list[Slot]]) -> list[list[Slot]]:
    """Each column sorted by the mean position of its neighbours, in sweeps in both directions, so that few edges cross.

    Inputs (x, y, d, bias) and outputs (the channels) keep their order.
    """
    before, after = _neighbours(paths)
    rank = {p: k / max(1, len(column) - 1) for column in columns for k, p in enumerate(column)}
    for sweep in range(_SWEEPS):
        near = before if sweep % 2 == 0 else after
        for column in columns[1:-1] if sweep % 2 == 0 else columns[-2:0:-1]:
            column.sort(key=lambda p: (_mean([rank[q] for q in near[p]], rank[p]), p))
            for k, slot in enumerate(column):
                rank[slot] = k / max(1, len(column) - 1)
    return columns


def _heights(columns: list[list[Slot]], paths: list[list[Slot]]) -> dict[Slot, float]:
    """The y of every slot: near those of its neighbours, in the column's order, without overlap."""
    before, after = _neighbours(paths)
    y: dict[Slot, float] = {}
    for column in columns:
        down = _offsets(column)
        y |= {p: d - down[-1] / 2 for p, d in zip(column, down, strict=True)}
    for sweep in range(_SWEEPS):
        for column in columns if sweep % 2 else columns[::-1]:
            down = _offsets(column)
            wanted = [_mean([y[q] for q in before[p] + after[p]], y[p]) - d for p, d in zip(column, down, strict=True)]
            y |= {p: v + d for p, v, d in zip(column, _ascending(wanted), down, strict=True)}
    return y


def _offsets(column: list[Slot]) -> list[float]:
    """The smallest distance of each slot below the first one of the column."""
    half = [(_HEIGHT + _GAP) / 2 if p[0] == 0 else _PASSING / 2 for p in column]
    down = [0.0]
    for a, b in pairwise(half):
        down.append(down[-1] + a + b)
    return down


def _ascending(values: list[float]) -> list[float]:
    """The ascending sequence nearest to values in least squares (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        total, n = value, 1
        while pools and pools[-1][0] / pools[-1][1] > total / n:
            total, n = total + pools[-1][0], n + pools[-1][1]
            pools.pop()
        pools.append((total, n))
    return [total / n for total, n in pools for _ in range(n)]


def _neighbours(paths: list[list[Slot]]) -> tuple[dict[Slot, list[Slot]], dict[Slot, list[Slot]]]:
    before, after = defaultdict[Slot, list[Slot]](list), defaultdict[Slot, list[Slot]](list)
    for path in paths:
        for a, b in pairwise(path):
            after[a].append(b)
            before[b].append(a)
    return before, after


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _reach(outputs: list[int], edges: list[Edge]) -> set[int]:
    """The nodes from which an output can be reached, outputs included."""
    alive = set(outputs)
    while more := {s for s, t, _ in edges if t in alive} - alive:
        alive |= more
    return alive


def _edge(points: list[tuple[float, float]], weight: float, share: float, alive: bool, name: str) -> str:
    """A curve from the first point's right side to the last one's left, with a straight part in each column it passes."""
    half = _WIDTH / 2
    y = [b for _, b in points]
    # The slope there is that of the flatter side, 0 at a turn, and at most 9 pixels, so that it misses the boxes.
    rise = [_flatter(b - a, c - b) * half / _STEP for a, b, c in zip(y, y[1:], y[2:], strict=False)]
    rise = [0.0, *(min(9.0, max(-9.0, r)) for r in rise), 0.0]
    d = f"M{points[0][0] + half:.1f} {points[0][1]:.1f}"
    for k, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        a, b = rise[k], rise[k + 1]
        pull = (x1 - x0) / 2 - half
        d += f"C{x0 + half + pull:.1f} {y0 + a + a * pull / half:.1f}"
        d += f" {x1 - half - pull:.1f} {y1 - b - b * pull / half:.1f} {x1 - half:.1f} {y1 - b:.1f}"
        if k + 2 < len(points):
            d += f"L{x1 + half:.1f} {y1 + b:.1f}"
    shade = _BLUE if weight > 0 else _RED if weight < 0 else _LINE
    return (
        f'<path class="edge" d="{d}" fill="none" stroke="{shade}" stroke-width="{0.6 + 3.4 * share:.2f}" '
        f'stroke-linecap="round" opacity="{0.75 if alive else 0.15}"><title>{escaped(name)}</title></path>'
    )


def _flatter(a: float, b: float) -> float:
    return min(a, b, key=abs) if a * b > 0 else 0.0


def _input(i: int, at: tuple[float, float], alive: bool) -> str:
    x, y = at
    right = x + _WIDTH / 2 - _RADIUS  # where its edges begin
    circle = f'<circle cx="{right:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="white" stroke="{_LINE}" stroke-width="1.2"/>'
    return _group(i, alive, _name(i), circle + _text(right, y + 4, INPUTS[i], 12, INK))


def _node(i: int, activation: str, at: tuple[float, float], alive: bool, output: bool) -> str:
    left, top = at[0] - _WIDTH / 2, at[1] - _HEIGHT / 2
    frame = (INK, 2) if output else (_LINE, 1.2)
    z = np.linspace(-3, 3, 49, dtype=np.float32)
    v = activations.apply(activations.number(activation), z)
    low, high = min(float(v.min()), 0.0), max(float(v.max()), 0.0)
    across, down = left + 8 + (z + 3) * (_WIDTH - 16) / 6, top + 22 + (high - v) * (_HEIGHT - 29) / (high - low)
    zero = top + 22 + high * (_HEIGHT - 29) / (high - low)
    curve = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across.tolist(), down.tolist(), strict=True))
    return _group(
        i,
        alive,
        f"{activation}, {_name(i)}",
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="white" '
        f'stroke="{frame[0]}" stroke-width="{frame[1]}"/>'
        + _text(at[0], top + 15, activation, 11, INK)
        + f'<path d="M{left + 8:.1f} {zero:.1f}h{_WIDTH - 16}" stroke="{_LINE}" stroke-width="0.6" '
        f'stroke-dasharray="2 2"/>'
        f'<polyline points="{curve}" fill="none" stroke="{INK}" stroke-width="1.4" stroke-linejoin="round"/>',
    )


def _group(i: int, alive: bool, name: str, inside: str) -> str:
    faint = "" if alive else ' opacity="0.3"'
    return f'<g class="node" data-id="{i}"{faint}><title>{escaped(name)}</title>{inside}</g>'


def _name(i: int) -> str:
    return INPUTS[i] if i < N_IN else f"node {i}"


def _text(x: float, y: float, text: str, size: int, fill: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">{escaped(text)}</text>'


def _legend(x: float, y: float) -> str:
    texts = ((_BLUE, "positive weight"), (_RED, "negative weight"))
    lines = "".join(
        f'<path d="M{x + 130 * k:.1f} {y:.1f}h18" stroke="{shade}" stroke-width="3" stroke-linecap="round"/>'
        + _text(x + 130 * k + 25, y + 4, text, 11, FAINT, "start")
        for k, (shade, text) in enumerate(texts)
    )
    return lines + _text(x + 260, y + 4, "faint: reaches no output", 11, FAINT, "start")
