"""Detectors of pytorch-ood against fooling images: the library's scores, scikit-learn's curves, no temperature."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.detect import detectors
from evofool.bench.detect.detectors import DETECTORS, Detector, curves, evaluate, fit, fit_all, fooling_images
from evofool.bench.real import Batches, RealImages
from evofool.errors import EvofoolError, ImageError, StoreError, TargetError
from evofool.explain.features import Features
from evofool.recipe import parse
from evofool.run import Run
from evofool.targets import Target, target
from evofool.targets.guarded import guard, guarded, suspicion
from evofool.targets.preprocessing import Preprocessing

ood = pytest.importorskip("pytorch_ood.detector")
SIDE, K, D = 8, 4, 6


class Net(nn.Module):
    """Logits by how bright four corners are; a hidden layer of D units, of which `dead` never answer."""

    def __init__(self, divide: float = 1.0, dead: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.mix, self.last = nn.AdaptiveAvgPool2d(2), nn.Linear(4, D), nn.Linear(D, K)
        self.divide = divide
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(D, 4) * 6 + 0.3 * torch.randn(D, 4))
            self.last.weight.copy_(torch.eye(K, D) * 4)
            self.mix.bias.fill_(0.5)
            if dead:
                self.mix.weight[-dead:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.mix(self.pool(x).flatten(1)))) / self.divide


def net(divide: float = 1.0, dead: int = 0) -> Target:
    return Target.from_module(Net(divide, dead), None, (1, SIDE, SIDE), Preprocessing())


def real(n: int = 400, seed: int = 0) -> RealImages:
    """Noise with one bright corner, which is the class."""
    draw = np.random.default_rng(seed)
    classes = np.arange(n) % K
    images = draw.integers(0, 120, (n, 1, SIDE, SIDE), np.uint8)
    for image, c in zip(images, classes, strict=True):
        y, x = SIDE // 2 * (c // 2), SIDE // 2 * (c % 2)
        image[0, y : y + SIDE // 2, x : x + SIDE // 2] += np.uint8(draw.integers(60, 130))

    def read(batch: int) -> Batches:
        for k in range(0, n, batch):
            yield images[k : k + batch], np.arange(k, min(k + batch, n))

    return RealImages("made", classes, read)


def fitted(name: str, found: Target, seed: int = 0) -> tuple[Detector, Calibration]:
    calibration = calibrate(found, real(seed=seed))
    return fit(name, found, calibration, real(seed=seed)), calibration


def dim(n: int = 60) -> np.ndarray:
    """No corner is bright."""
    return np.random.default_rng(6).integers(0, 120, (n, 1, SIDE, SIDE), np.uint8)


def noise(n: int = 60) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (n, 1, SIDE, SIDE), np.uint8)


# -- curves


@pytest.mark.parametrize("levels", [3, 20, 10**6])
@pytest.mark.parametrize(("fooling", "others"), [(1, 1), (10, 333), (100, 57), (40, 40)])
def test_the_figures_are_scikit_learn_s_ties_and_all(levels: int, fooling: int, others: int) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    draw = np.random.default_rng([levels, fooling])
    a, b = (draw.integers(0, levels, n) / 7 + shift for n, shift in ((fooling, 1 / 7), (others, 0)))
    truth, values = np.concatenate([np.ones(fooling), np.zeros(others)]), np.concatenate([a, b])
    fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
    found = curves(a, b)
    np.testing.assert_array_equal(found.fpr, fpr)
    np.testing.assert_array_equal(found.tpr, tpr)
    assert found.auroc == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    assert found.fpr95 == fpr[tpr >= 0.95].min()


def test_fooling_images_are_the_positives() -> None:
    assert curves(np.array([5.0, 6.0]), np.array([1.0, 2.0]))[:2] == (1.0, 0.0)
    assert curves(np.array([1.0, 2.0]), np.array([5.0, 6.0]))[:2] == (0.0, 1.0)
    assert curves(np.ones(3), np.ones(4))[:2] == (0.5, 1.0)


def test_fpr95_is_the_share_of_real_images_flagged_where_19_of_20_fooling_images_are() -> None:
    fooling = np.concatenate([np.full(19, 2.0), [0.0]])
    assert curves(fooling, np.array([1.0, 2.0, 3.0, -1.0])).fpr95 == 0.5
    assert curves(fooling[1:], np.array([1.0, 2.0, 3.0, -1.0])).fpr95 == 0.75, "18 of 19 are not enough"


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([np.nan]), np.array([np.inf])])
def test_scores_that_make_no_curve_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="finite scores of both sets"):
        curves(bad, np.zeros(2))
    with pytest.raises(ImageError, match="finite scores of both sets"):
        curves(np.zeros(2), bad)


# -- detectors


@pytest.mark.parametrize("name", DETECTORS)
def test_images_of_nothing_are_more_suspicious_than_real_ones(name: str) -> None:
    """The orientation: with the sign the other way round this would be far below one half."""
    found, calibration = fitted(name, net())
    assert curves(found(dim()), found.of_control(calibration, real())).auroc > 0.8


def test_scores_are_pytorch_ood_s_on_calibrated_logits() -> None:
    found = net()
    z = found.logits(noise())
    for name, cls in (("max-logit", ood.MaxLogit), ("energy", ood.EnergyBased)):
        detector, calibration = fitted(name, found)
        wanted = cls(None).predict_logits(torch.from_numpy(calibration.calibrated(z))).numpy()
        np.testing.assert_array_equal(detector.of(z), wanted)
        np.testing.assert_allclose(detector(noise()), wanted, rtol=1e-6)


def test_msp_is_the_log_odds_of_pytorch_ood_s_probability() -> None:
    z = np.random.default_rng(0).normal(size=(200, K)).astype(np.float32) * 3
    detector, calibration = fitted("msp", net())
    raw = z * np.float32(calibration.scale * calibration.temperature)
    p = -ood.MaxSoftmax(None).predict_logits(torch.from_numpy(calibration.calibrated(raw))).numpy()
    np.testing.assert_allclose(detector.of(raw), -np.log(p / (1 - p)), rtol=1e-6)
    real_ones = np.random.default_rng(1).normal(size=50) - 3
    assert curves(-p, -1 / (1 + np.exp(real_ones))).auroc == curves(detector.of(raw), real_ones).auroc
    # Where the probability is 1.0, the log-odds still tell images apart.
    assert len(np.unique(detector.of(raw * 1000))) == 200


def test_mahalanobis_is_pytorch_ood_s_where_that_is_well_conditioned() -> None:
    draw = np.random.default_rng(0)
    classes = np.arange(300) % 3
    features = (draw.normal(size=(300, 5)) @ draw.normal(size=(5, 5)) + classes[:, None]).astype(np.float32)
    model, tensors = detectors._mahalanobis(ood.Mahalanobis, features, classes)
    plain = ood.Mahalanobis(None).fit_features(torch.from_numpy(features), torch.from_numpy(classes))
    other = (draw.normal(size=(40, 5)) * 4).astype(np.float32)
    found, wanted = (
        model.predict_features(detectors._projected(other, tensors)),
        plain.predict_features(torch.from_numpy(other)),
    )
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-3)


def test_dead_units_and_fewer_images_than_features_do_not_unsettle_mahalanobis() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(30, 50)).astype(np.float32) * np.float32(100)
    features[:, 40:] = 0
    classes = np.arange(30) % 3
    model, tensors = detectors._mahalanobis(ood.Mahalanobis, features, classes)
    x = features.astype(np.float64)
    centres = np.stack([x[classes == c].mean(0) for c in range(3)])
    inverse = np.linalg.pinv((x - centres[classes]).T @ (x - centres[classes]), rcond=1e-8)
    other = draw.normal(size=(5, 50)) * 100
    wanted = [min(0.5 * (f - m) @ inverse @ (f - m) for m in centres) for f in other]
    z = detectors._projected(other.astype(np.float32), tensors)
    np.testing.assert_allclose(model.predict_features(z).numpy(), wanted, rtol=1e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_guard_s_suspicion_ranks_as_the_detector_does(name: str) -> None:
    found = net(dead=1)
    detector, calibration = fitted(name, found)
    asked = np.concatenate([noise(), real(seed=9).some(np.arange(40))])
    z = torch.from_numpy(calibration.calibrated(found.logits(asked)))
    with Features(found) as features:
        seen = torch.from_numpy(features(asked))
    ours, theirs = suspicion(name, z, seen, detector.rule.tensors).numpy(), detector(asked)
    order = np.argsort(theirs, kind="stable")
    assert (np.diff(ours[order]) >= -1e-5 * np.abs(ours).max()).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_dividing_all_logits_by_four_changes_no_bit(name: str) -> None:
    (one, calibration), (other, divided) = fitted(name, net()), fitted(name, net(4.0))
    assert divided.scale == calibration.scale / 4
    np.testing.assert_array_equal(one(noise()), other(noise()))
    np.testing.assert_array_equal(one.of_control(calibration, real()), other.of_control(divided, real()))
    assert (one.rule.threshold, one.rule.median) == (other.rule.threshold, other.rule.median)
    np.testing.assert_array_equal(
        guarded(net(), one.rule, "g").logits(noise()), guarded(net(4.0), other.rule, "g").logits(noise())
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_a_guard_keeps_about_95_of_a_hundred_real_images(name: str) -> None:
    found = net()
    detector, calibration = fitted(name, found)
    kept = guarded(found, detector.rule, "g")
    control = real().some(np.flatnonzero(calibration.control))
    z = kept.logits(control)
    inside = z[:, :K].max(1) - z[:, K]
    assert 0.85 <= (inside >= 0).mean() <= 1.0
    assert np.median(inside) == pytest.approx(1.0, abs=0.3)


def test_the_scores_of_control_images_are_those_of_their_pixels() -> None:
    found = net()
    for name in DETECTORS:
        detector, calibration = fitted(name, found)
        control = real().some(np.flatnonzero(calibration.control))
        np.testing.assert_allclose(detector.of_control(calibration, real()), detector(control), rtol=1e-5)


# -- what is left out


def test_too_few_images_leave_mahalanobis_out_and_say_so() -> None:
    found = net()
    calibration = calibrate(found, real(160))
    few = real(160).classes.copy()
    rare = np.flatnonzero((few == 3) & ~calibration.control)[1:]
    few[rare] = 0
    one = Calibration(calibration.logits, few, calibration.control, "", "", found.labels)
    _, left_out = fit_all(found, one, RealImages("made", few, real(160)._read))
    assert left_out.keys() == {"mahalanobis"}
    assert "1 classes have fewer than 2 (the first is 3); give more: --fit DIR" in left_out["mahalanobis"]
    apart, none = fit_all(found, one, RealImages("made", few, real(160)._read), apart=real(seed=7))
    assert (set(apart), none) == (set(DETECTORS), {})


def test_a_black_box_leaves_mahalanobis_out_and_says_so() -> None:
    inner = net()
    box = Target.probed("box", lambda x: inner.logits(x), None, inner.shape, Preprocessing(), "logits", {})
    found, left_out = fit_all(box, calibrate(box, real()), real())
    assert set(found) == {"msp", "max-logit", "energy"}
    assert "this is a black box" in left_out["mahalanobis"]
    with pytest.raises(TargetError, match='no detector "odin"; there are msp'):
        fit("odin", box, calibrate(box, real()), real())


def test_without_pytorch_ood_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    detectors._library.cache_clear()
    monkeypatch.setattr(detectors, "import_module", missing)
    with pytest.raises(EvofoolError, match=r"pip install 'evofool\[bench\]'"):
        fit_all(net(), calibrate(net(), real()), real())


# -- runs


def test_elites_of_the_plain_and_of_the_guarded_target_are_judged_alike(tmp_path: Path) -> None:
    plain = target("lenet")
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (100, 1, 28, 28), np.uint8)
    z = plain.logits(pixels)
    calibration = Calibration(z, z.argmax(1), np.arange(100) % 2 == 0, "", "", plain.labels)
    detector = fit("energy", plain, calibration, RealImages("made", z.argmax(1), lambda batch: iter(())))
    recipe = {"encoding": {"kind": "cppn"}, "search": {"batch": 12, "rank": "margin"}, "stop": {"evaluations": 60}}
    for name, spec in (("static", "lenet"), ("adaptive", guard(plain, detector, tmp_path / "g.safetensors"))):
        with Run.start(parse({"target": spec, **recipe}, "test"), tmp_path / name) as run:
            run.advance()
    scored = np.arange(10) != 4
    images = {name: fooling_images(tmp_path / name, scored) for name in ("static", "adaptive")}
    assert all(i.shape[1:] == (1, 28, 28) and len(i) <= 9 for i in images.values())
    found = evaluate(detector, detector(pixels), [images["static"]], [images["adaptive"]])
    for name, (roc,) in found.items():
        assert roc.auroc == curves(detector(images[name]), detector(pixels)).auroc
    with pytest.raises(ImageError, match="no elite of a class"):
        fooling_images(tmp_path / "static", np.zeros(10, bool))
    with pytest.raises(StoreError):
        fooling_images(tmp_path / "nowhere", scored)
