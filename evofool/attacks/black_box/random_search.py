"""Images that nothing was learnt for: one of them is the floor, the best of many what selection alone is worth."""

import math
from collections.abc import Sequence

import numpy as np

from evofool.ascend.draws import Draws
from evofool.ascend.loop import AscentResult, Tick
from evofool.attacks.black_box.grid import enlarged
from evofool.attacks.black_box.query import QueryLoop
from evofool.errors import RecipeError
from evofool.targets.target import Target

KINDS = ("uniform", "smooth")
_AT_ONCE = 16  # queries of an item that share a round of random_search, so that few classes fill a chunk


def noise(
    target: Target,
    classes: Sequence[int],
    *,
    queries: int = 1,
    seed: int = 0,
    rank: str = "log_odds",
    stop_at: float = math.inf,
    chunk: int = 16,
    tick: Tick | None = None,
    kind: str = "uniform",
    cells: int = 7,
) -> AscentResult:
    """One image of noise for each class, nothing selected: the floor. `queries` and `stop_at` change nothing.

    kind and cells are those of `drawn`.
    """
    if kind not in KINDS:
        raise RecipeError(f'kind "{kind}" is none of {", ".join(KINDS)}')
    if cells < 1:
        raise RecipeError(f"noise: cells has to be at least 1, not {cells}")
    asked = QueryLoop(target, classes, queries=queries, rank=rank, stop_at=stop_at, chunk=chunk)

    def draw(begin: int, end: int) -> np.ndarray:
        return drawn(kind, Draws(seed, asked.classes[begin:end], 0), target.shape, cells)

    asked.ask(asked.active, draw)
    asked.goes_on(1, 1, tick)
    return asked.finish()


def drawn(kind: str, draws: Draws, shape: tuple[int, int, int], cells: int = 7) -> np.ndarray:
    """uint8 (n, C, H, W) of noise, one image from each stream.

    kind: "uniform", every channel of every pixel by itself on 0..255; "smooth", a uniform grid of cells x cells drawn
    large.
    """
    channels, height, width = shape
    if kind == "uniform":
        return draws.integers(0, 256, *shape).numpy().astype(np.uint8)
    return np.stack([enlarged(grid, height, width) for grid in draws.uniform(channels, cells, cells)])


def random_search(
    target: Target,
    classes: Sequence[int],
    *,
    queries: int,
    seed: int = 0,
    rank: str = "log_odds",
    stop_at: float = math.inf,
    chunk: int = 16,
    tick: Tick | None = None,
) -> AscentResult:
    """Uniform random images, each of which competes in all of `classes`, as in the first generation of MAP-Elites.

    Every class pays for `queries` images, drawn from its own stream; so further classes can only raise a class's score,
    unless they end before. An item that has ended neither pays nor competes. 16 queries of each item share a round.
    """
    asked = QueryLoop(target, classes, queries=queries, rank=rank, stop_at=stop_at, chunk=chunk)
    done = 0
    while asked.goes_on(done, queries, tick):
        paid = [(step, item) for step in range(done, min(done + _AT_ONCE, queries)) for item in asked.active]

        def draw(begin: int, end: int, paid: list[tuple[int, int]] = paid) -> np.ndarray:
            draws = (Draws(seed, [asked.classes[item]], step) for step, item in paid[begin:end])
            return np.concatenate([drawn("uniform", each, target.shape) for each in draws])

        asked.ask([item for _, item in paid], draw, everywhere=True)
        done = min(done + _AT_ONCE, queries)
    return asked.finish()
