"""From an order to its winners: make the children, draw them, ask the target, keep what beats the thresholds.

An order carries parents and a key, never children: whoever evaluates it makes them, here or on another machine, and the
same order gives the same bits.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from evofool import scores
from evofool.archive import Winners
from evofool.descriptors import DESCRIPTORS, bins
from evofool.targets.target import Target
from genomes import Encoding, Genomes, Key

COMPETITIONS = ("all", "argmax", "own")
"""all: every image competes in every class (Nguyen 2015). argmax: only in the class it is called.
own: only in the class it was made for, from that class's parents: independent climbers, the control."""


_NONE, _NO_SCORES = np.zeros(0, np.int64), np.zeros(0)


@dataclass(frozen=True)
class Order:
    """One batch to be made and judged. Child i has the birth id first_birth + i and draws from key.at(i)."""

    key: Key
    first_birth: int
    size: int
    thresholds: np.ndarray  # (cells,) float64: only what beats them is worth telling
    holders: np.ndarray  # (cells,) int64: who held the cells when the parents were drawn; stays with the archive
    mothers: np.ndarray  # (size,) int64 births, -1: none, the children are random
    fathers: np.ndarray  # (size,) int64
    mother_genomes: Genomes | None = None
    father_genomes: Genomes | None = None
    claims: np.ndarray | None = None  # (size,) int64: the one class each child competes in, for `own`

    @property
    def batch(self) -> int:
        return self.key.batch


@dataclass(frozen=True)
class Judge:
    """Everything that turns an order into winners; called, it does so. Frozen and cheap to build on a worker.

    chunk is the number of images that share a forward pass: it, not the number of workers, decides last bits.
    """

    encoding: Encoding
    target: Target
    chunk: int
    rank: str = "log_odds"
    competition: str = "all"
    descriptor: str | None = None
    edges: tuple[float, ...] = ()

    @property
    def niches(self) -> int:
        return len(self.edges) + 1

    def __call__(self, order: Order) -> Winners:
        """Raises ScoreError, naming the batch, if any answer is not finite; then nothing of it is kept."""
        genomes, logits, niche = [], [], []
        for row in range(0, order.size, self.chunk):
            children = self.children(order, row, min(row + self.chunk, order.size))
            images = self.encoding.render(children)
            genomes.append(children)
            logits.append(self.target.logits(images, pad_to=self.chunk))
            if self.descriptor:
                niche.append(bins(DESCRIPTORS[self.descriptor](images), self.edges))
        if len(genomes) == 1:
            return self._winners(order, genomes[0], logits[0], niche[0] if niche else None)
        return self._winners(
            order, np.concatenate(genomes), np.concatenate(logits), np.concatenate(niche) if niche else None
        )

    def children(self, order: Order, begin: int, end: int) -> Genomes:
        """The rows begin:end of the batch, the same however it is cut."""
        key = order.key.at(begin)
        if order.mother_genomes is None or order.father_genomes is None:
            return self.encoding.random(end - begin, key)
        return self.encoding.vary(order.mother_genomes[begin:end], order.father_genomes[begin:end], key)

    def _winners(self, order: Order, genomes: Genomes, logits: np.ndarray, niche: np.ndarray | None) -> Winners:
        scores.refuse_unfinite(logits, order.batch, self.target.name)
        log_odds = scores.log_odds(logits)
        ranked = log_odds if self.rank == "log_odds" else scores.margin(logits)
        allowed = ranked
        if self.competition != "all":
            claims = order.claims if order.claims is not None else logits.argmax(axis=1)
            allowed = np.full_like(ranked, -np.inf)
            every = np.arange(order.size)
            allowed[every, claims] = ranked[every, claims]
        if niche is None:
            cells, rows = _best(allowed, order.thresholds)
            classes = cells
        else:
            cells, rows = _best_by_niche(allowed, order.thresholds, niche, self.niches)
            classes = cells // self.niches
        if not len(cells):  # most batches, once a search is under way
            return Winners(_NONE, _NONE, _NONE, genomes[:0], _NONE, _NONE, _NO_SCORES, _NO_SCORES, _NO_SCORES)
        kept, which = np.unique(rows, return_inverse=True)
        margins = ranked if self.rank == "margin" else scores.margin(logits[kept])
        return Winners(
            births=order.first_birth + kept,
            mothers=order.mothers[kept],
            fathers=np.where(self.encoding.fathered(order.size, order.key)[kept], order.fathers[kept], -1),
            genomes=genomes[kept],
            cells=cells,
            rows=which,
            scores=ranked[rows, classes],
            log_odds=log_odds[rows, classes],
            margins=margins[rows if self.rank == "margin" else which, classes],
        )


class Evaluator(Protocol):
    """Where orders go and winners come from. Results come in the order of submission."""

    def submit(self, order: Order) -> None:
        """Take an order; may return before it is evaluated."""
        ...

    def results(self) -> Iterator[tuple[Order, Winners]]:
        """Yield the finished orders until none is left; whoever reads may submit in between."""
        ...

    def pending(self) -> list[Order]:
        """The orders taken and not yet yielded, oldest first: what a checkpoint has to keep."""
        ...


@dataclass
class LocalEvaluator:
    """In this process, one order after another."""

    judge: Judge
    _orders: deque[Order] = field(default_factory=deque)

    def submit(self, order: Order) -> None:
        self._orders.append(order)

    def results(self) -> Iterator[tuple[Order, Winners]]:
        while self._orders:
            winners = self.judge(self._orders[0])
            yield self._orders.popleft(), winners

    def pending(self) -> list[Order]:
        return list(self._orders)


def _best(scores: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per column the best row, where it is above the threshold; of equals the first row. (M,) columns, (M,) rows."""
    columns = np.flatnonzero(scores.max(axis=0) > thresholds)
    return columns, scores[:, columns].argmax(axis=0)


def _best_by_niche(
    scores: np.ndarray, thresholds: np.ndarray, niche: np.ndarray, niches: int
) -> tuple[np.ndarray, np.ndarray]:
    """As _best, among the rows of each niche; cell = class * niches + niche."""
    by_niche = thresholds.reshape(-1, niches)
    cells, rows = [], []
    for n in np.unique(niche):
        members = np.flatnonzero(niche == n)
        columns, best = _best(scores[members], by_niche[:, n])
        cells.append(columns * niches + n)
        rows.append(members[best])
    return np.concatenate(cells), np.concatenate(rows)
