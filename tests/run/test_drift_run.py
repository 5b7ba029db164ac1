"""Runs against a black box that changes: they stop, elites since the last agreement are marked, and the ways out work."""

import csv
import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from evofool.attacks.run import AttackPlan, run_baseline
from evofool.errors import DriftError
from evofool.recipe import Recipe, load
from evofool.run.merge import merge
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.targets import target
from evofool.targets.remote.serve import serving
from tests.commands import Call

pytest.importorskip("httpx")


class Served:
    """A LeNet whose labels are rolled after `rolled_from` answered requests."""

    def __init__(self) -> None:
        self.requests, self.rolled_from = 0, 1 << 30
        self.target = target("lenet")
        self.target.wrap(self._wrapped)

    def _wrapped(self, forward: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def answer(images: np.ndarray) -> np.ndarray:
            self.requests += 1
            logits = forward(images)
            return np.roll(logits, 1, axis=1) if self.requests > self.rolled_from else logits

        return answer


@contextmanager
def served() -> Iterator[tuple[Served, str]]:
    box = Served()
    with serving(box.target) as url:
        yield box, url


def recipe(url: str, *changes: str) -> Recipe:
    fixed = ["stop.evaluations=400", "stop.confidence=", "search.batch=8", "compute.recheck=10", f"target={url}"]
    return load("mnist-cppn", [*fixed, *changes])


def test_a_run_stops_and_the_elites_since_the_last_agreement_are_marked(tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "run"
    with served() as (box, url):
        box.rolled_from = 30
        changes = ["compute.recheck=10", "search.batch=8", "stop.evaluations=400", "stop.confidence=", f"target={url}"]
        stopped = call("run", "mnist-cppn", *(f"--set={change}" for change in changes), "--out", str(folder))
        assert (stopped.code, stopped.err.count("\n")) == (2, 1)
        assert "preprocessed by the server" in stopped.out
        assert "scale" not in stopped.out
        assert "after every 10 requests up to 8 known images are asked again" in stopped.out
        assert box.requests <= 30 + 2 * 10
        found = re.search(
            r"The target last agreed at request (\d+); this is request (\d+)\. Of 10 elites, (\d+)", stopped.err
        )
        assert found
        agreed, now, marked = map(int, found.groups())
        assert agreed <= 31 < now
        with StoredRun(folder) as stored:
            (drift,) = stored.meta.drifts
            assert (drift.end, drift.requests) == (stored.meta.committed, now)
            assert agreed - 8 <= drift.begin <= agreed, "a batch is a request"
            elites = stored.elites()
            assert [e.drifted for e in elites] == [e.row.batch >= drift.begin for e in elites]
            assert sum(e.drifted for e in elites) == marked > 0
            name = next(e.label for e in elites if e.drifted)
        assert f"{marked} of 10 elites are marked" in call("show", str(folder)).out
        assert f"~{name}" in call("show", str(folder)).out
        assert "marked " in call("show", str(folder), "--class", name).out
        assert len(json.loads(call("show", str(folder), "--json").out)["drifts"]) == 1
        assert f"{marked} of 10 elites are marked" in call("export", str(folder), str(tmp_path / "e")).out
        with open(tmp_path / "e" / "elites.csv", newline="", encoding="utf-8") as file:
            assert sum(row["drifted"] == "True" for row in csv.DictReader(file)) == marked
        assert "was found to answer differently" in (tmp_path / "e" / "README.md").read_text(encoding="utf-8")
        box.rolled_from = 1 << 30
        verified = call("verify", str(folder), "--trust")
        assert f"{marked} of 10 elites are marked" in verified.out
        assert verified.code == 1, "it scored some of them when it was changed"
        merge([folder], tmp_path / "merged")
        with StoredRun(tmp_path / "merged") as stored:
            assert sum(e.drifted for e in stored.elites()) == marked
        (again,) = re.findall(r"If it answers as before again: (evofool run .* --trust)", stopped.err)
        done = call(*shlex.split(again)[1:])
        assert done.code == 0
        assert "the target last agreed with its first answers at request" in done.out


def test_a_change_between_two_sessions_is_found_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with served() as (box, url):
        with Run.start(recipe(url), folder) as run:
            run.advance(batches=15)
        before = archive(folder)
        box.rolled_from = 0
        for _ in range(2):
            asked = box.requests
            with Run.resume(folder, trust=True) as run, pytest.raises(DriftError, match="known images get other answers"):
                run.advance()
            assert box.requests == asked + 1, "the check alone"
            assert archive(folder) == before
        with StoredRun(folder) as stored:
            assert len(stored.meta.drifts) == 1


def test_a_change_after_the_last_check_is_found_at_the_end(tmp_path: Path) -> None:
    with served() as (box, url):
        box.rolled_from = 20
        with Run.start(recipe(url, "compute.recheck=50"), tmp_path / "run") as run, pytest.raises(DriftError):
            run.advance(batches=50)
        assert box.requests > 50
    with served() as (box, url):
        box.rolled_from = 20
        with Run.start(recipe(url, "compute.recheck=0"), tmp_path / "unchecked") as run:
            assert run.advance() == "stop.evaluations = 400 is reached"


def test_a_baseline_is_checked_too(tmp_path: Path) -> None:
    plan = AttackPlan("random", classes=(), budget=200, chunk=8)
    with served() as (box, url):
        box.rolled_from = 40
        with pytest.raises(DriftError, match="known images get other answers"):
            run_baseline(plan, target(url, tmp_path / "run"), tmp_path / "run")
        assert box.requests <= 40 + 50 + 5


@pytest.mark.parametrize(("cap", "words"), [(15, "continue with"), (2, "start again with")])
def test_the_command_that_a_cap_names_works_as_it_is_printed(cap: int, words: str, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "a run"
    with served() as (_, url):
        changes = ["search.batch=8", "stop.evaluations=160", "stop.confidence=", f"target={url}?max_requests={cap}"]
        stopped = call("run", "mnist-cppn", *(f"--set={change}" for change in changes), "--out", str(folder))
        assert (stopped.code, stopped.err.count("evofool run ")) == (2, 1)
        (again,) = re.findall(rf"{words}:  (evofool run .*?)\)?$", stopped.err.strip())
        done = call(*shlex.split(again)[1:])
        while done.code:  # twice the cap may be reached, too
            assert (done.code, done.err.count("evofool run ")) == (2, 1)
            (again,) = re.findall(r" with:  (evofool run .*?)\)?$", done.err.strip())
            done = call(*shlex.split(again)[1:])
        assert done.code == 0
        assert "Stopped: stop.evaluations = 160 is reached." in done.out


def archive(folder: Path) -> list[tuple[int, int, float]]:
    with Store.open(folder) as store:
        return [(e.cell, e.birth, e.log_odds) for e in store.elites()]
