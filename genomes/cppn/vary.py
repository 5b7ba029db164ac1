"""Random CPPNs and their mutation, over batches of records; each child draws from its own stream."""

from typing import NamedTuple

import numba
import numpy as np

from genomes.cppn.arrays import MAX_ID, N_IN
from genomes.cppn.program import two_at_least
from genomes.direct import polynomial_step
from genomes.encoding import Genomes
from genomes.random import Key, integer, start, uniform


class Rates(NamedTuple):
    """Rates of mutation; the defaults are those of Nguyen 2015 [their modules/nn2].

    Probabilities in [0, 1]: `weight` and `activation` per edge and per node, the four structural changes per child.
    eta is the polynomial step's distribution index on the whole range of weights, > 0.
    """

    weight: float = 0.1
    eta: float = 15.0
    activation: float = 0.1
    add_edge: float = 0.5
    delete_edge: float = 0.3
    split_edge: float = 0.5
    delete_node: float = 0.2


def random(out: Genomes, n_outputs: int, kinds: np.ndarray, initial: float, key: Key) -> Genomes:
    """Fill out with random genomes: all inputs connected to all outputs, no hidden nodes, activations drawn from kinds
    (int8), weights uniform on +-initial (Nguyen 2015)."""
    records = two_at_least(out)
    _random(n_outputs, kinds, initial, key.seed, key.batch, key.row, *_fields(records))
    if records is not out:
        out[:] = records[: len(out)]
    return out


def vary(mothers: Genomes, n_outputs: int, kinds: np.ndarray, limit: float, rates: Rates, key: Key) -> Genomes:
    """One mutated child per mother, in the order weights, activations, add an edge, delete one, split one, delete a node.

    Weights stay within +-limit. From a full genome, nodes that reach no output are removed first; if it is still full, the
    change is skipped. Edges never form a cycle. A new node's id is one above the genome's highest.
    """
    records = two_at_least(mothers)
    out = records.copy() if records is mothers else records
    _vary(n_outputs, kinds, limit, *rates, key.seed, key.batch, key.row, *_fields(out))
    return out[: len(mothers)]


def _fields(g: Genomes) -> tuple[np.ndarray, ...]:
    return g["n_nodes"], g["n_edges"], g["node_id"], g["act"], g["src"], g["dst"], g["weight"]


@numba.njit(cache=True, nogil=True)
def _random(
    n_out: int,
    kinds: np.ndarray,
    initial: float,
    seed: int,
    batch: int,
    row: int,
    n_nodes: np.ndarray,
    n_edges: np.ndarray,
    ids: np.ndarray,
    act: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    w: np.ndarray,
) -> None:
    stream = np.empty(1, np.uint64)
    for i in range(n_nodes.size):
        start(stream, seed, batch, row + i)
        n_nodes[i] = n_out
        n_edges[i] = n_out * N_IN
        for k in range(n_out):
            ids[i, k] = N_IN + k
            act[i, k] = kinds[integer(stream, kinds.size)]
            for s in range(N_IN):
                e = k * N_IN + s
                src[i, e], dst[i, e] = s, N_IN + k
                w[i, e] = (2.0 * uniform(stream) - 1.0) * initial


@numba.njit(cache=True, nogil=True)
def _insert(e_count: int, src: np.ndarray, dst: np.ndarray, w: np.ndarray, source: int, target: int, weight: float) -> int:
    """Insert an edge in order; returns the new number of edges."""
    e = e_count
    while e > 0 and (dst[e - 1] > target or (dst[e - 1] == target and src[e - 1] > source)):
        src[e], dst[e], w[e] = src[e - 1], dst[e - 1], w[e - 1]
        e -= 1
    src[e], dst[e], w[e] = source, target, weight
    return e_count + 1


@numba.njit(cache=True, nogil=True)
def _remove(e_count: int, src: np.ndarray, dst: np.ndarray, w: np.ndarray, e: int) -> int:
    for k in range(e, e_count - 1):
        src[k], dst[k], w[k] = src[k + 1], dst[k + 1], w[k + 1]
    src[e_count - 1], dst[e_count - 1], w[e_count - 1] = 0, 0, 0.0
    return e_count - 1


