"""What every rival shares: ask the target in chunks, keep each class's best image, let go of who is done."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from evofool import scores
from evofool.ascend.loop import AscentResult, Improvement, Tick
from evofool.errors import RecipeError, TargetError
from evofool.targets.target import Target

RANKS = {"log_odds": scores.log_odds, "margin": scores.margin}


class QueryLoop:
    """The questions of n items, one item for each of `classes`, and what came of them.

    active: the items that go on, ascending. out: iterations counts an item's rounds (calls of `ask`), forwards its images.
    An item ends with the round in which it has `stop_at`, or in which an answer held NaN or infinity (a note says so).
    Improvements tell the log-odds beside the score.
    """

    def __init__(
        self, target: Target, classes: Sequence[int], *, queries: int, rank: str, stop_at: float, chunk: int
    ) -> None:
        """TargetError for a class that is not there, RecipeError for a setting that cannot be."""
        self.classes = [int(c) for c in classes]
        for c in self.classes:
            if not 0 <= c < len(target.labels):
                raise TargetError(f"{target.name}: there is no class {c}; they are 0 to {len(target.labels) - 1}")
        if rank not in RANKS:
            raise RecipeError(f'rank "{rank}" is none of {", ".join(RANKS)}')
        if queries < 1 or chunk < 1:
            raise RecipeError(f"queries and chunk have to be at least 1, not {queries} and {chunk}")
        n = len(self.classes)
        self.active = list(range(n))
        blank = np.zeros((n, *target.shape), np.uint8)
        iterations, forwards, backwards = (np.zeros(n, np.int64) for _ in range(3))
        self.out = AscentResult(blank, None, np.full(n, -np.inf), iterations, forwards, backwards)
        self._target, self._rank, self._stop_at, self._chunk = target, RANKS[rank], stop_at, chunk

    def ask(self, items: Sequence[int], draw: Callable[[int, int], np.ndarray], *, everywhere: bool = False) -> np.ndarray:
        """One round: ask for len(items) images, the k-th on behalf of items[k], which is active.

        draw(begin, end) makes the images begin:end, uint8 (end - begin, C, H, W); it is called for one chunk after another.
        everywhere: an image competes in the classes of all active items, else in its own item's. A strictly higher score
        wins; of equals the first. Returns (len(items),) float64: each image's score in its own item's class, -inf where the
        target does not tell of that class, NaN where the answer is not finite.
        """
        told = np.empty(len(items))
        active = np.array(self.active)
        for begin in range(0, len(items), self._chunk):
            part = items[begin : begin + self._chunk]
            images = draw(begin, begin + len(part))
            ranked, odds = self._ranked(images)
            told[begin : begin + len(part)] = ranked[np.arange(len(part)), list(part)]
            for k, item in enumerate(part):
                self.out.forwards[item] += 1
                contested = active if everywhere else np.array([item])
                won = contested[ranked[k, contested] > self.out.scores[contested]]
                self.out.scores[won] = ranked[k, won]
                self.out.images[won] = images[k]
                after = int(self.out.forwards[item])
                for i in won.tolist():
                    self.out.improvements.append(Improvement(i, after, 0, float(ranked[k, i]), float(odds[k, i])))
        self.out.iterations[np.unique(items)] += 1
        spoiled = {items[k] for k in np.flatnonzero(np.isnan(told)).tolist()}
        self._complain(sorted(spoiled))
        self.active = [i for i in self.active if i not in spoiled and not self.out.scores[i] >= self._stop_at]
        return told

    def goes_on(self, done: int, of: int, tick: Tick | None) -> bool:
        """Whether there is another round after `done` of so many queries an item; tick is called once there was one."""
        stop = tick is not None and done > 0 and tick(done, of)
        if not self.active or done >= of:
            return False
        self.out.interrupted = stop
        return not stop

    def finish(self) -> AscentResult:
        """What was found, improvements in the order of queries."""
        self.out.improvements.sort(key=lambda found: (found.forwards, found.item))
        for item in self.active:
            if self.out.forwards[item] and math.isinf(self.out.scores[item]):
                self.out.notes.append((item, f"none of {self.out.forwards[item]} answers told of it"))
        return self.out

    def _ranked(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, n) float64: each image's score in each item's class, and its log-odds."""
        logits = self._target.logits(images, self._chunk)
        ranked, odds = np.full(logits.shape, np.nan), np.full(logits.shape, np.nan)
        finite = np.isfinite(logits).all(axis=1)
        if finite.any():
            sound = logits[finite]
            odds[finite] = scores.log_odds(sound)
            values = self._rank(sound)
            if self._target.top_k < logits.shape[1]:
                values = scores.of_top_k(values, sound, self._target.top_k)
            ranked[finite] = values
        return ranked[:, self.classes], odds[:, self.classes]

    def _complain(self, spoiled: Sequence[int]) -> None:
        for item in spoiled:
            best = "nothing of it is kept" if math.isinf(self.out.scores[item]) else "its best is kept"
            words = (
                f"an answer came out NaN or infinite within {self.out.forwards[item]} queries, and it was stopped; {best}"
            )
            self.out.notes.append((item, words))
