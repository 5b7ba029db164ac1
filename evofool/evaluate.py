"""From an order to its winners: make the children, draw them, ask the target, keep what beats the thresholds.

An order carries parents and a key, never children: whoever evaluates it makes them, here or on another machine, and the
same order gives the same bits.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch

from evofool import scores, scores_torch
from evofool.archive import Winners
from evofool.descriptors import DESCRIPTORS, bins
from evofool.targets.network import PLAIN
from evofool.targets.target import Target
from genomes import Encoding, Genomes, Key

COMPETITIONS = ("all", "argmax", "own")
"""all: every image competes in every class (Nguyen 2015). argmax: only in the class it is called.
own: only in the class it was made for, from that class's parents: independent climbers, the control."""


_A = TypeVar("_A")
_B = TypeVar("_B")
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
    number_format is what the target ranks by (Target.formats). resident: images, logits and scores stay on the target's
    device, and only the winners leave it; for a torch network without niches.
    """

    encoding: Encoding
    target: Target
    chunk: int
    rank: str = "log_odds"
    competition: str = "all"
    descriptor: str | None = None
    edges: tuple[float, ...] = ()
    number_format: str = PLAIN
    resident: bool = False

    @property
    def niches(self) -> int:
        return len(self.edges) + 1

    def __call__(self, order: Order) -> Winners:
        """Raises ScoreError, naming the batch, if any answer is not finite; then nothing of it is kept."""
        return Winners.merged([self.part(order, row) for row in self.parts(order)])

    def parts(self, order: Order) -> range:
        """Where the chunks of a batch begin."""
        return range(0, order.size, self.chunk)

    def part(self, order: Order, begin: int) -> Winners:
        """The winners of one chunk. May be called from several threads at once."""
        end = min(begin + self.chunk, order.size)
        genomes = self.children(order, begin, end)
        if self.resident:
            return self._resident(order, begin, genomes)
        images = self.encoding.render(genomes)
        logits = self.target.logits(images, self.chunk, self.number_format)
        niche = bins(DESCRIPTORS[self.descriptor](images), self.edges) if self.descriptor else None
        return self._winners(order, begin, genomes, logits, niche)

    def children(self, order: Order, begin: int, end: int) -> Genomes:
        """The rows begin:end of the batch, the same however it is cut."""
        key = order.key.at(begin)
        if order.mother_genomes is None or order.father_genomes is None:
            return self.encoding.random(end - begin, key)
        return self.encoding.vary(order.mother_genomes[begin:end], order.father_genomes[begin:end], key)

    def _winners(self, order: Order, begin: int, genomes: Genomes, logits: np.ndarray, niche: np.ndarray | None) -> Winners:
        scores.refuse_unfinite(logits, order.batch, self.target.name, begin)
        log_odds = scores.log_odds(logits)
        ranked = log_odds if self.rank == "log_odds" else scores.margin(logits)
        n = len(genomes)
        allowed = ranked if self.target.told == ranked.shape[1] else _of_the_told(ranked, logits, self.target.told)
        if self.competition != "all":
            claims = order.claims[begin : begin + n] if order.claims is not None else logits.argmax(axis=1)
            only, every = np.full_like(ranked, -np.inf), np.arange(n)
            only[every, claims] = allowed[every, claims]
            allowed = only
        if niche is None:
            cells, rows = _best(allowed, order.thresholds)
            classes = cells
        else:
            cells, rows = _best_by_niche(allowed, order.thresholds, niche, self.niches)
            classes = cells // self.niches
        # Most chunks win nothing, once a search is under way.
        margins = ranked if self.rank == "margin" or not len(cells) else scores.margin(logits)
        return self._told(order, begin, genomes, cells, rows, *(z[rows, classes] for z in (ranked, log_odds, margins)))

    def _resident(self, order: Order, begin: int, genomes: Genomes) -> Winners:
        network = self.target.network
        assert network is not None
        logits = self.target.logits_there(self.encoding.draw(genomes, network.device), self.chunk, self.number_format)
        claims: np.ndarray | torch.Tensor | None = None
        if self.competition != "all":
            claims = logits.argmax(1) if order.claims is None else order.claims[begin : begin + len(genomes)]
        best = scores_torch.best(
            logits, order.thresholds, batch=order.batch, who=self.target.name, begin=begin, rank=self.rank, claims=claims
        )
        return self._told(order, begin, genomes, best.cells, best.rows, best.scores, best.log_odds, best.margins)

    def _told(
        self,
        order: Order,
        begin: int,
        genomes: Genomes,
        cells: np.ndarray,
        rows: np.ndarray,
        ranked: np.ndarray,
        log_odds: np.ndarray,
        margins: np.ndarray,
    ) -> Winners:
        """Winners of the cells (M,) that rows (M,) of a chunk won, with their scores (M,)."""
        if not len(cells):
            return Winners(_NONE, _NONE, _NONE, genomes[:0], _NONE, _NONE, _NO_SCORES, _NO_SCORES, _NO_SCORES)
        kept, which = np.unique(rows, return_inverse=True)
        fathered = self.encoding.fathered(len(genomes), order.key.at(begin))[kept]
        return Winners(
            births=order.first_birth + begin + kept,
            mothers=order.mothers[begin + kept],
            fathers=np.where(fathered, order.fathers[begin + kept], -1),
            genomes=genomes[kept],
            cells=cells,
            rows=which,
            scores=ranked,
            log_odds=log_odds,
            margins=margins,
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


class LocalEvaluator:
    """In this process: one chunk after another, or, with several workers, as many chunks at once.

    Workers are threads, each with torch_threads of its own for its forward passes (numba and torch let go of the
    interpreter); so one draws while another classifies. Their number changes no bit.
    """

    def __init__(self, judge: Judge, workers: int = 1, torch_threads: int = 1) -> None:
        self.judge = judge
        self.workers = workers
        self._orders: deque[_Taken] = deque()
        self._pool: ThreadPoolExecutor | None = None
        if workers > 1:
            self._pool = ThreadPoolExecutor(workers, "evofool", torch.set_num_threads, (torch_threads,))

    def submit(self, order: Order) -> None:
        self._orders.append(_Taken(order))

    def results(self) -> Iterator[tuple[Order, Winners]]:
        while self._orders:
            head = self._orders[0]
            if self._pool is None:
                winners = self.judge(head.order)
            else:
                for taken in self._orders:
                    self._begin(taken)
                try:
                    wait(head.parts, return_when=FIRST_EXCEPTION)
                    failed = [part for part in head.parts if part.done() and part.exception()]
                    winners = Winners.merged([part.result() for part in failed or head.parts])
                except BaseException:
                    # Whoever comes back for it asks again; the answers to come are not waited for.
                    self.judge.target.abandon()
                    for taken in self._orders:
                        for part in taken.parts:
                            part.cancel()
                        taken.parts = []
                    raise
            self._orders.popleft()
            yield head.order, winners

    def pending(self) -> list[Order]:
        return [taken.order for taken in self._orders]

    def map(self, function: Callable[[_A], _B], items: Iterable[_A]) -> list[_B]:
        """function of every item, in order, by the workers."""
        return list(self._pool.map(function, items) if self._pool else map(function, items))

    def close(self) -> None:
        """Let the workers go, without waiting for what they began."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self.judge.target.abandon()

    def _begin(self, taken: "_Taken") -> None:
        if self._pool is not None and not taken.parts:
            taken.parts = [self._pool.submit(self.judge.part, taken.order, row) for row in self.judge.parts(taken.order)]


@dataclass
class _Taken:
    """An order, and its chunks under way."""

    order: Order
    parts: list[Future[Winners]] = field(default_factory=list)


def _of_the_told(ranked: np.ndarray, logits: np.ndarray, told: int) -> np.ndarray:
    """ranked, but -inf for all except each image's `told` highest logits: what a black box does not tell wins nothing."""
    out = np.full_like(ranked, -np.inf)
    top = np.argpartition(logits, -told, axis=1)[:, -told:]
    np.put_along_axis(out, top, np.take_along_axis(ranked, top, axis=1), axis=1)
    return out


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
