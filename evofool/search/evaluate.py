"""Evaluation of a batch: make the children, draw them, score them with the target, return those that beat the thresholds.

An order has parents and a key, but no children: these are made where the order is evaluated, in this process or on another
machine, and the same order gives the same bits. Where an order says so, a child is its mother after a climb of surrogates'
gradients (evofool/ascend/surrogates.py): then the same bits are claimed for one kind of CPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from evofool import scores, scores_torch
from evofool.ascend.surrogates import Surrogates
from evofool.descriptors import DESCRIPTORS, bins
from evofool.search.archive import TurnedAway, Winners
from evofool.search.ranking import Permits, best_permitted_rows, best_rows
from evofool.targets.classifier import Target
from evofool.targets.network import FLOAT32
from genomes import Encoding, Genomes, Key

COMPETITIONS = ("all", "argmax", "per-class")
"""all: every image competes in every class (Nguyen 2015). argmax: only in the class that it is classified as.
per-class: only in the class that it was made for, from parents of that class, so that classes share nothing (a control)."""


@dataclass(frozen=True)
class Order:
    """One batch to be made and evaluated. Child i has the birth id first_birth + i and draws from key.at(i)."""

    key: Key
    first_birth: int
    size: int
    thresholds: np.ndarray  # (cells,) float64: only images that beat them are returned
    incumbents: np.ndarray  # (cells, keep) int64: the cells' lists when the parents were drawn; not needed to evaluate
    mothers: np.ndarray  # (size,) int64 births; -1: none, the children are seeds or random
    fathers: np.ndarray  # (size,) int64, -1 where a child takes nothing from a father
    # By birth, each a batch of one, never written to; also of the children that are given.
    parents: Mapping[int, Genomes] = field(default_factory=dict)
    claims: np.ndarray | None = None  # (size,) int64: the class that each child competes in, with per-class
    drawn_after: int = 0  # number of batches that were committed when the parents were drawn
    climbs: np.ndarray | None = None  # (size,) int64: the class that a child has climbed for; -1: it is made by variation

    @property
    def batch(self) -> int:
        return self.key.batch

    @property
    def given(self) -> list[int]:
        """The births of the children that are not made: seeds, and in a replay those that climbed. parents has them."""
        if not self.parents or not self.size or (self.mothers[0] >= 0 and self.climbs is None):
            return []
        return [birth for birth in range(self.first_birth, self.first_birth + self.size) if birth in self.parents]

    def cut(self, begin: int, end: int) -> "Order":
        """An order of the rows begin:end, which gives the same children."""
        return replace(
            self,
            key=self.key.at(begin),
            first_birth=self.first_birth + begin,
            size=end - begin,
            mothers=self.mothers[begin:end],
            fathers=self.fathers[begin:end],
            claims=None if self.claims is None else self.claims[begin:end],
            climbs=None if self.climbs is None else self.climbs[begin:end],
        )

    def climbed(self, births: np.ndarray) -> np.ndarray:
        """(n,) bool: which of these children have climbed; variation cannot make them again."""
        return np.zeros(len(births), bool) if self.climbs is None else self.climbs[births - self.first_birth] >= 0


def children(encoding: Encoding, order: Order, surrogates: Surrogates | None = None) -> Genomes:
    """The genomes of an order's batch. The same order gives the same children on every machine, but for those that climb.

    surrogates: needed for an order with children that climb and are not given.
    """
    if not order.size or order.mothers[0] < 0:
        made = encoding.random(order.size, order.key)
    else:
        mothers = np.concatenate([order.parents[birth] for birth in order.mothers.tolist()])
        births = np.where(order.fathers < 0, order.mothers, order.fathers)
        fathers = mothers
        if (order.fathers >= 0).any():
            fathers = np.concatenate([order.parents[birth] for birth in births.tolist()])
        made = encoding.vary(mothers, fathers, order.key)
        _climb(made, mothers, order, surrogates)
    for birth in order.given:
        made[birth - order.first_birth] = order.parents[birth][0]
    return made


def _climb(made: Genomes, mothers: Genomes, order: Order, surrogates: Surrogates | None) -> None:
    """Replace the children that climb and are not given."""
    if order.climbs is None:
        return
    rows = np.flatnonzero(order.climbs >= 0)
    rows = rows[[order.first_birth + row not in order.parents for row in rows.tolist()]]
    if len(rows):
        assert surrogates is not None
        keys = [order.key.at(row) for row in rows.tolist()]
        made[rows] = surrogates.children(mothers[rows], order.climbs[rows], keys)


OnLogits = Callable[[np.ndarray | torch.Tensor], None]
"""Is called with the logits of a chunk, (B, K), on the device where they were computed."""


def on_host(logits: np.ndarray | torch.Tensor) -> np.ndarray:
    """Logits as a float32 array."""
    return logits.float().cpu().numpy() if isinstance(logits, torch.Tensor) else logits


class AnswersWithdrawn(Exception):
    """Results that an evaluator has yielded are wrong: the search has to go back to its last checkpoint.

    The evaluator has to be told with Evaluator.rewind before it is used again.
    """


@dataclass(frozen=True)
class BatchEvaluator:
    """Evaluates an order when it is called: returns its winners. Frozen, and cheap to build on a worker.

    chunk is the number of images in a forward pass. It affects the last bits of scores; the number of workers does not.
    number_format: the one of Target.formats that the search ranks by. resident: images, logits and scores stay on the
    target's device, and only the winners are copied; for a torch network without niches. keep: the most winners of a cell,
    the length of the archive's lists (Archive). surrogates: for orders with children that climb. reference_batch: the number
    of images in a pass of reference_logits, chunk unless given. It is 1 where logits depend on an image's place, so that an
    elite's reference scores do not depend on the elites that are scored with it. position: Position.tolerance of the target
    at this chunk size (evofool.targets.position), 0 if logits do not depend on an image's place. permits: which images may
    win a place in a cell of a class; None: all. It sees the images as they are saved, so they are not resident.
    """

    encoding: Encoding
    target: Target
    chunk: int
    rank: str = "log_odds"
    competition: str = "all"
    descriptor: str | None = None
    edges: tuple[float, ...] = ()
    number_format: str = FLOAT32
    resident: bool = False
    keep: int = 1
    surrogates: Surrogates | None = None
    reference_batch: int = 0
    position: float = 0.0
    permits: Permits | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference_batch", self.reference_batch or self.chunk)

    @property
    def niches(self) -> int:
        return len(self.edges) + 1

    def __call__(self, order: Order) -> Winners:
        """ScoreError, naming the batch, if any logit is not finite; then nothing of the batch is kept."""
        return Winners.merged([self.part(order, row) for row in self.parts(order)], self.keep)

    def parts(self, order: Order) -> list[int]:
        """The rows where the chunks of a batch begin; a piece of a batch is cut at the same rows as the whole batch."""
        return [0, *range(self.chunk - order.key.row % self.chunk, order.size, self.chunk)]

    def part(self, order: Order, begin: int, on_logits: OnLogits = lambda logits: None) -> Winners:
        """The winners of one chunk. May be called from several threads at once. on_logits is called with its logits.

        In a piece that begins within a chunk every image keeps its row there: black images are put before it.
        """
        genomes, images, logits = self._classify(order, begin)
        on_logits(logits)
        if isinstance(logits, torch.Tensor):
            return self._compete_on_device(order, begin, genomes, logits)
        niche = bins(DESCRIPTORS[self.descriptor](images), self.edges) if self.descriptor else None
        return self._compete(order, begin, (genomes, images), logits, niche)

    def logits(self, order: Order) -> np.ndarray:
        """(size, K) float32: the logits that the images of an order are ranked by. The order lies within one chunk."""
        return on_host(self._classify(order, 0)[2])

    def _classify(self, order: Order, begin: int) -> tuple[Genomes, Any, np.ndarray | torch.Tensor]:
        """The genomes, images and logits of the chunk that begins, or goes on, at the row `begin`."""
        row = (order.key.row + begin) % self.chunk
        end = min(begin + self.chunk - row, order.size)
        genomes = self.children(order, begin, end)
        if self.resident:
            network = self.target.network
            assert network is not None
            drawn = self.encoding.draw(genomes, network.device)
            return genomes, drawn, self.target.logits_on_device(drawn, self.chunk, self.number_format, row)
        images = self.encoding.render(genomes)
        return genomes, images, self.target.logits(images, self.chunk, self.number_format, row)

    def children(self, order: Order, begin: int, end: int) -> Genomes:
        """The children of the rows begin:end, the same however the batch is cut."""
        return children(self.encoding, order.cut(begin, end), self.surrogates)

    def reference_logits(self, genomes: Genomes) -> np.ndarray:
        """(B, K): the float32 logits of up to a chunk of genomes, in the first rows of a pass; they define the scores."""
        return self.target.logits(self.encoding.render(genomes), self.chunk)

    def _compete(
        self, order: Order, begin: int, drawn: tuple[Genomes, np.ndarray], logits: np.ndarray, niche: np.ndarray | None
    ) -> Winners:
        genomes, images = drawn
        scores.refuse_unfinite(logits, order.batch, self.target.name, order.key.row + begin)
        several = self.target.multilabel
        log_odds = scores.log_odds(logits, several)
        ranked = log_odds if self.rank == "log_odds" else scores.margin(logits, several)
        n = len(genomes)
        allowed = ranked if self.target.top_k == ranked.shape[1] else scores.of_top_k(ranked, logits, self.target.top_k)
        if self.competition != "all":
            own = order.claims[begin : begin + n] if order.claims is not None else logits.argmax(axis=1)
            only, every = np.full_like(ranked, -np.inf), np.arange(n)
            only[every, own] = allowed[every, own]
            allowed = only
        claims = allowed, order.thresholds, self.keep, niche, self.niches
        turned_away = None
        if self.permits is None:
            cells, rows = best_rows(*claims)
        else:
            cells, rows, (at, of) = best_permitted_rows(*claims, partial(self.permits, images))
            turned_away = TurnedAway(order.first_birth + begin + of, at, ranked[of, at // self.niches])
        classes = cells // self.niches
        # Late in a search most chunks win nothing, and need no margins.
        margins = ranked if self.rank == "margin" or not len(cells) else scores.margin(logits, several)
        best = scores_torch.Best(cells, rows, *(z[rows, classes] for z in (ranked, log_odds, margins)))
        winners = self._winners(order, begin, genomes, best)
        return winners if turned_away is None else replace(winners, turned_away=turned_away)

    def _compete_on_device(self, order: Order, begin: int, genomes: Genomes, logits: torch.Tensor) -> Winners:
        claims: np.ndarray | torch.Tensor | None = None
        if self.competition != "all":
            claims = logits.argmax(1) if order.claims is None else order.claims[begin : begin + len(genomes)]
        best = scores_torch.best(
            logits,
            order.thresholds,
            batch=order.batch,
            target_name=self.target.name,
            begin=order.key.row + begin,
            rank="multilabel" if self.target.multilabel else self.rank,
            claims=claims,
            keep=self.keep,
        )
        return self._winners(order, begin, genomes, best)

    def _winners(self, order: Order, begin: int, genomes: Genomes, best: scores_torch.Best) -> Winners:
        """The winners of a chunk that begins at the row `begin`: best has rows of genomes."""
        if not len(best.cells):
            return Winners.none(self.encoding)
        kept, which = np.unique(best.rows, return_inverse=True)
        return Winners(
            births=order.first_birth + begin + kept,
            mothers=order.mothers[begin + kept],
            fathers=order.fathers[begin + kept],
            genomes=genomes[kept],
            cells=best.cells,
            rows=which,
            scores=best.scores,
            log_odds=best.log_odds,
            margins=best.margins,
        )


def stays_on_device(target: Target, edges: Sequence[float], constrained: bool = False) -> bool:
    """Whether images, logits and scores can stay on the target's device (BatchEvaluator.resident).

    constrained: whether there is BatchEvaluator.permits. Not on Apple's GPUs: scores are in float64, which these lack.
    """
    return not edges and not constrained and target.network is not None and target.network.device.type not in ("cpu", "mps")


class Measured(NamedTuple):
    """Elites that were measured again."""

    logits: np.ndarray  # (B, K) float32
    exact: bool  # whether they have to be equal to the bit: all machines are of one kind, and rows make no difference


class Evaluator(Protocol):
    """Evaluates orders, and returns their winners."""

    at_once: int
    """The number of chunks that are classified at once."""
    notes: list[str]
    """Messages for the user about the evaluation; grows."""
    machines: list[dict[str, Any]]
    """The kinds of machine (evofool.machine) that evaluate; grows."""

    @property
    def repeated(self) -> int:
        """Images that were evaluated a second time, to compare workers. They are not among the target's queries."""
        ...

    @property
    def check_seconds(self) -> float:
        """The time that a worker spends on the check of a checkpoint; 0 if there are none."""
        ...

    @property
    def orders_in_progress(self) -> int | None:
        """The number of orders that keep it busy. None: lag + 1 orders of the recipe, whose results come in order."""
        ...

    def submit(self, order: Order) -> None:
        """Queue an order; may return before it is evaluated."""
        ...

    def results(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Order, Winners]]:
        """Yield the finished orders until none is left, or until give_up(), called while it waits, returns true.

        More orders may be submitted in between.
        """
        ...

    def pending(self) -> list[Order]:
        """The orders submitted and not yet yielded, oldest first; a checkpoint has to keep them."""
        ...

    def reference_logits(self, births: Sequence[int], genomes: Genomes) -> np.ndarray:
        """(B, K) float32: the target's float32 logits for the images of these genomes. births: (B,) theirs."""
        ...

    def workers(self) -> list[dict[str, Any]]:
        """The state of each worker process, as plain values for a display; none if there are no workers."""
        ...

    def mark(self) -> int:
        """A number that stands for all results so far. Begins the checks that they need."""
        ...

    def confirmed(self, mark: int) -> bool:
        """Whether all results before a mark are agreed on, so that they may be saved."""
        ...

    def confirm(self) -> None:
        """Complete the checks of all results so far. Raises AnswersWithdrawn, as results and reference_logits may."""
        ...

    def rewind(self, committed: int) -> None:
        """Forget all orders and results: the search goes on after so many commits, with other orders."""
        ...

    def measure_elsewhere(self, births: Sequence[int], genomes: Genomes) -> "Measured | None":
        """The float32 logits of elites, of other processes than those that scored them; None without workers."""
        ...

    def close(self) -> None:
        """Release everything, without waiting for unfinished work."""
        ...
