"""What the elites of a search score the plain way, and how they look: what a run's file has of them."""

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
    """The scores that count, of an archive whose search may rank by faster ones.

    A search that ranks in another number format, or by images that a device drew (they may differ by a grey level), has
    its elites measured again by the float32 network; any other's scores stand as they are.
    """

    def __init__(self, archive: Archive, batch_evaluator: BatchEvaluator, evaluator: Evaluator, ranks_plainly: bool) -> None:
        self.archive, self.encoding, self.evaluator = archive, batch_evaluator.encoding, evaluator
        self._who = f"{batch_evaluator.target.name}, in float32,"
        self._ranks_plainly = ranks_plainly and batch_evaluator.number_format == FLOAT32
        cells = len(archive.birth)
        self._birth = np.full(cells, -1, np.int64)  # whom each cell's figures are of; stale where another holds it
        self._figures = np.full((2, cells), -np.inf)

    def best(self) -> np.ndarray:
        """(K,) float64: every class's highest log-odds over its niches, as measured the plain way where it has been."""
        return self.scores()[0].reshape(self.archive.classes, -1).max(axis=1)

    def scores(self) -> np.ndarray:
        """(2, cells): log-odds and margins, measured the plain way, or as ranked where that is yet to be done."""
        ranked = np.stack([self.archive.log_odds, self.archive.margin])
        return ranked if self._ranks_plainly else np.where(self._birth == self.archive.birth, self._figures, ranked)

    def rescore(self, batch: int) -> None:
        """Ask the target, the plain way, what the elites that are new score: once, however many cells one holds.

        ScoreError, naming batch, for answers that are not finite.
        """
        if self._ranks_plainly:
            return
        a = self.archive
        stale = np.flatnonzero((a.birth >= 0) & (a.birth != self._birth))
        if not len(stale):
            return
        births, first, which = np.unique(a.birth[stale], return_index=True, return_inverse=True)
        logits = self.evaluator.reference_logits(births.tolist(), a.genomes(stale[first]))
        refuse_unfinite(logits, batch, self._who)
        every = np.arange(len(stale)), stale // a.niches
        self._figures[0, stale] = log_odds(logits)[which][every]
        self._figures[1, stale] = margin(logits)[which][every]
        self._birth[stale] = a.birth[stale]

    def elites(self, cells: np.ndarray, batch: int) -> list[NewElite]:
        """The elites of these cells, measured and drawn."""
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
        """Take over what was measured before."""
        if rows:
            cells = np.array([row.cell for row in rows])
            self._birth[cells] = [row.birth for row in rows]
            self._figures[:, cells] = np.transpose([(row.log_odds, row.margin) for row in rows])
