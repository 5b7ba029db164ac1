"""Finds the images that break a target: batches that fail are halved, and single images are quarantined."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from evofool.ascend.surrogates import Surrogates
from evofool.errors import DriftError, ScoreError, TargetError, UnansweredError
from evofool.search.archive import Quarantined, Winners
from evofool.search.evaluate import BatchEvaluator, Order, children
from genomes import Encoding

MAX_BROKEN = 8  # images that break the target in one call, before the target itself is taken to be broken
NOT_FINITE = "the answer to it is NaN or infinite"
OnAnswers = Callable[[Order, np.ndarray | torch.Tensor], None]
"""Is called with an order within one chunk, and the logits of its images, (B, K), where all of them are finite."""
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


class Isolated(NamedTuple):
    """An order evaluated, but for the rows that break the target by themselves."""

    winners: Winners
    broken: list[tuple[int, str]]  # these rows, each with the reason
    unsteady: list[tuple[int, int]]  # (begin, end) of rows whose answer was not finite, though none of them is broken
    last: tuple[int, np.ndarray | torch.Tensor] | None  # the last chunk, or part of one, that did not fail: row, logits


def isolate(batch_evaluator: BatchEvaluator, order: Order, on_answers: OnAnswers | None = None) -> Isolated:
    """The winners of an order, and the rows that break the target by themselves. on_answers is called with each chunk.

    Raises the target's first error if more than 8 rows break it, if it is out of memory or was changed, or if it is a black
    box, which would have to be paid for more queries.
    """
    search = _Isolation(batch_evaluator, on_answers)
    cuts = pairwise([*batch_evaluator.parts(order), order.size])
    winners = Winners.merged([search.part(order.cut(at, end), at) for at, end in cuts], batch_evaluator.keep)
    return Isolated(winners, search.broken, search.unsteady, search.last)


class _Isolation:
    """What is known of one order so far."""

    def __init__(self, batch_evaluator: BatchEvaluator, on_answers: OnAnswers | None) -> None:
        self.batch_evaluator, self._on_answers = batch_evaluator, on_answers
        self.broken: list[tuple[int, str]] = []
        self.unsteady: list[tuple[int, int]] = []
        self.last: tuple[int, np.ndarray | torch.Tensor] | None = None
        self._first: ScoreError | TargetError | None = None

    def part(self, order: Order, begin: int) -> Winners:
        """The winners of a chunk. A chunk that fails is halved, down to the images that break the target.

        Every image keeps its row in the forward pass (BatchEvaluator.part), since its last bits may depend on that.
        """
        seen: list[np.ndarray | torch.Tensor] = []
        try:
            winners = self.batch_evaluator.part(order, 0, seen.append)
            self.last = begin, seen[0]
            if self._on_answers is not None:
                self._on_answers(order, seen[0])
            return winners
        except OUT_OF_MEMORY:
            raise
        except (ScoreError, TargetError) as error:
            if self.batch_evaluator.target.counts_persist or isinstance(error, DriftError):
                raise
            self._first = self._first or error
            if order.size == 1:
                reason = NOT_FINITE if isinstance(error, ScoreError) else str(error)
                self.broken.append((begin, reason))
                if len(self.broken) > MAX_BROKEN:
                    raise self._first from None
                return Winners.none(self.batch_evaluator.encoding)
            cuts, failed, before = [0, order.size // 2, order.size], error, len(self.broken)
            if isinstance(error, UnansweredError) and error.row is not None:  # each attempt may take long
                cuts = sorted({0, error.row, error.row + 1, order.size})
        parts = [self.part(order.cut(at, end), begin + at) for at, end in pairwise(cuts)]
        if isinstance(failed, ScoreError) and len(self.broken) == before:
            self.unsteady.append((begin, begin + order.size))
        return Winners.merged(parts, self.batch_evaluator.keep)


class Quarantine:
    """Quarantines single images: at most `limit`, in one session, before a ScoreError ends the search."""

    def __init__(self, encoding: Encoding, target_name: str, limit: int, surrogates: Surrogates | None = None) -> None:
        self._encoding, self._surrogates = encoding, surrogates
        self._target_name, self._limit = target_name, limit
        self._births: set[int] = set()

    def __len__(self) -> int:
        return len(self._births)

    def add(self, order: Order, reason: str) -> Quarantined:
        """The one image of an order, quarantined. ScoreError if there are too many; this one then does not count."""
        birth = order.first_birth
        if birth not in self._births and len(self._births) >= self._limit:
            raise ScoreError(
                f"batch {order.batch}: {self._target_name}: {reason}. More than {self._limit} images are quarantined: check "
                "the target, or raise compute.ray.quarantine"
            )
        self._births.add(birth)
        mother, father = int(order.mothers[0]), int(order.fathers[0])
        genome = children(self._encoding, order, self._surrogates)
        return Quarantined(birth, order.batch, mother, father, genome, reason)


def refuse_whole_batch(order: Order, reasons: Sequence[str], target_name: str) -> None:
    """TargetError if all images of a batch of several broke the target; reasons: of those that did."""
    if order.size > 1 and len(reasons) == order.size:
        raise TargetError(f"{target_name}: fails on every image of batch {order.batch}: {reasons[0]}")
