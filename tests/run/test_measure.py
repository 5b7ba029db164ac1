"""Image metrics of runs: what is stored, replaced and kept."""

from pathlib import Path

import numpy as np
import pytest

from evofool.bench.network_features import NetworkFeatures
from evofool.errors import ImageError, StoreError, TargetError
from evofool.image_metrics.metrics import ImageMetrics
from evofool.image_metrics.names import OWN_SHAPE
from evofool.image_metrics.own_shape import OwnShape
from evofool.recipe import parse
from evofool.run.measure import measure_run, stale_references, stored_metrics, unloaded_target
from evofool.run.run import Run
from evofool.run.schema import IMAGE_METRICS
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from tests.image_metrics.samples import box, measured, other, random_images, real, started

PIXELS, HOG, FEATURES, VARIATION = MEASURED = IMAGE_METRICS[:4]


def test_a_measured_run_has_the_metrics_of_its_images(tmp_path: Path) -> None:
    folder, metrics = (
        started(tmp_path / "run"),
        ImageMetrics.of(box(), real(random_images(30, 0)), features=NetworkFeatures(other())),
    )
    assert measure_run(folder, metrics) == 4
    with StoredRun(folder) as stored:
        elites = stored.elites()
        found = metrics(np.stack([elite.image for elite in elites]))
        for k, elite in enumerate(elites):
            summary = elite.summary()
            assert {name: summary[name] for name in MEASURED} == {name: found[name][k] for name in MEASURED}
            assert {m.name: m.reference for m in elite.row.image_metrics} == {**metrics.references, VARIATION: ""}
        assert stored.store.meta().references == metrics.reference_details
    figures = stored_metrics([folder, folder])
    assert set(figures) == {*MEASURED, "bytes_per_pixel"}
    assert figures[HOG].tolist() == [*found[HOG], *found[HOG]]


def test_a_run_that_is_measured_twice_is_the_same_and_nothing_is_measured_again(tmp_path: Path) -> None:
    folder, metrics = started(tmp_path / "run"), ImageMetrics.of(box(), real(random_images(30, 0)))
    assert measure_run(folder, metrics) == 4
    before = measured(folder)
    assert measure_run(folder, metrics) == 0
    assert measure_run(folder, ImageMetrics.of(box(), real(random_images(30, 0)))) == 0
    assert measured(folder) == before
    assert measure_run(folder, ImageMetrics.of(box(), real(random_images(30, 5)))) == 4
    assert measured(folder) != before
    assert measure_run(folder, metrics) == 4
    assert measured(folder) == before


def test_only_classes_with_real_images_have_the_metric_of_own_shape(tmp_path: Path) -> None:
    images, shape = random_images(60, 0, (1, 12, 16)), (1, 12, 16)
    recipe = parse({"target": "x", "encoding": {"kind": "direct"}, "stop": {"evaluations": 80}}, "test")
    with Run.start(recipe, tmp_path / "run", box(shape)) as run:
        run.advance()
    metrics = ImageMetrics.of(box(shape), real(images))
    own_shape = OwnShape(images, np.arange(60) % 2, metrics.held_out_rows)
    assert measure_run(tmp_path / "run", metrics, own_shape=own_shape) == 4
    assert measure_run(tmp_path / "run", metrics, own_shape=own_shape) == 0
    with StoredRun(tmp_path / "run") as stored:
        rows = [elite.row for elite in stored.elites()]
    having = {row.class_id for row in rows if OWN_SHAPE in {m.name for m in row.image_metrics}}
    assert (len(rows), having) == (4, {0, 1})


