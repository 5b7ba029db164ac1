"""The intervals of AUROC and FPR95 count the seeds, the fooling images and the real images."""

import numpy as np
import pytest
from scipy import stats

from evofool.bench.detect.detectors import curves
from evofool.bench.detector_stage import _figures

REAL = np.random.default_rng(3).normal(size=200)


def test_where_all_images_are_separated_in_every_seed_the_figures_are_bounds() -> None:
    """The bound of a share of which each fooling image is an outcome, as for classes that are all fooled."""
    found = _figures({seed: np.full(10, 99.0) for seed in range(3)}, REAL)
    effective = 3 * 10 / (1 + 0.2 * 9)
    assert (found["auroc"], found["high"]) == (1.0, None)
    assert found["low"] == pytest.approx(0.05 ** (1 / effective))
    assert (found["fpr95"], found["fpr95_low"]) == (0.0, None)
    assert found["fpr95_high"] == pytest.approx(1 - 0.05 ** (1 / effective))
    more = _figures({seed: np.full(100, 99.0) for seed in range(3)}, REAL)
    assert found["low"] < more["low"] < 1, "more images, or more seeds, show more"


def test_equal_seeds_within_have_two_limits_and_one_seed_none() -> None:
    of_each = np.random.default_rng(1).normal(0.5, size=10)
    found = _figures(dict.fromkeys(range(5), of_each), REAL)
    assert found["low"] < found["auroc"] < found["high"]
    assert found["fpr95_low"] < found["fpr95"] < found["fpr95_high"]
    one = _figures({0: of_each}, REAL)
    assert (one["low"], one["high"], one["fpr95_low"], one["fpr95_high"]) == (None, None, None, None)


def test_the_figures_are_means_over_real_images_whose_sampling_widens_the_interval() -> None:
    fooling = np.random.default_rng(4).normal(1, size=10).round(1)
    roc = curves(fooling, REAL.round(1))
    assert (roc.auroc, roc.fpr95) == pytest.approx((roc.below.mean(), roc.flagged.mean()))
    widths = []
    for real in (REAL[:20], np.tile(REAL[:20], 20)):  # the same distribution, by 20 images and by 400
        found = _figures({seed: fooling + seed / 100 for seed in range(5)}, real)
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0]


@pytest.mark.parametrize(("seeds", "luck"), [(3, 0.0), (5, 0.5)])
def test_limits_of_auroc_cover_the_truth(seeds: int, luck: float) -> None:
    rng = np.random.default_rng(seeds)
    truth, covered = stats.norm.cdf(1.5 / np.sqrt(2 + luck**2)), []
    for _ in range(250):
        at = 1.5 + luck * rng.normal(size=seeds)
        found = _figures({s: rng.normal(at[s], size=10) for s in range(seeds)}, rng.normal(size=100))
        covered.append((found["low"] or 0) <= truth <= (found["high"] or 1))
    assert np.mean(covered) >= 0.93
