"""The detectors of a benchmark: a guarded target for each, how well each separates elites from real images, and in how many
classes target and detector are fooled together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.detect.detectors import Detector, FoolingImages, Roc, curves, fit_all, fooling_images
from evofool.bench.detect.through import Pair
from evofool.bench.interval import Interval
from evofool.bench.plan import DetectorsPart
from evofool.bench.prepare import PreparedTarget
from evofool.bench.real import real_images
from evofool.bench.statistics import share_interval
from evofool.errors import EvofoolError
from evofool.targets.guarded import guard

FOLDER = "guards"
_POINTS = 60  # of a curve


@dataclass(frozen=True)
class FittedDetectors:
    """Detectors fitted to a target, by name. guarded: by name, the spec of the target guarded by it.

    Detectors that could not be fitted or guarded are left out, with a warning each.
    """

    detectors: Mapping[str, Detector]
    guarded: Mapping[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DetectorScores:
    """rows: of the JSON, one for each detector and kind ("static", "adaptive"). warnings: on what was not measured."""

    rows: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


def fit_detectors(part: DetectorsPart, prepared: PreparedTarget, folder: Path) -> FittedDetectors:
    """Fit the detectors of a recipe to a target; if it is adaptive, a guarded target is made with each, below folder."""
    target = prepared.target
    try:
        apart = None if part.fit is None else real_images(part.fit, target)
        detectors, left_out = fit_all(target, prepared.calibration, prepared.real, apart=apart, names=part.names)
    except EvofoolError as error:
        return FittedDetectors({}, {}, (f"no detector was measured: {error}",))
    warnings = [*left_out.values()]
    guarded: dict[str, str] = {}
    for name, detector in detectors.items() if part.adaptive else ():
        path = folder / FOLDER / f"{prepared.name}-{name}.safetensors"
        try:
            path.parent.mkdir(exist_ok=True)
            guarded[name] = guard(target, detector, path)
        except (EvofoolError, OSError) as error:
            warnings.append(f"nothing was evolved against {name}: {error}")
    return FittedDetectors(detectors, guarded, tuple(warnings))


def score_detectors(
    prepared: PreparedTarget,
    fitted: FittedDetectors,
    arm: str,
    static: Mapping[int, Path],
    adaptive: Mapping[str, Mapping[int, Path]],
) -> DetectorScores:
    """How well each detector separates fooling images from real ones, and in how many classes it is fooled together with
    the target: by images evolved against the target alone, and against the target guarded by it.

    arm: the search that made them. static: folders of its valid cells, by seed; adaptive: by detector and seed. Seeds and
    detectors that could not be measured are in no row, and a warning gives the reason.
    """
    calibration = prepared.calibration
    unguarded, warnings = _fooling(f"detectors: static, {arm}", static, calibration.scored)
    rows: list[dict[str, Any]] = []
    for name, detector in fitted.detectors.items():
        guarded, more = _fooling(f"detectors: {arm} against {name}", adaptive.get(name, {}), calibration.scored)
        warnings += more
        try:
            real = detector.of_control(calibration, prepared.real)
            pair = Pair(detector, calibration, real)
            # Margins of a guarded target are in units of the median margin of real images.
            for kind, images, unit in (("static", unguarded, 1.0), ("adaptive", guarded, calibration.scale)):
                if not images:
                    continue
                scores = {seed: detector(each.images) if len(each) else np.zeros(0) for seed, each in images.items()}
                through = pair.fooled({seed: (each, scores[seed]) for seed, each in images.items()}, unit)
                row = {"detector": name, "arm": arm, "kind": kind, **_figures(scores, real)}
                rows.append(row | {"real": pair.detector_control(), "through": through})
            warnings += _control_faults(name, pair)
        except EvofoolError as error:
            warnings.append(f"{name} was not measured: {error}")
    return DetectorScores(tuple(rows), tuple(warnings))


def _control_faults(name: str, pair: Pair) -> list[str]:
    """What is wrong with the detector's threshold, or with the joint level, on the held-out real images."""
    control, joint = pair.detector_control(), pair.real("joint")
    found = []
    if not control["met"]:
        found.append(
            f"{name} rejects {control['rejected']:.3f} of the held-out real images, not 0.05 within 3 standard errors "
            f"({control['standard_error']:.3f}): its share of fooled classes is not that of a detector that keeps 95%"
        )
    if not joint["met"]:
        found.append(
            f"{name} and the target at their joint level keep {joint['kept']:.3f} of the held-out real images, not 0.95 "
            f"within 3 standard errors ({joint['standard_error']:.3f})"
        )
    return found


