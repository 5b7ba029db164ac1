"""The results of transfer between targets: shares with their limits, as a matrix and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SCHEMA, VERSION = "evofool.transfer", 1
SURE = 0.9999  # the confidence of Nguyen 2015


@dataclass(frozen=True)
class TargetElites:
    """N elites that were evolved on one target, in one run or several. An elite of several cells is listed once for each.

    target: its index among the targets. runs: their names. run, classes (of this target) and births: (N,) int64; run is an
    index into runs. pngs: N.
    """

    target: int
    runs: Sequence[str]
    run: np.ndarray
    classes: np.ndarray
    births: np.ndarray
    pngs: Sequence[bytes]


@dataclass(frozen=True)
class TransferShare:
    """A share of `of` things with its 95% limits; None where there is nothing to count. Near 0 or 1 one limit may be None.

    over: the population of the interval. "runs": at least 3 runs, of each of which the mean number of things counts as
    outcomes, so that equal runs have limits too (statistics.share_interval); value is the mean over runs. "images":
    Wilson's interval, as if images were independent; it describes these runs only. "": there is no interval, since the value
    is 1 by definition. Limits include the uncertainty of the scoring target's threshold, which a finite set of real images
    determines.
    """

    value: float | None
    low: float | None
    high: float | None
    of: int
    over: str
    per_run: tuple[float | None, ...]


@dataclass(frozen=True)
class TransferPair:
    """How one target scores the elites of another, its source. Only elites that the source accepts are counted.

    images: the share of images that it accepts at its own tau_5. classes: the share of the (run, class) pairs of the source
    of which it accepts at least one elite. Both are None without thresholds. agreement: the share of images whose class has
    its highest logit. left_out: the number of images whose class it lacks or has no threshold for; they are in no share.
    confidence_on_source and confidence_on_other: medians over images. sure_on_both and sure_on_source_only: the numbers of
    images with a confidence of SURE or more on both targets, and on the source only.
    """

    images: TransferShare | None
    classes: TransferShare | None
    agreement: TransferShare
    left_out: int
    confidence_on_source: float | None
    confidence_on_other: float | None
    sure_on_both: int
    sure_on_source_only: int


@dataclass(frozen=True)
class TransferRow:
    """The elites of one target and their scores on all targets.

    accepted: the number of its elites that its own target accepts. kept: (n,) int64, their indices in the row, each image of
    a run once, since only one class can have the highest logit. accepted_by: (n, T) bool, the targets that accept each.
    confidences: (n, T) float64, NaN where a target did not score the image.
    """

    row: TargetElites
    accepted: int
    kept: np.ndarray
    accepted_by: np.ndarray
    confidences: np.ndarray
    pairs: tuple[TransferPair, ...]  # T


@dataclass(frozen=True)
class TransferMatrix:
    """The matrix: T targets, a row for each target that has elites. queries: (T,), the queries of each target for them."""

    names: tuple[str, ...]
    rows: tuple[TransferRow, ...]
    queries: tuple[int, ...]
    thresholds: bool
    notes: tuple[str, ...] = ()  # on targets whose logits depend on an image's place in a batch

    @property
    def off_diagonal_median(self) -> float | None:
        """The median of the shares of images over all pairs of different targets; None if there are none."""
        shares = [
            pair.images.value
            for evolved in self.rows
            for b, pair in enumerate(evolved.pairs)
            if b != evolved.row.target and pair.images is not None and pair.images.value is not None
        ]
        return float(np.median(shares)) if shares else None

    def most_accepted(self, count: int) -> list[dict[str, Any]]:
        """The images that the most targets accept, at most `count`.

        Ties: first the image with the higher least confidence of the targets that accept it, then the order of rows.
        """
        found = []
        for evolved in self.rows:
            row = evolved.row
            for n, accepts, p in zip(evolved.kept, evolved.accepted_by, evolved.confidences, strict=True):
                found.append(
                    {
                        "target": self.names[row.target],
                        "run": row.runs[row.run[n]],
                        "class": int(row.classes[n]),
                        "birth": int(row.births[n]),
                        "accepted_by": [self.names[b] for b in np.flatnonzero(accepts)],
                        "least_confidence": float(p[accepts].min()),
                    }
                )
        found.sort(key=lambda image: (-len(image["accepted_by"]), -image["least_confidence"]))
        return found[:count]

    def as_json(self) -> dict[str, Any]:
        """As JSON. Confidences are under "raw", since they change if all logits are divided by a temperature."""
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
        raw = ("confidence_on_source", "confidence_on_other", "sure_on_both", "sure_on_source_only")
        pairs = []
        for name, pair in zip(self.names, evolved.pairs, strict=True):
            entry = asdict(pair)
            pairs.append({"target": name, "raw": {key: entry.pop(key) for key in raw}, **entry})
        elites = {"elites": len(evolved.row.classes), "accepted": evolved.accepted, "images": len(evolved.kept)}
        return {"target": self.names[evolved.row.target], "runs": list(evolved.row.runs), **elites, "pairs": pairs}
