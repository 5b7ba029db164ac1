"""Whether a search improves at all."""

from math import ceil

from evofool.search.evolve import MapElites
from evofool.targets import Target

_STAGNANT_AFTER, _STAGNANT_BATCHES = 1000, 20  # a search should have improved after so many evaluations and batches
_LEAST_GAIN = 0.1  # log-odds that a working search gains in its first few batches


class GainCheck:
    """Looks once, some batches after the random ones, whether the best log-odds have risen since these."""

    def __init__(self, lag: int, size: int, random: int) -> None:
        self._random = max(lag + 1, ceil(random / size))
        self._at = self._random + max(_STAGNANT_BATCHES, ceil(_STAGNANT_AFTER / size))
        self._first_best: float | None = None

    def after_commit(self, strategy: MapElites, target: Target) -> str | None:
        """A warning for the user; None if there is nothing to say."""
        best = strategy.archive.log_odds
        if strategy.committed == self._random:
            self._first_best = float(best.max())
        if strategy.committed != self._at or self._first_best is None or best.max() - self._first_best >= _LEAST_GAIN:
            return None
        known = target.details.get("backend") != "http"
        preprocessing = target.details.get("preprocessing") if known else "the server's own"
        return (
            f"there is hardly any improvement since the first batch, in {strategy.evaluations:,} evaluations. "
            f"Check the target's preprocessing (input scaling, channel order, mean, std: {preprocessing}), that its outputs "
            "are logits of its input, and that it is the trained network"
        )
