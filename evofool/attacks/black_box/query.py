"""The query loop that all black-box attacks share: query in chunks, keep each class's best image, stop finished classes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np

from evofool import scores
from evofool.ascend.loop import AscentResult, Improvement, OnAnswers, Tick
from evofool.errors import RecipeError, TargetError
from evofool.targets.classifier import Target

RANKS = {"log_odds": scores.log_odds, "margin": scores.margin}


class QueryOptions(TypedDict, total=False):
    """Keywords that all black-box attacks take, with the defaults of _Options.

    budget: queries (forward passes) per class. rank: "log_odds" or "margin", the score that is maximised. seed: together
    with the class it determines an item's draws. stop_at: a class is done at this score. chunk: images per forward pass;
    short ones are padded, so with few classes a smaller chunk is faster. tick(queries done per class, budget): called after
    each round; True stops the attack. on_answers: is called with the answers to every chunk.
    """

    budget: int
    rank: str
    seed: int
    stop_at: float
    chunk: int
    tick: Tick | None
    on_answers: OnAnswers | None


@dataclass(frozen=True)
class _Options:
    """QueryOptions with their defaults."""

    budget: int = 1000
    rank: str = "log_odds"
    seed: int = 0
    stop_at: float = math.inf
    chunk: int = 16
    tick: Tick | None = None
    on_answers: OnAnswers | None = None


class QueryLoop:
    """An attack in progress: n items, one for each of `classes`. All items share forward passes.

    active: the items that continue, ascending. out: iterations counts an item's rounds (calls of `query`), forwards its
    images. An item ends with the round in which it reaches stop_at, or in which an output has NaN or infinity (a note says
    so). Improvements have the log-odds as secondary score.
    """

    def __init__(self, target: Target, classes: Sequence[int], **options: Unpack[QueryOptions]) -> None:
        """TargetError for a class that does not exist, RecipeError for an invalid option."""
        self.classes = [int(c) for c in classes]
        for c in self.classes:
            if not 0 <= c < len(target.labels):
                raise TargetError(f"{target.name}: no class {c}; it has 0 to {len(target.labels) - 1}")
        given = _Options(**options)
        if given.rank not in RANKS:
            raise RecipeError(f'there is no rank "{given.rank}"; there are {", ".join(RANKS)}')
        if given.budget < 1 or given.chunk < 1:
            raise RecipeError(f"budget and chunk have to be at least 1, not {given.budget} and {given.chunk}")
        n = len(self.classes)
        self.active = list(range(n))
        blank = np.zeros((n, *target.shape), np.uint8)
        iterations, forwards, backwards = (np.zeros(n, np.int64) for _ in range(3))
        self.out = AscentResult(blank, None, np.full(n, -np.inf), iterations, forwards, backwards)
        self.seed, self.budget = given.seed, given.budget
        self._target, self._rank, self._stop_at, self._chunk = target, RANKS[given.rank], given.stop_at, given.chunk
        self._tick, self._on_answers = given.tick, given.on_answers

    def query(self, items: Sequence[int], draw: Callable[[int, int], np.ndarray], *, shared: bool = False) -> np.ndarray:
        """One round of len(items) images; the k-th is a query of items[k], which is active.

        draw(begin, end) returns the images begin:end, uint8 (end - begin, C, H, W); it is called chunk after chunk. shared:
        an image competes in the classes of all active items, otherwise in its own item's only. An image is kept if its score
        is strictly higher than the best so far. Returns (len(items),) float64: each image's score in its own item's class,
        -inf if the target does not return that class, NaN if the output is not finite.
        """
        own_scores = np.empty(len(items))
        active = np.array(self.active)
        for begin in range(0, len(items), self._chunk):
            part = items[begin : begin + self._chunk]
            images = draw(begin, begin + len(part))
            logits = self._target.logits(images, self._chunk)
            ranked, odds = self._scores(logits)
            passes = np.empty(len(part), np.int64)
            own_scores[begin : begin + len(part)] = ranked[np.arange(len(part)), list(part)]
            for k, item in enumerate(part):
                self.out.forwards[item] += 1
                competing = active if shared else np.array([item])
                won = competing[ranked[k, competing] > self.out.scores[competing]]
                self.out.scores[won] = ranked[k, won]
                self.out.images[won] = images[k]
                passes[k] = forwards = int(self.out.forwards[item])
                for i in won.tolist():
                    self.out.improvements.append(Improvement(i, forwards, 0, float(ranked[k, i]), float(odds[k, i])))
            if self._on_answers is not None:
                self._on_answers(np.array(part, np.int64), passes, logits)
        self.out.iterations[np.unique(items)] += 1
        not_finite = {items[k] for k in np.flatnonzero(np.isnan(own_scores)).tolist()}
        self._note_stopped(sorted(not_finite))
        self.active = [i for i in self.active if i not in not_finite and not self.out.scores[i] >= self._stop_at]
        return own_scores

    def goes_on(self, done: int) -> bool:
        """Whether another round follows after `done` queries of each item; calls tick if there was a round."""
        stop = self._tick is not None and done > 0 and self._tick(done, self.budget)
        if not self.active or done >= self.budget:
            return False
        self.out.interrupted = stop
        return not stop

    def finish(self) -> AscentResult:
        """The result, with the improvements in the order of queries."""
        self.out.improvements.sort(key=lambda found: (found.forwards, found.item))
        for item in self.active:
            if self.out.forwards[item] and math.isinf(self.out.scores[item]):
                self.out.notes.append((item, f"none of {self.out.forwards[item]} outputs contained the class"))
        return self.out

    def _scores(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, n) float64: each image's score in each item's class, and its log-odds, from logits (m, K)."""
        ranked, odds = np.full(logits.shape, np.nan), np.full(logits.shape, np.nan)
        finite = np.isfinite(logits).all(axis=1)
        if finite.any():
            sound = logits[finite]
            odds[finite] = scores.log_odds(sound, self._target.multilabel)
            values = self._rank(sound, self._target.multilabel)
            if self._target.top_k < logits.shape[1]:
                values = scores.of_top_k(values, sound, self._target.top_k)
            ranked[finite] = values
        return ranked[:, self.classes], odds[:, self.classes]

    def _note_stopped(self, items: Sequence[int]) -> None:
        for item in items:
            kept = "nothing of it is kept" if math.isinf(self.out.scores[item]) else "its best before that is kept"
            after = f"within {self.out.forwards[item]} queries"
            self.out.notes.append((item, f"an output was NaN or infinite {after}, and it was stopped; {kept}"))
