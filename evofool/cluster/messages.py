"""What travels between a search and its workers: orders and winners without genomes.

A worker keeps the parents that it knows. Of one that it does not, it is told how it came to be (mother, father, and by its
birth the key of its mutation) and makes it again; only where that line is lost or long, the genome itself is sent,
as is one that was made by nobody, but given. Thresholds are sent as what changed. What comes back are births and scores:
whoever has the parents makes the winners again. So pixels of 150 kB cost some tens of bytes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from evofool.search.archive import Winners
from evofool.search.evaluate import Order, children
from genomes import Encoding, Genomes, Key

_LONGEST = 64  # genomes that a worker makes again to come to one
_REMEMBERED = 1 << 18  # winners whose parents the search remembers
_ROOM = 1 << 29  # bytes of parents that a worker keeps, at most, beyond those of an order

Descent = OrderedDict[int, tuple[int, int]]
"""By birth the (mother, father) of winners, -1 for none, in the order in which they were seen; shared by all senders.
Given genomes are not in it."""


class Told(NamedTuple):
    """Parents that a worker did not know of, and those that it may forget after this."""

    lines: np.ndarray  # (N, 3) int64: birth, mother, father, each after its parents
    births: tuple[int, ...]  # of whole genomes
    packed: tuple[bytes, ...]
    forget: tuple[int, ...]


class Parcel(NamedTuple):
    """An order for a worker that keeps what it was told before."""

    key: tuple[int, int, int]
    first_birth: int
    mothers: np.ndarray  # (B,) int64
    fathers: np.ndarray | None  # None: nobody takes anything from one
    given: list[int]  # births of the order that are no children
    claims: np.ndarray | None
    cells: np.ndarray | None  # (N,) int32 whose thresholds changed; None: all of them follow
    levels: np.ndarray  # (N,) float64
    told: Told


class Found(NamedTuple):
    """A worker's winners: rows count from the order's first."""

    rows: np.ndarray  # (W,) int32 of the order, ascending
    cells: np.ndarray  # (M,) int32
    holders: np.ndarray  # (M,) int32 into rows
    scores: np.ndarray  # (M,) float64
    log_odds: np.ndarray | None  # None: as scores
    margins: np.ndarray | None
    aside: tuple[tuple[int, str], ...]  # rows that broke the target, and how


class Sender:
    """The search's side of one worker: knows what it knows."""

    def __init__(self, encoding: Encoding, descent: Descent) -> None:
        self._encoding, self._descent = encoding, descent
        self._has: OrderedDict[int, None] = OrderedDict()  # births, those used last at the end
        self._levels: np.ndarray | None = None
        self._room = _ROOM // (encoding.dtype.itemsize * int(np.prod(encoding.shape)))

    def parcel(self, order: Order) -> Parcel:
        """To be opened by the worker in the order of sending."""
        mothers, fathers = order.mothers, order.fathers
        nobody, given = bool((fathers < 0).all()), order.given
        needed = dict.fromkeys([*given, *mothers.tolist(), *([] if nobody else fathers.tolist())])
        needed.pop(-1, None)
        cells, levels = self._changed(order.thresholds)
        return Parcel(
            key=(order.key.seed, order.key.batch, order.key.row),
            first_birth=order.first_birth,
            mothers=mothers,
            fathers=None if nobody else fathers,
            given=given,
            claims=order.claims,
            cells=cells,
            levels=levels,
            told=self.tell(needed, order.parents),
        )

    def tell(self, births: Iterable[int], genomes: Mapping[int, Genomes]) -> Told:
        """What the worker has to learn to know these births; genomes holds them all."""
        lines: list[tuple[int, int, int]] = []
        whole: list[int] = []
        needed = set()
        for birth in births:
            needed.add(birth)
            if birth not in self._has:
                line = self._line(birth)
                if line is None:
                    whole.append(birth)
                else:
                    lines += line
                    self._has.update((made, None) for made, _, _ in line)
            self._has[birth] = None
            self._has.move_to_end(birth)
        forget = []
        for birth in list(islice(self._has, max(0, len(self._has) - self._room))):
            if birth not in needed:
                del self._has[birth]
                forget.append(birth)
        return Told(
            lines=np.array(lines, np.int64).reshape(-1, 3),
            births=tuple(whole),
            packed=tuple(self._encoding.pack(genomes[birth][0]) for birth in whole),
            forget=tuple(forget),
        )

    def _line(self, birth: int) -> list[tuple[int, int, int]] | None:
        """How to make a genome from what the worker has, parents first; None if that is not known, or is long."""
        line: list[tuple[int, int, int]] = []
        made: set[int] = set()
        todo = [birth]
        while todo:
            at = todo[-1]
            if at in self._has or at in made:
                todo.pop()
                continue
            parents = self._descent.get(at)
            if parents is None or len(line) + len(todo) > _LONGEST:
                return None
            missing = [p for p in parents if p >= 0 and p not in self._has and p not in made]
            if missing:
                todo += missing
            else:
                todo.pop()
                made.add(at)
                line.append((at, *parents))
        return line

    def _changed(self, thresholds: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        before, self._levels = self._levels, thresholds
        if before is None:
            return None, thresholds
        cells = np.flatnonzero(before != thresholds).astype(np.int32)
        return (None, thresholds) if 2 * len(cells) > len(thresholds) else (cells, thresholds[cells])


class Receiver:
    """The worker's side: what it was told, and the parents that it made of that. seed and batch size are the search's."""

    def __init__(self, encoding: Encoding, seed: int, batch: int) -> None:
        self._encoding, self._seed, self._batch = encoding, seed, batch
        self._genomes: dict[int, Genomes] = {}
        self._levels = np.zeros(0)

    def order(self, parcel: Parcel) -> Order:
        """The order that was sent; its holders stay with the search."""
        if parcel.cells is None:
            self._levels = parcel.levels.copy()
        else:
            self._levels[parcel.cells] = parcel.levels
        nobody = np.full(len(parcel.mothers), -1, np.int64)
        fathers = nobody if parcel.fathers is None else parcel.fathers
        births = {*parcel.given, *parcel.mothers.tolist(), *fathers.tolist()} - {-1}
        parents = self.learn(parcel.told, births)
        return Order(
            key=Key(*parcel.key),
            first_birth=parcel.first_birth,
            size=len(parcel.mothers),
            thresholds=self._levels,
            holders=nobody,
            mothers=parcel.mothers,
            fathers=fathers,
            parents=parents,
            claims=parcel.claims,
        )

    def learn(self, told: Told, births: Iterable[int]) -> dict[int, Genomes]:
        """Take in what was told; returns the genomes of these births."""
        known = self._genomes
        whole = self._encoding.unpack(list(told.packed))
        known.update((birth, whole[i : i + 1].copy()) for i, birth in enumerate(told.births))
        for birth, mother, father in told.lines.tolist():
            known[birth] = self._made(birth, mother, father)
        out = {birth: known[birth] for birth in births}
        for birth in told.forget:
            del known[birth]
        return out

    def _made(self, birth: int, mother: int, father: int) -> Genomes:
        number, row = divmod(birth, self._batch)
        none = np.zeros(0)
        key, mothers, fathers = Key(self._seed, number, row), np.array([mother]), np.array([father])
        return children(self._encoding, Order(key, birth, 1, none, none, mothers, fathers, self._genomes))


def found(order: Order, winners: Winners, aside: Iterable[tuple[int, str]] = ()) -> Found:
    """winners of an order, as they are sent back."""
    w = winners
    return Found(
        rows=(w.births - order.first_birth).astype(np.int32),
        cells=w.cells.astype(np.int32),
        holders=w.rows.astype(np.int32),
        scores=w.scores,
        log_odds=None if np.array_equal(w.log_odds, w.scores) else w.log_odds,
        margins=None if np.array_equal(w.margins, w.scores) else w.margins,
        aside=tuple(aside),
    )


def winners(encoding: Encoding, order: Order, sent: Found, descent: Descent) -> Winners:
    """The winners of an order, made again from its parents; descent is told of them."""
    rows = sent.rows.astype(np.int64)
    made = [children(encoding, order.cut(row, row + 1)) for row in rows.tolist()]
    births, mothers, fathers = order.first_birth + rows, order.mothers[rows], order.fathers[rows]
    given = set(order.given)
    for birth, mother, father in zip(births.tolist(), mothers.tolist(), fathers.tolist(), strict=True):
        if birth not in given:
            descent[birth] = mother, father
    while len(descent) > _REMEMBERED:
        descent.popitem(last=False)
    return Winners(
        births=births,
        mothers=mothers,
        fathers=fathers,
        genomes=np.concatenate([np.zeros((0, *encoding.shape), encoding.dtype), *made]),
        cells=sent.cells.astype(np.int64),
        rows=sent.holders.astype(np.int64),
        scores=sent.scores,
        log_odds=sent.scores if sent.log_odds is None else sent.log_odds,
        margins=sent.scores if sent.margins is None else sent.margins,
    )
