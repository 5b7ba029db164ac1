"""Which classes a benchmark's suite still fools if images that look like their class do not count.

What is looked at is the image that each attack has kept of a class at its end, since verdicts belong to images and only
these are stored. The queries are those after which the class was first fooled, perhaps by an earlier image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.headline import SUITE
from evofool.bench.prepare import PreparedTarget
from evofool.bench.real import DIGITS
from evofool.bench.scoring import Scoring
from evofool.image_metrics.own_shape import OwnShape
from evofool.quiz.of_run import RunVerdicts, asked
from evofool.quiz.tally import PRESETS
from evofool.quiz.verdicts import Verdict, Word
from evofool.run.stored import Elite, StoredRun

Headline = dict[str, Any] | None
Fooled = Callable[[Mapping[str, np.ndarray]], Headline]
"""The headline without some images: by arm, bool (S, n) of its seeds and the scored classes."""


@dataclass
class _Looked:
    """What was found of the images of a suite. By arm, bool (S, n): which look like their class."""

    alike: dict[str, np.ndarray] = field(default_factory=dict)
    images: int = 0

    def row(self, fooled: Fooled) -> dict[str, Any] | None:
        """The figures of scores.likeness; None if no image was looked at."""
        without = fooled(self.alike) if self.images else None
        if without is None:
            return None
        share = {key: without[key] for key in ("value", "low", "high")}
        return {"images": self.images, "alike": int(sum(each.sum() for each in self.alike.values())), "without": share}


class LikenessStage:
    """Looks at the images of targets, one target after another; targets that share real images share what they are for."""

    def __init__(self) -> None:
        self._shapes: dict[str, OwnShape] = {}

    def __call__(
        self, prepared: PreparedTarget, scoring: Scoring, cells: Mapping[str, Mapping[int, Path]]
    ) -> dict[str, Any] | None:
        """scores.likeness of a target: the share of classes fooled with all images, and without some.

        cells: by arm and seed, the folders of the valid cells that scoring has. "measure": without images that have the
        shape of their class, of digits (OwnShape); "people": without those that people recognise as their class, where they
        were asked about a cell (evofool quiz); either may be None. None if both are, or if there is no headline.
        """
        fooled: Fooled = lambda alike: scoring.headline({}, without=alike)  # noqa: E731
        whole = fooled({})
        if whole is None:
            return None
        folders = {arm: [cells[arm][seed] for seed in scoring.cells[arm]] for arm in SUITE if cells.get(arm)}
        measured = _look(folders, scoring.classes, self._shaped(prepared))
        people = _People()
        said = _look(folders, scoring.classes, people)
        found = {"measure": measured.row(fooled), "people": said.row(fooled)}
        if found["people"] is not None:
            found["people"] |= {"raters": people.raters, "open": people.open}
        if not any(found.values()):
            return None
        share = {key: whole[key] for key in ("value", "low", "high")}
        return {"queries_per_class": whole["queries_per_class"], "with": share, **found}

    def _shaped(self, prepared: PreparedTarget) -> "_Judge":
        """Which of a run's elites have the shape of their class; of digits only."""
        calibration, real = prepared.calibration, prepared.real
        if real.source != DIGITS:
            return lambda run, elites: {}
        if calibration.sha256 not in self._shapes:
            images = real.some(np.arange(len(real)))
            self._shapes[calibration.sha256] = OwnShape(images, real.classes, np.flatnonzero(calibration.control))
        shape = self._shapes[calibration.sha256]

        def judge(_run: StoredRun, elites: Sequence[Elite]) -> dict[int, bool]:
            mine = [elite for elite in elites if elite.row.class_id in shape.classes]
            if not mine:
                return {}
            _, flags = shape(np.stack([e.image for e in mine]), np.array([e.row.class_id for e in mine]))
            return {elite.row.class_id: bool(flag) for elite, flag in zip(mine, flags, strict=True)}

        return judge


_Judge = Callable[[StoredRun, Sequence[Elite]], dict[int, bool]]
"""By class, whether a run's elite looks like it, of those that were looked at."""


class _People:
    """A _Judge: what people say. raters: how many there are, by their pseudonyms; open: verdicts that are."""

    def __init__(self) -> None:
        self.open = 0
        self._raters: set[str] = set()

    @property
    def raters(self) -> int:
        return len(self._raters)

    def __call__(self, run: StoredRun, elites: Sequence[Elite]) -> dict[int, bool]:
        found: RunVerdicts | None = asked(run)
        if found is None:
            return {}
        wanted = {elite.row.cell for elite in elites}
        judged: list[tuple[Elite, Verdict]] = [
            (elite, verdict)
            for elite, verdict in found.by_elite
            if elite.row.cell in wanted and verdict.answered >= PRESETS[0]
        ]
        self._raters.update(found.answers.raters if judged else ())
        self.open += sum(verdict.word is Word.OPEN for _, verdict in judged)
        return {elite.row.class_id: verdict.word is Word.RECOGNISED for elite, verdict in judged}


def _look(folders: Mapping[str, Sequence[Path]], classes: np.ndarray, judge: _Judge) -> _Looked:
    """What a judge says of the best image of each of these classes in each cell."""
    found, place = _Looked(), {c: k for k, c in enumerate(classes.tolist())}
    for arm, seeds in folders.items():
        alike = np.zeros((len(seeds), len(classes)), bool)
        for row, folder in enumerate(seeds):
            with StoredRun(folder) as run:
                elites = run.elites() if run.store.cells() else []
                best = {e.row.class_id: e for e in sorted(elites, key=lambda elite: elite.row.log_odds)}
                said = judge(run, [elite for c, elite in best.items() if c in place])
            found.images += len(said)
            for c, is_alike in said.items():
                alike[row, place[c]] = is_alike
        found.alike[arm] = alike
    return found
