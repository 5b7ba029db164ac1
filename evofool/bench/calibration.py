"""Thresholds that a fooling image has to reach, from a target's outputs for labelled real images, and their uncertainty."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evofool import scores
from evofool.bench.acceptance import (
    FEATURES,
    MARGIN,
    PAIR,
    AcceptanceScore,
    AcceptanceScores,
    PairScale,
    top_two,
)
from evofool.bench.answer_file import stored_queries
from evofool.bench.real import RealImages, update_digest
from evofool.errors import ImageError, StoreError, TargetError
from evofool.targets import Target
from evofool.whole_file import write_whole

MIN_CORRECT = 40  # correctly classified images of the calibration half; with fewer, a 5% quantile is meaningless
# Misclassified images of the calibration half. The fewer there are, the more the temperature depends on a single image,
# which may have a wrong label. With five, one image more or less changes it by about 4% (simulated, 600 images).
MIN_WRONG = 5
_LOG_T = (-8.0, 4.0)  # the range of log(temperature) that is searched, in units of scale
_HALVES = 0x5EED  # keys the split
SUSPECTED = 0.05  # if top-1 exceeds the declared one by more, the target may have been trained on the images


@dataclass(frozen=True)
class Calibration:
    """A target's outputs for real images, and thresholds derived from them. Source: docs/protocol.md, points 2 and 3.

    logits: (N, K) float32; classes: (N,) int64; control: (N,) bool, the half that sets no threshold; sha256: of the images
    as the target receives them; fingerprint: of the target; labels: K. most: how many classes are scored at most; None: all
    that have real images.

    If the target's logits are divided by a power of two, everything but logits stays equal to the bit, or is divided by it
    too: margins are reported in units of `scale`.
    """

    logits: np.ndarray
    classes: np.ndarray
    control: np.ndarray
    sha256: str
    fingerprint: str
    labels: tuple[str, ...]
    most: int | None = None

    @cached_property
    def has_images(self) -> np.ndarray:
        """(K,) bool: the classes that have real images. All of these set the thresholds."""
        return scored_classes(self.classes, len(self.labels))

    @cached_property
    def scored(self) -> np.ndarray:
        """(K,) bool: the classes that are scored: those with real images, or `most` of them."""
        return scored_classes(self.classes, len(self.labels), self.most)

    @cached_property
    def correct(self) -> np.ndarray:
        """(N,) bool: images that are classified correctly, so that their own class's margin is above 0."""
        return self._margins > 0

    @property
    def top1(self) -> float:
        """The share of images that are classified correctly. An image with two equal highest logits is not."""
        return float(self.correct.mean())

    @cached_property
    def margins(self) -> np.ndarray:
        """(n,) float64, ascending: margins of the correctly classified images that set the thresholds."""
        return np.sort(self._margins[self.correct & ~self.control])

    @cached_property
    def scale(self) -> float:
        """The median of `margins`: the unit of every reported margin."""
        return float(np.median(self.margins))

    @cached_property
    def margin_score(self) -> AcceptanceScore:
        """The margins of the real images in their own classes, with their thresholds."""
        return self.acceptance_score(MARGIN, self._margins)

    def acceptance_score(self, name: str, values: np.ndarray) -> AcceptanceScore:
        """A score with the values (N,) of the real images, each in its own class."""
        return AcceptanceScore(name, values, self.classes, self.correct, self.control, len(self.labels))

    def acceptance(self, top_k: int, likeness: np.ndarray | None = None, no_features: str = "") -> AcceptanceScores:
        """All acceptance scores that can be had. top_k: the number of classes that the target returns of an image.

        likeness: (N,) float64, the real images' values by features; None where there are none, and no_features says why. A
        score whose disjoint half is not accepted as often as it has to be is left out, but for the margin, without which
        nothing is valid.
        """
        found, left_out = {MARGIN: self.margin_score}, dict[str, str]()
        pair: PairScale | None = None
        if top_k < 2:
            left_out[PAIR] = "the target returns the top class only, and the pair needs the runner-up"
        else:
            tops, seconds = (values.astype(np.float64) for values in top_two(self.logits))
            rows = self.margin_score.rows
            pair = PairScale(np.sort(tops[rows]), np.sort(seconds[rows]))
            # Those that set the scale are ranked among the others, as a new image is among all.
            found[PAIR] = self.acceptance_score(PAIR, pair(tops, seconds) - rows)
        if likeness is None:
            left_out[FEATURES] = no_features
        else:
            found[FEATURES] = self.acceptance_score(FEATURES, likeness)
        for name, score in list(found.items()):
            if name != MARGIN and not score.control_met:
                share, _, error = score.control_accepted()
                left_out[name] = (
                    f"of the disjoint half of the real images {share:.3f} are accepted, not 0.95 within 3 standard errors "
                    f"({error:.3f})"
                )
                del found[name]
        return AcceptanceScores(found, left_out, pair)

    @cached_property
    def tau5(self) -> np.ndarray:
        """(K,) float64: the margin that 95% of the real images classified correctly reach."""
        return self.margin_score.tau("tau5")

    @cached_property
    def tau50(self) -> np.ndarray:
        """(K,) float64: the margin that half of them reach."""
        return self.margin_score.tau("tau50")

    @property
    def has_own_threshold(self) -> np.ndarray:
        """(K,) bool: the classes with at least 100 correctly classified images, which have their own thresholds."""
        return self.margin_score.has_own_threshold

    @cached_property
    def temperature(self) -> float | None:
        """Guo 2017's temperature, fitted on the calibration half by maximum likelihood, in units of scale.

        The logits at it are z / (scale * temperature), which dividing all logits does not change. None where the images do
        not determine it (`doubts`): if all were classified correctly, the likelihood would rise without end as the
        temperature falls, and only the misclassified ones prevent that. None, too, where the likelihood is greatest at an
        end of the searched range.
        """
        from scipy.optimize import minimize_scalar

        if self._wrong < MIN_WRONG:
            return None
        half = ~self.control
        z, classes = self.logits[half].astype(np.float64) / self.scale, self.classes[half]
        rows = np.arange(len(z))

        def loss(log_t: float) -> float:
            scaled = z / math.exp(log_t)
            top = scaled.max(axis=1)
            return float((np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - scaled[rows, classes]).mean())

        log_t = float(minimize_scalar(loss, bounds=_LOG_T, method="bounded", options={"xatol": 1e-6}).x)
        return math.exp(log_t) if _LOG_T[0] + 0.01 < log_t < _LOG_T[1] - 0.01 else None

    def tau(self, level: str) -> np.ndarray:
        """(K,) float64: the thresholds of "tau5" or "tau50"."""
        return {"tau5": self.tau5, "tau50": self.tau50}[level]

    def accepted(self, margins: np.ndarray, classes: np.ndarray, level: str = "tau5") -> np.ndarray:
        """Whether images with these margins are classified as these classes, and as clearly as real images are.

        A margin equal to the threshold is enough; a margin of 0 never is, since two classes are equal then.
        """
        return (margins >= self.tau(level)[classes]) & (margins > 0)

    @property
    def raw_temperature(self) -> float | None:
        """The temperature of the unscaled logits."""
        return None if self.temperature is None else self.temperature * self.scale

    @property
    def unit(self) -> float:
        """The divisor of `calibrated`, in units of scale: the temperature, or 1 where none could be fitted."""
        return 1.0 if self.temperature is None else self.temperature

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """(B, K) float64: logits at the fitted temperature, or in units of scale where there is none."""
        return logits.astype(np.float64) / self.scale / self.unit

    def calibrated_confidence(self, logits: np.ndarray) -> np.ndarray | None:
        """(B, K) float64: the softmax confidences at the fitted temperature; None where there is none."""
        if self.temperature is None:
            return None
        z = self.calibrated(logits)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def percentile(self, margins: np.ndarray) -> np.ndarray:
        """0 to 100: the percentage of correctly classified real images whose margin is at most this."""
        return 100.0 * np.searchsorted(self.margins, margins, side="right") / len(self.margins)

    def control_accepted(self) -> tuple[float, int, float]:
        """The positive control: AcceptanceScore.control_accepted of the margins."""
        return self.margin_score.control_accepted()

    @property
    def tied(self) -> float:
        """The share of the margins that set tau5 which are exactly at it: AcceptanceScore.tied."""
        return self.margin_score.tied

    @cached_property
    def only_top(self) -> bool:
        """Whether all correctly classified real images have one margin, as where the arg-max is all that is known."""
        margins = self._margins[self.correct]
        return len(margins) > 1 and float(np.ptp(margins)) == 0.0

    def resampled(self, level: str, replicates: int, seed: int = 0) -> np.ndarray:
        """(replicates, K) float64: thresholds from bootstrap samples of the real images that set them."""
        return self.margin_score.resampled(level, replicates, seed)

    def faults(self, name: str, declared: float | None = None) -> list[str]:
        """Why nothing can be measured with these images; empty if it can.

        name: of the target. declared: the top-1 accuracy that it should have.
        """
        n, top1 = len(self.classes), self.top1
        check = f"see  evofool targets check '{name}' --images DIR"
        if not np.isfinite(self.logits).all():
            bad = np.flatnonzero(~np.isfinite(self.logits).all(axis=1))
            return [f"it returns NaN or infinity for {len(bad)} of {n} real images (the first is number {bad[0]})"]
        found = []
        by_half = len(self.margins), int((self.correct & self.control).sum())
        if min(by_half) < MIN_CORRECT:
            found.append(
                f"{by_half[0]} and {by_half[1]} images of the two halves are classified correctly, and thresholds need "
                f"{MIN_CORRECT} in each: add real images, or check their labels and the preprocessing; {check}"
            )
        chance = 1 / max(2, int(self.has_images.sum()))
        if top1 < chance + 3 * math.sqrt(chance * (1 - chance) / n):
            found.append(
                f"only {top1:.3f} of {n} real images are classified correctly, hardly more than by chance ({chance:.3f}): "
                f"their labels are not the target's, or its preprocessing is wrong; {check}"
            )
        elif declared is not None and top1 < declared - 3 * math.sqrt(declared * (1 - declared) / n):
            found.append(
                f"top-1 on {n} real images is {top1:.3f}, more than 3 standard errors below the declared {declared:.3f}: "
                f"the usual causes are wrong normalisation or labels; {check}"
            )
        return found

    def doubts(self) -> list[str]:
        """Warnings on what could not be determined; none of them makes a score invalid."""
        if self.only_top:
            return [
                f"only the top class is known: the margins of all {len(self.margins):,} real images that set the threshold "
                "are equal (one-hot outputs, or a label alone), so that every image of a class is accepted and searches "
                "have nothing to climb; views=32 in the target's spec scores by the agreement of 32 views, at 32 queries "
                "an image",
                *self._temperature_doubts(),
            ]
        if self.tied:
            ties = (
                f"{self.tied:.0%} of the real images that set the threshold have exactly its margin (saturated or coarse "
                "outputs), so it keeps more than 95% of them, and no threshold would tell better images from these"
            )
            return [ties, *self._temperature_doubts()]
        return self._temperature_doubts()

    def _temperature_doubts(self) -> list[str]:
        if self.temperature is not None:
            return []
        n = int((~self.control).sum())
        reason = (
            f"of {n:,} real images {self._wrong or 'none'} {'is' if self._wrong == 1 else 'are'} misclassified, and "
            f"fewer than {MIN_WRONG} do not determine one"
            if self._wrong < MIN_WRONG
            else f"the likelihood of {n:,} real images has no maximum"
        )
        return [f"no temperature could be fitted, so there is no calibrated confidence: {reason}"]

    def suspected(self, declared: float | None) -> bool:
        """Whether the target may have been trained on the images: top-1 is more than 5 points above the declared one."""
        return declared is not None and self.top1 > declared + SUSPECTED

    def summary(self) -> dict[str, Any]:
        """Figures of the real images and their thresholds for JSON. A temperature does not change them."""
        accepted, number, error = self.control_accepted()
        return {
            "sha256": self.sha256,
            "number": len(self.classes),
            "classes": int(self.scored.sum()),
            "classes_with_own_threshold": int(self.has_own_threshold.sum()),
            "top1": self.top1,
            "control": {"accepted": accepted, "images": number, "standard_error": error},
            "scaled_tau5": float(np.median(self.tau5[self.scored])) / self.scale,
            "scaled_tau50": float(np.median(self.tau50[self.scored])) / self.scale,
        }

    @cached_property
    def _wrong(self) -> int:
        """The number of misclassified images of the calibration half."""
        return int((self._margins[~self.control] < 0).sum())

    @cached_property
    def _margins(self) -> np.ndarray:
        """(N,) float64: each image's margin in its class."""
        return scores.margin(self.logits)[np.arange(len(self.classes)), self.classes]

    # -- stored in a file

    def save(self, path: Path) -> None:
        """Write the outputs to a file, so that the target need not be queried again."""
        from safetensors.numpy import save

        meta = {"sha256": self.sha256, "fingerprint": self.fingerprint, "labels": json.dumps(self.labels)}
        tensors = {"logits": self.logits, "classes": self.classes, "control": self.control}
        write_whole(path, save(tensors, metadata=meta))

    @classmethod
    def load(cls, path: Path) -> "Calibration | None":
        """The calibration that save wrote; None if there is no such file. StoreError for a damaged one."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return None
        try:
            with safe_open(path, "numpy") as file:
                meta = file.metadata()
                logits, classes, control = (file.get_tensor(name) for name in ("logits", "classes", "control"))
            labels = json.loads(meta["labels"])
            _refuse_other_tensors(logits, classes, control, labels)
            return cls(logits, classes, control, meta["sha256"], meta["fingerprint"], tuple(labels))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise StoreError(f"{path} is damaged ({error}); delete it, and the real images are classified again") from None


def calibrate(
    target: Target,
    real: RealImages,
    report: Callable[[str], None] = lambda _: None,
    batch: int = 32,
    keep: Path | None = None,
) -> Calibration:
    """Query the target with all real images, in float32, and split them into halves (`halves`).

    ImageError if there are too few to split, TargetError for a multi-label target, whose thresholds would need images of
    which every label is known; `faults` checks the outputs. report is called after each batch, and what it
    raises passes through. keep: a file where answers are stored meanwhile, so that the next call continues there
    (answer_file.stored_queries).
    """
    if target.multilabel:
        raise TargetError(
            f"{target.name}: its labels do not exclude each other ({target.outputs}), and real images of one class each do "
            "not say which scores its labels should have; runs, attacks, verify and explain take such targets"
        )
    n = len(real)
    if n < 2 * MIN_CORRECT:
        raise ImageError(f"{real.source} has {n} real images; thresholds and their control need at least {2 * MIN_CORRECT}")
    digest, parts, done = hashlib.sha256(), [], 0
    with stored_queries(target, batch, keep) as query:
        for images, rows in real.batches(batch):
            update_digest(digest, images, real.classes[rows])
            parts.append(query(images))
            done += len(images)
            report(f"scoring real images: {done:,} of {n:,}")
    if done != n:
        raise TargetError(f"{real.source}: {done} of {n} real images could be read")
    control = halves(real.classes)
    return Calibration(np.concatenate(parts), real.classes, control, digest.hexdigest(), target.fingerprint(), target.labels)


def _refuse_other_tensors(logits: np.ndarray, classes: np.ndarray, control: np.ndarray, labels: Any) -> None:
    """ValueError for tensors of another type or shape than Calibration has, and for classes that have no label."""
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("its labels are not a list of names")
    n = len(classes) if classes.ndim else -1
    for name, tensor, dtype, shape in (
        ("logits", logits, np.float32, (n, len(labels))),
        ("classes", classes, np.int64, (n,)),
        ("control", control, np.bool_, (n,)),
    ):
        if tensor.dtype != dtype or tensor.shape != shape:
            raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not {np.dtype(dtype)} {shape}")
    if n and not 0 <= classes.min() <= classes.max() < len(labels):
        raise ValueError(f"it has the class {classes.max() if classes.min() >= 0 else classes.min()} of {len(labels)}")


def scored_classes(classes: np.ndarray, number: int, most: int | None = None) -> np.ndarray:
    """(number,) bool: which classes are scored: those of `classes`, the classes of real images, or `most` of them.

    Of n classes in the order of the labels those at places floor((k + 1/2) n / most), one of each of `most` strata of equal
    size: in the order of ImageNet neighbours are related.
    """
    known = np.unique(classes)
    if most is not None and most < len(known):
        known = known[(2 * np.arange(most) + 1) * len(known) // (2 * most)]
    scored = np.zeros(number, bool)
    scored[known] = True
    return scored


def halves(classes: np.ndarray) -> np.ndarray:
    """(N,) bool, the control half: of each class every other image in a random order, classes in a random order.

    It depends on the classes only, not on the target. A class's counts in the two halves differ by at most one.
    """
    draw = np.random.default_rng(_HALVES)
    shuffled = draw.permutation(len(classes))
    rank = draw.permutation(int(classes.max()) + 1) if len(classes) else np.zeros(0, int)
    order = shuffled[np.argsort(rank[classes[shuffled]], kind="stable")]
    control = np.zeros(len(classes), bool)
    control[order[1::2]] = True
    return control
