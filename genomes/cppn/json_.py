"""The canonical JSON of a CPPN, for export, hashing and reading back.

{"format": "evofool.cppn", "version": 1, "activations": "evofool-1", "inputs": ["x", "y", "d", "bias"],
 "coordinates": "centred" | "raw", "size": [height, width], "color": one of color.MODES,
 "outputs": ids, "nodes": [[id, activation name], ...], "edges": [[source id, target id, weight], ...]}

Nodes ascend by id, edges by (target, source); weights are the shortest decimals that identify their float32.
"activations" names the definitions (activations.py) that a renderer has to use to get the same bits.
"""

import hashlib
import json
from typing import Any

import numpy as np

from genomes.cppn.activations import NAMES
from genomes.cppn.arrays import INPUTS, N_IN, nodes_and_edges
from genomes.cppn.color import MODES, outputs
from genomes.encoding import GenomeError

FORMAT = "evofool.cppn"
VERSION = 1
DEFINITIONS = "evofool-1"
_KEYS = ("format", "version", "activations", "inputs", "coordinates", "size", "color", "outputs", "nodes", "edges")


def to_json(record: Any, mode: str, raw: bool, size: tuple[int, int]) -> dict[str, Any]:
    nodes, edges = nodes_and_edges(record)
    return {
        "format": FORMAT,
        "version": VERSION,
        "activations": DEFINITIONS,
        "inputs": list(INPUTS),
        "coordinates": "raw" if raw else "centred",
        "size": list(size),
        "color": mode,
        "outputs": list(range(N_IN, N_IN + outputs(mode))),
        "nodes": [[node, NAMES[act]] for node, act in nodes],
        "edges": [[s, d, float(str(np.float32(w)))] for s, d, w in edges],
    }


def canonical(data: dict[str, Any]) -> str:
    """The canonical text of a genome: no spaces, keys in the order above."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def identity(data: dict[str, Any]) -> str:
    """SHA-256 of the canonical text, in hexadecimal: equal exactly for equal genomes."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()


def header(data: Any) -> tuple[str, bool, tuple[int, int]]:
    """(mode, raw coordinates, (height, width)) of a genome's JSON; GenomeError names what is wrong with it."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise GenomeError(f'not an evofool CPPN: "format" has to be "{FORMAT}"')
    if data.get("version") != VERSION:
        raise GenomeError(f"a CPPN of version {data.get('version')!r}; this evofool reads version {VERSION}")
    missing = [k for k in _KEYS if k not in data]
    unknown = [k for k in data if k not in _KEYS]
    if missing or unknown:
        raise GenomeError(f"a CPPN with missing keys {missing} and unknown keys {unknown}")
    for key, value in (("activations", DEFINITIONS), ("inputs", list(INPUTS))):
        if data[key] != value:
            raise GenomeError(f'"{key}" is {data[key]!r}; this evofool renders {value!r}')
    if data["color"] not in MODES or data["coordinates"] not in ("centred", "raw"):
        raise GenomeError(f'"color" {data["color"]!r} or "coordinates" {data["coordinates"]!r} is unknown')
    if data["outputs"] != list(range(N_IN, N_IN + outputs(data["color"]))):
        raise GenomeError(
            f'"outputs" is {data["outputs"]!r}; {data["color"]} has {outputs(data["color"])}, from id {N_IN} on'
        )
    size = data["size"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(s) is int and 0 < s <= 1 << 15 for s in size)):
        raise GenomeError(f'"size" is {size!r}; it has to be [height, width] in pixels')
    return data["color"], data["coordinates"] == "raw", (size[0], size[1])


def graph(data: dict[str, Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int, float]]]:
    """Nodes (id, activation number) and edges (source, target, weight), as arrays.build takes them."""
    nodes, edges = [], []
    for row in _rows(data, "nodes", 2):
        if type(row[0]) is not int or row[1] not in NAMES:
            raise GenomeError(f"node {row!r} has to be [id, activation], the latter one of {', '.join(NAMES)}")
        nodes.append((row[0], NAMES.index(row[1])))
    for row in _rows(data, "edges", 3):
        if type(row[0]) is not int or type(row[1]) is not int or type(row[2]) not in (int, float):
            raise GenomeError(f"edge {row!r} has to be [source id, target id, weight]")
        edges.append((row[0], row[1], row[2]))
    return nodes, edges


def _rows(data: dict[str, Any], key: str, width: int) -> list[list[Any]]:
    rows = data[key]
    if not isinstance(rows, list) or any(not isinstance(r, list) or len(r) != width for r in rows):
        raise GenomeError(f'"{key}" has to be a list of lists of {width}')
    return rows
