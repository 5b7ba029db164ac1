"""Detectors of pytorch-ood against fooling images: the library's scores, scikit-learn's curves, no temperature."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from evofool.bench import plan
from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.cell import LOGITS, read_logits, run_cell
from evofool.bench.cell_job import CellJob
from evofool.bench.detect import detectors
from evofool.bench.detect.detectors import DETECTORS, Detector, curves, fit, fit_all, fooling_images
from evofool.bench.detector_stage import FittedDetectors, score_detectors
from evofool.bench.entries import Entry
from evofool.bench.prepare import PreparedTarget
from evofool.bench.real import Batches, RealImages
from evofool.errors import EvofoolError, ImageError, StoreError, TargetError
from evofool.explain.features import Features
from evofool.run.stored import StoredRun
from evofool.scores import margin
from evofool.targets import Target, target
from evofool.targets import guarded as guards
from evofool.targets.guarded import guard, guarded, suspicion
from evofool.targets.preprocessing import Preprocessing

ood = pytest.importorskip("pytorch_ood.detector")
SIDE, K, D = 8, 4, 6


class Net(nn.Module):
    """Logits by how bright four corners are; a hidden layer of D units, of which `dead` are always 0."""

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
def test_figures_equal_those_of_scikit_learn_with_ties(levels: int, fooling: int, others: int) -> None:
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
def test_scores_without_a_curve_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="finite scores of both sets"):
        curves(bad, np.zeros(2))
    with pytest.raises(ImageError, match="finite scores of both sets"):
        curves(np.zeros(2), bad)


# -- detectors


def test_detectors_have_the_same_names_everywhere() -> None:
    recipe = get_args(get_args(plan.DetectorsPart.model_fields["names"].annotation)[0])
    assert tuple(DETECTORS) == guards.DETECTORS == plan.DETECTORS == recipe


@pytest.mark.parametrize("name", DETECTORS)
def test_noise_is_more_suspicious_than_real_images(name: str) -> None:
    """The orientation: with the opposite sign the AUROC would be far below 0.5."""
    found, calibration = fitted(name, net())
    assert curves(found(dim()), found.of_control(calibration, real())).auroc > 0.8


def test_scores_equal_those_of_pytorch_ood_on_calibrated_logits() -> None:
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
    raw = z * np.float32(calibration.scale * calibration.unit)
    p = -ood.MaxSoftmax(None).predict_logits(torch.from_numpy(calibration.calibrated(raw))).numpy()
    np.testing.assert_allclose(detector.of(raw), -np.log(p / (1 - p)), rtol=1e-6)
    real_ones = np.random.default_rng(1).normal(size=50) - 3
    assert curves(-p, -1 / (1 + np.exp(real_ones))).auroc == curves(detector.of(raw), real_ones).auroc
    # Where the probability is 1.0, the log-odds still differ.
    assert len(np.unique(detector.of(raw * 1000))) == 200


def test_mahalanobis_equals_that_of_pytorch_ood_where_it_is_well_conditioned() -> None:
    draw = np.random.default_rng(0)
    classes = np.arange(300) % 3
    features = (draw.normal(size=(300, 5)) @ draw.normal(size=(5, 5)) + classes[:, None]).astype(np.float32)
    model, tensors = detectors._mahalanobis(ood.Mahalanobis, features, classes)
    library = ood.Mahalanobis(None).fit_features(torch.from_numpy(features), torch.from_numpy(classes))
    other = (draw.normal(size=(40, 5)) * 4).astype(np.float32)
    found, wanted = (
        model.predict_features(detectors._projected(other, tensors)),
        library.predict_features(torch.from_numpy(other)),
    )
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-3)


def test_mahalanobis_is_stable_with_dead_units_and_fewer_images_than_features() -> None:
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
    images = np.concatenate([noise(), real(seed=9).some(np.arange(40))])
    z = torch.from_numpy(calibration.calibrated(found.logits(images)))
    with Features(found) as features:
        seen = torch.from_numpy(features(images))
    ours, theirs = suspicion(name, z, seen, detector.rule.tensors).numpy(), detector(images)
    order = np.argsort(theirs, kind="stable")
    assert (np.diff(ours[order]) >= -1e-5 * np.abs(ours).max()).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_dividing_all_logits_by_four_changes_no_bit(name: str) -> None:
    (first, calibration), (other, divided) = fitted(name, net()), fitted(name, net(4.0))
    assert divided.scale == calibration.scale / 4
    np.testing.assert_array_equal(first(noise()), other(noise()))
    np.testing.assert_array_equal(first.of_control(calibration, real()), other.of_control(divided, real()))
    assert (first.rule.threshold, first.rule.median) == (other.rule.threshold, other.rule.median)
    np.testing.assert_array_equal(
        guarded(net(), first.rule, "g").logits(noise()), guarded(net(4.0), other.rule, "g").logits(noise())
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


def test_with_too_few_images_mahalanobis_is_left_out_with_a_reason() -> None:
    found = net()
    calibration = calibrate(found, real(160))
    few = real(160).classes.copy()
    rare = np.flatnonzero((few == 3) & ~calibration.control)[1:]
    few[rare] = 0
    few_images = Calibration(calibration.logits, few, calibration.control, "", "", found.labels)
    _, left_out = fit_all(found, few_images, RealImages("made", few, real(160)._read))
    assert left_out.keys() == {"mahalanobis"}
    assert "1 classes have fewer than 2 (the first is 3)" in left_out["mahalanobis"]
    assert "the bench recipe's key detectors.fit" in left_out["mahalanobis"]
    apart, none = fit_all(found, few_images, RealImages("made", few, real(160)._read), apart=real(seed=7))
    assert (set(apart), none) == (set(DETECTORS), {})


def test_for_a_black_box_mahalanobis_is_left_out_with_a_reason() -> None:
    inner = net()
    box = Target.probed("box", lambda x: inner.logits(x), None, inner.shape, Preprocessing(), "logits", {})
    found, left_out = fit_all(box, calibrate(box, real()), real())
    assert set(found) == {"msp", "max-logit", "energy"}
    assert "which a black box does not give" in left_out["mahalanobis"]
    with pytest.raises(TargetError, match='no detector "odin"; there are msp'):
        fit("odin", box, calibrate(box, real()), real())


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_for_probabilities_detectors_of_logits_are_left_out_with_a_reason(last: nn.Module) -> None:
    found = Target.from_module(nn.Sequential(Net(4.0), last), None, (1, SIDE, SIDE), Preprocessing())
    fitted_ones, left_out = fit_all(found, calibrate(found, real()), real())
    assert set(fitted_ones) == {"msp", "mahalanobis"}
    for name in ("max-logit", "energy"):
        assert left_out[name] == f"{name} is left out: Sequential returns probabilities, and {name} needs logits"


def test_a_target_that_returns_only_its_top_classes_has_no_detector() -> None:
    found = net()
    calibration = calibrate(found, real())
    found.top_k = 2
    fitted_ones, left_out = fit_all(found, calibration, real())
    assert (fitted_ones, set(left_out)) == ({}, set(DETECTORS))
    assert all("returns only its top 2 of 4 classes" in message for message in left_out.values())


def test_without_pytorch_ood_the_error_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    detectors._library.cache_clear()
    monkeypatch.setattr(detectors, "import_module", missing)
    with pytest.raises(EvofoolError, match=r"pip install 'evofool\[bench\]'"):
        fit_all(net(), calibrate(net(), real()), real())


# -- cells


Evolved = tuple[PreparedTarget, FittedDetectors, dict[str, Path]]


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Evolved:
    """lenet, with energy fitted to noise that it classifies as digits, and a cell of each kind: "static", "adaptive"."""
    folder = tmp_path_factory.mktemp("evolved")
    undefended = target("lenet")
    pixels = np.random.default_rng(0).integers(0, 256, (100, 1, 28, 28), np.uint8)
    z = undefended.logits(pixels)
    calibration = Calibration(z, z.argmax(1), np.arange(100) % 2 == 0, "", "", undefended.labels)
    images = RealImages("made", z.argmax(1), lambda batch: iter(()))
    prepared = PreparedTarget(Entry("lenet", "lenet"), undefended, images, calibration)
    detector = fit("energy", undefended, calibration, images)
    specs = {"static": "lenet", "adaptive": guard(undefended, detector, folder / "g.safetensors")}
    for name, spec in specs.items():
        job = CellJob(folder / name, spec, "cppn", 0, 60, tuple(range(10)), ("search.batch=12",))
        assert run_cell(job.to_dict())
    fitted = FittedDetectors({"energy": detector}, {"energy": specs["adaptive"]})
    return prepared, fitted, {name: folder / name for name in specs}


def with_logits(folder: Path, copy: Path, change: Callable[[np.ndarray, np.ndarray], None]) -> Path:
    """A copy of a cell with other outputs of its target."""
    shutil.copytree(folder, copy)
    classes, logits = read_logits(folder)
    change(classes, logits)
    save_file({"classes": classes, "logits": logits}, copy / LOGITS)
    return copy


def one_class(c: int) -> Callable[[np.ndarray, np.ndarray], None]:
    """Every image is classified as c."""

    def change(classes: np.ndarray, logits: np.ndarray) -> None:
        logits[:, :10] = 0
        logits[:, c] = 1

    return change


@pytest.mark.parametrize("kind", ["static", "adaptive"])
def test_fooling_images_are_those_classified_as_the_class_they_were_made_for(
    kind: str, evolved: Evolved, tmp_path: Path
) -> None:
    prepared, _, folders = evolved
    scored = np.arange(10) != 4
    with StoredRun(folders[kind]) as run:
        elites = {elite.row.class_id: elite.image for elite in run.elites()}
    called = {c: int(prepared.target.logits(image[None]).argmax()) for c, image in elites.items()}
    wanted = [image for c, image in elites.items() if c < 10 and scored[c] and called[c] == c]
    assert 0 < len(wanted) < len(elites)
    found = fooling_images(folders[kind], scored)
    np.testing.assert_array_equal(found.images, wanted)
    assert [int(c) for c in found.classes] == [c for c in elites if c < 10 and scored[c] and called[c] == c]
    z = prepared.target.logits(found.images)
    unit = 1.0 if kind == "static" else prepared.calibration.scale
    np.testing.assert_allclose(found.margins * unit, margin(z)[np.arange(len(z)), found.classes], rtol=1e-4)
    alone = with_logits(folders[kind], tmp_path / "alone", one_class(7))
    np.testing.assert_array_equal(fooling_images(alone, scored).images, [elites[7]])
    assert len(fooling_images(alone, np.arange(10) == 4)) == 0


def test_an_image_that_a_detector_rejects_still_counts_as_fooling(evolved: Evolved, tmp_path: Path) -> None:
    """Otherwise a detector would be measured only by the images that it accepts."""

    def reject(classes: np.ndarray, logits: np.ndarray) -> None:
        logits[:, 10] = 1e3

    _, _, folders = evolved
    every = np.ones(10, bool)
    rejected = with_logits(folders["adaptive"], tmp_path / "rejected", reject)
    ours, theirs = fooling_images(rejected, every), fooling_images(folders["adaptive"], every)
    np.testing.assert_array_equal(ours.images, theirs.images)


def test_an_elite_of_several_cells_is_counted_once(evolved: Evolved, tmp_path: Path) -> None:
    _, _, folders = evolved
    copy = tmp_path / "copy"
    shutil.copytree(folders["static"], copy)
    with closing(sqlite3.connect(copy / "run.db")) as db, db:
        (png,) = db.execute("SELECT png FROM elites LIMIT 1").fetchone()
        db.execute("UPDATE elites SET png = ?", (png,))
    assert len(fooling_images(folders["static"], np.ones(10, bool))) > 1
    assert len(fooling_images(copy, np.ones(10, bool))) == 1


def test_a_folder_without_a_done_cell_is_refused(evolved: Evolved, tmp_path: Path) -> None:
    _, _, folders = evolved
    with pytest.raises(StoreError):
        fooling_images(tmp_path / "nowhere", np.ones(10, bool))
    shutil.copytree(folders["static"], tmp_path / "mixed")
    save_file({"classes": np.arange(3), "logits": np.zeros((3, 10), np.float32)}, tmp_path / "mixed" / LOGITS)
    with pytest.raises(StoreError, match="belongs to other elites"):
        fooling_images(tmp_path / "mixed", np.ones(10, bool))


def test_rows_are_of_the_seeds_that_have_fooling_images_and_the_others_give_warnings(
    evolved: Evolved, tmp_path: Path
) -> None:
    prepared, fitted, folders = evolved
    prepared = replace(prepared, calibration=replace(prepared.calibration))
    prepared.calibration.scored[:] = np.arange(10) != 4
    none = with_logits(folders["static"], tmp_path / "none", one_class(4))
    static = {0: folders["static"], 1: none, 2: tmp_path / "nowhere", 3: folders["static"]}
    scores = score_detectors(prepared, fitted, "cppn", static, {"energy": {0: folders["adaptive"]}})
    detector = fitted.detectors["energy"]
    real_ones = detector.of_control(prepared.calibration, prepared.real)
    for row, kind, seeds in zip(scores.rows, ("static", "adaptive"), ([0, 3], [0]), strict=True):
        some = fooling_images(folders[kind], prepared.calibration.scored).images
        assert (row["detector"], row["kind"], row["seeds"]) == ("energy", kind, seeds)
        assert row["images"] == [len(some)] * len(seeds)
        assert row["per_seed"] == [curves(detector(some), real_ones).auroc] * len(seeds)
    assert [warning.split(" is left out")[0] for warning in scores.warnings] == [
        f"detectors: static, cppn, seed {seed}" for seed in (1, 2)
    ]
    assert "none of its images is classified as the scored class that it was made for" in scores.warnings[0]
    assert scores.rows[0]["through"]["seeds"] == [0, 1, 3], "a seed that fools no class counts"
    assert scores.rows[0]["through"]["joint"]["per_seed"][1] == 0.0
    scores = score_detectors(prepared, fitted, "cppn", {1: none}, {})
    (row,) = scores.rows
    assert (row["auroc"], row["per_seed"], row["seeds"]) == (None, [], [])
    assert row["through"]["joint"]["per_seed"] == [0.0]
    assert len(scores.warnings) == 1


def test_a_detector_that_fails_gives_a_warning_and_the_others_are_measured(
    evolved: Evolved,
) -> None:
    prepared, fitted, folders = evolved

    def fails(z: torch.Tensor) -> torch.Tensor:
        raise TargetError("the server does not answer")

    both = {"msp": replace(fitted.detectors["energy"], name="msp", _score=fails), **fitted.detectors}
    scores = score_detectors(prepared, replace(fitted, detectors=both), "cppn", {0: folders["static"]}, {})
    assert [row["detector"] for row in scores.rows] == ["energy"]
    assert scores.warnings == ("msp was not measured: the server does not answer",)
