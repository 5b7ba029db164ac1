"""The status of jobs: what is counted, what other processes read, and what is left after a kill."""

import json
from pathlib import Path

import pytest

from evofool.cluster.job_function import RunningJob
from evofool.errors import StoreError
from evofool.sweep.folder import is_in_use, locked_folder
from evofool.sweep.status import FILE, JobStatus, ListStatus, StatusFile, read_status


def running(done: int, *, begun: int = 0, attempt: int = 0, seconds: float = 2.0) -> RunningJob:
    return RunningJob("node-1", attempt, {"done": begun}, {"done": done}, seconds)


def listed() -> list[JobStatus]:
    return [JobStatus("a", "cells/a", total=100), JobStatus("b", "cells/b", total=100), JobStatus("c", "cells/c")]


def by_name(status: ListStatus) -> dict[str, JobStatus]:
    return {job.name: job for job in status.jobs}


def test_jobs_are_shown_as_they_are(tmp_path: Path) -> None:
    with locked_folder(tmp_path, "sweep"), StatusFile(tmp_path) as status:
        status.begin(listed(), {"c": ""})
        status.update({"a": running(60, begun=20)})
        status.end_job("b", "it broke", None)
        status.write(now=True)
        found = read_status(tmp_path)
        assert found.state == "running"
        a, b, c = found.jobs
        assert (a.state, a.node, a.done, a.rate, a.seconds_left) == ("running", "node-1", 60, 20.0, 2.0)
        assert (b.state, b.reason) == ("failed", "it broke")
        assert c.state == "done"
    found = read_status(tmp_path)
    assert found.state == "done"
    assert by_name(found)["a"].state == "interrupted"


def test_what_is_done_twice_is_counted_within_a_sitting_and_between_two(tmp_path: Path) -> None:
    with locked_folder(tmp_path, "sweep"), StatusFile(tmp_path) as status:
        status.begin(listed(), {})
        status.update({"a": running(50)})
        status.update({})
        status.write(now=True)
        assert by_name(read_status(tmp_path))["a"].state == "waiting", "its worker has died"
        status.update({"a": RunningJob("node-2", 1)})
        status.update({"a": running(45, begun=42, attempt=1)})
        status.update({"a": running(70, begun=42, attempt=1)})
        status.write(now=True)
        found = by_name(read_status(tmp_path))["a"]
        assert (found.repeated, found.restarts, found.done) == (8, 1, 70)
    with locked_folder(tmp_path, "sweep"), StatusFile(tmp_path) as status:
        status.begin(listed(), {})
        status.update({"a": running(66, begun=65)})
        status.update({"a": running(90, begun=65)})
        status.end_job("a", "", None)
    found = by_name(read_status(tmp_path))["a"]
    assert (found.repeated, found.restarts, found.done, found.state) == (13, 1, 100, "done")


def test_after_a_kill_running_jobs_are_interrupted_and_those_that_are_done_are_done(tmp_path: Path) -> None:
    with locked_folder(tmp_path, "sweep"):
        status = StatusFile(tmp_path)
        status.begin(listed(), {})
        status.update({"a": running(50), "b": running(60)})
        status.write(now=True)
        assert read_status(tmp_path).state == "running"
    found = read_status(tmp_path, lambda job: job.name == "b")
    assert found.state == "interrupted"
    assert [job.state for job in found.jobs] == ["interrupted", "done", "waiting"]
    assert found.jobs[0].seconds_left is None


def test_a_folder_is_in_use_while_it_is_locked(tmp_path: Path) -> None:
    assert is_in_use(tmp_path) is False
    with locked_folder(tmp_path, "sweep"):
        assert is_in_use(tmp_path) is True
        busy = pytest.raises(StoreError, match="is in use: another evofool is working on this benchmark")
        with busy, locked_folder(tmp_path, "benchmark"):
            pass
    assert is_in_use(tmp_path) is False


@pytest.mark.parametrize(
    "change",
    [
        {"jobs": [{"name": "a", "state": "asleep"}]},
        {"jobs": [{"name": "a", "done": "many"}]},
        {"jobs": [{"state": "done"}]},
        {"jobs": [7]},
        {"jobs": 7},
        {"time": "noon"},
        {"pid": None},
        {"pid": 10**300},
        {"time": 10**300},
        {"state": "waiting"},
        {"jobs": [{"name": "a", "total": 10**300}]},
    ],
)
def test_a_damaged_status_is_named_and_replaced(tmp_path: Path, change: dict[str, object]) -> None:
    with StatusFile(tmp_path) as status:
        status.begin(listed(), {})
    record = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(record | change))
    with pytest.raises(StoreError, match=r"status\.json is damaged"):
        read_status(tmp_path)
    with StatusFile(tmp_path) as status:
        status.begin(listed(), {})
    assert len(read_status(tmp_path).jobs) == 3
