"""Out-of-distribution detectors of pytorch-ood against fooling images, static and adaptive: AUROC and FPR95.

Fooling images are the positives throughout.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.bench.calibration import Calibration
from evofool.bench.cell import LOGITS, RECORD, read_logits
from evofool.bench.real import RealImages
from evofool.errors import EvofoolError, ImageError, StoreError, TargetError
from evofool.explain.features import Features
from evofool.run.stored import StoredRun
from evofool.scores import margin
from evofool.targets import Target
from evofool.targets.guarded import DetectorRule, suspicion

BATCH = 32
SPREAD = 1e-4  # directions in which real images vary by less than this, relative to the widest one, are left out
THIRD = 3  # without images to fit to, every third real image of a class is kept back to set the threshold
_SUM = 1e-2  # how far from 0 the logarithm of a sum of probabilities may be


@dataclass(frozen=True)
class FoolingImages:
    """Images that fool a classifier: uint8 (n, C, H, W), the classes (n,) int64 that they were made for, and (n,) float64
    their margins in them, all above 0, in units of the logits of the cell's target.
    """

    images: np.ndarray
    classes: np.ndarray
    margins: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)


class DetectorMethod(NamedTuple):
    """A row of DETECTORS. library: the class of pytorch_ood.detector; features: whether it uses features instead of logits;
    unnormalised: whether these logits must not be logarithms of probabilities."""

    library: str
    description: str
    features: bool = False
    unnormalised: bool = False


DETECTORS: dict[str, DetectorMethod] = {
    "msp": DetectorMethod("MaxSoftmax", "highest probability, negated (Hendrycks & Gimpel 2017)"),
    "max-logit": DetectorMethod("MaxLogit", "highest logit, negated (Hendrycks 2022)", unnormalised=True),
    "energy": DetectorMethod("EnergyBased", "energy of the logits (Liu 2020)", unnormalised=True),
    "mahalanobis": DetectorMethod(
        "Mahalanobis", "distance to the nearest class's real images, by features (Lee 2018)", features=True
    ),
}


@dataclass(frozen=True)
class Detector:
    """A detector fitted to a target: images, or the target's outputs, to scores (B,) float64, higher = more suspicious.

    rule: its parameters, for targets.guarded.guard. rows, real_scores: (n,) the numbers of the real images that set its
    threshold, all of the calibration half, and their scores. Logits are calibrated first, so dividing all of them changes no
    score. A score is that of pytorch-ood under the same name. msp is an exception: its score is the log-odds of
    pytorch-ood's probability, in the same order. The probability itself is 1.0 to the last bit of float64 for most real and
    most fooling images of a confident network, and all of these would be equal (the bundled lenet: AUROC 0.5 whatever the
    images).
    """

    name: str
    rule: DetectorRule
    rows: np.ndarray
    real_scores: np.ndarray
    _target: Target
    _calibrated: Callable[[np.ndarray], np.ndarray]
    _score: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 images (B, C, H, W) to scores; costs B queries, in passes of 32."""
        if not self.rule.layer:
            parts = [self._target.logits(images[k : k + BATCH], BATCH) for k in range(0, len(images), BATCH)]
            return self.of(np.concatenate(parts))
        with Features(self._target) as features:
            return self.of(np.concatenate([features(images[k : k + BATCH]) for k in range(0, len(images), BATCH)]))

    def of(self, outputs: np.ndarray) -> np.ndarray:
        """The target's outputs to scores: logits (B, K), for mahalanobis features (B, D)."""
        inputs = _projected(outputs, self.rule.tensors) if self.rule.layer else torch.from_numpy(self._calibrated(outputs))
        return self._score(inputs).numpy().astype(np.float64)

    def of_control(self, calibration: Calibration, real: RealImages) -> np.ndarray:
        """The scores (n,) of the real images that set no threshold, in order; mahalanobis queries the target for them."""
        rows = np.flatnonzero(calibration.control)
        return self.of(_features(self._target, real, rows) if self.rule.layer else calibration.logits[rows])


class Roc(NamedTuple):
    """auroc: the probability that a fooling image is more suspicious than a real one; equal scores count half.

    fpr95: the false positive rate at 95% true positive rate, fooling images being the positives: the share of REAL images
    flagged where at least 95% of the fooling images are flagged; lower is better for the detector. With real images for the
    positives, as in much of the literature ("FPR95, in-distribution as positive"), FPR95 is the share of FOOLING images
    that pass where 95% of the real ones pass: another number. fpr, tpr: (n,) the shares of real and of fooling images
    flagged at every threshold, from (0, 0) to (1, 1).

    below, flagged: (m,) float64, of each real image the share of fooling images that are more suspicious (equal scores count
    half), and 1 if it is flagged where at least 95% of the fooling images are, else 0. Their means are auroc and fpr95.
    """

    auroc: float
    fpr95: float
    fpr: np.ndarray
    tpr: np.ndarray
    below: np.ndarray
    flagged: np.ndarray


