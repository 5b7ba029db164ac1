"""Programs: genomes pruned to the nodes that reach an output, in order of evaluation. All renderers run programs."""

from typing import NamedTuple

import numba
import numpy as np

from genomes.cppn.arrays import N_IN
from genomes.encoding import Genomes


class Programs(NamedTuple):
    """P programs, one after another (compressed sparse rows).

    Program g has the nodes node_ptr[g]:node_ptr[g+1], sources before those that read them, its n_outputs outputs last;
    node j has the activation act[j] (int8) and sums weight[e] * value(src[e]) over e in edge_ptr[j]:edge_ptr[j+1], in
    that order (by the source's id): the order of summation is part of a genome's definition. src counts within its
    program: 0..3 the inputs, N_IN + k its k-th node. A node without edges sums to 0.
    """

    node_ptr: np.ndarray  # int32 (P + 1,)
    act: np.ndarray  # int8
    edge_ptr: np.ndarray  # int32
    src: np.ndarray  # int32
    weight: np.ndarray  # float32
    n_outputs: int


def compile_programs(genomes: Genomes, n_outputs: int) -> Programs:
    """The programs of a batch of CPPN records, in its order."""
    if len(genomes) == 1:
        return _first_of(compile_programs(two_at_least(genomes), n_outputs))
    nodes, edges = int(genomes["n_nodes"].sum()), int(genomes["n_edges"].sum())
    node_ptr = np.empty(len(genomes) + 1, np.int32)
    act = np.empty(nodes, np.int8)
    edge_ptr = np.empty(nodes + 1, np.int32)
    src = np.empty(edges, np.int32)
    weight = np.empty(edges, np.float32)
    n, m = _compile(
        n_outputs, genomes["n_nodes"], genomes["n_edges"], genomes["act"], genomes["src"], genomes["dst"],
        genomes["weight"], node_ptr, act, edge_ptr, src, weight,
    )  # fmt: skip
    return Programs(node_ptr, act[:n], edge_ptr[: n + 1], src[:m], weight[:m], n_outputs)


def two_at_least(genomes: Genomes) -> Genomes:
    """The batch; of a single genome, two of it. The fields of a single record are contiguous arrays, and numba would compile
    every kernel once more for these, which takes seconds."""
    return np.repeat(genomes, 2) if len(genomes) == 1 else genomes


def _first_of(p: Programs) -> Programs:
    n = p.node_ptr[1]
    m = p.edge_ptr[n]
    return Programs(p.node_ptr[:2], p.act[:n], p.edge_ptr[: n + 1], p.src[:m], p.weight[:m], p.n_outputs)


@numba.njit(cache=True, nogil=True)
def _compile(
    n_out: int,
    n_nodes: np.ndarray,
    n_edges: np.ndarray,
    act: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    w: np.ndarray,
    node_ptr: np.ndarray,
    out_act: np.ndarray,
    edge_ptr: np.ndarray,
    out_src: np.ndarray,
    out_w: np.ndarray,
) -> tuple[int, int]:
    max_nodes = act.shape[1]
    first = np.empty(max_nodes + 1, np.int32)  # the edges into node k are first[k]:first[k + 1]
    place = np.empty(max_nodes, np.int32)  # -1 not seen, -2 on the stack, else position in the program
    cursor = np.empty(max_nodes, np.int32)
    stack = np.empty(max_nodes, np.int32)
    order = np.empty(max_nodes, np.int32)
    N, E = 0, 0
    node_ptr[0] = 0
    edge_ptr[0] = 0
    for g in range(n_nodes.size):
        n, m = n_nodes[g], n_edges[g]
        e = 0
        for k in range(n):
            while e < m and dst[g, e] < N_IN + k:
                e += 1
            first[k] = e
            place[k] = -1
        first[n] = m
        count = 0
        for output in range(n_out):
            top = 0
            stack[0] = output
            cursor[output] = first[output]
            while top >= 0:
                k = stack[top]
                if cursor[k] < first[k + 1]:
                    s = src[g, cursor[k]] - N_IN
                    cursor[k] += 1
                    if s >= 0 and place[s] == -1:
                        place[s] = -2
                        top += 1
                        stack[top] = s
                        cursor[s] = first[s]
                else:
                    if k >= n_out:
                        place[k] = count
                        order[count] = k
                        count += 1
                    top -= 1
        for output in range(n_out):
            order[count] = output
            count += 1
        for j in range(count):
            k = order[j]
            out_act[N] = act[g, k]
            for e in range(first[k], first[k + 1]):
                s = src[g, e]
                out_src[E] = s if s < N_IN else N_IN + place[s - N_IN]
                out_w[E] = w[g, e]
                E += 1
            N += 1
            edge_ptr[N] = E
        node_ptr[g + 1] = N
    return N, E
