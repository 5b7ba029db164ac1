"""What labelled real images say of a target: the thresholds that a fooling image has to reach, and their uncertainty."""

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
from evofool.bench.answers import asked
from evofool.bench.real import RealImages, digest
from evofool.errors import ImageError, StoreError, TargetError
from evofool.targets import Target

LEVELS = {"tau5": 0.05, "tau50": 0.5}
OWN = 100  # correctly classified images of a class from which on it has a threshold of its own
LEAST = 40  # in the calibration half, classified correctly: with fewer a 5% quantile is no figure
# In the calibration half, called something else. The fewer there are, the more of the temperature hangs on a single one,
# which may be a wrong label; with five, one more or less moves it by about 4% (simulated, 600 images).
LEAST_WRONG = 5
_LOG_T = (-8.0, 4.0)  # where the logarithm of the temperature is looked for, in units of scale
_HALVES = 0x5EED  # keys the split
SUSPECTED = 0.05  # top-1 so far above the declared one: the images may have been trained on

Say = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """A target's answers to real images, and what follows from them. Source: docs/protocol.md, points 2 and 3.

    logits: (N, K) float32; classes: (N,) int64; control: (N,) bool, the half that sets no threshold; sha256: of the images
    as the target sees them; fingerprint: of the target; labels: K.

    Everything but logits stays what it is to the bit, or is divided by it, if the target's logits are divided by a power of
    two: margins are told in units of `scale`.
    """

    logits: np.ndarray
    classes: np.ndarray
    control: np.ndarray
    sha256: str
    fingerprint: str
    labels: tuple[str, ...]

    @cached_property
    def scored(self) -> np.ndarray:
        """(K,) bool: the classes that have real images. Others are left out of every score."""
        there = np.zeros(len(self.labels), bool)
        there[self.classes] = True
        return there

    @cached_property
    def correct(self) -> np.ndarray:
        """(N,) bool: images that are classified correctly, so that their own class's margin is above 0."""
        return self._own > 0

    @property
    def top1(self) -> float:
        """The share of all images that is classified correctly; of equal logits none counts as called."""
        return float(self.correct.mean())

    @cached_property
    def margins(self) -> np.ndarray:
        """(n,) float64, ascending: margins of the correctly classified images that set thresholds."""
        return np.sort(self._own[self.correct & ~self.control])

    @cached_property
    def scale(self) -> float:
        """The median of `margins`: the unit of every margin that is reported."""
        return float(np.median(self.margins))

    @cached_property
    def tau5(self) -> np.ndarray:
        """(K,) float64: the margin that 95% of the real images classified correctly reach."""
        return self._taus("tau5", self._own)

    @cached_property
    def tau50(self) -> np.ndarray:
        """(K,) float64: the margin that half of them reach."""
        return self._taus("tau50", self._own)

    @cached_property
    def has_own_threshold(self) -> np.ndarray:
        """(K,) bool: the classes with at least 100 correctly classified images, which have thresholds of their own."""
        return np.bincount(self.classes[self.correct & ~self.control], minlength=len(self.labels)) >= OWN

    @cached_property
    def temperature(self) -> float | None:
        """Guo 2017's temperature, fitted on the calibration half by maximum likelihood, in units of scale.

        The logits at it are z / (scale * temperature): no dividing of all logits changes them. None where these images do
        not determine it (`doubts`): were all of them called what they are, the likelihood would rise as the temperature
        falls, without end, and what keeps it from that are the few that are called something else. None, too, where the
        likelihood is greatest at an end of what is searched.
        """
        from scipy.optimize import minimize_scalar

        if self._wrong < LEAST_WRONG:
            return None
        here = ~self.control
        z, own = self.logits[here].astype(np.float64) / self.scale, self.classes[here]
        rows = np.arange(len(z))

        def loss(log_t: float) -> float:
            hot = z / math.exp(log_t)
            top = hot.max(axis=1)
            return float((np.log(np.exp(hot - top[:, None]).sum(axis=1)) + top - hot[rows, own]).mean())

        log_t = float(minimize_scalar(loss, bounds=_LOG_T, method="bounded", options={"xatol": 1e-6}).x)
        return math.exp(log_t) if _LOG_T[0] + 0.01 < log_t < _LOG_T[1] - 0.01 else None

    def tau(self, level: str) -> np.ndarray:
        """(K,) float64: the thresholds of "tau5" or "tau50"."""
        return {"tau5": self.tau5, "tau50": self.tau50}[level]

    def accepted(self, margins: np.ndarray, classes: np.ndarray, level: str = "tau5") -> np.ndarray:
        """Whether images with these margins in these classes are called so, and as surely as real ones are.

        A margin of exactly the threshold is enough; one of 0 never is, since two classes share the top then.
        """
        return (margins >= self.tau(level)[classes]) & (margins > 0)

    @property
    def raw_temperature(self) -> float | None:
        """The temperature of the logits as they are."""
        return None if self.temperature is None else self.temperature * self.scale

    @property
    def unit(self) -> float:
        """What `calibrated` divides by, in units of scale: the temperature, or 1 where none could be fitted."""
        return 1.0 if self.temperature is None else self.temperature

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """(B, K) float64: logits at the fitted temperature, or in units of scale where there is none."""
        return logits.astype(np.float64) / self.scale / self.unit

    def calibrated_confidence(self, logits: np.ndarray) -> np.ndarray | None:
        """(B, K) float64: the softmax's confidences at the fitted temperature; None where there is none."""
        if self.temperature is None:
            return None
        z = self.calibrated(logits)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def percentile(self, margins: np.ndarray) -> np.ndarray:
        """0 to 100: the share of the correctly classified real images whose margin is at most this."""
        return 100.0 * np.searchsorted(self.margins, margins, side="right") / len(self.margins)

    def control_accepted(self) -> tuple[float, int, float]:
        """The positive control: (share accepted at tau5 of the disjoint half's correctly classified images, how many these
        are, the standard error that this has if 0.95 of all are). Both halves are samples."""
        rows = self.correct & self.control
        of, set_by = int(rows.sum()), len(self.margins)
        share = float(self.accepted(self._own[rows], self.classes[rows]).mean()) if of else math.nan
        return share, of, math.sqrt(0.05 * 0.95 * (1 / max(1, of) + 1 / set_by))

    def resampled(self, level: str, replicates: int, seed: int = 0) -> np.ndarray:
        """(replicates, K) float64: thresholds from bootstrap samples of the real images that set them."""
        draw = np.random.default_rng([_HALVES, seed])
        here = np.flatnonzero(self.correct & ~self.control)
        pooled = self._own[here]
        out = np.empty((replicates, len(self.labels)))
        for row in out:
            row[:] = _quantile(pooled[draw.integers(0, len(pooled), len(pooled))], LEVELS[level])
        for c in np.flatnonzero(self.has_own_threshold):
            own = pooled[self.classes[here] == c]
            for row in out:
                row[c] = _quantile(own[draw.integers(0, len(own), len(own))], LEVELS[level])
        return out

    def faults(self, who: str, declared: float | None = None) -> list[str]:
        """Why nothing can be measured by these images; empty if it can. declared: the top-1 accuracy it should have."""
        n, top1 = len(self.classes), self.top1
        look = f"see  evofool targets check '{who}' --images DIR"
        if not np.isfinite(self.logits).all():
            bad = np.flatnonzero(~np.isfinite(self.logits).all(axis=1))
            return [f"it answers NaN or infinity for {len(bad)} of {n} real images (the first is number {bad[0]})"]
        found = []
        by_half = len(self.margins), int((self.correct & self.control).sum())
        if min(by_half) < LEAST:
            found.append(
                f"{by_half[0]} and {by_half[1]} images of the two halves are classified correctly, and thresholds need "
                f"{LEAST} in each: bring more real images, or check their labels and the preprocessing; {look}"
            )
        chance = 1 / max(2, int(self.scored.sum()))
        if top1 < chance + 3 * math.sqrt(chance * (1 - chance) / n):
            found.append(
                f"only {top1:.3f} of {n} real images are called what they are, hardly more than by chance ({chance:.3f}): "
                f"their labels are not the target's, or its preprocessing is wrong; {look}"
            )
        elif declared is not None and top1 < declared - 3 * math.sqrt(declared * (1 - declared) / n):
            found.append(
                f"top-1 on {n} real images is {top1:.3f}, more than 3 standard errors below the declared {declared:.3f}: "
                f"wrong normalisation or labels are the usual cause; {look}"
            )
        return found

    def doubts(self) -> list[str]:
        """What a user should know of what is told: nothing of it spoils a score."""
        if self.temperature is not None:
            return []
        n = int((~self.control).sum())
        why = (
            f"of {n:,} real images {self._wrong or 'none'} {'is' if self._wrong == 1 else 'are'} called something else, and "
            f"fewer than {LEAST_WRONG} do not determine one"
            if self._wrong < LEAST_WRONG
            else f"the likelihood of {n:,} real images has no maximum"
        )
        return [f"no temperature could be fitted, so there are no confidences at one (calibrated_confidence): {why}"]

    def suspected(self, declared: float | None) -> bool:
        """Whether the images may be ones that the target was trained on: top-1 is more than 5 points above the declared."""
        return declared is not None and self.top1 > declared + SUSPECTED

    def summary(self) -> dict[str, Any]:
        """What the real images and their thresholds come to, as plain values that no temperature changes."""
        accepted, of, error = self.control_accepted()
        return {
            "sha256": self.sha256,
            "number": len(self.classes),
            "classes": int(self.scored.sum()),
            "classes_with_own_threshold": int(self.has_own_threshold.sum()),
            "top1": self.top1,
            "control": {"accepted": accepted, "of": of, "standard_error": error},
            "tau5_of_scale": float(np.median(self.tau5[self.scored])) / self.scale,
            "tau50_of_scale": float(np.median(self.tau50[self.scored])) / self.scale,
        }

    @cached_property
    def _wrong(self) -> int:
        """How many images of the calibration half are called something else; of equal logits none counts as called."""
        return int((self._own[~self.control] < 0).sum())

    @cached_property
    def _own(self) -> np.ndarray:
        """(N,) float64: each image's margin in its own class."""
        return scores.margin(self.logits)[np.arange(len(self.classes)), self.classes]

    def _taus(self, level: str, margins: np.ndarray) -> np.ndarray:
        here = self.correct & ~self.control
        tau = np.full(len(self.labels), _quantile(margins[here], LEVELS[level]))
        for c in np.flatnonzero(self.has_own_threshold):
            tau[c] = _quantile(margins[here & (self.classes == c)], LEVELS[level])
        return tau

    # -- kept in a file

    def save(self, path: Path) -> None:
        """Write what was asked, so that it need not be asked again."""
        from safetensors.numpy import save

        meta = {"sha256": self.sha256, "fingerprint": self.fingerprint, "labels": json.dumps(self.labels)}
        tensors = {"logits": self.logits, "classes": self.classes, "control": self.control}
        draft = path.with_name(path.name + ".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(save(tensors, metadata=meta))
            draft.replace(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be written ({error.strerror})") from None

    @classmethod
    def load(cls, path: Path) -> "Calibration | None":
        """What save has written; None if there is no such file. StoreError for a damaged one."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return None
        try:
            with safe_open(path, "numpy") as file:
                meta = file.metadata()
                tensors = {name: file.get_tensor(name) for name in ("logits", "classes", "control")}
            return cls(
                **tensors, sha256=meta["sha256"], fingerprint=meta["fingerprint"], labels=tuple(json.loads(meta["labels"]))
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}); delete it, and the real images are asked again") from None


def calibrate(
    target: Target, real: RealImages, say: Say = lambda _: None, batch: int = 32, keep: Path | None = None
) -> Calibration:
    """Ask the target about all real images, the plain way, and split them into halves (`halves`).

    ImageError if there are too few to split. What the answers say is judged by `faults`. What say raises passes through;
    keep: the file where answers are kept meanwhile, so that the next call goes on there (answers.asked).
    """
    n = len(real)
    if n < 2 * LEAST:
        raise ImageError(f"{real.source} has {n} real images; thresholds and their control need at least {2 * LEAST}")
    seen, parts, done = hashlib.sha256(), [], 0
    with asked(target, batch, keep) as ask:
        for images, rows in real.batches(batch):
            digest(seen, images, real.classes[rows])
            parts.append(ask(images))
            done += len(images)
            say(f"{done:,} of {n:,} real images")
    if done != n:
        raise TargetError(f"{real.source}: {done} of {n} real images could be read")
    control = halves(real.classes)
    return Calibration(np.concatenate(parts), real.classes, control, seen.hexdigest(), target.fingerprint(), target.labels)


def halves(classes: np.ndarray) -> np.ndarray:
    """(N,) bool, the control half: of each class every other image in a random order, classes in a random order.

    The same for the same classes, whatever the target. A class's counts in the two halves differ by at most one.
    """
    draw = np.random.default_rng(_HALVES)
    shuffled = draw.permutation(len(classes))
    rank = draw.permutation(int(classes.max()) + 1) if len(classes) else np.zeros(0, int)
    order = shuffled[np.argsort(rank[classes[shuffled]], kind="stable")]
    control = np.zeros(len(classes), bool)
    control[order[1::2]] = True
    return control


def _quantile(values: np.ndarray, share: float) -> float:
    """A new value is above it with probability 1 - share, on average: Weibull's plotting position k / (n + 1)."""
    return float(np.quantile(values, share, method="weibull")) if len(values) else math.nan