def _fooling(what: str, folders: Mapping[int, Path], scored: np.ndarray) -> tuple[dict[int, FoolingImages], list[str]]:
    """By seed, the images of each cell that fool the classifier; and warnings on seeds that have none or are damaged."""
    found, warnings = {}, []
    for seed, folder in folders.items():
        try:
            found[seed] = fooling_images(folder, scored)
        except EvofoolError as error:
            warnings.append(f"{what}, seed {seed} is left out: {error}")
            continue
        if not len(found[seed]):
            warnings.append(
                f"{what}, seed {seed} is left out of AUROC and FPR95: none of its images is classified as the scored class "
                "that it was made for"
            )
    return found, warnings


def _figures(scores: Mapping[int, np.ndarray], real: np.ndarray) -> dict[str, Any]:
    """AUROC and FPR95 of a row. scores: of fooling images, by seed; seeds without any are left out. real: of real images.

    Without a fooling image in any seed, figures are None and the lists are empty.
    """
    known = {seed: each for seed, each in scores.items() if len(each)}
    found = [curves(each, real) for each in known.values()]
    images = [len(each) for each in known.values()]
    lists = {"per_seed": [roc.auroc for roc in found], "seeds": list(known), "images": images}
    if not found:
        return dict.fromkeys(("auroc", "low", "high", "fpr95", "fpr95_low", "fpr95_high", "curve")) | lists
    outcomes = max(1, round(sum(images) / len(images)))
    auroc = _over_seeds([roc.auroc for roc in found], [roc.below for roc in found], outcomes)
    fpr95 = _over_seeds([roc.fpr95 for roc in found], [roc.flagged for roc in found], outcomes)
    grid = np.linspace(0.0, 1.0, _POINTS)
    return {
        "auroc": auroc.value,
        "low": auroc.low,
        "high": auroc.high,
        "fpr95": fpr95.value,
        "fpr95_low": fpr95.low,
        "fpr95_high": fpr95.high,
        **lists,
        "curve": {"fpr": grid.tolist(), "tpr": _mean_curve(found, grid)},
    }


def _over_seeds(per_seed: Sequence[float], by_image: Sequence[np.ndarray], outcomes: int) -> Interval:
    """The mean over seeds of AUROC or FPR95, with the limits of a share of which each fooling image is an outcome.

    Equal seeds, as where a detector separates all images, do not show how far others would be from them; the number of
    images limits that. by_image: for each seed, (m,) values of the real images, of which its figure is the mean. The real
    images are the same in all seeds, so that the variance of the mean from them does not shrink with more seeds; of AUROC it
    is the part S01 of DeLong 1988.
    """
    real = np.mean(by_image, axis=0)
    common = float(real.var(ddof=1)) / len(real) if len(real) > 1 else 0.0
    return share_interval(per_seed, None, outcomes, common=common)


def _mean_curve(found: Sequence[Roc], grid: np.ndarray) -> list[float]:
    """The mean over seeds of the share of fooling images flagged, where so many real ones are."""
    each = []
    for roc in found:
        # Of the thresholds that flag no more real images than this, the one that flags the most fooling ones.
        at = np.searchsorted(roc.fpr, grid, side="right") - 1
        each.append(roc.tpr[at])
    return np.mean(each, axis=0).tolist()
