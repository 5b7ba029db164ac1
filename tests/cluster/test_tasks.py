"""Jobs on two real workers of Ray: whatever becomes of one, the others are done; folders unseen by workers come back."""

import importlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evofool
from evofool.cluster.carry import bring, packed, restore, sees, token
from evofool.cluster.farm import Failure, Standing, farm
from evofool.errors import StoreError

pytestmark = pytest.mark.slow

HOME = Path(evofool.__file__).parent.parent
JOBS = '''
"""What is done; names of files tell the test what happened."""
import os, signal, time
from pathlib import Path
from evofool.errors import TargetError

def doubled(job):
    return {"twice": 2 * job["number"], "threads": __import__("torch").get_num_threads(), "cwd": os.getcwd()}

def mixed(job):
    kind = job["kind"]
    if kind == "error": raise TargetError("net.onnx: 3 labels, 4 logits")
    if kind == "fault": return {}["nothing"]
    if kind == "died": Path(job["note"]).open("a").write("x"); os._exit(1)
    if kind == "died once" and not Path(job["note"]).exists(): Path(job["note"]).write_text("x"); os._exit(1)
    if kind == "ctrl-c": os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2)
    return kind

def endless(job):
    Path(job["note"]).write_text(str(os.getpid()))
    time.sleep(600)

def steady(job, say):
    """Counts in its folder until it is told to end, or is at its number."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    counted = folder / "count"
    at = int(counted.read_text()) if counted.exists() else 0
    (folder / "run.lock").write_text("")
    while at < job["to"]:
        at += 1
        counted.write_text(str(at))
        if say({"at": at, "folder": str(folder)}): return "ended early"
        time.sleep(0.02)
    if job.get("error"): raise TargetError("gone")
    return {"at": at, "folder": str(folder)}
'''


