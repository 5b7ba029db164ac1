"""The float32 scores and images of a search's elites, as a run's file has them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from evofool.images import encode_png
from evofool.machine import cpus
from evofool.run.schema import EliteRow, NewElite
from evofool.scores import log_odds, margin, refuse_unfinite
from evofool.search.archive import Archive
from evofool.search.evaluate import BatchEvaluator, Evaluator
from evofool.targets.network import FLOAT32


class Rescorer:
    """Scores the elites of an archive again, where its search does not rank by the stored scores.

    A search may rank in another number format than float32, or by images that another device drew (these may differ by a
    grey level). Then its elites are scored again by the float32 network.
    """

    def __init__(self, archive: Archive, batch_evaluator: BatchEvaluator, evaluator: Evaluator, exact_images: bool) -> None:
        self.archive, self.encoding, self.evaluator = archive, batch_evaluator.encoding, evaluator
        self._target_name = f"{batch_evaluator.target.name}, in float32,"
        self._multilabel = batch_evaluator.target.multilabel
        self._needed = not (exact_images and batch_evaluator.number_format == FLOAT32)
        cells = len(archive.birth)
        self._birth = np.full(cells, -1, np.int64)  # by cell, the elite that was scored; it may be replaced by now
        self._scores = np.full((2, cells), -np.inf)

    def best(self) -> np.ndarray:
        """(K,) float64: every class's highest log-odds over its niches, in float32 where elites were rescored."""
        return self.scores()[0].reshape(self.archive.classes, -1).max(axis=1)

    def scores(self) -> np.ndarray:
        """(2, cells): log-odds and margins, in float32, or as ranked where elites are not yet rescored."""
        ranked = np.stack([self.archive.log_odds, self.archive.margin])
        return np.where(self._birth == self.archive.birth, self._scores, ranked) if self._needed else ranked

    def rescore(self, batch: int) -> None:
        """Score the new elites in float32; one that has several cells is scored once.

        ScoreError, naming batch, for logits that are not finite.
        """
        if not self._needed:
            return
        a = self.archive
        stale = np.flatnonzero((a.birth >= 0) & (a.birth != self._birth))
        if not len(stale):
            return
        births, first, which = np.unique(a.birth[stale], return_index=True, return_inverse=True)
        logits = self.evaluator.reference_logits(births.tolist(), a.genomes(stale[first]))
        refuse_unfinite(logits, batch, self._target_name)
        own_class = np.arange(len(stale)), stale // a.niches
        self._scores[0, stale] = log_odds(logits, self._multilabel)[which][own_class]
        self._scores[1, stale] = margin(logits, self._multilabel)[which][own_class]
        self._birth[stale] = a.birth[stale]

    def elites(self, cells: np.ndarray, batch: int) -> list[NewElite]:
        """The elites of these cells, rescored and drawn."""
        if not len(cells):
            return []
        self.rescore(batch)
        a, scores = self.archive, self.scores()
        births, first = np.unique(a.birth[cells], return_index=True)
        genomes = a.genomes(cells[first])

        def draw(i: int) -> bytes:
            return encode_png(self.encoding.render(genomes[i : i + 1])[0])

        with ThreadPoolExecutor(cpus()) as pool:
            picture = dict(zip(births.tolist(), pool.map(draw, range(len(births))), strict=True))
        return [
            NewElite(
                class_id=cell // a.niches,
                niche=cell % a.niches,
                cell=cell,
                birth=int(a.birth[cell]),
                scores=(*scores[:, cell].tolist(), float(a.log_odds[cell]), float(a.margin[cell])),
                png=picture[int(a.birth[cell])],
                pixels=self.encoding.height * self.encoding.width,
            )
            for cell in cells.tolist()
        ]

    def restore(self, rows: list[EliteRow]) -> None:
        """Take over the scores of stored elites."""
        if rows:
            cells = np.array([row.cell for row in rows])
            self._birth[cells] = [row.birth for row in rows]
            self._scores[:, cells] = np.transpose([(row.log_odds, row.margin) for row in rows])
