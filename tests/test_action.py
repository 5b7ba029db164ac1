"""The GitHub Action: its steps are run as GitHub would run them."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

HOME = Path(__file__).parent.parent
ACTION = yaml.safe_load((HOME / "action.yml").read_text())


def step(name: str) -> dict[str, Any]:
    (found,) = (step for step in ACTION["runs"]["steps"] if step["name"] == name)
    return found


def expanded(text: str, /, **inputs: str) -> str:
    """A text of the action, with its expressions replaced by what they say for these inputs."""
    unknown = {*inputs} - {*ACTION["inputs"]}
    assert not unknown
    values = {f"inputs.{key}": inputs.get(key, entry.get("default", "")) for key, entry in ACTION["inputs"].items()}
    values["github.action_path"] = str(HOME)
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: values[found[1]], text)


def run(name: str, folder: Path, /, **inputs: str) -> subprocess.CompletedProcess[str]:
    """A step in a folder, with `evofool` and `python` of this environment."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    evofool, python = bin_folder / "evofool", bin_folder / "python"
    evofool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m evofool "$@"\n')
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    for file in (evofool, python):
        file.chmod(0o755)
    one = step(name)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(HOME),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        **{key: expanded(value, **inputs) for key, value in one["env"].items()},
    }
    # As GitHub calls `shell: bash`.
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", one["run"]]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("named", "name", "most", "expected", "word"),
    [({}, "evofool-gate", "0.5", 1, "fails"), ({"name": "gate-linux"}, "gate-linux", "1.0", 0, "passes")],
)
def test_the_gate_runs_and_its_result_is_what_the_action_keeps(
    tmp_path: Path, named: dict[str, str], name: str, most: str, expected: int, word: str
) -> None:
    """Under a name of its own, where one is given: two artifacts of a workflow cannot have the same."""
    inputs = {"target": "lenet", "accept": "p>=0.99", "budget": "300", "arms": "apgd", "max-fooled": most, **named}
    done = run("Run the gate", tmp_path, **inputs)
    assert done.returncode == expected, done.stderr
    (case,) = ET.parse(tmp_path / f"{name}.xml").iter("testcase")
    assert float(case.get("time", "")) > 0
    assert word in (tmp_path / "summary.md").read_text()
    kept = {key: expanded(value, **inputs) for key, value in step("Keep the result and the worst images")["with"].items()}
    assert kept["name"] == name
    assert [len([*tmp_path.glob(pattern)]) for pattern in kept["path"].split()] == [1, 1]


def test_results_and_other_options_reach_the_command(tmp_path: Path) -> None:
    done = run("Run the gate", tmp_path, target="lenet", against="a.json b.json", strict="true", images="digits")
    assert done.returncode == 2
    assert "a.json" in done.stdout
    done = run("Run the gate", tmp_path, target="lenet", against="a.json", accept="p>=0.9")
    assert "give one of --against RESULT.json and --accept RULE" in done.stdout


@pytest.mark.parametrize(("install", "expected"), [("", f"{HOME}[bench]"), ("evofool[bench]==0.2", "evofool[bench]==0.2")])
def test_the_package_is_installed_from_the_action_unless_another_is_named(
    tmp_path: Path, install: str, expected: str
) -> None:
    done = run("Install evofool", tmp_path, target="lenet", install=install)
    assert done.stdout.split() == ["-m", "pip", "install", expected]
