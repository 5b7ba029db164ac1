"""Fixtures of several rooms, one torch thread for all tests, and how pytest-xdist distributes them."""

import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from evofool import pytest_plugin
from evofool.cli import app as cli
from evofool.targets import Target, target
from tests.browser import playwright_and_chromium
from tests.commands import Call, Result, Runs

RAY = (
    "tests/cluster/test_cluster.py",
    "tests/cluster/test_tasks.py",
    "tests/cluster/test_wrong_workers.py",
    "tests/cluster/test_bench_on_nodes.py",
    "tests/bench/test_bench.py",
)
"""Files whose tests start Ray. Two at once would compete for cores and ports."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist loadgroup` the tests of a file stay in one process, so that its fixtures are made once."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group("ray" if file in RAY else file))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The number of torch threads affects the last bits of results."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lenet() -> Target:
    """The bundled digit network; its query counter runs through a file's tests."""
    return target("lenet")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright. Where either is not installed, a test is skipped, or fails if REQUIRED says so."""
    api, chromium = playwright_and_chromium()
    with api.sync_playwright() as driver:
        # Chromium refuses its sandbox to root, as whom CI often runs; the pages are our own.
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Calls pytest with the plugin in a test module's own fixture `folder`."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the plugin may also be installed

    def run(*arguments: str) -> tuple[int, str]:
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            code = pytest.main(["-v", "-rs", "-p", "no:cacheprovider", *arguments], plugins=[pytest_plugin])
        return int(code), printed.getvalue()

    return run


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The console command in this process, in an empty folder: call("run", "mnist-cppn")."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["evofool", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        return Result(code, *capsys.readouterr())

    return call
