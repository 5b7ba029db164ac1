"""Which images of a set still fool a target: fooling images that were made earlier, as a regression test."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evofool.bench.acceptance_rule import AcceptanceRule, parse_acceptance_rule
from evofool.bench.sets.scored_set import ScoredSet
from evofool.errors import RecipeError, StoreError
from evofool.json_file import read_json
from evofool.pages.sheet import confidence_text
from evofool.targets import Target
from evofool.targets.labels import is_rejection
from evofool.targets.redaction import name_of, public_name

SCHEMA, VERSION = "evofool.survivors", 1
DEFAULT = "p>=0.99"
PREDICTED = "margin>=0"  # a margin of exactly 0 fools nobody
LEVELS = {"tau_5": "tau5", "tau_50": "tau50"}
By = Literal["class", "classifier"]


@dataclass(frozen=True)
class FoolingRule:
    """When an image fools: its intended class is predicted alone, and its score reaches a threshold.

    acceptance: a rule on the confidence, the margin or the log-odds. level: "tau5" or "tau50", the threshold on the margin
    from real images; then acceptance is None. An image that is rejected is predicted as a rejection class, so it does not
    fool.
    """

    acceptance: AcceptanceRule | None
    level: str = ""

    def __str__(self) -> str:
        return str(self.acceptance) if self.acceptance else self.level.replace("tau", "tau_")


def fooling_rule(text: str | None, target: Target, calibrated: bool) -> FoolingRule:
    """The rule of a text: tau_5, tau_50, or as parse_acceptance_rule has it. None: tau_5 if calibrated, else DEFAULT.

    Without real images the default of a guarded target is PREDICTED: its confidences are no probabilities, and it decides
    by rejecting. RecipeError for another text, and for tau_5 and tau_50 without real images.
    """
    text = text or ("tau_5" if calibrated else PREDICTED if "guard" in target.details else DEFAULT)
    if text not in LEVELS:
        try:
            return FoolingRule(parse_acceptance_rule(text))
        except RecipeError as error:
            raise RecipeError(f"{error}; or, with real images, tau_5 or tau_50") from None
    if not calibrated:
        raise RecipeError(f"{text} is a threshold from real images: name these, or write a rule such as {DEFAULT}")
    return FoolingRule(None, LEVELS[text])


@dataclass(frozen=True)
class Survivors:
    """The n scored images of a set, and which of them still fool the target by a rule."""

    scored: ScoredSet
    rule: FoolingRule

    @cached_property
    def judged(self) -> np.ndarray:
        """(n,) bool: the images that the rule has a threshold for; by tau_5 and tau_50 those of classes with real images."""
        return np.ones(len(self.scored.rows), bool) if self.rule.acceptance else self.scored.has_threshold

    @cached_property
    def fools(self) -> np.ndarray:
        """(n,) bool: the images that still fool. False where not judged."""
        if self.rule.acceptance:
            return self.rule.acceptance.accepts(self.scored.log_odds, self.scored.margins)
        return self.scored.accepted[self.rule.level]

    @cached_property
    def rejected(self) -> np.ndarray:
        """(n,) bool: the images that the target predicts as a rejection class."""
        rejections = np.array([is_rejection(label) for label in self.scored.target.labels])
        return rejections[self.scored.called]

    @property
    def has_rejections(self) -> bool:
        """Whether the target has a rejection class."""
        return any(map(is_rejection, self.scored.target.labels))

    @cached_property
    def ranking(self) -> np.ndarray:
        """The rows of the images that still fool, int64, by falling log-odds; of equals the first one comes first."""
        rows = np.flatnonzero(self.fools)
        return rows[np.argsort(-self.scored.log_odds[rows], kind="stable")]

    def groups(self, by: By) -> dict[str, np.ndarray]:
        """By label in the order of classes, or by classifier in the order of the set, the rows of its images, int64."""
        return groups(self.scored.images.classes[self.scored.rows], self._classifiers, self.scored.target.labels, by)

    @property
    def _classifiers(self) -> list[str]:
        return [self.scored.images.classifiers[row] for row in self.scored.rows]

    def name(self, row: int) -> str:
        """The name of an image in its set."""
        return self.scored.images.names[self.scored.rows[row]]

    def label(self, row: int) -> str:
        """The label of its intended class."""
        return self.scored.target.labels[int(self.scored.classes[row])]

    def then(self, row: int) -> float | None:
        """The confidence in the intended class when the image was made, 0 to 1; None if the set does not say."""
        p = float(self.scored.images.confidences[self.scored.rows[row]])
        return None if np.isnan(p) else p

    def image(self, row: int) -> np.ndarray:
        """uint8 (C, H, W) as the target receives it."""
        return self.scored.images.image(int(self.scored.rows[row]))

    def digest(self, row: int) -> str:
        """SHA-256 of the image as the target receives it, and of its label: what knows it again in another set."""
        image = self.image(row)
        return hashlib.sha256(f"{image.shape} {self.label(row)} ".encode() + image.tobytes()).hexdigest()

    def line(self, row: int) -> str:
        """What a message says of an image: its name, intended class, and confidence now and when it was made."""
        then, now = self.then(row), confidence_text(float(self.scored.p[row]))
        before = "" if then is None else f" ({confidence_text(then)} when it was made)"
        return f"{self.name(row)}: {self.label(row)}, confidence {now}{before}"

    def summary(self) -> str:
        """One sentence with the counts."""
        target, judged = public_name(self.scored.target.name), int(self.judged.sum())
        shares = self.scored.shares(self.fools, self.judged)
        return (
            f"{shares.images.count:,} of {judged:,} images, of {shares.classes.count:,} of {shares.classes.of:,} classes, "
            f"still fool {target} ({self.rule})" + self._ended()
        )

    def _ended(self) -> str:
        rejected = int((self.rejected & self.judged).sum())
        return f"; {rejected:,} are rejected" if self.has_rejections else ""

    def cautions(self) -> list[str]:
        """What a reader of the counts has to know: images that were not scored, not judged, or resized."""
        found = self.scored.images.notes()
        if not self.judged.all():
            found.append(
                f"{int((~self.judged).sum()):,} images are of classes without real images, for which there is no threshold"
            )
        if self.scored.skipped:
            found.append(f"{len(self.scored.skipped):,} images cannot be read and are left out")
        return found

    def as_json(self) -> dict[str, Any]:
        """As JSON, without the folders of this machine. Images are those that still fool, by falling log-odds."""
        scored, target = self.scored, self.scored.target
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "target": {"spec": public_name(target.name), "fingerprint": target.fingerprint()},
            "set": {
                "source": name_of(scored.images.source),
                "sha256": scored.sha256,
                "images": len(scored.rows),
                "left_out": scored.images.left_out,
                "missing": dict(sorted(Counter(image.label for image in scored.images.missing).items())),
                "skipped": len(scored.skipped),
            },
            "rule": str(self.rule),
            "judged": int(self.judged.sum()),
            "survivors": len(self.ranking),
            "rejected": int((self.rejected & self.judged).sum()),
            "per_class": self._counts("class"),
            "per_classifier": self._counts("classifier"),
            "images": [self._image(int(row)) for row in self.ranking],
        }

    def _counts(self, by: By) -> list[dict[str, Any]]:
        return [
            {by: name, "judged": int(self.judged[rows].sum()), "survivors": int(self.fools[rows].sum())}
            for name, rows in self.groups(by).items()
        ]

    def _image(self, row: int) -> dict[str, Any]:
        scored = self.scored
        return {
            "name": self.name(row),
            "class": int(scored.classes[row]),
            "label": self.label(row),
            "classifier": scored.images.classifiers[scored.rows[row]] or None,
            "confidence_then": self.then(row),
            "confidence": float(scored.p[row]),
            "log_odds": float(scored.log_odds[row]),
            "margin": float(scored.margins[row]),
            "sha256": self.digest(row),
        }


def groups(classes: np.ndarray, classifiers: list[str], labels: tuple[str, ...], by: By) -> dict[str, np.ndarray]:
    """By label, in the order of classes, or by classifier, in the order of the set: the indices of its images, int64."""
    if by == "class":
        return {labels[c]: np.flatnonzero(classes == c) for c in np.unique(classes)}
    names = np.array(classifiers, object)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(classifiers)}


def known_survivors(path: Path) -> set[str]:
    """The digests of the images of a survivors.json, which are known to fool. StoreError for another file."""
    data = read_json(path, SCHEMA, VERSION, "write it anew with evofool score-set --out")
    try:
        return {str(image["sha256"]) for image in data["images"]}
    except (KeyError, TypeError):
        raise StoreError(f"{path} has no list of images with sha256; write it anew with evofool score-set --out") from None
