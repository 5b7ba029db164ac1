"""Add all possible edges to a CPPN, at weight 0, so that its image does not change."""

from typing import Any

import numpy as np

from genomes.cppn.arrays import N_IN
from genomes.encoding import Genomes


def complete(genomes: Genomes, n_outputs: int) -> Genomes:
    """The same graphs with edges of weight 0 from each input and hidden node to all nodes after it.

    Nodes are ordered by their longest path from an input, ties by their slots, and outputs come last, so no cycle can arise.
    If a record cannot hold all of these edges, it gets an evenly spaced selection of them in canonical order. The images are
    equal to the bit, since adding 0 does not change a sum.
    """
    out = genomes.copy()
    for record in out:
        nodes, edges = int(record["n_nodes"]), int(record["n_edges"])
        capacity = record["weight"].shape[0] - edges
        ends = zip(record["dst"][:edges].tolist(), record["src"][:edges].tolist(), strict=True)
        weights = dict(zip(ends, record["weight"][:edges].tolist(), strict=True))
        order = _order(record, n_outputs)
        sources = [*range(N_IN), *range(N_IN + n_outputs, N_IN + nodes)]
        absent = [
            (target, source)
            for target in range(N_IN, N_IN + nodes)
            for source in sources
            if order[source] < order[target] and (target, source) not in weights
        ]
        chosen = (
            range(len(absent)) if len(absent) <= capacity else np.linspace(0, len(absent) - 1, capacity).astype(int).tolist()
        )
        weights.update({absent[k]: 0.0 for k in chosen})
        record["n_edges"] = len(weights)
        for k, ((target, source), weight) in enumerate(sorted(weights.items())):
            record["dst"][k], record["src"][k], record["weight"][k] = target, source, weight
    return out


def _order(record: Any, n_outputs: int) -> list[tuple[int, int]]:
    """The sort key of each endpoint, inputs first."""
    nodes, edges = int(record["n_nodes"]), int(record["n_edges"])
    depth = [0] * N_IN + [1] * nodes
    ends = list(zip(record["src"][:edges].tolist(), record["dst"][:edges].tolist(), strict=True))
    changed = True
    while changed:  # terminates, since there is no cycle
        changed = False
        for source, target in ends:
            if depth[target] <= depth[source]:
                depth[target] = depth[source] + 1
                changed = True
    depth[N_IN : N_IN + n_outputs] = [N_IN + nodes] * n_outputs
    return list(zip(depth, range(N_IN + nodes), strict=True))
