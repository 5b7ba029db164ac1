"""`pytest --evofool TARGET`: the gate as tests of pytest, one for each arm."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from evofool import scores
from evofool.images import decode_png
from evofool.targets import target
from tests.commands import Runs

pytestmark = pytest.mark.slow

TARGET = "--evofool=lenet"
RULE = ["--evofool-accept=p>=0.99", "--evofool-budget=300", "--evofool-seeds=1", "--evofool-arms=apgd,random"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one test of its own. The gates in it continue each other."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "test_own.py").write_text("def test_own():\n    pass\n")
    return folder


def test_each_arm_is_a_test_and_one_that_fails_has_the_worst_image(runs: Runs, folder: Path) -> None:
    code, printed = runs(TARGET, *RULE, "--evofool-max-fooled=0.5", "--junitxml=pytest.xml")
    assert code == 1, printed
    for line in ("test_own.py::test_own PASSED", "lenet::apgd FAILED", "lenet::random PASSED", "lenet::gate PASSED"):
        assert line in printed, printed
    assert re.search(r"apgd \(fails\): \d+ of 10 classes .* are fooled at p >= 0.99 within 300 queries", printed), printed
    assert "Traceback" not in printed
    cases = {case.get("name"): case for case in ET.parse(folder / "pytest.xml").iter("testcase")}
    (path,) = (p.get("value") for p in cases["apgd"].iter("property") if p.get("name") == "evofool_worst_image")
    assert path is not None
    assert f"[[ATTACHMENT|{path}]]" in printed
    lenet = target("lenet")
    logits = lenet.logits(decode_png((folder / path).read_bytes(), path, lenet.shape)[None])
    label = lenet.labels[int(np.argmax(logits))]
    shown = float(scores.confidence(scores.log_odds(logits).max()))
    assert f"the image with the highest margin: {label}, confidence {shown:.4f}: {path}" in printed


def test_settings_in_a_file_and_a_choice_by_name(runs: Runs, folder: Path) -> None:
    settings = "evofool_accept = p>=0.99\nevofool_budget = 300\nevofool_seeds = 1\nevofool_arms = apgd,random\n"
    (folder / "own.ini").write_text(f"[pytest]\n{settings}evofool_max_fooled = 1.0\n")
    code, printed = runs("-c", "own.ini", TARGET, "-k", "apgd or gate")
    assert code == 0, printed
    assert "2 passed, 2 deselected" in printed
    code, printed = runs("-c", "own.ini", TARGET, "--evofool-against=missing.json")
    assert "missing.json" in printed, "the command line decides which form of the gate it is"
    (folder / "own.ini").write_text("[pytest]\nevofool_against = missing.json\n")
    code, printed = runs("-c", "own.ini", TARGET)
    assert str(folder / "missing.json") in printed, "from the root of the project"


def test_what_is_asked_wrongly_is_a_usage_error(runs: Runs) -> None:
    for arguments, message in (
        ([TARGET], "--evofool TARGET needs --evofool-against RESULT.json, or --evofool-accept RULE"),
        ([TARGET, *RULE, "--evofool-budget=many"], "evofool_budget has to be a number, not 'many'"),
    ):
        code, printed = runs(*arguments)
        assert (code, message in printed) == (pytest.ExitCode.USAGE_ERROR, True), printed
    for wrong in ("--evofool-max-fooled=50", "--evofool-seeds=0"):
        code, printed = runs(TARGET, *RULE, wrong)
        assert code == 1, printed
        assert "lenet::gate FAILED" in printed
        assert re.search(r"options \(invalid\): .*(from 0 to 1, not 50|seeds \(0\))", printed), printed


def test_markers_are_known_without_xdist(runs: Runs) -> None:
    code, printed = runs(TARGET, *RULE, "--strict-markers", "-W", "error", "--collect-only", "-q")
    assert code == 0, printed
    assert "<_ArmTest apgd>" in printed


def test_a_gate_that_cannot_run_fails_and_its_arms_are_skipped(runs: Runs) -> None:
    code, printed = runs("--evofool=no-such-network", *RULE, "-k", "no-such")
    assert code == 1, printed
    assert "no-such-network::gate FAILED" in printed
    assert "1 failed, 2 skipped" in printed
    code, printed = runs(TARGET, "--evofool-against=missing.json")
    assert code == 1, printed
    assert "missing.json" in printed


def test_without_a_target_nothing_is_added(runs: Runs) -> None:
    code, printed = runs()
    assert (code, "1 passed" in printed) == (0, True), printed