def curves(fooling: np.ndarray, real: np.ndarray) -> Roc:
    """The ROC curve of two sets of scores (n,), (m,), higher = more suspicious; fooling images are the positives.

    As scikit-learn's roc_curve, without dropping points, and roc_auc_score. ImageError if either is empty or not finite.
    """
    if not len(fooling) or not len(real) or not (np.isfinite(fooling).all() and np.isfinite(real).all()):
        raise ImageError(f"a curve needs finite scores of both sets; there are {len(fooling)} and {len(real)}")
    thresholds = np.unique(np.concatenate([fooling, real]))[::-1]
    # The numbers of scores at or above each threshold: equal ones are flagged together.
    hits, alarms = (len(s) - np.searchsorted(np.sort(s), thresholds, side="left") for s in (fooling, real))
    hits, alarms = np.concatenate([[0], hits]), np.concatenate([[0], alarms])
    # The area is computed in integers, so that only the division rounds.
    area = int((np.diff(alarms) * (hits[1:] + hits[:-1])).sum())
    first_95 = int(np.argmax(hits * 20 >= 19 * len(fooling)))
    fpr, tpr = alarms / len(real), hits / len(fooling)
    ordered = np.sort(fooling)
    at_most, less = (np.searchsorted(ordered, real, side=side) for side in ("right", "left"))
    below = 1 - (at_most + less) / (2 * len(fooling))
    flagged = (real >= thresholds[first_95 - 1]).astype(np.float64)
    return Roc(area / (2 * len(fooling) * len(real)), float(fpr[first_95]), fpr, tpr, below, flagged)


def fooling_images(folder: Path, classes: np.ndarray) -> FoolingImages:
    """The images of a done cell that fool the classifier, each once: margin above 0 in their class. There may be none.

    classes: (K,) bool, the scored ones, of the classifier without a detector. The margin of a guarded cell is computed over
    these classes too, so that images which the detector rejects are included: their number is what is measured. StoreError
    for a folder that is no done cell.
    """
    intended, logits = read_logits(folder)
    with StoredRun(folder) as run:
        elites = run.elites()
        if not np.array_equal(intended, [elite.row.class_id for elite in elites]):
            raise StoreError(f"{folder}: {LOGITS} belongs to other elites; delete it and {RECORD} in the same folder")
        rows = np.flatnonzero(intended < len(classes))  # not those of the class "rejected"
        margins = margin(logits[rows, : len(classes)])[np.arange(len(rows)), intended[rows]]
        found: dict[bytes, tuple[np.ndarray, int, float]] = {}
        for row, value in zip(rows, margins, strict=True):
            if classes[intended[row]] and value > 0:
                found.setdefault(elites[row].row.png, (elites[row].image, int(intended[row]), float(value)))
    images, labels, values = zip(*found.values(), strict=True) if found else ((), (), ())
    return FoolingImages(np.array(images, np.uint8), np.array(labels, np.int64), np.array(values, np.float64))


def fit(
    name: str, target: Target, calibration: Calibration, real: RealImages, *, apart: RealImages | None = None
) -> Detector:
    """A detector of DETECTORS, fitted to real images; 95% of the calibration half are at or below its threshold.

    mahalanobis is fitted to `apart`, or without it to two thirds of the calibration half, by class; then the last third
    sets the threshold, since images are nearer to a model that was fitted to them. real: the images of the calibration.

    TargetError for a target that returns only its top classes, mahalanobis of a black box, and max-logit or energy of
    probabilities; ImageError for a class with fewer than 2 images to fit to. `fit_all` collects these messages.
    """
    if name not in DETECTORS:
        raise TargetError(f'there is no detector "{name}"; there are {", ".join(DETECTORS)}')
    if target.top_k < len(target.labels):
        raise TargetError(
            f"{target.name} returns only its top {target.top_k} of {len(target.labels)} classes, and a detector needs all"
        )
    if DETECTORS[name].unnormalised and _normalised(target, calibration):
        raise TargetError(f"{target.name} returns probabilities, and {name} needs logits")
    library = getattr(_library(), DETECTORS[name].library)
    rows = np.flatnonzero(~calibration.control)
    numbers = {"scale": calibration.scale, "temperature": calibration.unit}
    layer = ""
    tensors: dict[str, torch.Tensor] = {}
    if DETECTORS[name].features:
        classes, fitted_by, rows = _images_to_fit(calibration, apart)
        if target.network is None:
            raise TargetError(f"{target.name}: {name} uses features, which a black box does not give")
        with Features(target) as features:
            layer = features.name
        model, tensors = _mahalanobis(library, _features(target, apart or real, fitted_by), classes)
        score = model.predict_features
        z, features_of = torch.empty(0), torch.from_numpy(_features(target, real, rows))
    else:
        score = library.score if name != "msp" else lambda z: suspicion("msp", z, None, {})
        z, features_of = torch.from_numpy(calibration.calibrated(calibration.logits[rows])), None
    scores = suspicion(name, z, features_of, tensors).numpy().astype(np.float64)
    threshold = float(np.quantile(scores, 0.95, method="higher"))
    rule = DetectorRule(name, threshold, float(np.median(scores)), layer=layer, tensors=tensors, **numbers)
    return Detector(name, rule, rows, scores, target, calibration.calibrated, score)


