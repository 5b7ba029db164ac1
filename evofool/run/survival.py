"""Which of a run's elites still fool their target behind a pipeline (evofool.targets.pipelines)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evofool.images import decode_png
from evofool.machine import torch_threads
from evofool.run.stored import Elite, StoredRun
from evofool.scores import confidence, log_odds, margin
from evofool.targets import Target, stored_target
from evofool.targets.kinds import THROUGH
from evofool.targets.pipelines import Pipeline
from evofool.targets.spec import parse

LEVELS = (0.9, 0.99)
"""Confidences that are counted."""
CLASS = "class"


@dataclass(frozen=True)
class Held:
    """What holds for each of n elites, by its own class, in their order.

    called: (n,) the arg-max class, of equal ones the first; -1 where it is not known. own: (n,) bool, whether the target
    assigns the elite's class: its margin is positive. confidence: (n,) of the elite's class.
    """

    called: np.ndarray
    own: np.ndarray
    confidence: np.ndarray

    def holds(self) -> dict[str, np.ndarray]:
        """By "class", "0.9" and "0.99" (n,) bool: whether an elite has its class, and at least this confidence in it."""
        return {CLASS: self.own, **{f"{level:g}": self.confidence >= level for level in LEVELS}}


@dataclass(frozen=True)
class Survival:
    """elites: those of the run, one a cell. stored: as the run scored them. by_pipeline: what the target, without through=,
    answers to what each pipeline delivers. queries, requests: what that took."""

    elites: Sequence[Elite]
    stored: Held
    by_pipeline: Mapping[str, Held]
    queries: int
    requests: int

    def kept(self, holds: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """By "class", "0.9" and "0.99" the number of elites of which it holds still, and of which it does as stored."""
        before = self.stored.holds()
        return {name: (int((holds[name] & before[name]).sum()), int(before[name].sum())) for name in before}

    def everywhere(self) -> dict[str, np.ndarray]:
        """What holds behind every pipeline."""
        each = [held.holds() for held in self.by_pipeline.values()]
        return {name: np.logical_and.reduce([one[name] for one in each]) for name in each[0]}

    def as_json(self) -> dict[str, Any]:
        """Counts, and the class and confidence of each elite."""

        def counts(holds: Mapping[str, np.ndarray]) -> dict[str, Any]:
            return {name: {"kept": kept, "of": of} for name, (kept, of) in self.kept(holds).items()}

        return {
            "elites": len(self.elites),
            "stored": {name: int(values.sum()) for name, values in self.stored.holds().items()},
            "pipelines": {
                name: {
                    **counts(held.holds()),
                    "median_confidence": float(np.median(held.confidence)) if len(self.elites) else None,
                    "elites": [
                        {"class": e.row.class_id, "niche": e.row.niche, "birth": e.row.birth, "called": c, "confidence": p}
                        for e, c, p in zip(self.elites, held.called.tolist(), held.confidence.tolist(), strict=True)
                    ],
                }
                for name, held in self.by_pipeline.items()
            },
            "every_pipeline": counts(self.everywhere()),
            "queries": self.queries,
            "requests": self.requests,
        }


def survival(
    stored: StoredRun,
    made: Sequence[Pipeline],
    trust: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Survival:
    """Ask a run's target about what each pipeline delivers of its elites; images that several cells hold are asked once.

    A through= of the target itself is left out. A black box's requests are counted in the run's ledger, which keeps its
    answers. TargetError as of StoredRun.own_target.
    """
    elites = stored.elites()
    target = _plain(stored, trust)
    queries, requests = target.queries, target.requests
    pngs = {elite.row.png: k for k, elite in reversed([*enumerate(elites)])}
    images = [decode_png(png, f"{stored.folder}, cell {elites[k].row.cell}", target.shape) for png, k in pngs.items()]
    place = {png: k for k, png in enumerate(pngs)}
    at = np.array([place[elite.row.png] for elite in elites], np.int64)
    classes = np.array([elite.row.class_id for elite in elites], np.int64)
    by_pipeline = {}
    with torch_threads(stored.recipe.compute.threads):
        for pipeline in made:
            logits = _answers(target, images, pipeline, stored.recipe.chunk, report)[at]
            odds, margins = (score(logits, target.multilabel)[np.arange(len(at)), classes] for score in (log_odds, margin))
            by_pipeline[pipeline.text] = Held(logits.argmax(axis=1), margins > 0, np.asarray(confidence(odds)))
    own = np.array([elite.row.margin > 0 for elite in elites], bool)
    before = Held(np.where(own, classes, -1), own, np.array([elite.confidence for elite in elites], float))
    return Survival(elites, before, by_pipeline, target.queries - queries, target.requests - requests)


def _plain(stored: StoredRun, trust: bool) -> Target:
    """The run's target without through=."""
    found = stored.own_target(trust=trust)
    if "through" not in found.details:
        return found
    spec = parse(found.name)
    kept = {key: value for key, value in spec.options.items() if key not in THROUGH}
    return stored_target(replace(spec, options=kept).text, stored.folder, trust)


def _answers(
    target: Target, images: Sequence[np.ndarray], pipeline: Pipeline, chunk: int, report: Callable[[str], None]
) -> np.ndarray:
    found = [np.zeros((0, len(target.labels)), np.float32)]
    for begin in range(0, len(images), chunk):
        part = np.stack(images[begin : begin + chunk])
        found.append(target.logits(pipeline(part), chunk))
        report(f"{pipeline.text}: {begin + len(part):,} of {len(images):,} images")
    return np.concatenate(found)
