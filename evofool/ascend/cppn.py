"""CPPN weights as a parameterisation: every iterate is an image that a CPPN renders."""

import numpy as np
import torch

from evofool.ascend.draws import Draws
from genomes import CPPN, Genomes
from genomes.cppn import coordinates, differentiable


class CPPNWeights:
    """The weights of n genomes, float32 (n, max_edges), in the order of the records' edges. Graphs do not change.

    genomes.cppn.differentiable renders the images: rounded, they equal what the encoding renders from `genomes`. Weights are
    clipped to the encoding's limit. Columns beyond a genome's edges are not used and have no gradient.
    """

    def __init__(self, encoding: CPPN, genomes: Genomes, device: torch.device | str = "cpu") -> None:
        self._encoding, self._genomes, self._device = encoding, genomes.copy(), device
        # At the encoding's own size raw coordinates are those of that size.
        size = (encoding.height, encoding.width)
        self._coordinates = coordinates.raw(*size, *size) if encoding.raw_coordinates else coordinates.centred(*size)

    def init(self, draws: Draws) -> torch.Tensor:
        """(n, max_edges): the genomes' weights; draws is not used."""
        return torch.tensor(self._genomes["weight"], device=self._device)

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """(m, max_edges) weights of `items` (m,) to images (m, C, H, W) on [0, 1], in the state's dtype."""
        e = self._encoding
        images = differentiable.render(self._genomes[items.cpu().numpy()], state, self._coordinates, e.mode)
        return images.view(len(state), e.channels, e.height, e.width)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state.clamp(-self._encoding.weight_limit, self._encoding.weight_limit)

    def genomes(self, state: torch.Tensor, items: torch.Tensor) -> Genomes:
        """The records of `items` (m,), with the weights of state (m, max_edges) on the same edges."""
        out = self._genomes[items.cpu().numpy()]
        edges = np.arange(out["weight"].shape[1]) < out["n_edges"][:, None]
        out["weight"] = np.where(edges, self.project(state.detach()).cpu().numpy(), np.float32(0))
        return out
