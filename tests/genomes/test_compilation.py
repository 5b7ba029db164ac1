"""Compiling in another process: stages, failures, and the same bits while numba's kernel is not there."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evofool.search import first_calls
from genomes import CPPN, Key, compilation
from genomes.cppn import render_numba

RENDER = "genomes.cppn.first_calls:render"


ABSENT = object()
"""No kernel, so none on disk."""


@pytest.fixture(autouse=True)
def no_stages() -> Iterator[None]:
    compilation._STAGES.clear()
    yield
    compilation._STAGES.clear()


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of stages: `first` writes a file, `second` waits for the file "go", and then writes one."""
    (tmp_path / "some_stages.py").write_text(
        "import pathlib, time\n"
        "here = pathlib.Path(__file__).parent\n"
        "def first(): (here / 'first').touch()\n"
        "def second():\n"
        "    while not (here / 'go').exists(): time.sleep(0.01)\n"
        "    (here / 'second').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_stages_are_done_one_after_another_and_awaited(stages: Path) -> None:
    assert compilation.begin(["some_stages:first", "some_stages:second"], last=ABSENT)
    compilation.wait("some_stages:first")
    assert (stages / "first").exists()
    assert compilation.is_pending("some_stages:second")
    (stages / "go").touch()
    compilation.wait("some_stages:second")
    assert (stages / "second").exists()


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("import pathlib; pathlib.Path(__file__).with_name('imported').touch()")
    monkeypatch.chdir(tmp_path)
    assert compilation.begin(["time:time"], last=ABSENT)
    compilation.wait("time:time")
    assert not (tmp_path / "imported").exists()


def test_the_stages_of_a_search_compile_what_it_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the other process, with an empty cache; of the stages only those whose kernels are quick to compile."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    stages = first_calls.STAGES[:3]
    assert compilation.begin(stages, last=ABSENT)
    compilation.wait(stages[-1])
    compiled = {path.name.split("-")[0] for path in tmp_path.rglob("*.nbi")}
    assert {"vary._random", "program._compile", "scores._log_odds", "scores._margin"} <= compiled


def test_a_second_process_is_not_started() -> None:
    assert compilation.begin(["time:time"], last=ABSENT)
    assert not compilation.begin(["time:gmtime"], last=ABSENT)
    assert not compilation.is_pending("time:gmtime")


def test_a_stage_that_fails_ends_all_waiting() -> None:
    assert compilation.begin(["time:no_such_function", "time:time"], last=ABSENT)
    compilation.wait("time:time")
    assert not compilation.is_pending("time:no_such_function")


def test_an_interpreter_that_cannot_be_started_ends_all_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert not compilation.begin(["time:time"], last=ABSENT)
    assert not compilation.is_pending("time:time")


def test_nothing_is_started_for_a_kernel_on_disk() -> None:
    encoding = CPPN()
    encoding.render(encoding.random(2, Key(0, 0)))  # compiles it, where that has not been done
    assert compilation.on_disk(render_numba.kernel)
    first_calls.compile_ahead("cppn")
    assert not compilation._STAGES


def test_what_is_awaited_is_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(compilation, "begin", lambda stages, last: started.extend(stages))
    first_calls.compile_ahead("cppn")
    awaited: set[str] = set()
    monkeypatch.setattr(compilation, "wait", awaited.add)
    monkeypatch.setattr(compilation, "is_pending", lambda stage: bool(awaited.add(stage)))
    encoding = CPPN()
    genomes = encoding.random(3, Key(0, 0))
    encoding.render(encoding.vary(genomes, genomes, Key(0, 1)))
    assert awaited
    assert awaited <= set(started)


def test_images_without_the_kernel_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = CPPN(mode="hsv", height=20, width=24)
    genomes = encoding.random(9, Key(3, 0))
    for batch in range(1, 12):
        genomes = encoding.vary(genomes, genomes, Key(3, batch))
    images = encoding.render(genomes)
    compilation._STAGES[RENDER] = threading.Event()
    with monkeypatch.context() as changes:
        changes.setattr(render_numba, "render", lambda *_: pytest.fail("the kernel was called"))
        np.testing.assert_array_equal(encoding.render(genomes), images)
        np.testing.assert_array_equal(encoding.render(genomes, threads=2), images)


def test_a_single_genome_needs_no_kernel_of_its_own_and_has_the_bits_of_a_batch() -> None:
    encoding = CPPN()
    many = encoding.random(5, Key(1, 0))
    one = encoding.random(1, Key(1, 0, 3))
    np.testing.assert_array_equal(one, many[3:4])
    varied = encoding.vary(many, many, Key(1, 1))
    np.testing.assert_array_equal(encoding.vary(one, one, Key(1, 1, 3)), varied[3:4])
    np.testing.assert_array_equal(encoding.render(varied[3:4]), encoding.render(varied)[3:4])
    np.testing.assert_array_equal(one, many[3:4])  # mothers are not changed
