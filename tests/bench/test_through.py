"""A classifier and its detector together: thresholds that keep 95% of real images, and what passes both."""

from dataclasses import replace

import numpy as np
import pytest

from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.detect.detectors import DETECTORS, Detector, FoolingImages, fit
from evofool.bench.detect.through import PAIRS, Pair
from evofool.bench.detector_stage import _control_faults
from evofool.bench.report.through_table import through_table
from evofool.scores import margin
from tests.bench.test_detectors import K, dim, net, noise, real

pytest.importorskip("pytorch_ood")

REPLICATES = 20


def made(name: str, divide: float = 1.0, n: int = 2_000) -> tuple[Detector, Calibration, Pair]:
    found = net(divide)
    calibration = calibrate(found, real(n))
    detector = fit(name, found, calibration, real(n))
    return detector, calibration, Pair(detector, calibration, detector.of_control(calibration, real(n)), REPLICATES)


def fooling(divide: float = 1.0) -> FoolingImages:
    """Some real images of other pixels, noise and dark images, as whatever class they are classified."""
    images = np.concatenate([real(60, seed=3).some(np.arange(60)), noise(60), dim(60)])
    z = net(divide).logits(images)
    classes = z.argmax(1)
    return FoolingImages(images, classes, margin(z)[np.arange(len(z)), classes])


@pytest.mark.parametrize("name", DETECTORS)
def test_separate_thresholds_are_those_of_the_calibration_and_of_the_guard(name: str) -> None:
    detector, calibration, pair = made(name)
    assert calibration.has_own_threshold.all(), "thresholds of single classes too"
    thresholds = pair._pairs["separate"]
    np.testing.assert_array_equal(thresholds.tau[0], calibration.tau5)
    assert thresholds.threshold[0] == detector.rule.threshold
    assert thresholds.tau.shape == (1 + REPLICATES, K)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("n", [300, 2_000])
def test_the_joint_level_keeps_95_of_a_hundred_real_images(name: str, n: int) -> None:
    """Of those that set it nearly exactly, of the others within three standard errors."""
    detector, calibration, pair = made(name, n=n)
    margins = margin(calibration.logits)[np.arange(n), calibration.classes]
    rows = detector.rows[margins[detector.rows] > 0]
    scores = detector.real_scores[margins[detector.rows] > 0]
    joint, separate = pair._pairs["joint"], pair._pairs["separate"]
    kept = joint.pass_at(margins[rows], calibration.classes[rows], scores)[0].mean()
    assert 0.95 - 1 / len(rows) <= kept <= 0.95 + 2 / len(rows)
    assert 0.025 - 2 / len(rows) <= joint.level[0] <= 0.05 + 1 / len(rows)
    assert (joint.tau[0] <= separate.tau[0] + 1e-12).all(), "less strict than each by itself"
    assert pair.real("joint")["met"]
    assert pair.detector_control()["met"]
    assert 0.85 <= pair.real("separate")["kept"] <= pair.real("joint")["kept"] + 0.02


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("kind", ["static", "adaptive"])
def test_a_class_is_fooled_by_an_image_that_passes_both(name: str, kind: str) -> None:
    """The obvious way, image by image; margins of a guarded cell are in units of the calibration's scale."""
    detector, calibration, pair = made(name)
    images = fooling()
    unit = calibration.scale if kind == "adaptive" else 1.0
    images = replace(images, margins=images.margins / unit)
    scores = detector(images.images)
    none = FoolingImages(images.images[:0], images.classes[:0], images.margins[:0])
    found = pair.fooled({4: (images, scores), 7: (none, scores[:0])}, unit)
    assert found["seeds"] == [4, 7]
    for which in PAIRS:
        thresholds = pair._pairs[which]
        passed = {
            int(c)
            for c, m, score in zip(images.classes, images.margins, scores, strict=True)
            if m * unit >= thresholds.tau[0][c] and m > 0 and score <= thresholds.threshold[0]
        }
        assert found[which]["per_seed"] == [len(passed) / K, 0.0]
        assert found[which]["value"] == pytest.approx(len(passed) / K / 2)
        assert found[which]["low"] <= found[which]["value"] <= found[which]["high"]
    assert found["joint"]["per_seed"][0] >= found["separate"]["per_seed"][0]
    assert found["joint"]["per_seed"][0] > 0


