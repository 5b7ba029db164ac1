"""CPPN weights scaled by their effect on the image, so that equal steps change the image by equal amounts."""

import numpy as np
import torch

from evofool.ascend.cppn import CPPNWeights
from evofool.ascend.draws import Draws
from genomes import CPPN, Genomes
from genomes.cppn import coordinates, differentiable

_CHANGE = 0.01  # of a weight, for the finite differences
_PIXELS = 1024  # about so many are compared
_LEAST = 0.01  # the smallest effect, as a share of the largest one in the genome


class ScaledWeights:
    """CPPNWeights times their effects: float32 (n, max_edges); a change of 1 changes pixels on [0, 1] by about 1.

    A weight's effect is the root mean square of the pixels' change per unit of the weight, at the start. Effects differ a
    lot: a weight before an output changes all pixels a little, one before a high-frequency sine changes the whole image.
    Effects are rounded to powers of two, so that the start renders the genome's image to the bit.
    """

    def __init__(self, encoding: CPPN, genomes: Genomes, device: torch.device | str = "cpu") -> None:
        self._weights = CPPNWeights(encoding, genomes, device)
        self._effects = effects(encoding, genomes).to(device)

    def init(self, draws: Draws) -> torch.Tensor:
        """(n, max_edges): the genomes' weights times their effects; draws is not used."""
        return self._weights.init(draws) * self._effects

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """(m, max_edges) to images (m, C, H, W) on [0, 1]; weights are clipped to the encoding's limit."""
        return self._weights.decode(self._weights.project(state / self._effects[items]), items)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state

    def genomes(self, state: torch.Tensor, items: torch.Tensor) -> Genomes:
        """As CPPNWeights.genomes; encoding.render gives the same images as decode."""
        return self._weights.genomes(state / self._effects[items], items)


def effects(encoding: CPPN, genomes: Genomes) -> torch.Tensor:
    """float32 (n, max_edges), powers of two: the root mean square of the pixels' change per unit of each weight.

    Estimated by finite differences on every k-th row and column. No effect is below _LEAST of the genome's largest. 1 if no
    weight changes the image, and beyond a genome's edges.
    """
    step = max(1, round((encoding.height * encoding.width / _PIXELS) ** 0.5))
    size = (encoding.height, encoding.width)
    # At the encoding's own size raw coordinates are those of that size.
    grid = coordinates.raw(*size, *size) if encoding.raw_coordinates else coordinates.centred(*size)
    sample = np.ascontiguousarray(grid.reshape(4, *size)[:, step // 2 :: step, step // 2 :: step].reshape(4, -1))
    out = torch.ones(genomes["weight"].shape)
    for k, edges in enumerate(genomes["n_edges"].tolist()):
        weights = torch.from_numpy(np.repeat(genomes["weight"][k : k + 1], edges + 1, axis=0))
        weights[torch.arange(edges), torch.arange(edges)] += _CHANGE
        with torch.no_grad():
            images = differentiable.render(np.repeat(genomes[k : k + 1], edges + 1), weights, sample, encoding.mode).flatten(
                1
            )
        effect = (images[:edges] - images[edges:]).double().square().mean(1).sqrt() / _CHANGE
        if edges and effect.max() > 0:
            out[k, :edges] = torch.exp2(effect.clamp_min(_LEAST * float(effect.max())).log2().round()).float()
    return out
