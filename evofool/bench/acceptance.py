"""Acceptance scores: how like correctly classified real images an image is, and the thresholds that 95% or 50% reach.

An image made for class c is accepted under a score if c is its arg-max, no other class has an equal logit, and its value is
at least the threshold of c. Each score has its own thresholds, from the same real images. docs/protocol.md, section 3.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

MARGIN, PAIR, FEATURES = "margin", "pair", "features"
DESCRIPTIONS = {
    MARGIN: "the margin: a shift of all logits of an image does not change it",
    PAIR: "top logit and runner-up, ranked among those of real images: a monotone map of all logits does not change it",
    FEATURES: "likeness to a real image of the class, by the features of the last linear layer: no map of logits changes it",
}
"""The scores, in the order in which they are reported; of equally easy ones the first is the easiest."""
SEEN = np.dtype([("class", "<i4"), ("at", "<i8"), ("top", "<f4"), ("second", "<f4"), ("similarity", "<f4")])
"""What the scores need of an image: its arg-max, the query that it was, its two highest logits, and FeatureScale's value for
it, NaN without features."""
LEVELS = {"tau5": 0.05, "tau50": 0.5}
MIN_OF_CLASS = 100  # correctly classified images; a class with at least this number has its own threshold
MANY_TIED = 0.01  # of the real images
_SAMPLES = 0x5EED  # keys bootstrap samples
FEW = 10  # real images of a class; with fewer, the nearest one says little


@dataclass(frozen=True)
class AcceptanceScore:
    """A score's values for the real images, each in its own class, and the thresholds from them.

    values: (N,) float64, higher is more like a real image; classes: (N,) int64; correct: (N,) bool, classified correctly;
    control: (N,) bool, the half that sets no threshold; labels: K, the number of classes.
    """

    name: str
    values: np.ndarray
    classes: np.ndarray
    correct: np.ndarray
    control: np.ndarray
    labels: int

    @cached_property
    def rows(self) -> np.ndarray:
        """(N,) bool: the correctly classified images of the calibration half, which set the thresholds."""
        return self.correct & ~self.control

    @cached_property
    def has_own_threshold(self) -> np.ndarray:
        """(K,) bool: the classes with at least 100 such images, which have their own thresholds."""
        return np.bincount(self.classes[self.rows], minlength=self.labels) >= MIN_OF_CLASS

    @cached_property
    def _taus(self) -> dict[str, np.ndarray]:
        return {level: self._thresholds(LEVELS[level]) for level in LEVELS}

    def tau(self, level: str = "tau5") -> np.ndarray:
        """(K,) float64: the thresholds of "tau5", which 95% of the real images classified correctly reach, or "tau50"."""
        return self._taus[level]

    def resampled(self, level: str, replicates: int, seed: int = 0) -> np.ndarray:
        """(replicates, K) float64: thresholds from bootstrap samples of the real images that set them.

        Of equal seeds the samples are the same for all scores.
        """
        draw = np.random.default_rng([_SAMPLES, seed])
        pooled, classes = self.values[self.rows], self.classes[self.rows]
        taus = np.empty((replicates, self.labels))
        for row in taus:
            row[:] = quantile(pooled[draw.integers(0, len(pooled), len(pooled))], LEVELS[level])
        for c in np.flatnonzero(self.has_own_threshold):
            of_class = pooled[classes == c]
            for row in taus:
                row[c] = quantile(of_class[draw.integers(0, len(of_class), len(of_class))], LEVELS[level])
        return taus

    def share_reached(self, values: np.ndarray) -> np.ndarray:
        """The share in [0, 1] of the real images that set the thresholds whose value is at most this; (...) like values."""
        ordered = np.sort(self.values[self.rows])
        return np.asarray(np.searchsorted(ordered, values, side="right") / len(ordered))

    def resampled_reached(self, values: np.ndarray, replicates: int, seed: int = 0) -> np.ndarray:
        """(replicates, ...): the same with bootstrap samples of the real images, of equal seeds the same for all values."""
        draw = np.random.default_rng([_SAMPLES, seed])
        pooled = self.values[self.rows]
        samples = (np.sort(pooled[draw.integers(0, len(pooled), len(pooled))]) for _ in range(replicates))
        return np.stack([np.searchsorted(sample, values, side="right") / len(pooled) for sample in samples])

    def control_accepted(self) -> tuple[float, int, float]:
        """The positive control: (the share accepted at tau5, the number, and the standard error) of the disjoint half.

        Of its correctly classified images. The standard error is that of a true share of 0.95; both halves are samples.
        """
        rows = self.correct & self.control
        number, set_by = int(rows.sum()), int(self.rows.sum())
        share = float((self.values[rows] >= self.tau()[self.classes[rows]]).mean()) if number else math.nan
        return share, number, math.sqrt(0.05 * 0.95 * (1 / max(1, number) + 1 / max(1, set_by)))

    @cached_property
    def tied(self) -> float:
        """The share of the values that set tau5 which are exactly at it; 0 where only a few are, as by chance.

        Saturated or coarse outputs have ties: then tau5 keeps up to so much more than 0.95, and no level keeps exactly 0.95.
        """
        share = float((self.values[self.rows] == self.tau()[self.classes[self.rows]]).mean()) if self.rows.any() else 0.0
        return share if share > MANY_TIED else 0.0

    @cached_property
    def control_met(self) -> bool:
        """Whether the disjoint half is accepted as often as it has to be: 0.95, within 3 standard errors and ties."""
        share, _, error = self.control_accepted()
        return bool(-3 * error <= share - 0.95 <= self.tied + 3 * error)

    def _thresholds(self, share: float) -> np.ndarray:
        taus = np.full(self.labels, quantile(self.values[self.rows], share))
        for c in np.flatnonzero(self.has_own_threshold):
            taus[c] = quantile(self.values[self.rows & (self.classes == c)], share)
        return taus


@dataclass(frozen=True)
class PairScale:
    """Ranks the two highest logits of an image among those of real images.

    tops, seconds: (n,) ascending, the highest and second highest logits of the real images that set the thresholds.
    """

    tops: np.ndarray
    seconds: np.ndarray

    def __call__(self, tops: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """(B,) float64, 0 to n: the largest k for which the top logit is at least the k-th lowest of real top logits, and
        the runner-up at most the k-th highest of real runners-up.

        Only comparisons, so that a strictly increasing map of all logits, real images' and these, changes nothing.
        """
        above = np.searchsorted(self.tops, tops, side="right")
        below = len(self.seconds) - np.searchsorted(self.seconds, seconds, side="left")
        return np.minimum(above, below).astype(np.float64)


@dataclass(frozen=True)
class FeatureScale:
    """Compares features of images with those of real images of the same class.

    features: by class, (n, D) float32, of correctly classified images of the calibration half, each of length 1.
    """

    features: Mapping[int, np.ndarray]

    def __call__(self, features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(B,) float64: the highest cosine between an image's features (B, D) and those of a real image of its class.

        NaN for a class without real images.
        """
        values = np.full(len(classes), np.nan)
        units = unit_rows(features)
        for c in np.unique(classes).tolist():
            if c in self.features:
                rows = classes == c
                values[rows] = (units[rows] @ self.features[c].T).max(axis=1)
        return values


