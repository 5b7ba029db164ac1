"""Natural evolution strategies on low-frequency pixels: the gradient is estimated from scores of random neighbours."""

import math
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch

from evofool.ascend.draws import Draws
from evofool.ascend.loop import AscentResult
from evofool.attacks.black_box.grid import enlarged
from evofool.attacks.black_box.query import QueryLoop, QueryOptions
from evofool.errors import RecipeError
from evofool.targets.classifier import Target


def nes(
    target: Target,
    classes: Sequence[int],
    *,
    cells: int = 14,
    pairs: int = 6,
    sigma: float = 0.15,
    rate: float = 0.1,
    momentum: float = 0.7,
    reach: float = 2.0,
    **options: Unpack[QueryOptions],
) -> AscentResult:
    """Ascent along an estimated gradient. Sources: Wierstra et al. 2014, sections 2 and 3; Ilyas et al. 2018, section 2.

    The image is a grid of cells x cells colours, enlarged. A round queries the mean, which is grey at first, and `pairs` of
    antithetic neighbours, mean -+ sigma * normal. The directions are weighted by the ranks of their scores (equal scores
    have equal ranks; if all are equal there is no step). The estimates, scaled to a root mean square of 1, are summed with
    momentum. The mean moves along the sum by `rate` per cell and is clipped to 0.5 +- reach. reach goes beyond [0, 1], since
    pixels are clipped after enlarging, which gives sharp edges. sigma, rate and reach are in units of [0, 1].

    Each image is scored in 8 bits, and the best one is kept. The last round is cut off at the budget; nothing else depends
    on the budget, so a larger budget never gives a lower score. The defaults were chosen on the digit network and
    EfficientNet-Lite0 with several hundred queries.
    """
    if cells < 1 or pairs < 1 or not (sigma > 0 and rate > 0 and reach > 0) or not 0 <= momentum < 1:
        raise RecipeError(
            "nes: cells, pairs, sigma, rate and reach have to be above 0 and momentum in [0, 1), not "
            f"{cells}, {pairs}, {sigma}, {rate}, {reach} and {momentum}"
        )
    loop = QueryLoop(target, classes, **options)
    channels, height, width = target.shape
    grid = (channels, min(cells, height), min(cells, width))
    means = np.full((len(loop.classes), *grid), 0.5, np.float32)
    velocity = np.zeros_like(means)
    whole = 2 * pairs + 1
    done = step = 0
    while loop.goes_on(done):
        size = min(whole, loop.budget - done)
        done, step = done + size, step + 1
        draws = Draws(loop.seed, [loop.classes[item] for item in loop.active], step).normal(pairs, *grid).numpy()
        directions = dict(zip(loop.active, draws, strict=True))
        queries = [(item, k) for item in loop.active for k in range(size)]

        def draw(
            begin: int, end: int, queries: list[tuple[int, int]] = queries, directions: dict[int, np.ndarray] = directions
        ) -> np.ndarray:
            images = []
            for item, k in queries[begin:end]:
                offset = 0 if k == 0 else (-1) ** k * sigma * directions[item][(k - 1) // 2]
                images.append(enlarged(torch.from_numpy(means[item] + offset), height, width))
            return np.stack(images)

        scores = loop.query([item for item, _ in queries], draw).reshape(-1, size)
        if size < whole:
            continue
        for item, row in zip(directions, scores, strict=True):
            if item not in loop.active:
                continue
            gradient = _estimate(row[1:], directions[item])
            if gradient.any():  # otherwise all scores are equal
                velocity[item] = momentum * velocity[item] + _unit(gradient)
                means[item] = np.clip(means[item] + rate * _unit(velocity[item]), 0.5 - reach, 0.5 + reach)
    return loop.finish()


def _estimate(scores: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The gradient from directions (m, ...) and scores (2m,): for each direction, of the step against it and along it."""
    above = scores[:, None] > scores
    ranks = (above.sum(1) - above.sum(0)).astype(np.float32)  # centred; equal scores have equal ranks
    return np.tensordot(ranks[1::2] - ranks[::2], directions, 1)


def _unit(direction: np.ndarray) -> np.ndarray:
    """Scaled to a root mean square of 1; zeros stay."""
    length = math.sqrt(float(np.square(direction, dtype=np.float64).mean()))
    return direction / np.float32(length) if length > 0 else direction
