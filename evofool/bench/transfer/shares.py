"""The results of transfer between targets: shares with their limits, as a matrix and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SCHEMA, VERSION = "evofool.transfer", 1
SURE = 0.9999  # the confidence of Nguyen 2015


@dataclass(frozen=True)
class TargetElites:
    """N elites that were evolved on one target, in one run or several; an elite that holds several cells is there for each.

    target: its place among the targets. runs: their names. run, classes (of this target) and births: (N,) int64, run being
    a place in runs. pngs: N.
    """

    target: int
    runs: Sequence[str]
    run: np.ndarray
    classes: np.ndarray
    births: np.ndarray
    pngs: Sequence[bytes]


@dataclass(frozen=True)
class TransferShare:
    """A share of `of` things with its 95% limits; None where there is nothing to count.

    over: what the interval generalises to. "runs": Student's t over at least 3 runs, value being their mean. "images":
    Wilson's, as if images were independent of one another; it tells of these runs, not of others. "": nothing, the value
    holds by definition. What a finite set of real images leaves open of the judging target's threshold is part of it.
    """

    value: float | None
    low: float | None
    high: float | None
    of: int
    over: str
    per_run: tuple[float | None, ...]


@dataclass(frozen=True)
class TransferPair:
    """What one target makes of the elites of another, of those that the other accepts itself.

    images: the share of images that it accepts at its own tau_5. classes: the share of the other's accepted classes, run by
    run, of which it accepts at least one elite. Both None without thresholds. agreement: the share of images whose class has
    its highest logit. left_out: images whose class it lacks or has no threshold for; they count nowhere. confidence_home and
    confidence_there: medians over images. sure_of_both and sure_at_home_only: images with a confidence of SURE or more on
    both networks, and on the one alone that they were evolved on.
    """

    images: TransferShare | None
    classes: TransferShare | None
    agreement: TransferShare
    left_out: int
    confidence_home: float | None
    confidence_there: float | None
    sure_of_both: int
    sure_at_home_only: int


@dataclass(frozen=True)
class TransferRow:
    """A row and what became of it.

    accepted: how many of its elites its own target accepts. held: (n,) int64, the places of these in the row, each image of
    a run once: only one class can have the highest logit. believed: (n, T) bool, by which targets. confidences: (n, T)
    float64, NaN where a target was not asked.
    """

    row: TargetElites
    accepted: int
    held: np.ndarray
    believed: np.ndarray
    confidences: np.ndarray
    pairs: tuple[TransferPair, ...]  # T


@dataclass(frozen=True)
class TransferMatrix:
    """The matrix: T targets, a row for each whose elites there are. queries: (T,), what the elites cost each target."""

    names: tuple[str, ...]
    rows: tuple[TransferRow, ...]
    queries: tuple[int, ...]
    thresholds: bool
    notes: tuple[str, ...] = ()  # of targets whose logits depend on an image's place in a batch

    @property
    def off_diagonal_median(self) -> float | None:
        """Of the shares of images accepted elsewhere than where they were evolved."""
        shares = [
            pair.images.value
            for evolved in self.rows
            for b, pair in enumerate(evolved.pairs)
            if b != evolved.row.target and pair.images is not None and pair.images.value is not None
        ]
        return float(np.median(shares)) if shares else None

    def most_believed(self, count: int) -> list[dict[str, Any]]:
        """The images that most targets accept; of equals the one that the least sure of these is surer of, then in order."""
        found = []
        for evolved in self.rows:
            row = evolved.row
            for n, by, p in zip(evolved.held, evolved.believed, evolved.confidences, strict=True):
                place = {"target": self.names[row.target], "run": row.runs[row.run[n]]}
                what = {"class": int(row.classes[n]), "birth": int(row.births[n])}
                names = [self.names[b] for b in np.flatnonzero(by)]
                found.append({**place, **what, "believed_by": names, "least_confidence": float(p[by].min())})
        found.sort(key=lambda image: (-len(image["believed_by"]), -image["least_confidence"]))
        return found[:count]

    def as_json(self) -> dict[str, Any]:
        """Plain values. Confidences are under "raw": all that dividing logits by a temperature changes."""
        square: dict[str, list[list[Any]]] = {}
        for key in ("value", "low", "high", "of"):
            blank = 0 if key == "of" else None
            square[key] = [[blank] * len(self.names) for _ in self.names]
            for evolved in self.rows:
                shares = [pair.images for pair in evolved.pairs]
                square[key][evolved.row.target] = [blank if share is None else getattr(share, key) for share in shares]
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "targets": list(self.names),
            "threshold": "tau5" if self.thresholds else None,
            "share": square.pop("value"),
            **square,
            "off_diagonal_median": self.off_diagonal_median,
            "queries": list(self.queries),
            "notes": list(self.notes),
            "details": [self._details(evolved) for evolved in self.rows],
        }

    def _details(self, evolved: TransferRow) -> dict[str, Any]:
        raw = ("confidence_home", "confidence_there", "sure_of_both", "sure_at_home_only")
        pairs = []
        for name, pair in zip(self.names, evolved.pairs, strict=True):
            plain = asdict(pair)
            pairs.append({"target": name, "raw": {key: plain.pop(key) for key in raw}, **plain})
        elites = {"elites": len(evolved.row.classes), "accepted": evolved.accepted, "images": len(evolved.held)}
        return {"target": self.names[evolved.row.target], "runs": list(evolved.row.runs), **elites, "pairs": pairs}
