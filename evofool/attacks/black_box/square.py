"""Square attack: a random search that repaints one square of the image at a time."""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from evofool.ascend.draws import Draws
from evofool.ascend.loop import AscentResult, Tick
from evofool.attacks.black_box.query import QueryLoop
from evofool.errors import RecipeError
from evofool.targets.target import Target

# After each of so many of 10,000 queries the share of the pixels that is repainted is halved, as the authors' code has it.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(
    target: Target,
    classes: Sequence[int],
    *,
    queries: int,
    seed: int = 0,
    rank: str = "log_odds",
    stop_at: float = math.inf,
    chunk: int = 16,
    tick: Tick | None = None,
    p_init: float = 0.8,
    horizon: int = 0,
) -> AscentResult:
    """Square attack, L-infinity version, without a source image. Source: Andriushchenko et al. 2020, algorithms 1 and 2.

    The start is vertical stripes. A query repaints one square, at a random place in a random colour that changes it, and
    the change stays if the score rises strictly. p_init: the share of the pixels that a square covers at first; it is
    halved nine times on the authors' schedule, which is stretched to `horizon` queries (0: the budget).

    What was adapted: the ball around a source image is the whole box, so colours are the box's corners: every channel
    black or full. There is no image to leave, so the attack is targeted: log-odds rank as the authors' cross-entropy for
    targeted attacks does, margin as their margin loss with its sign turned. It does not end when the class is called. Until
    the target tells of the class, every change stays. p_init is that of the authors' widest ball (0.8, MNIST at 0.3):
    their ImageNet values, 0.05 and below, are for staying near a photo. A square may also touch the last row and column.
    """
    if not 0 < p_init <= 1:
        raise RecipeError(f"p_init is a share of the pixels, above 0 and up to 1, not {p_init}")
    if 0 < horizon < queries or horizon < 0:
        raise RecipeError(f"the schedule's horizon, {horizon} queries, has to reach to the end of the {queries} queries")
    asked = QueryLoop(target, classes, queries=queries, rank=rank, stop_at=stop_at, chunk=chunk)
    channels, height, width = target.shape
    on = Draws(seed, asked.classes, 0).integers(0, 2, channels, 1, width).numpy()
    here = np.repeat((255 * on).astype(np.uint8), height, axis=2)
    best = asked.ask(asked.active, lambda begin, end: here[begin:end])
    done = 1
    while asked.goes_on(done, queries, tick):
        items = asked.active
        side = side_of_square(p_init, done - 1, horizon or queries, height, width)
        changes = _changes(here, items, side, Draws(seed, [asked.classes[i] for i in items], done))

        def draw(begin: int, end: int, items: list[int] = items, changes: list[_Change] = changes) -> np.ndarray:
            images = here[items[begin:end]]
            for image, (window, colour) in zip(images, changes[begin:end], strict=True):
                image[window] = colour
            return images

        told = asked.ask(items, draw)
        for item, score, (window, colour) in zip(items, told, changes, strict=True):
            if score > best[item] or best[item] == -np.inf:
                best[item] = score
                here[item][window] = colour
        done += 1
    return asked.finish()


def side_of_square(p_init: float, done: int, horizon: int, height: int, width: int) -> int:
    """Pixels a side of the square after `done` of `horizon` changes: at least 1, less than the image's shorter side."""
    p = p_init * 0.5 ** bisect_left(_HALVINGS, done * 10_000 // horizon)
    return max(1, min(round(math.sqrt(p * height * width)), min(height, width) - 1))


_Change = tuple[tuple[slice, slice, slice], np.ndarray]
"""A window of an image (C, H, W), and the colour uint8 (C, 1, 1) that it gets."""


def _changes(here: np.ndarray, items: Sequence[int], side: int, draws: Draws) -> list[_Change]:
    """For each item a square of here[item] and a colour, uniform over those that change something."""
    channels, height, width = here.shape[1:]
    colours = 2**channels
    top, left = draws.integers(0, height - side + 1).tolist(), draws.integers(0, width - side + 1).tolist()
    which, other = draws.integers(0, colours).tolist(), draws.integers(1, colours).tolist()
    changes = []
    for k, item in enumerate(items):
        window = slice(None), slice(top[k], top[k] + side), slice(left[k], left[k] + side)
        colour = _corner(which[k], channels)
        if (here[item][window] == colour).all():
            colour = _corner((which[k] + other[k]) % colours, channels)
        changes.append((window, colour))
    return changes


def _corner(which: int, channels: int) -> np.ndarray:
    """One of the 2**channels corners of the box, uint8 (C, 1, 1)."""
    return np.array([255 * (which >> c & 1) for c in range(channels)], np.uint8)[:, None, None]
