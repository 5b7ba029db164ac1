"""CPPN genomes as arrays: the record of a graph, and the checks that a record is a valid graph."""

from typing import Any

import numpy as np

from genomes.cppn.activations import NAMES
from genomes.encoding import GenomeError, Genomes

INPUTS = ("x", "y", "d", "bias")
N_IN = len(INPUTS)
MAX_ID = 1 << 30
"""Node ids are below it; a split that would need a higher one is skipped. This allows a billion splits."""


def record_dtype(max_nodes: int, max_edges: int) -> np.dtype:
    """One graph of up to max_nodes nodes (inputs not counted) and max_edges edges, padded with zeros.

    Endpoints: 0..3 are the inputs, N_IN + k is node k. The first nodes are the outputs, then the hidden ones by
    ascending node_id. Edges are in ascending order of (dst, src), without duplicates. A graph therefore has exactly one
    record, and equal graphs have equal bytes.
    """
    return np.dtype(
        [
            ("n_nodes", np.int32),
            ("n_edges", np.int32),
            ("node_id", np.int32, (max_nodes,)),
            ("weight", np.float32, (max_edges,)),
            ("src", np.int16, (max_edges,)),
            ("dst", np.int16, (max_edges,)),
            ("act", np.int8, (max_nodes,)),
        ],
        align=True,
    )


def build(
    dtype: np.dtype, n_outputs: int, nodes: list[tuple[int, int]], edges: list[tuple[int, int, float]], limit: float
) -> Genomes:
    """A batch of one genome from nodes (id, activation number) and edges (source id, target id, weight).

    Inputs have the ids 0..3, outputs the next n_outputs. Raises GenomeError naming the first fault: unknown or duplicate
    ids, an edge into an input or out of an output, a weight that is not finite or beyond +-limit, a cycle, or more nodes or
    edges than dtype holds.
    """
    max_nodes, max_edges = dtype["node_id"].shape[0], dtype["weight"].shape[0]
    if len(nodes) > max_nodes or len(edges) > max_edges:
        raise GenomeError(
            f"{len(nodes)} nodes and {len(edges)} edges; this encoding holds {max_nodes} and {max_edges} "
            "(max_nodes, max_edges)"
        )
    nodes = sorted(nodes)
    ids = [i for i, _ in nodes]
    if len(set(ids)) != len(ids):
        raise GenomeError(f"node id {next(i for i in ids if ids.count(i) > 1)} is used twice")
    if ids and not 0 <= ids[0] <= ids[-1] < MAX_ID:
        raise GenomeError(f"node ids have to lie in 0..{MAX_ID - 1}, not {ids[0] if ids[0] < 0 else ids[-1]}")
    outputs = list(range(N_IN, N_IN + n_outputs))
    if ids[:n_outputs] != outputs:
        raise GenomeError(f"the outputs {outputs} have to be among the nodes, and no other id below {N_IN + n_outputs}")
    slot = {i: i for i in range(N_IN)} | {node: N_IN + k for k, node in enumerate(ids)}
    seen = {}
    for source, target, weight in edges:
        for end in (source, target):
            if end not in slot:
                raise GenomeError(f"edge {source} -> {target}: there is no node {end}")
        if target < N_IN or source in outputs:
            raise GenomeError(f"edge {source} -> {target}: edges run from inputs or hidden nodes to nodes")
        if not _within(weight, limit):
            raise GenomeError(f"edge {source} -> {target}: weight {weight} is not within +-{limit:g}")
        if (slot[target], slot[source]) in seen:
            raise GenomeError(f"edge {source} -> {target} is listed twice")
        seen[slot[target], slot[source]] = weight
    for _, act in nodes:
        if not 0 <= act < len(NAMES):
            raise GenomeError(f"there is no activation number {act}")
    out = np.zeros(1, dtype)
    record = out[0]
    record["n_nodes"], record["n_edges"] = len(nodes), len(edges)
    record["node_id"][: len(ids)] = ids
    record["act"][: len(ids)] = [act for _, act in nodes]
    for k, ((target, source), weight) in enumerate(sorted(seen.items())):
        record["src"][k], record["dst"][k], record["weight"][k] = source, target, weight
    _refuse_cycles(record)
    return out


