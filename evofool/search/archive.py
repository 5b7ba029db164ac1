"""The archive: the best genomes found so far for each class and niche, in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from genomes import Encoding, Genomes, Key
from genomes.random import integers

_NO_NUMBERS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Quarantined:
    """A genome that was quarantined, because its image kills, hangs or breaks the target. It won no cell."""

    birth: int
    batch: int
    mother: int
    father: int
    genome: Genomes  # a batch of one
    reason: str


class TurnedAway(NamedTuple):
    """Claims to cells of images that may not be elites of the class: they beat the threshold, and all but at most keep - 1
    of the batch's winners in the cell."""

    births: np.ndarray = _NO_NUMBERS  # (R,) int64
    cells: np.ndarray = _NO_NUMBERS  # (R,) int64
    scores: np.ndarray = np.zeros(0)  # (R,) float64


_NONE_AWAY = TurnedAway()


@dataclass(frozen=True)
class Winners:
    """The genomes of one batch that beat the thresholds of its order, and the cells in which they did.

    W genomes won M places in cells' lists: one genome may win a place in many cells, and at most one in each. A cell has up
    to `keep` places (BatchEvaluator.keep). Births ascend.
    """

    births: np.ndarray  # (W,) int64
    mothers: np.ndarray  # (W,) int64 births, -1 for the first batch, which has no parents
    fathers: np.ndarray  # (W,) int64, -1 also where a child took nothing from the father that was drawn
    genomes: Genomes  # (W, ...)
    cells: np.ndarray  # (M,) int64, class * niches + niche, ascending; in one cell the best first, of equals the lower birth
    rows: np.ndarray  # (M,) int64 into the W genomes
    scores: np.ndarray  # (M,) float64, by which the search ranks
    log_odds: np.ndarray  # (M,) float64
    margins: np.ndarray  # (M,) float64
    quarantined: tuple[Quarantined, ...] = ()  # of the batch
    turned_away: TurnedAway = _NONE_AWAY

    @classmethod
    def none(cls, encoding: Encoding) -> "Winners":
        """No genome won a cell."""
        births, scores = np.zeros(0, np.int64), np.zeros(0)
        genomes = np.zeros((0, *encoding.shape), encoding.dtype)
        return cls(births, births, births, genomes, births, births, scores, scores, scores)

    @classmethod
    def merged(cls, parts: "Sequence[Winners]", keep: int) -> "Winners":
        """The winners of a batch that was evaluated in parts: of each cell the best `keep`, of equals the lower births.

        A part may be there twice.
        """
        if len(parts) == 1:
            return parts[0]
        offsets = np.cumsum([0, *(len(p.births) for p in parts[:-1])])
        rows = np.concatenate([p.rows + offset for p, offset in zip(parts, offsets, strict=True)])
        births, cells, scores = (np.concatenate([getattr(p, n) for p in parts]) for n in ("births", "cells", "scores"))
        best = best_of_cells(cells, scores, births[rows], keep)
        kept, which = np.unique(births[rows[best]], return_inverse=True)
        known, first = np.unique(births, return_index=True)
        at = first[np.searchsorted(known, kept)]
        by_genome: dict[str, Any] = {
            n: np.concatenate([getattr(p, n) for p in parts])[at] for n in ("mothers", "fathers", "genomes")
        }
        by_place: dict[str, Any] = {n: np.concatenate([getattr(p, n) for p in parts])[best] for n in ("log_odds", "margins")}
        aside = tuple(q for p in parts for q in p.quarantined)
        winners = cls(kept, cells=cells[best], rows=which, scores=scores[best], quarantined=aside, **by_genome, **by_place)
        return winners._with_turned_away([p.turned_away for p in parts], keep)

    def _with_turned_away(self, parts: Sequence[TurnedAway], keep: int) -> "Winners":
        """With those of a batch's parts that beat all but at most keep - 1 of the batch's winners in their cells."""
        births, cells, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not len(births):
            return self
        _, first = np.unique(np.stack([births, cells]), axis=1, return_index=True)
        births, cells, scores = births[first, None], cells[first, None], scores[first, None]
        winners = self.births[self.rows]
        better = (self.scores > scores) | ((self.scores == scores) & (winners < births))
        kept = ((self.cells == cells) & better).sum(axis=1) < keep
        return replace(self, turned_away=TurnedAway(births[kept, 0], cells[kept, 0], scores[kept, 0]))


