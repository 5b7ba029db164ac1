"""Jobs on two real Ray workers: a job that fails leaves the others alone; folders that workers do not share come back."""

import importlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import evofool
from evofool.cluster.folder_transfer import (
    is_shared,
    leave_token,
    read_files,
    replace_folder,
    restore_folder,
    write_files,
)
from evofool.cluster.job_function import JobFailure
from evofool.cluster.settings import RayOptions
from evofool.cluster.silence import Silence
from evofool.cluster.task_progress import TaskNews
from evofool.cluster.tasks import JobsProgress, run_jobs
from evofool.errors import StoreError

pytestmark = pytest.mark.slow

HOME = Path(evofool.__file__).parent.parent
JOBS = '''
"""Functions that do jobs; the files that they write show the test what happened."""
import contextlib, os, signal, time
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

def stops_once(job, on_progress):
    """Its process is stopped in the middle, the first time."""
    note = Path(job["note"])
    for at in range(20):
        on_progress({"done": at})
        if at == 3 and job["always"] or not note.exists():
            note.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.02)
    return "done"

def steady(job, on_progress):
    """Counts in its folder until it is asked to end, or has reached its number."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    counted = folder / "count"
    at = int(counted.read_text()) if counted.exists() else 0
    (folder / "run.lock").write_text("")
    while at < job["to"]:
        at += 1
        counted.write_text(str(at))
        if on_progress({"at": at, "folder": str(folder)}): return "ended early"
        time.sleep(0.02)
    (folder / "end").write_text("")
    if job.get("error"): raise TargetError("gone")
    return {"at": at, "folder": str(folder)}

def preempted(job, on_progress):
    """Counts as steady does; it is killed as soon as the driver has seen 3 more, unless it has come to its number."""
    folder, driver = Path(job["folder"]), Path(job["driver"])
    folder.mkdir(parents=True, exist_ok=True)
    counted = folder / "count"
    begun = at = int(counted.read_text()) if counted.exists() else 0
    (folder / f"begun-{begun}").write_text("")
    while at < job["to"]:
        at += 1
        counted.write_text(str(at))
        on_progress({"at": at})
        with contextlib.suppress(FileNotFoundError):  # the driver replaces its folder as a whole, which is away for a moment
            if int(driver.read_text()) >= begun + 3: os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02 if at < job["to"] - 1 else 2)
    return sorted(int(path.name.partition("-")[2]) for path in folder.glob("begun-*"))
'''


@pytest.fixture(scope="module", autouse=True)
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of jobs, in a Ray with two workers that can import it."""
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


def state(pid: int) -> str:
    """Of a process, as /proc has it; "" if there is none."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    return state(pid) not in ("", "Z")


def reported(progress: JobsProgress, index: int) -> Mapping[str, Any]:
    """The last report of a running job; {} if there is none."""
    job = progress.running.get(index)
    return job.last or {} if job else {}


def test_every_job_is_done_once_in_the_drivers_folder_with_its_threads(jobs: Any) -> None:
    made = list(run_jobs(jobs.doubled, [{"number": n} for n in range(7)], RayOptions(), workers=2, threads=3))
    assert sorted(index for index, _ in made) == list(range(7))
    assert all(result == {"twice": 2 * n, "threads": 3, "cwd": os.getcwd()} for n, result in made)