def fit_all(
    target: Target,
    calibration: Calibration,
    real: RealImages,
    *,
    apart: RealImages | None = None,
    names: Iterable[str] = tuple(DETECTORS),
) -> tuple[dict[str, Detector], dict[str, str]]:
    """By name, every detector that can be fitted, and why the others cannot. EvofoolError without pytorch-ood."""
    _library()
    fitted, left_out = {}, {}
    for name in names:
        try:
            fitted[name] = fit(name, target, calibration, real, apart=apart)
        except (ImageError, TargetError) as error:
            left_out[name] = f"{name} is left out: {error}"
    return fitted, left_out


def _images_to_fit(calibration: Calibration, apart: RealImages | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes of the images to fit to, their numbers, and the numbers of the images that set the threshold."""
    half = np.flatnonzero(~calibration.control)
    if apart is not None:
        fitted_by, classes, rows = np.arange(len(apart)), apart.classes, half
    else:
        of_half = calibration.classes[half]
        rank = np.zeros(len(half), int)  # an image's number within its class
        for c in np.unique(of_half):
            rank[of_half == c] = np.arange((of_half == c).sum())
        kept_back = rank % THIRD == THIRD - 1
        fitted_by, rows = half[~kept_back], half[kept_back]
        classes = calibration.classes[fitted_by]
    number = np.bincount(classes, minlength=len(calibration.labels))
    few = [calibration.labels[c] for c in np.flatnonzero(calibration.has_images & (number < 2))]
    if few or not len(rows):
        reason = f"{len(few)} classes have fewer than 2 (the first is {few[0]})" if few else "none is left for a threshold"
        raise ImageError(
            f"mahalanobis is fitted to several real images of each class, and {reason}; give a folder with more of them by "
            "the bench recipe's key detectors.fit"
        )
    return classes, fitted_by, rows


def _normalised(target: Target, calibration: Calibration) -> bool:
    """Whether logits are logarithms of probabilities.

    The probabilities then sum to 1, so that energy is 0 for every image, and the maximum is msp's probability.
    """
    if target.details.get("outputs", target.outputs) != "logits":
        return True
    # A network that ends in a log-softmax does not declare it.
    total = np.logaddexp.reduce(calibration.logits.astype(np.float64), axis=1)
    return bool(np.abs(total).max() < _SUM)


def _features(target: Target, real: RealImages, rows: np.ndarray) -> np.ndarray:
    """(n, D) float32: the input of the last linear layer for the images with these numbers, ascending."""
    wanted = np.zeros(len(real), bool)
    wanted[rows] = True
    with Features(target) as features:
        parts = [features(images[wanted[at]]) for images, at in real.batches(BATCH) if wanted[at].any()]
    return np.concatenate(parts)


def _mahalanobis(library: Any, features: np.ndarray, classes: np.ndarray) -> tuple[Any, dict[str, torch.Tensor]]:
    """pytorch-ood's detector, fitted to features (N, D) of classes (N,), and its tensors.

    It inverts the scatter within classes in float32, with 1e-6 on the diagonal. With dead units, or fewer images than
    features, that is rounding error. So features are first projected on the directions in which real images vary within a
    class, each in units of its spread. There the scatter is nearly the unit matrix, and distances are those of the
    pseudoinverse, as in the code of Lee 2018.
    """
    names, index = np.unique(classes, return_inverse=True)
    x = features.astype(np.float64)
    middle = x.mean(0)
    x = x - middle
    centres = np.stack([x[index == k].mean(0) for k in range(len(names))])
    _, spread, directions = np.linalg.svd(x - centres[index], full_matrices=False)
    wide = spread > SPREAD * spread[0]
    if not wide.any():
        raise ImageError("mahalanobis: the real images of each class have the same features")
    tensors = {
        "middle": torch.from_numpy(middle.astype(np.float32)),
        "project": torch.from_numpy(np.ascontiguousarray((directions[wide].T / spread[wide]).astype(np.float32))),
    }
    model = library(None).fit_features(_projected(features, tensors), torch.from_numpy(index))
    return model, tensors | {"means": model.mu, "precision": model.precision.contiguous()}


def _projected(features: np.ndarray, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return (torch.from_numpy(features) - tensors["middle"]) @ tensors["project"]


@cache
def _library() -> Any:
    """pytorch_ood.detector."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module("pytorch_ood.detector")
    except ImportError as error:
        raise EvofoolError(f"detectors need pytorch-ood ({error}): pip install 'evofool[bench]'") from None
