"""A CPPN with every edge that its graph could have: the absent ones stand at weight 0 and change no picture."""

from typing import Any

import numpy as np

from genomes.cppn.arrays import N_IN
from genomes.encoding import Genomes


def complete(genomes: Genomes, n_outputs: int) -> Genomes:
    """The same graphs with edges of weight 0 from every input and hidden node to all that come after it.

    Nodes are ordered by their longest way from an input, of equals by their slots, and outputs are the last: so no cycle can
    come of it. Where a record has no room for all of them, they are taken evenly from the list in canonical order.
    Draws the same images to the bit, since a sum does not change by a 0.
    """
    out = genomes.copy()
    for record in out:
        nodes, edges = int(record["n_nodes"]), int(record["n_edges"])
        room = record["weight"].shape[0] - edges
        ends = zip(record["dst"][:edges].tolist(), record["src"][:edges].tolist(), strict=True)
        weights = dict(zip(ends, record["weight"][:edges].tolist(), strict=True))
        place = _places(record, n_outputs)
        sources = [*range(N_IN), *range(N_IN + n_outputs, N_IN + nodes)]
        absent = [
            (target, source)
            for target in range(N_IN, N_IN + nodes)
            for source in sources
            if place[source] < place[target] and (target, source) not in weights
        ]
        chosen = range(len(absent)) if len(absent) <= room else np.linspace(0, len(absent) - 1, room).astype(int).tolist()
        weights.update({absent[k]: 0.0 for k in chosen})
        record["n_edges"] = len(weights)
        for k, ((target, source), weight) in enumerate(sorted(weights.items())):
            record["dst"][k], record["src"][k], record["weight"][k] = target, source, weight
    return out


def _places(record: Any, n_outputs: int) -> list[tuple[int, int]]:
    """By endpoint, inputs first: what nodes are ordered by."""
    nodes, edges = int(record["n_nodes"]), int(record["n_edges"])
    depth = [0] * N_IN + [1] * nodes
    ends = list(zip(record["src"][:edges].tolist(), record["dst"][:edges].tolist(), strict=True))
    changed = True
    while changed:  # ends, since there is no cycle
        changed = False
        for source, target in ends:
            if depth[target] <= depth[source]:
                depth[target] = depth[source] + 1
                changed = True
    depth[N_IN : N_IN + n_outputs] = [N_IN + nodes] * n_outputs
    return list(zip(depth, range(N_IN + nodes), strict=True))
