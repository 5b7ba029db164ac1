"""A classifier and its detector together: which real images the pair keeps, and in how many classes it is fooled.

An image passes the pair at two thresholds: the classifier assigns it to the class with a margin of at least tau, and the
detector's score is at most the detector's threshold. Two pairs of thresholds are scored. "separate": each keeps 95% of the
real images by itself. "joint": both are set at one level, so that the pair keeps 95%.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evofool.bench.acceptance import LEVELS, MANY_TIED
from evofool.bench.calibration import Calibration
from evofool.bench.detect.detectors import Detector, FoolingImages
from evofool.bench.statistics import share_interval
from evofool.scores import margin

PAIRS = ("separate", "joint")
KEPT = 0.95
REPLICATES = 400  # bootstrap samples of the real images
_ROUNDING = 1e-12  # of a level
_SAMPLES = 0x9A17  # of the key of the bootstrap


@dataclass(frozen=True)
class _Thresholds:
    """R pairs of thresholds: tau (R, K) of margins, threshold (R,) of the detector's scores. The first pair is set by all
    real images of the calibration half, the others by bootstrap samples of them.

    level (R,): the share of correctly classified real images that each threshold rejects by itself.
    """

    tau: np.ndarray
    threshold: np.ndarray
    level: np.ndarray

    def pass_at(self, margins: np.ndarray, classes: np.ndarray, scores: np.ndarray, unit: float = 1.0) -> np.ndarray:
        """(R, n) bool: whether images pass both, by their margins (in this unit), classes and scores (n,)."""
        return (
            (margins >= self.tau[:, classes] / unit) & (margins > 0) & (scores <= self.threshold[:, None])
        )  # a margin of 0: two classes are equal


class Pair:
    """A classifier with a detector that was fitted to it.

    control_scores: the detector's scores of the real images that set no threshold (Detector.of_control).
    """

    def __init__(
        self, detector: Detector, calibration: Calibration, control_scores: np.ndarray, replicates: int = REPLICATES
    ) -> None:
        self._calibration, self._control_scores = calibration, control_scores
        self._margins = margin(calibration.logits)[np.arange(len(calibration.classes)), calibration.classes]
        self._scores = np.full(len(calibration.classes), np.nan)  # NaN: sets no threshold of the detector
        self._scores[detector.rows] = detector.real_scores
        half = np.flatnonzero(~calibration.control)
        draw = np.random.default_rng(_SAMPLES)
        found = [self._set_by(rows) for rows in (half, *(draw.choice(half, len(half)) for _ in range(replicates)))]
        self._pairs = {
            name: _Thresholds(*map(np.array, zip(*(each[name] for each in found), strict=True))) for name in PAIRS
        }
        self._of_detector = detector.real_scores
        self._rows_of_detector = detector.rows

    def detector_control(self) -> dict[str, Any]:
        """The share of held-out real images that the detector rejects, of all: 0.05 within 3 standard errors is met.

        The standard error is that of a true share of 0.05; both halves are samples. With ties at the threshold the
        detector rejects fewer, which is no fault.
        """
        threshold = self._pairs["separate"].threshold[0]
        ties = _many((self._of_detector == threshold).mean())
        return _control("rejected", self._control_scores > threshold, 1 - KEPT, len(self._of_detector), below=ties)

    def real(self, pair: str) -> dict[str, Any]:
        """The share of the correctly classified held-out real images that pass both; "joint" has to keep 0.95 of them."""
        rows = np.flatnonzero(self._calibration.control)
        passed = self._pairs[pair].pass_at(self._margins[rows], self._calibration.classes[rows], self._control_scores)[0]
        passed = passed[self._margins[rows] > 0]
        if pair == "joint":
            tied, set_by = self._joint_ties()
            return _control("kept", passed, KEPT, set_by, above=tied)
        share = float(passed.mean()) if len(passed) else math.nan
        error = math.sqrt(share * (1 - share) / max(1, len(passed)))
        return {"kept": share, "images": len(passed), "standard_error": error}

    def _joint_ties(self) -> tuple[float, int]:
        """How much more than KEPT the joint thresholds may keep because of ties, and how many real images set them.

        An image at both thresholds counts twice, so that the sum of the two shares is an upper limit.
        """
        rows = self._rows_of_detector[self._margins[self._rows_of_detector] > 0]
        joint = self._pairs["joint"]
        margins = _many((self._margins[rows] == joint.tau[0][self._calibration.classes[rows]]).mean())
        return margins + _many((self._scores[rows] == joint.threshold[0]).mean()), len(rows)

    def fooled(self, images: Mapping[int, tuple[FoolingImages, np.ndarray]], unit: float) -> dict[str, Any]:
        """By pair of thresholds, the share of scored classes with an image that passes both, and what real images it keeps.

        images: by seed, those that fool the classifier, and the detector's scores of them. unit: of their margins, in units
        of the classifier's. A seed without such images counts as 0.
        """
        found: dict[str, Any] = {"seeds": list(images)}
        for name, pair in self._pairs.items():
            shares = np.stack([self._shares(pair, *of_seed, unit) for of_seed in images.values()], axis=1)
            interval = share_interval(shares[0], shares[1:], int(self._calibration.scored.sum()))
            found[name] = {
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "per_seed": shares[0].tolist(),
                "level": float(pair.level[0]),
                "real": self.real(name),
            }
        return found

    def _shares(self, pair: _Thresholds, images: FoolingImages, scores: np.ndarray, unit: float) -> np.ndarray:
        """(R,): the share of scored classes with an image that passes."""
        passed = pair.pass_at(images.margins, images.classes, scores, unit)
        hits = np.zeros((len(self._calibration.labels), len(passed)), bool)
        np.logical_or.at(hits, images.classes, passed.T)
        return np.asarray(hits.sum(axis=0) / self._calibration.scored.sum())

    def _set_by(self, rows: np.ndarray) -> dict[str, tuple[np.ndarray, float, float]]:
        """(tau, threshold, level) of each pair, set by real images with these numbers, some of them more than once."""
        correct = rows[self._margins[rows] > 0]
        of_detector = rows[~np.isnan(self._scores[rows])]
        both = of_detector[self._margins[of_detector] > 0]
        scores = np.quantile(self._scores[of_detector], KEPT, method="higher")
        # The highest level at which an image passes is the lower of those of its margin and of its score.
        most = np.minimum(self._highest_levels(both, correct), _highest_level(-self._scores[both], -self._scores[both]))
        level = _quantile(most, 1 - KEPT)
        # A little lower: rounding must not put a threshold just beyond the images that have this level, which may be many.
        safe = level * (1 - _ROUNDING)
        return {
            "separate": (self._tau(correct, LEVELS["tau5"]), float(scores), LEVELS["tau5"]),
            "joint": (self._tau(correct, safe), -_quantile(-self._scores[both], safe), level),
        }

    def _tau(self, correct: np.ndarray, level: float) -> np.ndarray:
        """(K,): the margin that all but this share of correctly classified images reach, as Calibration.tau has it."""
        classes, margins = self._calibration.classes[correct], self._margins[correct]
        tau = np.full(len(self._calibration.labels), _quantile(margins, level))
        for c in np.flatnonzero(self._calibration.has_own_threshold):
            tau[c] = _quantile(margins[classes == c], level)
        return tau

    def _highest_levels(self, rows: np.ndarray, correct: np.ndarray) -> np.ndarray:
        """(n,): the highest level at which each image's margin reaches _tau of its class."""
        levels = _highest_level(self._margins[rows], self._margins[correct])
        for c in np.flatnonzero(self._calibration.has_own_threshold):
            its, others = (at[self._calibration.classes[at] == c] for at in (rows, correct))
            levels[self._calibration.classes[rows] == c] = _highest_level(self._margins[its], self._margins[others])
        return levels


def _control(
    what: str, found: np.ndarray, expected: float, set_by: int, below: float = 0.0, above: float = 0.0
) -> dict[str, Any]:
    """A share of held-out real images, and whether it is as expected. below, above: how far ties may move it."""
    share = float(found.mean()) if len(found) else math.nan
    error = math.sqrt(expected * (1 - expected) * (1 / max(1, len(found)) + 1 / max(1, set_by)))
    met = bool(-below - 3 * error <= share - expected <= above + 3 * error)
    return {what: share, "images": len(found), "standard_error": error, "met": met}


def _many(tied: float) -> float:
    """The share of ties at a threshold; 0 where there are only a few, as by chance."""
    return float(tied) if tied > MANY_TIED else 0.0


def _quantile(values: np.ndarray, share: float) -> float:
    """Weibull's plotting position k / (n + 1), as in Calibration."""
    return float(np.quantile(values, share, method="weibull")) if len(values) else math.nan


def _highest_level(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(n,): the highest share at which each value reaches _quantile(among, share)."""
    return np.searchsorted(np.sort(among), values, side="right") / (len(among) + 1)
