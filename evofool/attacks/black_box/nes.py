"""Natural evolution strategies on low-frequency pixels: the gradient is guessed from scores of random neighbours."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from evofool.ascend.draws import Draws
from evofool.ascend.loop import AscentResult, Tick
from evofool.attacks.black_box.grid import enlarged
from evofool.attacks.black_box.query import QueryLoop
from evofool.errors import RecipeError
from evofool.targets.target import Target


def nes(
    target: Target,
    classes: Sequence[int],
    *,
    queries: int,
    seed: int = 0,
    rank: str = "log_odds",
    stop_at: float = math.inf,
    chunk: int = 16,
    tick: Tick | None = None,
    cells: int = 14,
    pairs: int = 6,
    sigma: float = 0.15,
    rate: float = 0.1,
    momentum: float = 0.7,
    reach: float = 2.0,
) -> AscentResult:
    """Gradient ascent along an estimate. Sources: Wierstra et al. 2014, sections 2 and 3; Ilyas et al. 2018, section 2.

    The image is a grid of cells x cells colours drawn large, its mean grey at first. A round asks for the mean and for
    `pairs` of antithetic neighbours, mean -+ sigma * normal. Their ranks, not their scores, weigh the directions (equal
    scores share a rank; all equal: no step). The estimates, scaled to a root mean square of 1, are summed with momentum; the
    mean takes a step of `rate` a cell along the sum, and is kept within 0.5 +- reach: beyond [0, 1] on purpose, since
    pixels are clipped after the grid is enlarged, and a steep grid has edges. sigma, rate and reach are in units of [0, 1].

    Every image is judged as the 8-bit image that was asked for, and the best of all is kept. The last round is cut off where
    the budget ends; nothing else depends on the budget, so more queries never give less.
    The defaults were chosen on the digit network and EfficientNet-Lite0 at some hundreds of queries.
    """
    if cells < 1 or pairs < 1 or not (sigma > 0 and rate > 0 and reach > 0) or not 0 <= momentum < 1:
        raise RecipeError(
            "nes: cells, pairs, sigma, rate and reach lie above 0 and momentum on [0, 1), not "
            f"{cells}, {pairs}, {sigma}, {rate}, {reach} and {momentum}"
        )
    asked = QueryLoop(target, classes, queries=queries, rank=rank, stop_at=stop_at, chunk=chunk)
    channels, height, width = target.shape
    grid = (channels, min(cells, height), min(cells, width))
    means = np.full((len(asked.classes), *grid), 0.5, np.float32)
    drift = np.zeros_like(means)
    whole = 2 * pairs + 1
    done = step = 0
    while asked.goes_on(done, queries, tick):
        size = min(whole, queries - done)
        done, step = done + size, step + 1
        draws = Draws(seed, [asked.classes[item] for item in asked.active], step).normal(pairs, *grid).numpy()
        aside = dict(zip(asked.active, draws, strict=True))
        jobs = [(item, k) for item in asked.active for k in range(size)]

        def draw(
            begin: int, end: int, jobs: list[tuple[int, int]] = jobs, aside: dict[int, np.ndarray] = aside
        ) -> np.ndarray:
            images = []
            for item, k in jobs[begin:end]:
                where = means[item] if k == 0 else means[item] + (-1) ** k * sigma * aside[item][(k - 1) // 2]
                images.append(enlarged(torch.from_numpy(where), height, width))
            return np.stack(images)

        told = asked.ask([item for item, _ in jobs], draw).reshape(-1, size)
        if size < whole:
            continue
        for item, row in zip(aside, told, strict=True):
            if item not in asked.active:
                continue
            guess = _uphill(row[1:], aside[item])
            if guess.any():  # else all scores are equal, and nothing is known
                drift[item] = momentum * drift[item] + _unit(guess)
                means[item] = np.clip(means[item] + rate * _unit(drift[item]), 0.5 - reach, 0.5 + reach)
    return asked.finish()


def _uphill(scores: np.ndarray, aside: np.ndarray) -> np.ndarray:
    """Directions aside (m, ...) weighed by the ranks of scores (2m,): of a step against each, then along it."""
    above = scores[:, None] > scores
    ranks = (above.sum(1) - above.sum(0)).astype(np.float32)  # centred, and equal ones share theirs
    return np.tensordot(ranks[1::2] - ranks[::2], aside, 1)


def _unit(direction: np.ndarray) -> np.ndarray:
    """Scaled to a root mean square of 1; zeros stay."""
    length = math.sqrt(float(np.square(direction, dtype=np.float64).mean()))
    return direction / np.float32(length) if length > 0 else direction
