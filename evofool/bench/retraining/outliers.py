"""Images without digits to train networks against: noise, CPPN images, and digits with shuffled blocks."""

import numpy as np
import torch
from torch.nn import functional as F

from evofool.images import quantise
from genomes import CPPN
from genomes.random import Key

SIDE = 28
ROUNDS = 40  # the highest number of mutations of a CPPN

_SHARES = {"cppn": 0.7, "smooth": 0.1, "uniform": 0.05, "shuffled": 0.15}
_BLOCKS = (1, 2, 4, 7)  # pixels, the sides of the blocks of shuffled digits


def outliers(count: int, digits: np.ndarray, seed: int, part: int) -> np.ndarray:
    """uint8 (count, 1, 28, 28) in random order, keyed by seed and part; part is below 2**40.

    On average 70% CPPN images with 0 to ROUNDS rounds of mutation, 15% digits (from `digits`, uint8 (N, 1, 28, 28)) with
    shuffled blocks, 10% smooth noise and 5% uniform noise.
    """
    draws = np.random.default_rng([seed, part])
    kinds = draws.choice(len(_SHARES), count, p=list(_SHARES.values()))
    numbers = np.bincount(kinds, minlength=len(_SHARES)).tolist()
    images = np.empty((count, 1, SIDE, SIDE), np.uint8)
    made = (
        cppns(numbers[0], seed, part),
        smooth_noise(numbers[1], draws),
        draws.integers(0, 256, (numbers[2], 1, SIDE, SIDE), np.uint8),
        shuffled(digits[draws.integers(0, len(digits), numbers[3])], draws),
    )
    for kind, some in enumerate(made):
        images[kinds == kind] = some
    return images


def cppns(count: int, seed: int, part: int) -> np.ndarray:
    """uint8 (count, 1, 28, 28): CPPN images; the numbers of rounds 0 .. ROUNDS are equally frequent, up to rounding."""
    encoding = CPPN(mode="grey", height=SIDE, width=SIDE)
    genomes = encoding.random(count, Key(seed, part << 8))
    for done in range(1, ROUNDS + 1):
        # A row stays unchanged once it has had its number of rounds, which depends on its index only.
        first = count * done // (ROUNDS + 1)
        genomes[first:] = encoding.vary(genomes[first:], genomes[first:], Key(seed, (part << 8) + done, first))
    return encoding.render(genomes)


def smooth_noise(count: int, draws: np.random.Generator) -> np.ndarray:
    """uint8 (count, 1, 28, 28): noise at 3x3 to 12x12 nodes, interpolated by cubics; contrasts vary between images."""
    nodes = draws.integers(3, 13, count)
    out = np.zeros((count, 1, SIDE, SIDE), np.float32)
    for side in range(3, 13):
        rows = np.flatnonzero(nodes == side)
        coarse = torch.from_numpy(draws.standard_normal((len(rows), 1, side, side)).astype(np.float32))
        if len(rows):
            out[rows] = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=True).numpy()
    middle, contrast = draws.uniform(0, 1, (count, 1, 1, 1)), draws.uniform(0.1, 1, (count, 1, 1, 1))
    return quantise(middle + contrast * out)


def shuffled(images: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Each image with its blocks in random order; the side of the blocks is drawn for each image."""
    sides = draws.choice(_BLOCKS, len(images))
    out = images.copy()
    for side in _BLOCKS:
        rows = np.flatnonzero(sides == side)
        n = SIDE // side
        blocks = images[rows].reshape(len(rows), n, side, n, side).swapaxes(2, 3).reshape(len(rows), n * n, side, side)
        blocks = _reordered(blocks, draws)
        out[rows] = blocks.reshape(len(rows), n, n, side, side).swapaxes(2, 3).reshape(len(rows), 1, SIDE, SIDE)
    return out


def _reordered(blocks: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """(N, n, side, side): the n blocks of every row in a random order."""
    order = draws.random(blocks.shape[:2]).argsort(axis=1)
    return np.take_along_axis(blocks, order[:, :, None, None], axis=1)
