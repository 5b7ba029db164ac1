"""The black-box rivals of evolution: they ask for logits of 8-bit images and see nothing else.

Every one has the same face: f(target, classes, *, queries, seed, rank, enough, chunk, tick, ...) -> Climbs, `queries` for
each class. All classes climb side by side, so that their images share forward passes of `chunk` images (a short one is
padded: with fewer classes than that a smaller chunk is faster). What an item draws is keyed by seed and class alone.
"""

from evofool.attacks.black_box.nes import nes
from evofool.attacks.black_box.random_search import noise, random_search
from evofool.attacks.black_box.square import square

__all__ = ["nes", "noise", "random_search", "square"]
