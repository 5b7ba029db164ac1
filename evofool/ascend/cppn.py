"""CPPN weights as what is climbed in: the image stays one that its CPPN draws."""

import numpy as np
import torch

from evofool.ascend.draws import Draws
from genomes import CPPN, Genomes
from genomes.cppn import coordinates, differentiable


class CPPNWeights:
    """The weights of n genomes, float32 (n, max_edges), edges in the records' order; graphs and activations stay.

    Decoded images are drawn by genomes.cppn.differentiable: rounded, they are what the encoding renders from `genomes`.
    Weights are held within the encoding's limit. Beyond a genome's edges a state is not read and has no gradient.
    """

    def __init__(self, encoding: CPPN, genomes: Genomes, device: torch.device | str = "cpu") -> None:
        self._encoding, self._genomes, self._device = encoding, genomes.copy(), device
        # At its own size an encoding's raw coordinates are those of that size.
        size = (encoding.height, encoding.width)
        self._where = coordinates.raw(*size, *size) if encoding.raw_coordinates else coordinates.centred(*size)

    def init(self, draws: Draws) -> torch.Tensor:
        """(n, max_edges): the genomes' own weights; nothing is drawn."""
        return torch.tensor(self._genomes["weight"], device=self._device)

    def decode(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(m, max_edges) weights of the items rows (m,) to images (m, C, H, W) on [0, 1], in the state's dtype."""
        e = self._encoding
        images = differentiable.render(self._genomes[rows.cpu().numpy()], state, self._where, e.mode)
        return images.view(len(state), e.channels, e.height, e.width)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state.clamp(-self._encoding.weight_limit, self._encoding.weight_limit)

    def genomes(self, state: torch.Tensor, rows: torch.Tensor) -> Genomes:
        """The records of the items rows (m,), with the weights of state (m, max_edges) on the same edges."""
        out = self._genomes[rows.cpu().numpy()]
        edges = np.arange(out["weight"].shape[1]) < out["n_edges"][:, None]
        out["weight"] = np.where(edges, self.project(state.detach()).cpu().numpy(), np.float32(0))
        return out
