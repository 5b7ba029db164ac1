"""The gradient of an objective for an image that is too large for one pass: tile by tile."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from evofool.ascend.hooks import Hooks
from evofool.ascend.loop import gradient_of
from evofool.ascend.objectives import Objective
from evofool.targets.classifier import Target


@dataclass(frozen=True)
class Tiling:
    """An image of height x width pixels, divided into tiles of tile_height x tile_width.

    Tiles continue around the edges of the image. Where its sides are not multiples of the tile's, the last tiles overlap the
    first ones, and the image may even be smaller than a tile. A pixel belongs to the first tile that has it.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int

    @classmethod
    def of(cls, height: int, width: int, most: int) -> "Tiling":
        """As few tiles as possible, of about equal size and at most `most` pixels a side."""
        return cls(height, width, *(-(-side // -(-side // most)) for side in (height, width)))

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    def __len__(self) -> int:
        return self.rows * self.columns


class TiledGradient:
    """A function of (image float (1, C, H, W) on [0, 1], tiling, shift): the gradient of an objective, (1, C, H, W).

    Each tile is a forward and a backward pass, and the objective is the sum over tiles. shift: rows and columns by which the
    image is rolled around its edges before it is divided; the gradient is rolled back. Another shift at every step moves the
    borders of the tiles, so that they do not show.

    streams: passes at the same time, each with the caller's number of torch threads; the number does not change results.
    each_pass is called after every tile and returns whether to stop; the gradient is then None. TargetError for a target
    whose gradients are cut.
    """

    def __init__(
        self, target: Target, hooks: Hooks, objective: Objective, streams: int, each_pass: Callable[[], bool]
    ) -> None:
        self._target, self._hooks, self._objective, self._each_pass = target, hooks, objective, each_pass
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(streams, "tiles", torch.set_num_threads, (threads,)) if streams > 1 else None

    def __enter__(self) -> "TiledGradient":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, image: torch.Tensor, tiling: Tiling, shift: tuple[int, int]) -> torch.Tensor | None:
        gradient = torch.empty_like(image)
        first = torch.zeros(1, dtype=torch.int64, device=image.device)

        def add(place: tuple[int, int]) -> None:
            rows, own_rows = _span(tiling.height, tiling.tile_height, place[0], shift[0], image.device)
            columns, own_columns = _span(tiling.width, tiling.tile_width, place[1], shift[1], image.device)
            tile = image[:, :, rows[:, None], columns].requires_grad_()
            value = self._objective(self._hooks.forward(tile), tile, first)
            part = gradient_of(self._target, value.sum(), tile)
            gradient[:, :, rows[:own_rows, None], columns[:own_columns]] = part[:, :, :own_rows, :own_columns]

        places = itertools.product(range(tiling.rows), range(tiling.columns))
        for _ in map(add, places) if self._pool is None else self._pool.map(add, places):
            if self._each_pass():
                if self._pool is not None:
                    self._pool.shutdown(cancel_futures=True)
                return None
        return gradient


def _span(side: int, tile: int, number: int, shift: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """The rows (tile,) of a tile in an image of `side` rows that is rolled by shift, and how many of them belong to it."""
    begin = number * tile
    return (torch.arange(begin, begin + tile, device=device) - shift) % side, min(tile, side - begin)
