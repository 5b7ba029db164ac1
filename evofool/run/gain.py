"""Whether a search improves at all."""

from math import ceil

import numpy as np

from evofool.search.evolve import MapElites
from evofool.targets import Target
from evofool.targets.kinds import fed_by_server

_STAGNANT_AFTER, _STAGNANT_BATCHES = 1000, 20  # a search should have improved after so many evaluations and batches
_LEAST_GAIN = 0.1  # log-odds that a working search gains in some class in its first few batches


class GainCheck:
    """Looks once, some batches after the random ones, whether the best log-odds of any class have risen since these.

    The highest of all classes alone would not tell: of random noise a class that likes noise may have its best image.
    Classes without an elite after the random batches are left out. A run that is resumed after those is not judged.
    """

    def __init__(self, lag: int, size: int, random: int) -> None:
        self._random = max(lag + 1, ceil(random / size))
        self._at = self._random + max(_STAGNANT_BATCHES, ceil(_STAGNANT_AFTER / size))
        self._first: np.ndarray | None = None  # (K,) the best log-odds after the random batches

    def after_commit(self, strategy: MapElites, target: Target) -> str | None:
        """A warning for the user; None if there is nothing to say."""
        if strategy.committed not in (self._random, self._at):
            return None
        best = strategy.archive.log_odds.reshape(strategy.archive.classes, -1).max(axis=1)
        if strategy.committed == self._random:
            self._first = best
            return None
        if self._first is None:
            return None
        had_elite = np.isfinite(self._first)
        if (best[had_elite] - self._first[had_elite]).max(initial=0.0) >= _LEAST_GAIN:
            return None
        known = not fed_by_server(target.details)
        preprocessing = target.details.get("preprocessing") if known else "the server's own"
        return (
            f"there is hardly any improvement since the first batch, in {strategy.evaluations:,} evaluations. "
            f"Check the target's preprocessing (input scaling, channel order, mean, std: {preprocessing}), that its outputs "
            "are logits of its input, and that it is the trained network"
        )
