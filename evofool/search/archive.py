"""The archive: the best genome found so far for each class and niche, in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genomes import Encoding, Genomes, Key
from genomes.random import integers


@dataclass(frozen=True)
class Quarantined:
    """A genome that was quarantined, because its image kills, hangs or breaks the target. It won no cell."""

    birth: int
    batch: int
    mother: int
    father: int
    genome: Genomes  # a batch of one
    reason: str


@dataclass(frozen=True)
class Winners:
    """The genomes of one batch that beat the thresholds of its order, and the cells in which they did.

    W genomes won M cells; one genome may win many cells. Births ascend.
    """

    births: np.ndarray  # (W,) int64
    mothers: np.ndarray  # (W,) int64 births, -1 for the first batch, which has no parents
    fathers: np.ndarray  # (W,) int64, -1 also where a child took nothing from the father that was drawn
    genomes: Genomes  # (W, ...)
    cells: np.ndarray  # (M,) int64, class * niches + niche, ascending
    rows: np.ndarray  # (M,) int64 into the W genomes
    scores: np.ndarray  # (M,) float64, by which the search ranks
    log_odds: np.ndarray  # (M,) float64
    margins: np.ndarray  # (M,) float64
    quarantined: tuple[Quarantined, ...] = ()  # of the batch

    @classmethod
    def none(cls, encoding: Encoding) -> "Winners":
        """No genome won a cell."""
        births, scores = np.zeros(0, np.int64), np.zeros(0)
        genomes = np.zeros((0, *encoding.shape), encoding.dtype)
        return cls(births, births, births, genomes, births, births, scores, scores, scores)

    @classmethod
    def merged(cls, parts: "Sequence[Winners]") -> "Winners":
        """The winners of a batch that was evaluated in parts: the best of each cell, of equals the lower birth."""
        if len(parts) == 1:
            return parts[0]
        offsets = np.cumsum([0, *(len(p.births) for p in parts[:-1])])
        rows = np.concatenate([p.rows + offset for p, offset in zip(parts, offsets, strict=True)])
        births, cells, scores = (np.concatenate([getattr(p, n) for p in parts]) for n in ("births", "cells", "scores"))
        order = np.lexsort((births[rows], -scores, cells))
        first = order[np.flatnonzero(np.diff(cells[order], prepend=-1))]
        kept, which = np.unique(rows[first], return_inverse=True)
        by_genome = {n: np.concatenate([getattr(p, n) for p in parts])[kept] for n in ("mothers", "fathers", "genomes")}
        by_cell = {n: np.concatenate([getattr(p, n) for p in parts])[first] for n in ("log_odds", "margins")}
        aside = tuple(q for p in parts for q in p.quarantined)
        return cls(
            births[kept], cells=cells[first], rows=which, scores=scores[first], quarantined=aside, **by_genome, **by_cell
        )


class Archive:
    """K classes x D niches = cells, each holding one elite or none.

    Arrays over cells: birth (int64, -1 empty), score, log_odds, margin (float64, -inf empty). A genome that is the elite of
    many cells is kept once.
    """

    def __init__(self, encoding: Encoding, classes: int, niches: int = 1) -> None:
        self.classes, self.niches = classes, niches
        cells = classes * niches
        self.birth = np.full(cells, -1, np.int64)
        self.score = np.full(cells, -np.inf)
        self.log_odds = np.full(cells, -np.inf)
        self.margin = np.full(cells, -np.inf)
        self._empty = np.zeros((0, *encoding.shape), encoding.dtype)
        self._genomes: dict[int, Genomes] = {}  # by birth, each a batch of one, never written to
        self._uses: dict[int, int] = {}  # by birth, the number of its cells
        self._filled = np.zeros(0, np.int64)
        self._filled_of_class: list[np.ndarray] = []

    def __len__(self) -> int:
        """The number of cells that have an elite."""
        return len(self._filled)

    def add(self, winners: Winners) -> np.ndarray:
        """Let every winner compete in its cells. Returns (M,) bool: which of winners.cells got a new elite.

        An elite is replaced by a strictly higher score; of equal scores the lower birth id wins. So the order of
        batches does not change the result, and adding a batch twice changes nothing. Source: Nguyen 2015,
        section 2; the tie rule is ours.
        """
        w = winners
        if not len(w.cells):
            return np.zeros(0, bool)
        old_score, old_birth, births = self.score[w.cells], self.birth[w.cells], w.births[w.rows]
        changed = (w.scores > old_score) | ((w.scores == old_score) & (births < old_birth))
        if not changed.any():
            return changed
        cells, rows = w.cells[changed], w.rows[changed]
        if (old_birth[changed] < 0).any():
            filling = cells[old_birth[changed] < 0]
            self._note_filled(np.union1d(self._filled, filling))
        for row, birth in zip(rows.tolist(), births[changed].tolist(), strict=True):
            self._uses[birth] = self._uses.get(birth, 0) + 1
            if birth not in self._genomes:
                self._genomes[birth] = w.genomes[row : row + 1].copy()
        for birth in old_birth[changed].tolist():
            if birth >= 0:
                self._uses[birth] -= 1
                if self._uses[birth] == 0:
                    del self._uses[birth], self._genomes[birth]
        self.birth[cells] = births[changed]
        self.score[cells] = w.scores[changed]
        self.log_odds[cells] = w.log_odds[changed]
        self.margin[cells] = w.margins[changed]
        return changed

    def sample(self, n: int, key: Key, selection: str = "uniform", claims: np.ndarray | None = None) -> np.ndarray:
        """(n,) int64 filled cells, each drawn independently.

        selection "uniform": uniformly over cells, not over genomes (Nguyen 2015). "lagging": a tournament, the lower
        score of two uniform draws (the first one of equals), so that the worst cells get the most children.
        With claims, (n,) classes, each is drawn uniformly over the filled niches of its class instead. Needs at least one
        filled cell (of every claimed class).
        """
        if claims is None and selection == "lagging":
            a, b = self._filled[integers(key, len(self._filled), 2 * n)].reshape(2, n)
            return np.where(self.score[b] < self.score[a], b, a)
        if claims is None:
            return self._filled[integers(key, len(self._filled), n)]
        draws = integers(key, 1 << 53, n)
        cells = [self._filled_of_class[c] for c in claims.tolist()]
        return np.array([of[draw % len(of)] for of, draw in zip(cells, draws.tolist(), strict=True)], np.int64)

    def genomes(self, cells: np.ndarray) -> Genomes:
        """A copy of the elites of these (filled) cells, in this order."""
        return np.concatenate([self._empty, *(self._genomes[birth] for birth in self.birth[cells].tolist())])

    def of_births(self, births: Iterable[int]) -> dict[int, Genomes]:
        """The genomes of these births, each of which is an elite, as batches of one, shared with the archive."""
        return {birth: self._genomes[birth] for birth in births}

    def best(self) -> np.ndarray:
        """(K,) float64: every class's highest log-odds over its niches; -inf where no niche is filled."""
        return self.log_odds.reshape(self.classes, self.niches).max(axis=1) if self.niches > 1 else self.log_odds

    def distinct(self) -> int:
        """The number of different genomes among the elites."""
        return len(self._genomes)

    def _note_filled(self, filled: np.ndarray) -> None:
        self._filled = filled
        self._filled_of_class = [filled[filled // self.niches == c] for c in range(self.classes)]