def unit_rows(features: np.ndarray) -> np.ndarray:
    """(B, D) float32: features divided by their Euclidean length; a row of zeros stays one."""
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1.0), np.float32)


@dataclass(frozen=True)
class AcceptanceScores:
    """The scores of a target, by name in the order of DESCRIPTIONS; left_out: why others cannot be had.

    pair: the scale of the score of that name; None where it is left out.
    """

    scores: Mapping[str, AcceptanceScore]
    left_out: Mapping[str, str] = field(default_factory=dict)
    pair: PairScale | None = None

    def values(self, name: str, seen: np.ndarray) -> np.ndarray:
        """(n,) float64: the values of images, n records of SEEN, under a score."""
        tops, seconds = seen["top"].astype(np.float64), seen["second"].astype(np.float64)
        if name == PAIR:
            assert self.pair is not None
            return self.pair(tops, seconds)
        return tops - seconds if name == MARGIN else seen["similarity"].astype(np.float64)


def top_two(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) highest and (B,) second highest logits of (B, K), K >= 2, of the same type."""
    pair = np.partition(logits, -2, axis=1)[:, -2:]
    return pair[:, 1], pair[:, 0]


def quantile(values: np.ndarray, share: float) -> float:
    """A new value exceeds it with probability 1 - share on average: Weibull's plotting position k / (n + 1)."""
    return float(np.quantile(values, share, method="weibull")) if len(values) else math.nan