def test_features_are_added_to_the_stored_metrics(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    measure_run(folder, ImageMetrics.of(box(), real(random_images(30, 0))))
    before = measured(folder)
    assert measure_run(folder, ImageMetrics.of(box(), real(random_images(30, 0)), features=NetworkFeatures(other()))) == 4
    after = measured(folder)
    assert [tuple(m for m in row if m.name != FEATURES) for row in after] == before
    # Without a network again: what is there of the features stays.
    assert measure_run(folder, ImageMetrics.of(box(), real(random_images(30, 0)))) == 0
    assert measured(folder) == after


def test_metrics_of_one_elite_are_against_one_set_of_real_images(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    measure_run(folder, ImageMetrics.of(box(), real(random_images(30, 0)), features=NetworkFeatures(other())))
    later = ImageMetrics.of(box(), real(random_images(30, 5)))
    assert stale_references(folder, later) != []
    assert measure_run(folder, later) == 4
    for row in measured(folder):
        assert {m.name: m.reference for m in row} == {**later.references, VARIATION: ""}
    with Store.open(folder) as store:
        assert store.meta().references == later.reference_details
    assert stale_references(folder, later) == []
    # By the features of two networks, one after the other, against the same images: the later ones are kept.
    for network in (other(1), other(2)):
        metrics = ImageMetrics.of(box(), real(random_images(30, 5)), features=NetworkFeatures(network))
        measure_run(folder, metrics)
    with Store.open(folder) as store:
        assert store.meta().references == metrics.reference_details


def test_a_search_that_goes_on_removes_the_metrics_of_replaced_elites(tmp_path: Path) -> None:
    folder, metrics = started(tmp_path / "run", 8), ImageMetrics.of(box(), real(random_images(30, 0)))
    measure_run(folder, metrics)
    with Store.open(folder) as store:
        before = {row.cell: row for row in store.elites()}
        recipe = store.meta().recipe
    with Run.resume(folder, parse({**recipe, "stop": {"evaluations": 80}}, "test"), box()) as run:
        run.advance()
    with Store.open(folder) as store:
        after = {row.cell: row for row in store.elites()}
    beaten = {cell for cell, row in after.items() if row.birth != before[cell].birth}
    assert beaten
    assert {cell for cell, row in after.items() if not row.image_metrics} == beaten
    assert measure_run(folder, metrics) == len(beaten)
    fresh = started(tmp_path / "fresh", 80)
    measure_run(fresh, metrics)
    assert measured(folder) == measured(fresh)


def test_measuring_changes_nothing_else(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    with Store.open(folder) as store:
        meta, digests, faults = store.meta(), [row.digest() for row in store.elites()], store.faults()
    metrics = ImageMetrics.of(box(), real(random_images(30, 0)))
    measure_run(folder, metrics)
    with Store.open(folder) as store:
        assert store.meta() == meta.updated(references=metrics.reference_details)
        assert [row.digest() for row in store.elites()] == digests == [row.sha256 for row in store.elites()]
        assert store.faults() == faults == []
    assert not list(folder.glob("*-wal"))


def test_a_run_that_is_being_written_or_has_other_images_is_refused(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    metrics = ImageMetrics.of(box(), real(random_images(30, 0)))
    with Store.open(folder, write=True), pytest.raises(StoreError, match="is in use"):
        measure_run(folder, metrics)
    grey = ImageMetrics.of(box((1, 9, 9)), real(random_images(30, 0, (1, 9, 9))))
    with pytest.raises(ImageError, match=r"images of shape \(3, 12, 16\), and these real ones are \(1, 9, 9\)"):
        measure_run(folder, grey)
    with StoredRun(folder) as stored:
        seen = unloaded_target(stored)
    assert seen.fingerprint() == box().fingerprint()
    with pytest.raises(TargetError, match="is not loaded and cannot be queried"):
        seen.logits(random_images(1, 0))
    assert measured(folder) == [()] * 4


def test_the_network_that_a_run_attacked_cannot_measure_it(tmp_path: Path) -> None:
    what = {"target": "other", "encoding": {"kind": "direct"}, "stop": {"evaluations": 8}, "search": {"batch": 8}}
    with Run.start(parse(what, "test"), tmp_path / "run", other()) as run:
        run.advance()
    metrics = ImageMetrics.of(other(1), real(random_images(20, 0, (1, 10, 10))), features=NetworkFeatures(other()))
    with pytest.raises(TargetError, match=r"other: this is the network that .*run attacked"):
        measure_run(tmp_path / "run", metrics)
