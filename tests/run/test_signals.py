"""Runs in processes of their own: killed, interrupted, and without their terminal."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from evofool.recipe import load
from evofool.run.reader import FILE
from evofool.run.run import Run
from tests.run.cases import HOME, committed, recipe
from tests.stored import content
from tests.synthetic import fake


def evofool_process(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-m", "evofool", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it holds or the process has ended by itself, which is no fault: then there was nothing to interrupt."""
    while process.poll() is None and not condition():
        time.sleep(0.01)


def options(*changes: str) -> Sequence[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.mark.slow
def test_a_process_killed_again_and_again_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    changes = ("stop.evaluations=8000", "stop.confidence=", "save.seconds=0", "search.lag=1")
    with Run.start(load("mnist-direct", changes), tmp_path / "unbroken") as run:
        run.advance()
    folder = tmp_path / "run"
    kills = 0
    arguments = ["run", "mnist-direct", "--out", str(folder), *options(*changes)]
    for beyond in (0, 40):
        begun = max(0, committed(folder))
        process = evofool_process(*arguments, cwd=tmp_path)
        wait_for(lambda goal=begun + beyond: committed(folder) > goal, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        arguments = ["run", str(folder)]
    assert kills
    with Run.resume(folder) as run:
        run.advance()
    assert content(folder) == content(tmp_path / "unbroken") | {"meta": content(folder)["meta"]}


def test_the_first_batch_is_saved_at_once(tmp_path: Path) -> None:
    """So that a run which is killed every few seconds advances each time."""
    seen: list[int] = []
    with Run.start(recipe(save={"seconds": 1e6}), tmp_path / "run", fake()) as run:
        run.advance(lambda run: bool(seen.append(committed(run.folder))), every=0, batches=2)
        assert seen == [0, 1]


@pytest.mark.slow
def test_a_run_saves_when_its_terminal_closes(tmp_path: Path) -> None:
    """Then it gets SIGHUP, and whatever it prints fails."""
    changes = ("stop.evaluations=1000000000", "stop.confidence=", "save.seconds=1000000")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        line = [sys.executable, "-m", "evofool", "run", "mnist-direct", "--out", "mine", *options(*changes)]
        os.execve(sys.executable, line, environment)
    while b"images/s" not in os.read(terminal, 1 << 16) and committed(tmp_path / "mine") < 1:
        pass
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert committed(tmp_path / "mine") > 1
    assert not (tmp_path / "mine" / f"{FILE}-wal").exists()
    assert (tmp_path / "mine" / "elites.png").is_file()


@pytest.mark.slow
def test_ctrl_c_finishes_the_batch_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    changes = ("stop.evaluations=1000000000", "stop.confidence=", "save.seconds=0")
    process = evofool_process("run", "mnist-direct", "--out", "mine", *options(*changes), cwd=tmp_path)
    wait_for(lambda: committed(tmp_path / "mine") > 0, process)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Finishing the batch and saving" in err
    assert "evofool run mine" in out.splitlines()[-1]
    assert (tmp_path / "mine" / "elites.png").is_file()
    assert not (tmp_path / "mine" / f"{FILE}-wal").exists()
    stored = content(tmp_path / "mine")
    with Run.resume(tmp_path / "mine") as run:
        assert run.strategy.committed == stored["meta"]["committed"]
        run.advance(batches=3)
