"""A target's scores for a set of fooling images: shares of images and of classes, and their JSON."""

import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evofool import scores
from evofool.bench.acceptance import LEVELS
from evofool.bench.calibration import Calibration
from evofool.bench.sets.image_set import ImageSet
from evofool.bench.statistics import quantiles
from evofool.targets import Target
from evofool.targets.position import Position
from evofool.targets.redaction import name_of, public_name, without_folders
from evofool.targets.validation import wilson

SCHEMA, VERSION = "evofool.score-set", 2
CONFIDENCES = (0.5, 0.9, 0.99, 0.9999)


@dataclass(frozen=True)
class CountedShare:
    """A share `count` / `of` with Wilson's 95% limits, which assume independence; None where `of` is 0."""

    count: int
    of: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CountedShares:
    """Shares of the images, and of the classes with images. A class counts if at least one of its images does."""

    images: CountedShare
    classes: CountedShare


@dataclass(frozen=True)
class ScoredSet:
    """The answers of a target to the n images of a set that could be read, in order.

    rows: (n,) int64, their indices in the set. logits: (n, K) float32, finite. skipped: (name, reason) for each image that
    could not be read. sha256: of the n images as the target receives them, and their classes. queries: their number.
    position: whether the logits depend on an image's place in a chunk. As in Calibration, dividing all logits by a power of
    two changes only logits, p, log_odds and margins.
    """

    images: ImageSet
    target: Target
    calibration: Calibration | None
    rows: np.ndarray
    logits: np.ndarray
    skipped: tuple[tuple[str, str], ...]
    sha256: str
    queries: int
    position: Position

    @cached_property
    def classes(self) -> np.ndarray:
        """(n,) int64: the intended class of each image."""
        return self.images.classes[self.rows]

    @cached_property
    def undecided(self) -> int:
        """The number of images so near to a threshold that another place in a chunk might decide them differently."""
        taus = [] if self.calibration is None else [self.calibration.tau(level)[self.classes] for level in LEVELS]
        distances = np.stack([self.margins, *(self.margins - tau for tau in taus)], axis=1)
        return int(self.position.undecided(self.logits, distances).sum())

    @cached_property
    def called(self) -> np.ndarray:
        """(n,) int64: the predicted class of each image; if logits are equal, the lowest class."""
        return self.logits.argmax(axis=1)

    @cached_property
    def log_odds(self) -> np.ndarray:
        """(n,) float64: the log-odds of the intended class."""
        return scores.log_odds(self.logits, self.target.multilabel)[np.arange(len(self.rows)), self.classes]

    @cached_property
    def margins(self) -> np.ndarray:
        """(n,) float64: the margin of the intended class. Above 0 if it is predicted; 0 if it shares the highest logit."""
        return scores.margin(self.logits, self.target.multilabel)[np.arange(len(self.rows)), self.classes]

    @cached_property
    def p(self) -> np.ndarray:
        """(n,) float64: the confidence in the intended class."""
        return np.asarray(scores.confidence(self.log_odds))

    @cached_property
    def calibrated_confidence(self) -> np.ndarray | None:
        """(n,) float64: the same at the temperature fitted to the real images; None if none could be fitted."""
        p = None if self.calibration is None else self.calibration.calibrated_confidence(self.logits)
        return None if p is None else p[np.arange(len(self.rows)), self.classes]

    @cached_property
    def has_threshold(self) -> np.ndarray:
        """(n,) bool: whether the class of an image has real images, and so a threshold."""
        if self.calibration is None:
            return np.zeros(len(self.rows), bool)
        return self.calibration.has_images[self.classes]

    @cached_property
    def best(self) -> np.ndarray:
        """(classes,) int64: by class, the row of its image with the highest margin; the first one if several are equal."""
        order = np.lexsort((np.arange(len(self.rows)), -self.margins, self.classes))
        return order[np.unique(self.classes[order], return_index=True)[1]]

    @cached_property
    def accepted(self) -> dict[str, np.ndarray]:
        """By level, (n,) bool: the margin of the intended class reaches the threshold. False where there is none."""
        c = self.calibration
        return {} if c is None else {at: c.accepted(self.margins, self.classes, at) & self.has_threshold for at in LEVELS}

    def shares(self, hits: np.ndarray, among: np.ndarray | None = None) -> CountedShares:
        """The shares of images and of classes with hits. hits: (n,) bool; among: (n,) bool, the images that are counted."""
        among = np.ones(len(self.rows), bool) if among is None else among
        classes, hit = np.unique(self.classes[among]), np.unique(self.classes[among & hits])
        return CountedShares(_share(int((hits & among).sum()), int(among.sum())), _share(len(hit), len(classes)))

    @cached_property
    def totals(self) -> dict[str, CountedShares]:
        """By "called", and, with real images, "tau5" and "tau50"."""
        accepted = {level: self.shares(hits, self.has_threshold) for level, hits in self.accepted.items()}
        return {"called": self.shares(self.margins > 0), **accepted}

    @cached_property
    def sure(self) -> dict[float, CountedShares]:
        """For each p of CONFIDENCES: the shares with at least this confidence."""
        return {p: self.shares(self.p >= p) for p in CONFIDENCES}

    def as_json(self) -> dict[str, Any]:
        """As JSON, without the folders of this machine. Dividing all logits by a temperature changes only "raw" parts."""
        c, labels = self.calibration, self.target.labels
        scored: dict[str, Any] = {name: asdict(shares) for name, shares in self.totals.items()}
        raw: dict[str, Any] = {
            "p": quantiles(self.p),
            "p_at_least": {f"{p:g}": asdict(shares) for p, shares in self.sure.items()},
        }
        if c is not None:
            scored["margin_percentiles"] = quantiles(c.percentile(self.margins))
            scored["scaled_margins"] = quantiles(self.margins / c.scale)
            scored["calibrated_confidence"] = (
                None if self.calibrated_confidence is None else quantiles(self.calibrated_confidence)
            )
            raw |= {"scale": c.scale, "temperature": c.raw_temperature}
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "target": {
                "spec": public_name(self.target.name),
                "fingerprint": self.target.fingerprint(),
                "classes": len(labels),
                "shape": list(self.target.shape),
                "top_k": self.target.top_k,
            },
            "set": {
                "source": name_of(self.images.source),
                "kind": self.images.kind,
                "sha256": self.sha256,
                "images": len(self.rows),
                "classes": len(self.best),
                "left_out": self.images.left_out,
                "missing": dict(sorted(Counter(image.label for image in self.images.missing).items())),
                "skipped": [{"name": name, "reason": self._public(reason)} for name, reason in self.skipped],
            },
            "real": None if c is None else c.summary(),
            "queries": self.queries,
            "position": {**self.position.to_dict(), "undecided": self.undecided},
            "scores": scored,
            "raw": raw,
            "per_class": self._per_class(),
            "images": [self._image(row) for row in range(len(self.rows))],
        }

    def _public(self, text: str) -> str:
        """A message about an image, without the folders above the set's."""
        return without_folders(text.replace(f"{self.images.source}{os.sep}", ""))

    def _per_class(self) -> list[dict[str, Any]]:
        hits = {"called": self.margins > 0}
        hits |= {f"accepted_{level}": accepted for level, accepted in self.accepted.items()}
        entries = []
        for row in self.best:
            of_class = self.classes == self.classes[row]
            known = hits.keys() if self.has_threshold[row] else {"called"}
            counts = {name: int(hit[of_class].sum()) if name in known else None for name, hit in hits.items()}
            label = self.target.labels[self.classes[row]]
            entries.append(
                {"class": int(self.classes[row]), "label": label, "images": int(of_class.sum()), **counts, "best": int(row)}
            )
        return entries

    def _image(self, row: int) -> dict[str, Any]:
        c, labels, margin = self.calibration, self.target.labels, float(self.margins[row])
        intended, called = int(self.classes[row]), int(self.called[row])
        entry: dict[str, Any] = {
            "name": self.images.names[self.rows[row]],
            "class": intended,
            "label": labels[intended],
            "called": called,
            "called_label": labels[called],
            "as_intended": margin > 0,
        }
        if c is not None:
            has_threshold = self.has_threshold[row]
            entry |= {f"accepted_{at}": bool(hits[row]) if has_threshold else None for at, hits in self.accepted.items()}
            entry |= {"margin_percentile": float(c.percentile(self.margins[row])), "scaled_margin": margin / c.scale}
            entry["calibrated_confidence"] = (
                None if self.calibrated_confidence is None else float(self.calibrated_confidence[row])
            )
        return entry | {"raw": {"p": float(self.p[row]), "log_odds": float(self.log_odds[row]), "margin": margin}}


def _share(count: int, of: int) -> CountedShare:
    if not of:
        return CountedShare(0, 0, None, None, None)
    return CountedShare(count, of, count / of, *wilson(count, of))
