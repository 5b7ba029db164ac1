"""Benchmarks of targets whose answer is made of several: random ones, and those of which only the class is known."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evofool.bench import cell as cells
from evofool.bench.acceptance_rule import parse_acceptance_rule
from evofool.bench.bench import run_bench
from evofool.bench.gate.at_threshold import GateAttacks, threshold
from evofool.bench.plan import parse
from evofool.targets.digits import held_out

MODULE = """
import torch
from torch import nn
from evofool.targets import target

class Changed(nn.Module):
    shape, labels = (1, 28, 28), tuple("0123456789")
    def __init__(self, after):
        super().__init__()
        self.network, self.after = target("lenet").network.module, after
    def forward(self, x):
        return self.after(self.network(x))

def noisy():
    return Changed(lambda z: z + 0.3 * torch.randn_like(z))

def one_hot():
    return Changed(lambda z: nn.functional.one_hot(z.argmax(1), 10).float())
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "changed_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "python:changed_net"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of 32 digits of each class."""
    folder, (images, labels) = tmp_path_factory.mktemp("photographs"), held_out()
    for c in range(10):
        (folder / str(c)).mkdir()
        for k, image in enumerate(images[labels == c][::8]):
            Image.fromarray(image[0]).save(folder / str(c) / f"{k}.png")
    return str(folder)


def measured(folder: Path, images: str, spec: str, arms: list[str], budgets: list[int]) -> dict[str, Any]:
    recipe = {"images": images, "targets": [{"target": spec}], "budgets": budgets, "seeds": 1, "arms": arms}
    assert run_bench(parse(recipe, "here"), folder).valid
    (path,) = (folder / "results").glob("*.json")
    return dict(json.loads(path.read_text()))


def test_a_random_target_is_measured_by_means_and_its_queries_are_counted(
    module: str, photographs: str, tmp_path: Path
) -> None:
    found = measured(tmp_path / "b", photographs, f"{module}:noisy?average=4", ["cppn", "apgd"], [160, 640])
    assert any("its answers are random, and means of 4 are used" in flag["message"] for flag in found["flags"])
    (luck,) = (flag["message"] for flag in found["flags"] if "searches keep lucky ones" in flag["message"])
    first, again = map(int, re.findall(r"of (\d+) images that were accepted, (\d+) are", luck)[0])
    assert 0 < again <= first <= 20
    for name, arm in found["scores"]["arms"].items():
        (at,) = arm["accepted_at"].values()
        accepted = np.array([q for q in at if q is not None])
        assert len(accepted), name
        assert (accepted % 4 == 0).all()
        assert accepted.max() <= 640
    record = cells.read_record(next((tmp_path / "b" / "cells").glob("*/cppn-0")))
    assert record["faults"] == []
    assert record["comparison"].endswith("(measured: its answers are random)")
    assert record["answers"] > 640


def test_a_mean_of_answers_that_are_not_random_speaks_of_no_luck(photographs: str, tmp_path: Path) -> None:
    found = measured(tmp_path / "b", photographs, "lenet?average=4", ["random"], [160])
    assert found["target"]["average"] == 4
    assert not any("random" in flag["message"] for flag in found["flags"])


def test_labels_alone_have_their_reason_and_are_scored_by_views(module: str, photographs: str, tmp_path: Path) -> None:
    found = measured(tmp_path / "a", photographs, f"{module}:one_hot", ["random"], [20])
    assert any(flag["message"].startswith("only the top class is known") for flag in found["flags"])
    found = measured(tmp_path / "b", photographs, f"{module}:one_hot?views=8", ["cppn"], [160, 640])
    assert not any("only the top class" in flag["message"] for flag in found["flags"])
    assert found["scores"]["controls"]["real"]["met"]
    assert found["raw"]["tau5"] > 1
    assert found["target"]["views"] == 8
    (at,) = found["scores"]["arms"]["cppn"]["accepted_at"].values()
    assert all(q is None or q % 8 == 0 for q in at)


def test_pipelines_are_queries_of_a_gate_and_are_in_its_result(photographs: str, tmp_path: Path) -> None:
    spec, attacks = "lenet?through=same,jpeg:50", GateAttacks(("random", "apgd"), 160, 1, ())
    verdict = threshold(spec, parse_acceptance_rule("margin>=1"), attacks, max_fooled=1.0, folder=tmp_path / "g")
    assert [check.status for check in verdict.checks] == ["passes"] * 2
    found = measured(tmp_path / "b", photographs, spec, ["random"], [160])
    assert (found["target"]["through"], found["target"]["through_by"]) == ("same,jpeg:50", "mean")
    (at,) = found["scores"]["arms"]["random"]["accepted_at"].values()
    accepted = [q for q in at if q is not None]
    assert accepted
    assert all(q % 2 == 0 and q <= 160 for q in accepted)


def test_a_gate_at_a_threshold_counts_queries_too(module: str, tmp_path: Path) -> None:
    attacks = GateAttacks(("random",), 160, 1, ())
    verdict = threshold(
        f"{module}:one_hot?views=8", parse_acceptance_rule("margin>=1.9"), attacks, max_fooled=1.0, folder=tmp_path / "g"
    )
    (check,) = verdict.checks
    assert check.status == "passes"
    assert "within 160 queries" in check.message
    (job,) = (tmp_path / "g").glob("*/random-0/job.json")
    assert json.loads(job.read_text())["queries_per_image"] == 8
    record = cells.read_record(job.parent)
    assert record is not None
    assert record["forwards"] == 160