def test_jobs_report_progress_and_end_themselves_when_asked_to(jobs: Any, tmp_path: Path) -> None:
    seen: list[JobsProgress] = []
    each = [{"folder": str(tmp_path / name), "to": to} for name, to in (("a", 100_000), ("b", 3), ("c", 100_000))]

    def both_have_reported() -> bool:
        return bool(seen) and all(reported(seen[-1], index) for index in (0, 2))

    run = run_jobs(
        jobs.steady, each, RayOptions(), workers=2, shared=tmp_path, on_progress=seen.append, stop=both_have_reported
    )
    index, result = next(run)
    assert (index, result) == (1, {"at": 3, "folder": str(tmp_path / "b")}), "the worker shares the driver's disk"
    assert list(run) == []
    last = seen[-1]
    assert (last.total, last.done, last.failed) == (3, 1, 0)
    assert set(last.running) == {0, 2}
    for name, index in (("a", 0), ("c", 2)):
        counted = int((tmp_path / name / "count").read_text())
        assert counted >= reported(last, index)["at"]
        time.sleep(0.1)
        assert int((tmp_path / name / "count").read_text()) == counted, "the job has ended"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_folders_that_workers_do_not_share_are_sent_and_come_back(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.cluster.tasks.leave_token", lambda folder: "another disk's")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "count").write_text("7")
    each: list[dict[str, Any]] = [{"folder": str(tmp_path / "new"), "to": 4}, {"folder": str(begun), "to": 9, "error": True}]
    made = {}
    for index, result in run_jobs(jobs.steady, each, RayOptions(), workers=2, shared=tmp_path):
        made[index] = result
        assert (Path(each[index]["folder"]) / "count").read_text() == str(each[index]["to"]), "it is there before the index"
    assert made[0]["at"] == 4
    assert Path(made[0]["folder"]).name == "new"
    assert not Path(made[0]["folder"]).exists(), "it was a temporary folder"
    assert made[1] == JobFailure("error", "gone", "TargetError"), "but its folder came back"
    assert not (tmp_path / "new" / "run.lock").exists()

    seen: list[JobsProgress] = []
    far = [{"folder": str(tmp_path / "far"), "to": 100_000}]
    run = run_jobs(
        jobs.steady,
        far,
        RayOptions(),
        workers=1,
        shared=tmp_path,
        on_progress=seen.append,
        stop=lambda: bool(seen and reported(seen[-1], 0)),
    )
    assert list(run) == []
    assert int((tmp_path / "far" / "count").read_text()) >= reported(seen[-1], 0)["at"], "progress is not lost"


def test_a_job_whose_worker_dies_goes_on_from_what_it_had_sent(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.cluster.tasks.leave_token", lambda folder: "another disk's")
    job = {"folder": str(tmp_path / "far"), "driver": str(tmp_path / "far" / "count"), "to": 1_000_000}
    seen: list[JobsProgress] = []
    options = RayOptions(retries=2)
    ((_, failure),) = run_jobs(jobs.preempted, [job], options, workers=1, shared=tmp_path, on_progress=seen.append)
    assert failure.kind == "died", failure
    begun = sorted(int(path.name.partition("-")[2]) for path in (tmp_path / "far").glob("begun-*"))
    assert len(begun) == 3
    assert begun[0] == 0
    assert all(later >= earlier + 3 for earlier, later in pairwise(begun)), "each began where the one before was saved"
    last = int((tmp_path / "far" / "count").read_text())
    assert last >= begun[-1] + 3, "what the last one had sent is there too"
    started = {job.attempt: job.first["at"] for progress in seen for job in progress.running.values() if job.first}
    assert [started[attempt] for attempt in sorted(started)] == [b + 1 for b in begun[: len(started)]]


def test_changes_that_follow_lost_ones_are_not_applied(jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for a state of the folder that never came; as when the actor that had them was replaced."""
    monkeypatch.setattr("evofool.cluster.tasks.leave_token", lambda folder: "another disk's")
    fetch, late = TaskNews.fetch, []

    def lossy(news: TaskNews, wait: bool = False) -> Any:
        for row in fetch(news, wait):
            late.append(row[2])
            if row[2] != 1:
                yield row

    monkeypatch.setattr(TaskNews, "fetch", lossy)
    applied: list[Any] = []
    monkeypatch.setattr("evofool.cluster.tasks.apply_changes", lambda changes, folder: applied.append(changes))
    each = [{"folder": str(tmp_path / "far"), "to": 100_000}]
    run = run_jobs(jobs.steady, each, RayOptions(), workers=1, shared=tmp_path, stop=lambda: any(n > 3 for n in late))
    assert list(run) == []
    assert applied == []


def test_changes_that_come_after_the_answer_do_not_replace_the_final_files(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.cluster.tasks.leave_token", lambda folder: "another disk's")
    fetch, held, released = TaskNews.fetch, [], []

    def late(news: TaskNews, wait: bool = False) -> Any:
        held.extend(fetch(news, wait))
        if answered:
            released.extend(held)
            yield from held
            held.clear()

    monkeypatch.setattr(TaskNews, "fetch", late)
    answered: list[int] = []
    each = [{"folder": str(tmp_path / "short"), "to": 100}, {"folder": str(tmp_path / "long"), "to": 100_000}]
    run = run_jobs(
        jobs.steady,
        each,
        RayOptions(),
        workers=2,
        shared=tmp_path,
        stop=lambda: any(index == 0 for index, *_ in released),
    )
    for index, _ in run:
        answered.append(index)
    assert answered == [0]
    assert sorted(path.name for path in (tmp_path / "short").iterdir()) == ["count", "end"]


def test_a_folder_that_cannot_be_read_or_written_fails_its_job_alone(
    jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evofool.cluster.tasks.leave_token", lambda folder: "another disk's")
    (tmp_path / "file").write_text("")
    (tmp_path / "unread").mkdir()
    (tmp_path / "unread" / "count").symlink_to("/proc/self/mem")
    places = ["fine", "unread", "file/under", "also fine"]
    made = dict(
        run_jobs(
            jobs.steady,
            [{"folder": str(tmp_path / name), "to": 2} for name in places],
            RayOptions(),
            workers=2,
            shared=tmp_path,
        )
    )
    assert sorted(made) == [0, 1, 2, 3]
    assert [made[n]["at"] for n in (0, 3)] == [2, 2]
    for index, message in ((1, "unread cannot be read (Input/output error)"), (2, "cannot be written (Not a directory)")):
        assert (made[index].kind, made[index].name) == ("error", "StoreError")
        assert message in made[index].message
    assert list(
        run_jobs(jobs.steady, [{"folder": str(tmp_path / "unread"), "to": 2}], RayOptions(), workers=2, shared=tmp_path)
    ) == [(0, made[1])], "it does not wait for jobs that were never sent"


def test_a_job_that_fails_ends_alone_with_the_reason(tmp_path: Path) -> None:
    kinds = ["fine", "error", "fault", "died", "died once", "ctrl-c", "fine"]
    each = [{"kind": kind, "note": str(tmp_path / kind)} for kind in kinds]
    made = dict(run_jobs("odd_jobs:mixed", each, RayOptions(retries=1), workers=2))
    assert len(made) == 7
    assert [made[n] for n in (0, 4, 5, 6)] == ["fine", "died once", "ctrl-c", "fine"]
    assert made[1] == JobFailure("error", "net.onnx: 3 labels, 4 logits", "TargetError")
    assert (made[2].kind, made[2].name) == ("fault", "KeyError")
    assert made[2].message.startswith("KeyError: 'nothing' (odd_jobs.py, line ")
    assert made[3].kind == "died"
    assert made[3].message.startswith("its worker died 2 times, the last time because its process was killed or crashed")
    assert (tmp_path / "died").read_text() == "xx"


def test_a_job_whose_process_is_stopped_is_repeated_or_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("once", "always")

    def reason(silence: Silence, job: int, now: float) -> str:
        """However slow the machine is, a job hangs if its process is stopped."""
        note = tmp_path / names[job]
        stopped = note.exists() and note.read_text() and state(int(note.read_text())) == "T"
        return "its process gave no sign of life in 300 seconds" if stopped else ""

    monkeypatch.setattr(Silence, "reason", reason)
    seen: list[JobsProgress] = []
    each = [{"note": str(tmp_path / name), "always": name == "always"} for name in names]
    made = dict(run_jobs("odd_jobs:stops_once", each, RayOptions(retries=1), workers=2, on_progress=seen.append))
    assert made[0] == "done"
    assert made[1] == JobFailure(
        "died", "its worker died 2 times, the last time because its process gave no sign of life in 300 seconds"
    )
    assert any(progress.note.startswith("a worker was replaced, since its process gave no sign") for progress in seen)
    # A process that was killed may take a moment to end.
    end = time.monotonic() + 60
    while any(alive(int((tmp_path / name).read_text())) for name in names):
        assert time.monotonic() < end, "the stopped processes were killed"
        time.sleep(0.1)


def test_a_job_that_reports_no_progress_is_killed_at_the_end(jobs: Any, tmp_path: Path) -> None:
    notes = [tmp_path / "0", tmp_path / "1", tmp_path / "2"]
    each = [{"note": str(note)} for note in notes]
    assert (
        list(run_jobs(jobs.endless, each, RayOptions(), workers=2, stop=lambda: notes[0].exists() and notes[1].exists()))
        == []
    )
    for note in notes[:2]:
        while alive(int(note.read_text())):
            time.sleep(0.05)
    assert not notes[2].exists()


# --- folders


def test_a_token_is_found_where_it_was_left_and_nowhere_else(tmp_path: Path) -> None:
    mark = leave_token(tmp_path / "bench")
    assert is_shared(str(tmp_path / "bench"), mark)
    assert not is_shared(str(tmp_path), mark)
    assert not is_shared(str(tmp_path / "bench"), leave_token(tmp_path / "other"))


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    old = tmp_path / "cell"
    replace_folder({"run.db": b"1", "run.db-wal": b"log", "sub/image.png": b"i"}, old)
    assert read_files(old) == {"run.db": b"1", "run.db-wal": b"log", "sub/image.png": b"i"}
    replace_folder({"run.db": b"2"}, old)
    assert read_files(old) == {"run.db": b"2"}, "the log of the earlier database is gone"
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]
    assert read_files(tmp_path / "nowhere") == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        replace_folder({"run.db": b"3"}, tmp_path / "file" / "cell")


@pytest.mark.parametrize("step", ["cell", "cell.draft", "write"])
def test_a_folder_that_cannot_be_replaced_stays_as_it_was(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_folder({"run.db": b"1", "run.db-wal": b"log"}, tmp_path / "cell")
    rename = Path.rename

    def full(path: Path, *args: Any) -> Path:
        if path.name == step or step == "write":
            raise OSError(28, "No space left on device")
        return rename(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes" if step == "write" else "rename", full)
        with pytest.raises(StoreError, match=r"cell: the files that a worker sent cannot be written \(No space left"):
            replace_folder({"run.db": b"2"}, tmp_path / "cell")
    assert read_files(tmp_path / "cell") == {"run.db": b"1", "run.db-wal": b"log"}
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]


def test_a_folder_whose_driver_was_killed_between_the_renames_is_restored(tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    replace_folder({"run.db": b"1"}, cell)
    cell.rename(tmp_path / "cell.before")
    restore_folder(cell)
    assert read_files(cell) == {"run.db": b"1"}
    replace_folder({"run.db": b"old"}, tmp_path / "cell.before")
    restore_folder(cell)
    assert read_files(cell) == {"run.db": b"1"}, "an existing folder is the newer one"
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "sub/../../out",
        "sub/..",
        "..",
        ".",
        "",
        "/etc/out",
        "//host/share/out",
        "sub//out",
        "C:/out",
        "C:out",
        "..\\out",
        "sub\\..\\..\\out",
        "\\\\host\\share\\out",
        "out\0",
        "elsewhere/out",
        "elsewhere",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    cell, outside = tmp_path / "cell", tmp_path / "outside"
    replace_folder({"run.db": b"1"}, cell)
    outside.mkdir()
    (cell / "elsewhere").symlink_to(outside)
    with pytest.raises(StoreError, match="does not lead to a file below it"):
        write_files({"run.db": b"2", name: b"x"}, cell)
    assert (cell / "run.db").read_bytes() == b"1"
    if not name.startswith("elsewhere"):  # the new folder has no link, so this is an ordinary name there
        with pytest.raises(StoreError, match="does not lead to a file below it"):
            replace_folder({"run.db": b"2", name: b"x"}, cell)
        assert (cell / "run.db").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cell", "outside"]
    assert not list(outside.iterdir())


def test_a_link_that_stays_inside_the_folder_may_be_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    write_files({"alias/image.png": b"i", "..odd": b"o"}, tmp_path)
    assert (tmp_path / "real" / "image.png").read_bytes() == b"i"
    assert (tmp_path / "..odd").read_bytes() == b"o"