def _within(weight: float, limit: float) -> bool:
    """Whether the weight, as float32, is finite and within +-limit."""
    try:
        with np.errstate(over="ignore"):
            return bool(abs(np.float32(weight)) <= limit)
    except OverflowError:  # an integer beyond the range of floats
        return False


def nodes_and_edges(record: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int, float]]]:
    """The arguments of build in canonical order; weights are exact float32 values."""
    n, m = int(record["n_nodes"]), int(record["n_edges"])
    ids = [int(i) for i in record["node_id"][:n]]
    name = lambda end: end if end < N_IN else ids[end - N_IN]  # noqa: E731
    nodes = list(zip(ids, (int(a) for a in record["act"][:n]), strict=True))
    edges = [
        (name(int(s)), name(int(d)), float(w))
        for s, d, w in zip(record["src"][:m], record["dst"][:m], record["weight"][:m], strict=True)
    ]
    return nodes, edges


def _refuse_cycles(record: Any) -> None:
    n, m = int(record["n_nodes"]), int(record["n_edges"])
    sources: dict[int, set[int]] = {N_IN + k: set() for k in range(n)}
    for s, d in zip(record["src"][:m].tolist(), record["dst"][:m].tolist(), strict=True):
        if s >= N_IN:
            sources[d].add(s)
    while sources:
        done = {node for node, needs in sources.items() if not needs}
        if not done:
            ids = record["node_id"]
            raise GenomeError(f"the nodes {sorted(int(ids[k - N_IN]) for k in sources)} form a cycle")
        sources = {node: needs - done for node, needs in sources.items() if node not in done}


def pack(record: Any) -> bytes:
    """Little-endian: n_nodes u2, n_edges u2, node ids i4, activations i1, then src i2, dst i2, weight f4 of the edges."""
    n, m = int(record["n_nodes"]), int(record["n_edges"])
    head = np.array([n, m], "<u2").tobytes()
    parts = [
        record["node_id"][:n].astype("<i4").tobytes(),
        record["act"][:n].astype("i1").tobytes(),
        record["src"][:m].astype("<i2").tobytes(),
        record["dst"][:m].astype("<i2").tobytes(),
        record["weight"][:m].astype("<f4").tobytes(),
    ]
    return head + b"".join(parts)


def unpack(blob: bytes, dtype: np.dtype, n_outputs: int, limit: float) -> Genomes:
    """The batch of one packed genome; GenomeError for an invalid graph, as in build."""
    if len(blob) < 4:
        raise GenomeError(f"a packed CPPN of {len(blob)} bytes is truncated")
    n, m = (int(v) for v in np.frombuffer(blob, "<u2", 2))
    if len(blob) != 4 + 5 * n + 8 * m:
        raise GenomeError(f"a packed CPPN of {n} nodes and {m} edges has {4 + 5 * n + 8 * m} bytes, not {len(blob)}")
    at = 4
    columns = []
    for kind, count in (("<i4", n), ("i1", n), ("<i2", m), ("<i2", m), ("<f4", m)):
        columns.append(np.frombuffer(blob, kind, count, at).tolist())
        at += count * np.dtype(kind).itemsize
    ids, acts, src, dst, weight = columns
    if any(not 0 <= end < N_IN + n for end in src + dst):
        raise GenomeError("a packed CPPN has an edge to a node that does not exist")
    name = lambda end: end if end < N_IN else ids[end - N_IN]  # noqa: E731
    edges = [(name(s), name(d), w) for s, d, w in zip(src, dst, weight, strict=True)]
    return build(dtype, n_outputs, list(zip(ids, acts, strict=True)), edges, limit)