@numba.njit(cache=True, nogil=True)
def _remove_node(
    n: int, m: int, ids: np.ndarray, act: np.ndarray, src: np.ndarray, dst: np.ndarray, w: np.ndarray, node: int
) -> int:
    """Remove a node (a slot) and its edges; the slots above move down. Returns the new number of edges."""
    end = N_IN + node
    k = 0
    for e in range(m):
        if src[e] != end and dst[e] != end:
            src[k] = src[e] - 1 if src[e] > end else src[e]
            dst[k] = dst[e] - 1 if dst[e] > end else dst[e]
            w[k] = w[e]
            k += 1
    for e in range(k, m):
        src[e], dst[e], w[e] = 0, 0, 0.0
    for j in range(node, n - 1):
        ids[j], act[j] = ids[j + 1], act[j + 1]
    ids[n - 1], act[n - 1] = 0, 0
    return k


@numba.njit(cache=True, nogil=True)
def _upstream(m: int, src: np.ndarray, dst: np.ndarray, mark: np.ndarray) -> None:
    """Mark (bool per endpoint) all endpoints from which a marked one can be reached."""
    changed = True
    while changed:
        changed = False
        for e in range(m):
            if mark[dst[e]] and not mark[src[e]]:
                mark[src[e]] = True
                changed = True


@numba.njit(cache=True, nogil=True)
def _vary(
    n_out: int,
    kinds: np.ndarray,
    limit: float,
    p_weight: float,
    eta: float,
    p_act: float,
    p_add: float,
    p_delete: float,
    p_split: float,
    p_node: float,
    seed: int,
    batch: int,
    row: int,
    n_nodes: np.ndarray,
    n_edges: np.ndarray,
    all_ids: np.ndarray,
    all_act: np.ndarray,
    all_src: np.ndarray,
    all_dst: np.ndarray,
    all_w: np.ndarray,
) -> None:
    stream = np.empty(1, np.uint64)
    max_nodes, max_edges = all_ids.shape[1], all_src.shape[1]
    mark = np.empty(N_IN + max_nodes, np.bool_)
    for i in range(n_nodes.size):
        start(stream, seed, batch, row + i)
        n, m = n_nodes[i], n_edges[i]
        ids, act, src, dst, w = all_ids[i], all_act[i], all_src[i], all_dst[i], all_w[i]
        for e in range(m):
            if uniform(stream) < p_weight:
                x = (w[e] / limit + 1.0) * 0.5 + polynomial_step(uniform(stream), eta)
                w[e] = (min(1.0, max(0.0, x)) * 2.0 - 1.0) * limit
        for k in range(n):
            if uniform(stream) < p_act:
                act[k] = kinds[integer(stream, kinds.size)]
        if n == max_nodes or m > max_edges - 2:
            mark[:] = False
            for k in range(n_out):
                mark[N_IN + k] = True
            _upstream(m, src, dst, mark)
            for k in range(n - 1, n_out - 1, -1):
                if not mark[N_IN + k]:
                    m = _remove_node(n, m, ids, act, src, dst, w, k)
                    n -= 1
        if uniform(stream) < p_add and m < max_edges:
            source = integer(stream, N_IN + n - n_out)
            if source >= N_IN:
                source += n_out
            mark[:] = False
            mark[source] = True
            _upstream(m, src, dst, mark)
            for e in range(m):
                if src[e] == source:
                    mark[dst[e]] = True
            open_targets = 0
            for k in range(n):
                if not mark[N_IN + k]:
                    open_targets += 1
            if open_targets > 0:
                pick = integer(stream, open_targets)
                for k in range(n):
                    if not mark[N_IN + k]:
                        if pick == 0:
                            m = _insert(m, src, dst, w, source, N_IN + k, (2.0 * uniform(stream) - 1.0) * limit)
                            break
                        pick -= 1
        if uniform(stream) < p_delete and m > 1:
            m = _remove(m, src, dst, w, integer(stream, m))
        if uniform(stream) < p_split and m > 0 and n < max_nodes and m < max_edges and ids[n - 1] < MAX_ID - 1:
            e = integer(stream, m)
            source, target, weight = src[e], dst[e], w[e]
            m = _remove(m, src, dst, w, e)
            ids[n], act[n] = ids[n - 1] + 1, kinds[integer(stream, kinds.size)]
            m = _insert(m, src, dst, w, source, N_IN + n, weight)
            m = _insert(m, src, dst, w, N_IN + n, target, weight)
            n += 1
        if uniform(stream) < p_node and n > n_out:
            m = _remove_node(n, m, ids, act, src, dst, w, n_out + integer(stream, n - n_out))
            n -= 1
        n_nodes[i], n_edges[i] = n, m
