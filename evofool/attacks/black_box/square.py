"""Square attack: a random search that changes one square of the image at a time."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Unpack

import numpy as np

from evofool.ascend.draws import Draws
from evofool.ascend.loop import AscentResult
from evofool.attacks.black_box.query import QueryLoop, QueryOptions
from evofool.errors import RecipeError
from evofool.targets.classifier import Target

# Of 10,000 queries: those after which the share of changed pixels is halved, as in the authors' code.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(
    target: Target,
    classes: Sequence[int],
    *,
    p_init: float = 0.8,
    horizon: int = 0,
    **options: Unpack[QueryOptions],
) -> AscentResult:
    """Square attack, L-infinity version, without a source image. Source: Andriushchenko et al. 2020, algorithms 1 and 2.

    The start is vertical stripes. A query changes the colour of one square at a random position to another random colour;
    the change is kept if the score is strictly higher. p_init: the share of the pixels that a square covers at first; it is
    halved nine times on the authors' schedule, which is stretched to `horizon` queries (0: the budget).

    Differences from the paper: the ball around a source image is the whole box, so colours are the corners of the box, each
    channel 0 or 255. The attack is targeted, since there is no source class: log-odds rank like the authors' cross-entropy
    for targeted attacks, margin like their margin loss with the opposite sign. It does not end when the class is predicted.
    As long as the target does not return the class, every change is kept. p_init is that of the authors' largest ball (0.8,
    MNIST at 0.3): their ImageNet values, 0.05 and below, are for images close to a photo. A square may reach the last row
    and column.
    """
    if not 0 < p_init <= 1:
        raise RecipeError(f"p_init, a share of the pixels, has to lie in (0, 1], not {p_init}")
    loop = QueryLoop(target, classes, **options)
    if 0 < horizon < loop.budget or horizon < 0:
        raise RecipeError(f"horizon has to be 0 or at least the budget of {loop.budget} queries, not {horizon}")
    channels, height, width = target.shape
    on = Draws(loop.seed, loop.classes, 0).integers(0, 2, channels, 1, width).numpy()
    images = np.repeat((255 * on).astype(np.uint8), height, axis=2)
    best = loop.query(loop.active, lambda begin, end: images[begin:end])
    done = 1
    while loop.goes_on(done):
        items = loop.active
        side = side_of_square(p_init, done - 1, horizon or loop.budget, height, width)
        changes = _changes(images, items, side, Draws(loop.seed, [loop.classes[i] for i in items], done))

        def draw(begin: int, end: int, items: list[int] = items, changes: list[_Change] = changes) -> np.ndarray:
            changed = images[items[begin:end]]
            for image, (window, colour) in zip(changed, changes[begin:end], strict=True):
                image[window] = colour
            return changed

        scores = loop.query(items, draw)
        for item, score, (window, colour) in zip(items, scores, changes, strict=True):
            if score > best[item] or best[item] == -np.inf:
                best[item] = score
                images[item][window] = colour
        done += 1
    return loop.finish()


def side_of_square(p_init: float, done: int, horizon: int, height: int, width: int) -> int:
    """The side of the square in pixels after `done` of `horizon` changes: at least 1, less than the image's shorter side."""
    p = p_init * 0.5 ** bisect_left(_HALVINGS, done * 10_000 // horizon)
    return max(1, min(round(math.sqrt(p * height * width)), min(height, width) - 1))


_Change = tuple[tuple[slice, slice, slice], np.ndarray]
"""A window of an image (C, H, W) and its new colour uint8 (C, 1, 1)."""


def _changes(images: np.ndarray, items: Sequence[int], side: int, draws: Draws) -> list[_Change]:
    """For each item a random square of images[item] and a random colour that differs from it."""
    channels, height, width = images.shape[1:]
    colours = 2**channels
    top, left = draws.integers(0, height - side + 1).tolist(), draws.integers(0, width - side + 1).tolist()
    which, other = draws.integers(0, colours).tolist(), draws.integers(1, colours).tolist()
    changes = []
    for k, item in enumerate(items):
        window = slice(None), slice(top[k], top[k] + side), slice(left[k], left[k] + side)
        colour = _corner(which[k], channels)
        if (images[item][window] == colour).all():
            colour = _corner((which[k] + other[k]) % colours, channels)
        changes.append((window, colour))
    return changes


def _corner(which: int, channels: int) -> np.ndarray:
    """One of the 2**channels corners of the box, uint8 (C, 1, 1)."""
    return np.array([255 * (which >> c & 1) for c in range(channels)], np.uint8)[:, None, None]
