"""Messages between a search and its workers: orders and winners without genomes.

A worker keeps the parents that it knows. For a parent that it does not know, it is sent the parent's ancestry (mother,
father, and birth, from which the key of the variation follows) and makes the genome again. The genome itself is sent only
where the ancestry is unknown or long, for seeds, and for children that have climbed surrogates' gradients. Thresholds are
sent as changes. The answer holds births and scores, and the genomes of winners that have climbed; the search has the parents
and makes the others again. So pixels of 150 kB cost some tens of bytes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import NamedTuple
from zlib import crc32

import numpy as np

from evofool.search.archive import TurnedAway, Winners
from evofool.search.evaluate import Order, children
from evofool.search.remaking import made
from genomes import Encoding, Genomes, Key

_MAX_ANCESTORS = 64  # genomes that a worker makes to obtain one parent
_MAX_LINEAGE = 1 << 18  # winners whose parents the search remembers
_SAMPLE = 16  # logits of a seal
_CACHE_BYTES = 1 << 29  # of parents that a worker keeps, besides those of the current order

Lineage = OrderedDict[int, tuple[int, int]]
"""By birth the (mother, father) of winners, -1 for none, in the order in which they were seen; shared by all senders.
Seeds and children that have climbed are not in it."""


class ParentUpdate(NamedTuple):
    """Parents that a worker did not know, and those that it may forget afterwards."""

    ancestry: np.ndarray  # (N, 3) int64: birth, mother, father; each row after those of its parents
    births: tuple[int, ...]  # of the packed genomes
    packed: tuple[bytes, ...]
    forget: tuple[int, ...]


class OrderMessage(NamedTuple):
    """An order for a worker that keeps what it received before."""

    key: tuple[int, int, int]
    first_birth: int
    mothers: np.ndarray  # (B,) int64
    fathers: np.ndarray | None  # None: no child has a father
    given: list[int]  # births of the order that are not made (Order.given)
    claims: np.ndarray | None
    climbs: np.ndarray | None
    cells: np.ndarray | None  # (N,) int32 whose thresholds changed; None: all thresholds follow
    thresholds: np.ndarray  # (N,) float64
    update: ParentUpdate


class WinnersMessage(NamedTuple):
    """A worker's winners; rows are counted from the order's first."""

    rows: np.ndarray  # (W,) int32 of the order, ascending
    cells: np.ndarray  # (M,) int32
    row_of_cell: np.ndarray  # (M,) int32, index into rows
    scores: np.ndarray  # (M,) float64
    log_odds: np.ndarray | None  # None: equal to scores
    margins: np.ndarray | None  # None: equal to scores
    broken: tuple[tuple[int, str], ...]  # rows that broke the target, each with the reason
    climbed: tuple[bytes, ...] = ()  # the packed genomes of those of `rows` that have climbed, in this order
    turned_away: TurnedAway = TurnedAway()  # with rows of the order instead of births


class Seal(NamedTuple):
    """What a worker's answer keeps of the logits of the last chunk, so that another process can repeat and compare them."""

    begin: int  # the chunk's first row in the order
    size: int
    checksum: int  # of all logits
    sample: np.ndarray  # (16,) float32, some of them


def seal(begin: int, logits: np.ndarray) -> Seal:
    """The seal of logits (B, K)."""
    return Seal(begin, len(logits), checksum(logits), logits.reshape(-1)[places(logits.size)])


def checksum(logits: np.ndarray) -> int:
    """CRC-32 of float32 logits: it differs, but for 1 in 4 billion cases, if any bit does."""
    return crc32(np.ascontiguousarray(logits, np.float32).data)


@cache
def places(size: int) -> np.ndarray:
    """(16,) int64: the places of a seal's sample among so many logits."""
    return np.random.default_rng(size).integers(0, size, _SAMPLE)