def test_dividing_all_logits_by_four_changes_no_bit() -> None:
    for name in DETECTORS:
        found = []
        for divide in (1.0, 4.0):
            detector, _, pair = made(name, divide)
            images = fooling(divide)
            found.append((pair.detector_control(), pair.fooled({0: (images, detector(images.images))}, 1.0)))
        assert found[0] == found[1]


def test_a_detector_that_rejects_too_many_held_out_images_is_flagged() -> None:
    detector, calibration, pair = made("energy")
    assert _control_faults("energy", pair) == []
    shifted = detector.of_control(calibration, real(2_000)) + 0.5 * (detector.rule.threshold - detector.rule.median)
    message, joint = _control_faults("energy", Pair(detector, calibration, shifted, REPLICATES))
    assert message.startswith("energy rejects 0.")
    assert "of the held-out real images, not 0.05 within 3 standard errors (0.0" in message
    assert "at their joint level keep 0." in joint


def test_ties_at_a_detector_s_threshold_are_no_fault() -> None:
    """Saturated outputs: a fifth of the real images has the highest score, and the threshold rejects none of them."""
    detector, calibration, _ = made("energy")
    scores = np.minimum(detector.real_scores, np.quantile(detector.real_scores, 0.8))
    held_out = np.minimum(detector.of_control(calibration, real(2_000)), scores.max())
    pair = Pair(replace(detector, real_scores=scores), calibration, held_out, REPLICATES)
    assert pair.detector_control()["rejected"] == 0.0
    assert pair.detector_control()["met"]


def test_ties_at_the_joint_threshold_of_scores_are_no_fault() -> None:
    """3% have the highest score. At a level above that all of them would be rejected, so that the pair keeps about 97%."""
    detector, calibration, _ = made("energy", n=6_000)
    scores = np.minimum(detector.real_scores, np.quantile(detector.real_scores, 0.97, method="lower"))
    held_out = np.minimum(detector.of_control(calibration, real(6_000)), scores.max())
    pair = Pair(replace(detector, real_scores=scores), calibration, held_out, replicates=0)
    kept = pair.real("joint")
    assert kept["kept"] - 0.95 > 3 * kept["standard_error"]
    assert pair._joint_ties()[0] == pytest.approx(0.03, abs=0.002)
    assert kept["met"]


def test_images_tied_at_the_joint_level_are_kept_whatever_is_rounded() -> None:
    detector, calibration, _ = made("energy", n=1_000)
    margins = margin(calibration.logits)[np.arange(1_000), calibration.classes]
    right = detector.rows[margins[detector.rows] > 0]
    for n in range(350, len(right)):
        rows, scores = right[:n], np.random.default_rng(0).normal(size=n)
        scores = np.minimum(scores, np.quantile(scores, 0.96, method="lower"))
        pair = Pair(replace(detector, rows=rows, real_scores=scores), calibration, np.zeros(500), replicates=0)
        assert pair._pairs["joint"].pass_at(margins[rows], calibration.classes[rows], scores)[0].mean() >= 0.95 - 1 / n, n


def test_the_table_has_a_row_for_each_detector_and_kind_and_marks_what_is_not_met() -> None:
    real_images = {"rejected": 0.09, "images": 500, "standard_error": 0.01, "met": False}
    kept = {"kept": 0.91, "images": 480, "standard_error": 0.01}
    part = {"value": 0.3, "low": 0.2, "high": 0.5, "per_seed": [0.3], "level": 0.05, "real": kept}
    row = {
        "detector": "msp", "arm": "cppn", "kind": "adaptive", "auroc": None, "real": real_images,
        "through": {"seeds": [0], "separate": part, "joint": part | {"real": kept | {"met": True}}},
    }  # fmt: skip
    assert through_table([{"detector": "msp", "arm": "cppn", "kind": "static", "auroc": 0.5}]) is None, "an older result"
    table = through_table([row, row | {"kind": "static"}])
    assert table is not None
    assert [line[2] for line in table.rows] == ["static", "adaptive"]
    cell = table.rows[0][3]
    assert not isinstance(cell, str)
    assert (cell.text, cell.mark) == ("0.09", "not met")
