"""Whole runs against a black box that fails, delays, drops connections, and has a cap on what may be sent."""

import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.cli import app as cli
from evofool.errors import BudgetError, TargetError
from evofool.recipe import Recipe, load
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.targets import target
from evofool.targets.remote.serve import serving

pytestmark = pytest.mark.slow

pytest.importorskip("httpx")


class Flaky(ThreadingHTTPServer):
    """Stands before a server and passes on what it is asked, but for what its schedule spoils."""

    def __init__(self, behind: str, spoil: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.spoil, self.broken = behind, spoil, False
        self.hold_from, self.let_go = 1 << 30, threading.Event()
        self.received, self.lock = 0, threading.Lock()

    def handle_error(self, *_: Any) -> None:
        """Clients that gave up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Flaky

    def do_GET(self) -> None:
        self.pass_on(None)

    def do_POST(self) -> None:
        self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def pass_on(self, body: bytes | None) -> None:
        with self.server.lock:
            number, self.server.received = self.server.received, self.server.received + 1
        fate = np.random.default_rng(number).random() if self.server.spoil else 1.0
        if fate < 0.12 or self.server.broken:
            self.send_error(500 if fate < 0.06 else 503)
            return
        if number >= self.server.hold_from:
            self.server.let_go.wait(60)
        request = urllib.request.Request(self.server.behind, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            content = answer.read()
        if fate < 0.15:
            time.sleep(0.6)  # beyond the time-out
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        # The server has worked for nothing where the connection breaks.
        self.wfile.write(content[: len(content) // 2] if fate < 0.2 else content)
        self.close_connection = fate < 0.2

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def black_box(spoil: bool = False) -> Iterator[Flaky]:
    with serving(target("lenet")) as url, Flaky(url, spoil) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def spec(server: Flaky, **options: Any) -> str:
    given = {"timeout": 0.4, "retries": 9, "parallel": 2, **options}
    return f"http://127.0.0.1:{server.server_address[1]}/?" + "&".join(f"{k}={v}" for k, v in given.items())


def recipe(name: str, evaluations: int = 240) -> Recipe:
    return load(
        "mnist-cppn",
        [f"stop.evaluations={evaluations}", "stop.confidence=", "search.batch=24", "compute.chunk=8", f"target={name}"],
    )


def new_answers(run: Run) -> int:
    """A run's answers, without those to known images that were asked again."""
    assert run.target.monitor is not None
    return run.answers - sum(check.images for check in run.target.monitor.ledger.checks())


def archive(folder: Path) -> list[Any]:
    with Store.open(folder) as store:
        return [(e.cell, e.birth, e.png, e.log_odds) for e in store.elites()]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, with a twentieth of the wait between them."""
    monkeypatch.setattr("evofool.targets.remote.client._FIRST_WAIT", 0.025)


@pytest.fixture(scope="module")
def without_faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], int]:
    folder = tmp_path_factory.mktemp("sound") / "run"
    with black_box() as server, Run.start(recipe(spec(server)), folder) as run:
        run.advance()
        return archive(folder), new_answers(run)


def test_faults_change_neither_the_archive_nor_the_count_of_answers(
    tmp_path: Path, without_faults: tuple[list[Any], int]
) -> None:
    with black_box(spoil=True) as server:
        with Run.start(recipe(spec(server)), tmp_path / "run") as run:
            run.advance()
            p, answers = run.progress(), new_answers(run)
        assert archive(tmp_path / "run") == without_faults[0]
        assert answers == without_faults[1], "an answer that was lost on the way is none"
        assert p.requests >= server.received - 2
        assert server.received > 1.1 * 240 / 8
        with StoredRun(tmp_path / "run") as stored:
            with pytest.raises(TargetError, match="--trust"):
                verify(stored)
            assert not verify(stored, trust=True).faults
    local = [row[:3] for row in archive_of_lenet(tmp_path / "local")]
    assert [row[:3] for row in without_faults[0]] == local


def archive_of_lenet(folder: Path) -> list[Any]:
    with Run.start(recipe("lenet"), folder) as run:
        run.advance()
    return archive(folder)


def test_the_cap_holds_over_all_sittings_and_a_higher_one_goes_on_to_the_same_end(
    tmp_path: Path, without_faults: tuple[list[Any], int]
) -> None:
    folder = tmp_path / "run"
    with black_box(spoil=True) as server:
        with Run.start(recipe(spec(server, max_requests=17)), folder) as run, pytest.raises(BudgetError, match="17"):
            run.advance()
        assert server.received == 17
        for _ in range(2):
            with Run.resume(folder, trust=True) as run, pytest.raises(BudgetError, match="17"):
                run.advance()
        assert server.received == 17, "not even to ask what it is"
        with Run.resume(folder, recipe(spec(server, max_requests=500))) as run:
            assert run.advance() == "stop.evaluations = 240 is reached"
            assert run.progress().requests >= server.received - 2
            assert new_answers(run) == without_faults[1], "what was answered before the cap is not asked again"
    assert archive(folder) == without_faults[0]


def test_a_run_that_is_killed_pays_for_nothing_twice(tmp_path: Path, without_faults: tuple[list[Any], int]) -> None:
    folder = tmp_path / "run"
    with black_box() as server:
        changes = [f"--set={c}" for c in ("stop.evaluations=240", "stop.confidence=", "search.batch=24", "compute.chunk=8")]
        asked = spec(server, timeout=60)
        server.hold_from = 20
        command = [
            sys.executable,
            "-m",
            "evofool",
            "run",
            "mnist-cppn",
            *changes,
            f"--set=target={asked}",
            "--out",
            str(folder),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while server.received < 21 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        server.let_go.set()
        assert 21 <= server.received <= 22, "with what was under way at the kill"
        with Run.resume(folder, recipe(spec(server))) as run:
            run.advance()
            assert new_answers(run) <= without_faults[1] + 2 * 8, "at most what was under way at the kill"
    assert archive(folder) == without_faults[0]


def test_a_server_that_goes_away_ends_a_run_with_one_sentence_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with black_box() as server:
        with Run.start(recipe(spec(server, retries=1)), folder) as run:
            run.advance(batches=3)
        name = spec(server, retries=1)
    monkeypatch.setattr(sys, "argv", ["evofool", "run", str(folder), "--trust"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main()
    error = capsys.readouterr().err
    assert (end.value.code, error.count("\n")) == (2, 1)
    assert name.split("?")[0] in error
    assert error.count("evofool run ") == 1
    assert f"continue with:  evofool run {folder} --trust" in error
    with black_box() as server, Run.resume(folder, recipe(spec(server))) as run:
        assert run.advance() == "stop.evaluations = 240 is reached"


def test_attempts_to_start_that_fail_and_verify_are_on_the_bill_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with black_box() as server:
        server.broken = True
        for _ in range(2):
            with pytest.raises(TargetError, match="no answer after 1 request"):
                Run.start(recipe(spec(server, retries=0)), folder)
        assert server.received == 2
        server.broken = False
        with Run.start(recipe(spec(server, max_requests=30), 96), folder) as run:
            run.advance()
            assert run.progress().requests == server.received > 2 + 96 / 8
            answers = run.answers
        with StoredRun(folder) as stored:
            before = server.received
            assert not verify(stored, trust=True).faults
            assert server.received > before + 1, "the elites were asked for again"
            server_total = server.received
        with Run.resume(folder, trust=True) as run:
            assert run.progress().requests == server_total + 1
            assert run.answers == answers

        def for_ever() -> None:
            while True:
                with StoredRun(folder) as stored:
                    verify(stored, trust=True)

        with pytest.raises(BudgetError, match="the limit of 30"):
            for_ever()
        assert server.received == 30


def test_a_budget_of_answers_counts_what_the_server_answered_and_nothing_twice(tmp_path: Path) -> None:
    with black_box() as server:
        what = recipe(spec(server)).changed(["stop.answers=100", "stop.evaluations="], "test")
        with Run.start(what, tmp_path / "run") as run:
            reason = run.advance()
            answers, evaluations = run.answers, run.strategy.evaluations
        assert reason == f"stop.answers = 100 is reached ({answers - 8:,} answers)", "the last check comes after it"
        assert 100 <= answers - 8 < 100 + 24, "of the batch that reaches it, all are answered"
        assert evaluations + 4 >= new_answers(run), "beside the children only the first look was paid for"
        with StoredRun(tmp_path / "run") as stored:
            last = stored.rows()[-1]
        assert (last["answers"] + 8, last["requests"] + 1) == (answers, run.target.requests), "but for the last check"
