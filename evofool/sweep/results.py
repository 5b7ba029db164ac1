"""What the runs of a sweep have come to, read from their files, also while they go on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evofool.run.stored import StoredRun


@dataclass(frozen=True)
class RunFigures:
    """A run as of its last checkpoint.

    confidence: the median over its classes of the best image's, 0 for a class without any; sure: the number of classes with
    at least 0.99, of so many `classes`. finished: why it ended by its own limits, "" if it has not.
    """

    target: str
    seed: int
    evaluations: int
    confidence: float
    sure: int
    classes: int
    seconds: float
    finished: str


def run_figures(folder: Path) -> RunFigures | None:
    """None if the run has saved nothing yet. StoreError if its file is damaged."""
    try:
        with StoredRun(folder) as stored:
            if not stored.meta.shown:
                return None
            best = dict.fromkeys(stored.classes, 0.0)
            for elite in stored.elites():
                best[elite.row.class_id] = max(best.get(elite.row.class_id, 0.0), elite.confidence)
            values = np.array(list(best.values()))
            return RunFigures(
                stored.recipe.target,
                stored.recipe.search.seed,
                stored.evaluations,
                float(np.median(values)),
                int((values >= 0.99).sum()),
                len(values),
                stored.meta.seconds,
                stored.meta.finished or "",
            )
    except FileNotFoundError:
        return None