@pytest.fixture(scope="module", autouse=True)
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of jobs, in one Ray of two workers that finds it."""
    import ray

    folder = tmp_path_factory.mktemp("jobs")
    (folder / "odd_jobs.py").write_text(JOBS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(HOME), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(str(folder))
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield importlib.import_module("odd_jobs")
        ray.shutdown()
    del sys.modules["odd_jobs"]


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_every_job_is_done_once_where_the_driver_is_with_its_threads(jobs: Any) -> None:
    made = list(farm(jobs.doubled, [{"number": n} for n in range(7)], workers=2, threads=3))
    assert sorted(index for index, _ in made) == list(range(7))
    assert all(result == {"twice": 2 * n, "threads": 3, "cwd": os.getcwd()} for n, result in made)


def test_jobs_say_how_far_they_are_and_end_by_themselves_when_the_generator_is_closed(jobs: Any, tmp_path: Path) -> None:
    seen: list[Standing] = []
    each = [{"folder": str(tmp_path / name), "to": to} for name, to in (("a", 100_000), ("b", 3), ("c", 100_000))]

    def both_said_something() -> bool:
        return bool(seen) and all(seen[-1].under_way.get(index) for index in (0, 2))

    run = farm(jobs.steady, each, workers=2, shared=tmp_path, tick=seen.append, stop=both_said_something)
    index, result = next(run)
    assert (index, result) == (1, {"at": 3, "folder": str(tmp_path / "b")}), "the driver's disk is seen here"
    assert list(run) == []
    last = seen[-1]
    assert (last.total, last.done, last.failed) == (3, 1, 0)
    assert set(last.under_way) == {0, 2}
    for name, index in (("a", 0), ("c", 2)):
        counted = int((tmp_path / name / "count").read_text())
        assert counted >= last.under_way[index]["at"]
        time.sleep(0.1)
        assert int((tmp_path / name / "count").read_text()) == counted, "nobody counts any more"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_folders_that_workers_do_not_see_go_there_and_come_back(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.cluster.farm.token", lambda folder: "another disk's")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "count").write_text("7")
    each: list[dict[str, Any]] = [{"folder": str(tmp_path / "new"), "to": 4}, {"folder": str(begun), "to": 9, "error": True}]
    made = {}
    for index, result in farm(jobs.steady, each, workers=2, shared=tmp_path):
        made[index] = result
        assert (Path(each[index]["folder"]) / "count").read_text() == str(each[index]["to"]), "there before the index"
    assert made[0]["at"] == 4
    assert Path(made[0]["folder"]).name == "new"
    assert not Path(made[0]["folder"]).exists(), "it was a temporary one"
    assert made[1] == Failure("error", "gone", "TargetError"), "and its folder came all the same"
    assert not (tmp_path / "new" / "run.lock").exists()

    seen: list[Standing] = []
    far = [{"folder": str(tmp_path / "far"), "to": 100_000}]
    run = farm(
        jobs.steady, far, workers=1, shared=tmp_path, tick=seen.append, stop=lambda: bool(seen and seen[-1].under_way.get(0))
    )
    assert list(run) == []
    assert int((tmp_path / "far" / "count").read_text()) >= seen[-1].under_way[0]["at"], "what was done is not lost"


def test_a_folder_that_cannot_be_read_or_written_fails_its_job_alone(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.cluster.farm.token", lambda folder: "another disk's")
    (tmp_path / "file").write_text("")
    (tmp_path / "unread").mkdir()
    (tmp_path / "unread" / "count").symlink_to("/proc/self/mem")
    places = ["fine", "unread", "file/under", "also fine"]
    made = dict(
        farm(jobs.steady, [{"folder": str(tmp_path / name), "to": 2} for name in places], workers=2, shared=tmp_path)
    )
    assert sorted(made) == [0, 1, 2, 3]
    assert [made[n]["at"] for n in (0, 3)] == [2, 2]
    for index, words in ((1, "unread cannot be read (Input/output error)"), (2, "cannot be written (Not a directory)")):
        assert (made[index].kind, made[index].name) == ("error", "StoreError")
        assert words in made[index].words
    assert list(farm(jobs.steady, [{"folder": str(tmp_path / "unread"), "to": 2}], workers=2, shared=tmp_path)) == [
        (0, made[1])
    ], "nor does it wait for jobs that were never sent"


def test_a_job_that_fails_ends_itself_alone_and_says_how(tmp_path: Path) -> None:
    kinds = ["fine", "error", "fault", "died", "died once", "ctrl-c", "fine"]
    each = [{"kind": kind, "note": str(tmp_path / kind)} for kind in kinds]
    made = dict(farm("odd_jobs:mixed", each, workers=2, retries=1))
    assert len(made) == 7
    assert [made[n] for n in (0, 4, 5, 6)] == ["fine", "died once", "ctrl-c", "fine"]
    assert made[1] == Failure("error", "net.onnx: 3 labels, 4 logits", "TargetError")
    assert (made[2].kind, made[2].name) == ("fault", "KeyError")
    assert made[2].words.startswith("KeyError: 'nothing' (odd_jobs.py, line ")
    assert made[3].kind == "died"
    assert made[3].words.startswith("its worker died 2 times, at last by ")
    assert (tmp_path / "died").read_text() == "xx"


def test_what_is_told_to_stop_is_killed_if_it_does_not_listen(jobs: Any, tmp_path: Path) -> None:
    notes = [tmp_path / "0", tmp_path / "1", tmp_path / "2"]
    each = [{"note": str(note)} for note in notes]
    assert list(farm(jobs.endless, each, workers=2, stop=lambda: notes[0].exists() and notes[1].exists())) == []
    time.sleep(0.2)
    assert not any(alive(int(note.read_text())) for note in notes[:2])
    assert not notes[2].exists()


# --- folders


def test_a_token_is_seen_where_it_was_left_and_nowhere_else(tmp_path: Path) -> None:
    mark = token(tmp_path / "bench")
    assert sees(str(tmp_path / "bench"), mark)
    assert not sees(str(tmp_path), mark)
    assert not sees(str(tmp_path / "bench"), token(tmp_path / "other"))


def test_a_folder_brought_takes_the_place_of_the_one_there_as_a_whole(tmp_path: Path) -> None:
    old = tmp_path / "cell"
    bring({"run.db": b"1", "run.db-wal": b"log", "sub/image.png": b"i"}, old)
    assert packed(old) == {"run.db": b"1", "run.db-wal": b"log", "sub/image.png": b"i"}
    bring({"run.db": b"2"}, old)
    assert packed(old) == {"run.db": b"2"}, "no log of another database is left beside it"
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]
    assert packed(tmp_path / "nowhere") == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        bring({"run.db": b"3"}, tmp_path / "file" / "cell")


@pytest.mark.parametrize("step", ["cell", "cell.draft", "write"])
def test_a_folder_that_cannot_be_brought_leaves_the_one_there_as_it_was(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring({"run.db": b"1", "run.db-wal": b"log"}, tmp_path / "cell")
    rename = Path.rename

    def full(path: Path, *args: Any) -> Path:
        if path.name == step or step == "write":
            raise OSError(28, "No space left on device")
        return rename(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes" if step == "write" else "rename", full)
        with pytest.raises(StoreError, match=r"cell: what a worker sent of it cannot be written \(No space left"):
            bring({"run.db": b"2"}, tmp_path / "cell")
    assert packed(tmp_path / "cell") == {"run.db": b"1", "run.db-wal": b"log"}
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]


def test_a_folder_whose_driver_was_killed_between_the_renames_is_taken_back(tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    bring({"run.db": b"1"}, cell)
    cell.rename(tmp_path / "cell.before")
    restore(cell)
    assert packed(cell) == {"run.db": b"1"}
    bring({"run.db": b"old"}, tmp_path / "cell.before")
    restore(cell)
    assert packed(cell) == {"run.db": b"1"}, "one that is there is the newer"
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]
