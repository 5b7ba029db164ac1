"""CPPN weights in units of what they do to the image, so that a step of one size moves all of them alike."""

import numpy as np
import torch

from evofool.ascend.cppn import CPPNWeights
from evofool.ascend.draws import Draws
from genomes import CPPN, Genomes
from genomes.cppn import coordinates, differentiable

_CHANGE = 0.01  # of a weight, to see what it does
_LOOKED_AT = 1024  # pixels, about
_LEAST = 0.01  # of the largest effect in its genome is the least that a weight is taken to have


class EvenedWeights:
    """CPPNWeights times their effects: float32 (n, max_edges), where 1 changes pixels on [0, 1] by about 1.

    A weight's effect is the root mean square of what pixels change by per unit of it, where the climb starts: a weight near
    the outputs moves every pixel a little, one in front of a fast wave repaints the image. Effects are rounded to powers of
    two, so that the start is the genome's own image to the bit.
    """

    def __init__(self, encoding: CPPN, genomes: Genomes, device: torch.device | str = "cpu") -> None:
        self._weights = CPPNWeights(encoding, genomes, device)
        self._effects = effects(encoding, genomes).to(device)

    def init(self, draws: Draws) -> torch.Tensor:
        """(n, max_edges): the genomes' own weights; nothing is drawn."""
        return self._weights.init(draws) * self._effects

    def decode(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(m, max_edges) to images (m, C, H, W) on [0, 1]; weights beyond the limit are drawn at it."""
        return self._weights.decode(self._weights.project(state / self._effects[rows]), rows)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state

    def genomes(self, state: torch.Tensor, rows: torch.Tensor) -> Genomes:
        """As CPPNWeights.genomes: what encoding.render draws as decode does."""
        return self._weights.genomes(state / self._effects[rows], rows)


def effects(encoding: CPPN, genomes: Genomes) -> torch.Tensor:
    """float32 (n, max_edges): the root mean square over pixels of the image's change per unit of a weight; powers of two.

    Of every k-th pixel either way, by differences. None is under _LEAST of its genome's largest; 1 where nothing changes
    the image, and beyond a genome's edges.
    """
    step = max(1, round((encoding.height * encoding.width / _LOOKED_AT) ** 0.5))
    size = (encoding.height, encoding.width)
    # At its own size an encoding's raw coordinates are those of that size.
    where = coordinates.raw(*size, *size) if encoding.raw_coordinates else coordinates.centred(*size)
    some = np.ascontiguousarray(where.reshape(4, *size)[:, step // 2 :: step, step // 2 :: step].reshape(4, -1))
    out = torch.ones(genomes["weight"].shape)
    for k, edges in enumerate(genomes["n_edges"].tolist()):
        each = torch.from_numpy(np.repeat(genomes["weight"][k : k + 1], edges + 1, axis=0))
        each[torch.arange(edges), torch.arange(edges)] += _CHANGE
        with torch.no_grad():
            drawn = differentiable.render(np.repeat(genomes[k : k + 1], edges + 1), each, some, encoding.mode).flatten(1)
        effect = (drawn[:edges] - drawn[edges:]).double().square().mean(1).sqrt() / _CHANGE
        if edges and effect.max() > 0:
            out[k, :edges] = torch.exp2(effect.clamp_min(_LEAST * float(effect.max())).log2().round()).float()
    return out
