"""The detectors' part of a benchmark: a guarded target for each, and how well each tells elites from real images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evofool.bench.detect.detectors import Detector, Roc, curves, fit_all, fooling_images
from evofool.bench.plan import BenchRecipe
from evofool.bench.ready import Ready
from evofool.bench.real import real_images
from evofool.bench.statistics import share_interval
from evofool.errors import EvofoolError
from evofool.targets.guarded import guard

FOLDER = "guards"
_POINTS = 60  # of a curve


def guards(recipe: BenchRecipe, one: Ready, folder: Path) -> dict[str, str]:
    """Fit the recipe's detectors to a target, into one.detectors; by name, the specs of the target guarded by each.

    What cannot be fitted or guarded is left out, and one.warnings say why. Where the recipe is not adaptive there are none.
    """
    wanted = recipe.detectors
    assert wanted is not None
    assert one.target is not None
    assert one.calibration is not None
    assert one.real is not None
    try:
        apart = None if wanted.fit is None else real_images(wanted.fit, one.target)
        one.detectors, left_out = fit_all(one.target, one.calibration, one.real, apart=apart, names=wanted.names)
    except EvofoolError as error:
        one.warnings.append(f"no detector was measured: {error}")
        return {}
    one.warnings += left_out.values()
    specs: dict[str, str] = {}
    for name, detector in one.detectors.items() if wanted.adaptive else ():
        path = folder / FOLDER / f"{one.entry.name}-{name}.safetensors"
        try:
            path.parent.mkdir(exist_ok=True)
            specs[name] = guard(one.target, detector, path)
        except (EvofoolError, OSError) as error:
            one.warnings.append(f"nothing was evolved against {name}: {error}")
    return specs


def detected(
    recipe: BenchRecipe, one: Ready, static: Mapping[int, Path], adaptive: Mapping[str, Mapping[int, Path]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The JSON's rows: AUROC and FPR95 of each detector, of images evolved against the target alone, and guarded by it.

    static: folders of valid cells of the recipe's arm, by seed; adaptive: by detector and seed. Also words on every seed and
    detector that could not be measured: these are in no row.
    """
    assert recipe.detectors is not None
    assert one.calibration is not None
    assert one.real is not None
    arm, scored = recipe.detectors.arm, one.calibration.scored
    plain, left_out = _fooling(f"detectors: static, {arm}", static, scored)
    rows: list[dict[str, Any]] = []
    for name, detector in one.detectors.items():
        guarded, more = _fooling(f"detectors: {arm} against {name}", adaptive.get(name, {}), scored)
        left_out += more
        try:
            real = detector.of_control(one.calibration, one.real)
            rows += [
                {"detector": name, "arm": arm, "kind": kind, **_figures(detector, images, real)}
                for kind, images in (("static", plain), ("adaptive", guarded))
                if images
            ]
        except EvofoolError as error:
            left_out.append(f"{name} was not measured: {error}")
    return rows, left_out


def _fooling(what: str, folders: Mapping[int, Path], scored: np.ndarray) -> tuple[dict[int, np.ndarray], list[str]]:
    """By seed, the images of each cell that fool the classifier; and words on the seeds that have none."""
    found, whys = {}, []
    for seed, folder in folders.items():
        try:
            found[seed] = fooling_images(folder, scored)
        except EvofoolError as error:
            whys.append(f"{what}, seed {seed} is left out: {error}")
    return found, whys


def _figures(detector: Detector, images: Mapping[int, np.ndarray], real: np.ndarray) -> dict[str, Any]:
    """What a row tells of fooling images, by seed. real: the scores of real images."""
    found = [curves(detector(some), real) for some in images.values()]
    auroc = share_interval([roc.auroc for roc in found])
    alarms = share_interval([roc.fpr95 for roc in found])
    grid = np.linspace(0.0, 1.0, _POINTS)
    return {
        "auroc": auroc.value,
        "low": auroc.low,
        "high": auroc.high,
        "fpr95": alarms.value,
        "fpr95_low": alarms.low,
        "fpr95_high": alarms.high,
        "per_seed": [roc.auroc for roc in found],
        "seeds": list(images),
        "images": [len(some) for some in images.values()],
        "curve": {"fpr": grid.tolist(), "tpr": _mean_curve(found, grid)},
    }


def _mean_curve(found: Sequence[Roc], grid: np.ndarray) -> list[float]:
    """The mean over seeds of the share of fooling images flagged, where so many real ones are."""
    each = []
    for roc in found:
        # Of the thresholds that flag no more real images than this, the one that flags the most fooling ones.
        at = np.searchsorted(roc.fpr, grid, side="right") - 1
        each.append(roc.tpr[at])
    return np.mean(each, axis=0).tolist()
