"""The simple, slow renderer: the reference for the others, and the fallback if numba cannot run."""

import numpy as np

from genomes.cppn.activations import apply
from genomes.cppn.arrays import N_IN
from genomes.cppn.color import to_uint8
from genomes.cppn.program import Programs


def render(programs: Programs, coordinates: np.ndarray, mode: str) -> np.ndarray:
    """coordinates float32 (4, pixels); returns uint8 (P, outputs, pixels)."""
    return np.stack([to_uint8(mode, v) for v in raw_outputs(programs, coordinates)])


def raw_outputs(programs: Programs, coordinates: np.ndarray) -> np.ndarray:
    """float32 (P, outputs, pixels): the values of the output nodes, before they become colours."""
    p = programs
    out = np.empty((len(p.node_ptr) - 1, p.n_outputs, coordinates.shape[1]), np.float32)
    for g in range(len(out)):
        values = list(coordinates)
        for j in range(p.node_ptr[g], p.node_ptr[g + 1]):
            z = np.zeros(coordinates.shape[1], np.float32)
            for k, e in enumerate(range(p.edge_ptr[j], p.edge_ptr[j + 1])):
                term = p.weight[e] * values[p.src[e]]
                z = term if k == 0 else z + term
            values.append(apply(p.act[j], z))
        assert len(values) == N_IN + p.node_ptr[g + 1] - p.node_ptr[g]
        out[g] = values[-p.n_outputs :]
    return out
