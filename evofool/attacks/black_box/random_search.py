"""Random images: a single one per class as the lower bound, and the best of many, which shows what selection adds."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from evofool.ascend.draws import Draws
from evofool.ascend.loop import AscentResult
from evofool.attacks.black_box.grid import enlarged
from evofool.attacks.black_box.query import QueryLoop, QueryOptions
from evofool.errors import RecipeError
from evofool.targets.classifier import Target

KINDS = ("uniform", "smooth")
_ROUND = 16  # queries of each item in a round of random_search, so that few classes fill a chunk


def noise(
    target: Target, classes: Sequence[int], *, kind: str = "uniform", cells: int = 7, **options: Unpack[QueryOptions]
) -> AscentResult:
    """One image of noise per class, without any selection: the lower bound. budget and stop_at have no effect.

    kind and cells are those of `drawn`.
    """
    if kind not in KINDS:
        raise RecipeError(f'there is no kind "{kind}"; there are {", ".join(KINDS)}')
    if cells < 1:
        raise RecipeError(f"noise: cells has to be at least 1, not {cells}")
    loop = QueryLoop(target, classes, **options)
    loop.budget = 1

    def draw(begin: int, end: int) -> np.ndarray:
        return drawn(kind, Draws(loop.seed, loop.classes[begin:end], 0), target.shape, cells)

    loop.query(loop.active, draw)
    loop.goes_on(1)
    return loop.finish()


def drawn(kind: str, draws: Draws, shape: tuple[int, int, int], cells: int = 7) -> np.ndarray:
    """uint8 (n, C, H, W) of noise, one image from each stream.

    kind: "uniform": each channel of each pixel is uniform on 0..255; "smooth": a uniform grid of cells x cells, enlarged.
    """
    channels, height, width = shape
    if kind == "uniform":
        return draws.integers(0, 256, *shape).numpy().astype(np.uint8)
    return np.stack([enlarged(grid, height, width) for grid in draws.uniform(channels, cells, cells)])


def random_search(target: Target, classes: Sequence[int], **options: Unpack[QueryOptions]) -> AscentResult:
    """Uniform random images that compete in all of `classes`, like the first generation of MAP-Elites.

    Each class has its own stream of images and pays for `budget` of them. More classes can therefore only raise a class's
    score, unless they end before. An item that has ended neither pays nor competes.
    """
    loop = QueryLoop(target, classes, **options)
    done = 0
    while loop.goes_on(done):
        queries = [(step, item) for step in range(done, min(done + _ROUND, loop.budget)) for item in loop.active]

        def draw(begin: int, end: int, queries: list[tuple[int, int]] = queries) -> np.ndarray:
            draws = (Draws(loop.seed, [loop.classes[item]], step) for step, item in queries[begin:end])
            return np.concatenate([drawn("uniform", each, target.shape) for each in draws])

        loop.query([item for _, item in queries], draw, shared=True)
        done = min(done + _ROUND, loop.budget)
    return loop.finish()