class Sender:
    """The search's side of one worker: tracks which parents and thresholds that worker has."""

    def __init__(self, encoding: Encoding, lineage: Lineage) -> None:
        self._encoding, self._lineage = encoding, lineage
        self._known: OrderedDict[int, None] = OrderedDict()  # births, the last used at the end
        self._thresholds: np.ndarray | None = None
        self._capacity = _CACHE_BYTES // (encoding.dtype.itemsize * int(np.prod(encoding.shape)))

    def encode(self, order: Order) -> OrderMessage:
        """The message for an order. The worker has to decode messages in the order in which they were encoded."""
        mothers, fathers = order.mothers, order.fathers
        no_fathers, given = bool((fathers < 0).all()), order.given
        needed = dict.fromkeys([*given, *mothers.tolist(), *([] if no_fathers else fathers.tolist())])
        needed.pop(-1, None)
        cells, thresholds = self._changed(order.thresholds)
        return OrderMessage(
            key=(order.key.seed, order.key.batch, order.key.row),
            first_birth=order.first_birth,
            mothers=mothers,
            fathers=None if no_fathers else fathers,
            given=given,
            claims=order.claims,
            climbs=order.climbs,
            cells=cells,
            thresholds=thresholds,
            update=self.update(needed, order.parents),
        )

    def encode_check(self, order: Order) -> OrderMessage:
        """The message for an order whose logits are wanted: its thresholds are not sent."""
        kept, self._thresholds = self._thresholds, np.zeros(0)
        message = self.encode(replace(order, thresholds=self._thresholds))
        self._thresholds = kept
        return message

    def update(self, births: Iterable[int], genomes: Mapping[int, Genomes]) -> ParentUpdate:
        """What the worker has to receive to know these births; genomes has all of them."""
        ancestry: list[tuple[int, int, int]] = []
        whole: list[int] = []
        needed = set()
        for birth in births:
            needed.add(birth)
            if birth not in self._known:
                rows = self._ancestry(birth)
                if rows is None:
                    whole.append(birth)
                else:
                    ancestry += rows
                    self._known.update((made, None) for made, _, _ in rows)
            self._known[birth] = None
            self._known.move_to_end(birth)
        forget = []
        for birth in list(islice(self._known, max(0, len(self._known) - self._capacity))):
            if birth not in needed:
                del self._known[birth]
                forget.append(birth)
        return ParentUpdate(
            ancestry=np.array(ancestry, np.int64).reshape(-1, 3),
            births=tuple(whole),
            packed=tuple(self._encoding.pack(genomes[birth][0]) for birth in whole),
            forget=tuple(forget),
        )

    def _ancestry(self, birth: int) -> list[tuple[int, int, int]] | None:
        """How to make a genome from what the worker has, parents first; None if that is unknown or too long."""
        rows: list[tuple[int, int, int]] = []
        made: set[int] = set()
        todo = [birth]
        while todo:
            at = todo[-1]
            if at in self._known or at in made:
                todo.pop()
                continue
            parents = self._lineage.get(at)
            if parents is None or len(rows) + len(todo) > _MAX_ANCESTORS:
                return None
            missing = [p for p in parents if p >= 0 and p not in self._known and p not in made]
            if missing:
                todo += missing
            else:
                todo.pop()
                made.add(at)
                rows.append((at, *parents))
        return rows

    def _changed(self, thresholds: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        before, self._thresholds = self._thresholds, thresholds
        if before is None:
            return None, thresholds
        cells = np.flatnonzero(before != thresholds).astype(np.int32)
        return (None, thresholds) if 2 * len(cells) > len(thresholds) else (cells, thresholds[cells])


class Receiver:
    """The worker's side: the parents and thresholds that it has. seed and batch size are the search's."""

    def __init__(self, encoding: Encoding, seed: int, batch: int) -> None:
        self._encoding, self._seed, self._batch = encoding, seed, batch
        self._genomes: dict[int, Genomes] = {}
        self._thresholds = np.zeros(0)

    def decode(self, message: OrderMessage) -> Order:
        """The order that was encoded, without its incumbents, which stay with the search."""
        if message.cells is None:
            self._thresholds = message.thresholds.copy()
        else:
            self._thresholds[message.cells] = message.thresholds
        none = np.full(len(message.mothers), -1, np.int64)
        fathers = none if message.fathers is None else message.fathers
        births = {*message.given, *message.mothers.tolist(), *fathers.tolist()} - {-1}
        parents = self.apply(message.update, births)
        return Order(
            key=Key(*message.key),
            first_birth=message.first_birth,
            size=len(message.mothers),
            thresholds=self._thresholds,
            incumbents=none,
            mothers=message.mothers,
            fathers=fathers,
            parents=parents,
            claims=message.claims,
            climbs=message.climbs,
        )

    def apply(self, update: ParentUpdate, births: Iterable[int]) -> dict[int, Genomes]:
        """Take an update; returns the genomes of these births, each a batch of one."""
        known = self._genomes
        whole = self._encoding.unpack(list(update.packed))
        known.update((birth, whole[i : i + 1].copy()) for i, birth in enumerate(update.births))
        for birth, mother, father in update.ancestry.tolist():
            known[birth] = self._make(birth, mother, father)
        out = {birth: known[birth] for birth in births}
        for birth in update.forget:
            del known[birth]
        return out

    def _make(self, birth: int, mother: int, father: int) -> Genomes:
        parents = (self._genomes[parent] if parent >= 0 else None for parent in (mother, father))
        return made(self._encoding, Key(self._seed, *divmod(birth, self._batch)), *parents)


def encode_winners(
    encoding: Encoding, order: Order, winners: Winners, broken: Iterable[tuple[int, str]] = ()
) -> WinnersMessage:
    """The message for the winners of an order; broken: rows that broke the target, each with the reason."""
    w = winners
    return WinnersMessage(
        rows=(w.births - order.first_birth).astype(np.int32),
        cells=w.cells.astype(np.int32),
        row_of_cell=w.rows.astype(np.int32),
        scores=w.scores,
        log_odds=None if np.array_equal(w.log_odds, w.scores) else w.log_odds,
        margins=None if np.array_equal(w.margins, w.scores) else w.margins,
        broken=tuple(broken),
        climbed=tuple(encoding.pack(genome) for genome in w.genomes[order.climbed(w.births)]),
        turned_away=w.turned_away._replace(births=w.turned_away.births - order.first_birth),
    )


def decode_winners(encoding: Encoding, order: Order, message: WinnersMessage, lineage: Lineage) -> Winners:
    """The winners of an order, made again from its parents but for those that have climbed; they are added to lineage."""
    rows = message.rows.astype(np.int64)
    births, mothers, fathers = order.first_birth + rows, order.mothers[rows], order.fathers[rows]
    climbed, sent = order.climbed(births), encoding.unpack(list(message.climbed))
    places = np.cumsum(climbed) - 1  # in sent
    made = [
        sent[place : place + 1] if by_climb else children(encoding, order.cut(row, row + 1))
        for row, place, by_climb in zip(rows.tolist(), places.tolist(), climbed.tolist(), strict=True)
    ]
    unmade = {*order.given, *births[climbed].tolist()}
    for birth, mother, father in zip(births.tolist(), mothers.tolist(), fathers.tolist(), strict=True):
        if birth not in unmade:
            lineage[birth] = mother, father
    while len(lineage) > _MAX_LINEAGE:
        lineage.popitem(last=False)
    return Winners(
        births=births,
        mothers=mothers,
        fathers=fathers,
        genomes=np.concatenate([np.zeros((0, *encoding.shape), encoding.dtype), *made]),
        cells=message.cells.astype(np.int64),
        rows=message.row_of_cell.astype(np.int64),
        scores=message.scores,
        log_odds=message.scores if message.log_odds is None else message.log_odds,
        margins=message.scores if message.margins is None else message.margins,
        turned_away=message.turned_away._replace(births=message.turned_away.births + order.first_birth),
    )