def best_of_cells(cells: np.ndarray, scores: np.ndarray, births: np.ndarray, keep: int) -> np.ndarray:
    """Which of N claims to cells win: of each cell the best `keep`, of equals the lower births, a birth at most once.

    cells, births: (N,) int64; scores: (N,) float64. Returns indices, by cell, and in one cell from the best.
    """
    order = np.arange(len(cells))
    if keep > 1:  # of claims of one birth the best one counts, of equals the first
        order = np.lexsort((-scores, births, cells))
        again = (np.diff(cells[order], prepend=-1) == 0) & (np.diff(births[order], prepend=-1) == 0)
        order = order[~again]
    order = order[np.lexsort((births[order], -scores[order], cells[order]))]
    by_cell = cells[order]
    kept = np.ones(len(order), bool)
    kept[keep:] = by_cell[keep:] != by_cell[:-keep]
    return order[kept]


class Archive:
    """K classes x D niches = cells, each with a list of its best `keep` genomes or fewer. The first one is the elite.

    Lists are ordered by score, of equals the lower birth comes first, and no genome is in a list twice. Arrays over cells
    and places in their lists, (cells, keep): births (int64, -1 empty), scores, and over cells, of the elites: birth,
    score, log_odds, margin (float64, -inf empty). A genome that is in many lists is kept once.
    """

    def __init__(self, encoding: Encoding, classes: int, niches: int = 1, keep: int = 1) -> None:
        self.classes, self.niches, self.keep = classes, niches, keep
        places = classes * niches, keep
        self.births = np.full(places, -1, np.int64)
        self.scores = np.full(places, -np.inf)
        self._log_odds = np.full(places, -np.inf)
        self._margins = np.full(places, -np.inf)
        self._arrays = self.births, self.scores, self._log_odds, self._margins
        # Views, so that they are always up to date.
        self.birth, self.score = self.births[:, 0], self.scores[:, 0]
        self.log_odds, self.margin = self._log_odds[:, 0], self._margins[:, 0]
        self._empty = np.zeros((0, *encoding.shape), encoding.dtype)
        self._genomes: dict[int, Genomes] = {}  # by birth, each a batch of one, never written to
        self._uses: dict[int, int] = {}  # by birth, the number of its places
        self._filled = np.zeros(0, np.int64)
        self._filled_of_class: list[np.ndarray] = []

    def __len__(self) -> int:
        """The number of cells that have an elite."""
        return len(self._filled)

    def add(self, winners: Winners) -> np.ndarray:
        """Let every winner compete in its cells. Returns (M,) bool: which of winners.cells took their genome into the list.

        Of a list that is full the last one leaves. A place goes to a strictly higher score; of equal scores the lower birth
        id wins. So the order of batches does not change the result, and adding a batch twice changes nothing. Source:
        Nguyen 2015, section 2, with one place; the tie rule and the lists are ours.
        """
        w = winners
        entered = np.zeros(len(w.cells), bool)
        if not len(w.cells):
            return entered
        births = w.births[w.rows]
        last_score, last_birth = self.scores[w.cells, -1], self.births[w.cells, -1]
        able = np.flatnonzero((w.scores > last_score) | ((w.scores == last_score) & (births < last_birth)))
        if not len(able):
            return entered
        cells = w.cells[able]
        values = births[able], w.scores[able], w.log_odds[able], w.margins[able]
        if (self.birth[cells] < 0).any():
            self._note_filled(np.union1d(self._filled, cells))
        if self.keep == 1:  # each is of a cell of its own
            new, left = able, last_birth[able]
            self._write((cells, 0), values)
        else:
            inserted, left = self._insert(cells, values)
            new = able[inserted]
        entered[new] = True
        self._count(w, new, left)
        return entered

    def _insert(self, cells: np.ndarray, values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Write values, one of each array in the order of _write, into the lists of these cells, as far as they are among
        the best. Returns which of them were, indices, and the births that were in the lists and are not now, or not as such.
        """
        of_lists = np.unique(cells)
        held = self.births[of_lists] >= 0
        in_lists = int(held.sum())
        claimed = np.concatenate([np.repeat(of_lists, held.sum(axis=1)), cells])
        before = [array[of_lists][held] for array in self._arrays]
        births, scores, *more = (np.concatenate(pair) for pair in zip(before, values, strict=True))
        best = best_of_cells(claimed, scores, births, self.keep)
        at = claimed[best]
        place = np.arange(len(at)) - np.searchsorted(at, at)
        self._write((at, place), [array[best] for array in (births, scores, *more)])
        left = np.ones(in_lists, bool)
        left[best[best < in_lists]] = False
        return best[best >= in_lists] - in_lists, before[0][left]

    def _write(self, places: tuple[Any, Any], values: Sequence[np.ndarray]) -> None:
        for array, value in zip(self._arrays, values, strict=True):
            array[places] = value

    def _count(self, winners: Winners, new: np.ndarray, left: np.ndarray) -> None:
        """Note that winners came into lists, new: indices into winners.cells, and that births left some, -1: none.

        Genomes are copied when they come into their first list, and forgotten when they leave their last one.
        """
        rows = winners.rows[new]
        for row, birth in zip(rows.tolist(), winners.births[rows].tolist(), strict=True):
            self._uses[birth] = self._uses.get(birth, 0) + 1
            if birth not in self._genomes:
                self._genomes[birth] = winners.genomes[row : row + 1].copy()
        for birth in left.tolist():
            if birth >= 0:
                self._uses[birth] -= 1
                if self._uses[birth] == 0:
                    del self._uses[birth], self._genomes[birth]

    def sample(self, n: int, key: Key, tournament: int = 1, claims: np.ndarray | None = None) -> np.ndarray:
        """(n,) int64 filled cells, each drawn independently.

        Each is the one with the lowest score of `tournament` cells drawn uniformly with repetition (the first of equals):
        with 1 all cells are equally likely (Nguyen 2015), with more the worst cells get the most children. With claims,
        (n,) classes, each is drawn uniformly over the filled niches of its class instead. Needs at least one filled cell
        (of every claimed class).
        """
        if claims is None:
            drawn = self._filled[integers(key, len(self._filled), tournament * n)].reshape(tournament, n)
            return drawn[self.score[drawn].argmin(axis=0), np.arange(n)]
        draws = integers(key, 1 << 53, n)
        cells = [self._filled_of_class[c] for c in claims.tolist()]
        return np.array([of[draw % len(of)] for of, draw in zip(cells, draws.tolist(), strict=True)], np.int64)

    def couples(self, cells: np.ndarray, key: Key) -> tuple[np.ndarray, np.ndarray]:
        """Mothers and fathers, (n,) int64 births each, from the lists of these (filled) cells. For lists of several places.

        A mother is the elite with probability 0.8, else any of the list, each as likely. A father is any other of the same
        list, each as likely; -1 if there is none.
        """
        lists = self.births[cells]
        size, n = (lists >= 0).sum(axis=1), np.arange(len(cells))
        often, mother, father = integers(key, 1 << 53, 3 * len(cells)).reshape(3, -1)
        mother = np.where(often % 10 < 8, 0, mother % size)
        father = father % np.maximum(size - 1, 1)
        return lists[n, mother], lists[n, father + (father >= mother)]

    def genomes(self, cells: np.ndarray) -> Genomes:
        """A copy of the elites of these (filled) cells, in this order."""
        return np.concatenate([self._empty, *(self._genomes[birth] for birth in self.birth[cells].tolist())])

    def of_births(self, births: Iterable[int]) -> dict[int, Genomes]:
        """The genomes of these births, each of which is in a list, as batches of one, shared with the archive."""
        return {birth: self._genomes[birth] for birth in births}

    def held(self) -> Mapping[int, Genomes]:
        """By birth the genomes that are kept, as batches of one, shared with the archive."""
        return dict(self._genomes)

    def best(self) -> np.ndarray:
        """(K,) float64: every class's highest log-odds over its niches; -inf where no niche is filled."""
        return self.log_odds.reshape(self.classes, self.niches).max(axis=1) if self.niches > 1 else self.log_odds

    def distinct(self) -> int:
        """The number of different genomes among the elites."""
        return len(np.unique(self.birth[self._filled]))

    def _note_filled(self, filled: np.ndarray) -> None:
        self._filled = filled
        self._filled_of_class = [filled[filled // self.niches == c] for c in range(self.classes)]
