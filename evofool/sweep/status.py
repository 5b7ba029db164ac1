"""How far each job of a list is, in a small file that other processes read: status.json in the folder of the list.

It is rewritten, whole or not at all, at most once a second and for at most 1% of the time.
"""

import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from evofool.cluster.job_function import RunningJob
from evofool.errors import StoreError
from evofool.json_file import read_json, write_json
from evofool.sweep.folder import is_in_use

FILE, SCHEMA, VERSION = "status.json", "evofool.jobs", 1
LIST_STATES = ("running", "interrupted", "done", "failed")
STATES = ("waiting", *LIST_STATES)
_INTERVAL = 0.9  # seconds between two writes; workers' news come once a second
_IDLE_SHARE = 100  # times as long as the last write took until the next one
_MOST = 1 << 53  # no count, rate or time is higher
_REMEDY = "read it with the evofool that wrote it"


@dataclass
class JobStatus:
    """One job.

    folder: from that of the list. done, total: evaluations, or queries of a benchmark; total 0 if it is not known. node: of
    the worker that has, or had, it. rate: of them per second, 0 if not known. repeated: how many were done twice, because
    a worker or the whole work was killed after its last checkpoint, as of the last report before the kill (a quarter of a
    second, or a second for the whole work). restarts: workers that died with it. reason: why it failed.
    """

    name: str
    folder: str = ""
    state: str = "waiting"
    done: int = 0
    total: int = 0
    node: str = ""
    rate: float = 0.0
    repeated: int = 0
    restarts: int = 0
    reason: str = ""

    @property
    def seconds_left(self) -> float | None:
        """Until all is done, if its rate stays; None if that is not known."""
        if self.state != "running" or not self.total or self.rate <= 0:
            return None
        left = max(0.0, (self.total - self.done) / self.rate)
        return left if math.isfinite(left) else None


@dataclass(frozen=True)
class ListStatus:
    """What status.json says of all jobs. state: running, interrupted, done or failed. message: what is done beside them."""

    state: str
    message: str
    time: float  # Unix time of the last write
    host: str
    pid: int
    jobs: tuple[JobStatus, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values; of each job also seconds_left."""
        jobs = [asdict(job) | {"seconds_left": job.seconds_left} for job in self.jobs]
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "jobs": jobs}


@dataclass
class _Seen:
    """What this process has last seen of a job."""

    attempt: int = -1
    restarts_before: int = 0


class StatusFile:
    """Writes status.json while it is open. What earlier sessions have counted of a job is kept.

    state: how the work has ended, when it is closed: "done", or what was set. An error makes it "failed".
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            self._jobs = {job.name: job for job in read_status(folder).jobs}
        except StoreError:  # there is none yet, or a damaged one, which is replaced
            self._jobs = {}
        self._seen: dict[str, _Seen] = {}
        self._message, self.state = "", "done"
        self._state = "running"
        self._next = 0.0
        self._changed = True
        self.write()

    def message(self, text: str) -> None:
        """What is done beside the jobs."""
        self._changed |= text != self._message
        self._message = text
        self.write()

    def begin(self, jobs: Iterable[JobStatus], settled: Mapping[str, str]) -> None:
        """These are the jobs, in their order. settled: by name, why a job failed earlier, "" for one that is done."""
        earlier, self._jobs, self._seen = self._jobs, {}, {}
        for job in jobs:
            if (before := earlier.get(job.name)) is not None:
                job.done, job.repeated, job.restarts = before.done, before.repeated, before.restarts
                job.node = before.node
            self._jobs[job.name] = job
            self._seen[job.name] = _Seen(restarts_before=job.restarts)
            if job.name in settled:
                self._end(job, settled[job.name], None)
        self._changed = True
        self.write(now=True)

    def update(self, running: Mapping[str, RunningJob]) -> None:
        """These jobs are being done."""
        for name, job in self._jobs.items():
            if name not in running:
                if job.state == "running":  # its worker has died; it waits for another
                    job.state = "waiting"
                continue
            report = running[name]
            job.state, job.node = "running", report.node
            seen = self._seen[name]
            job.restarts = seen.restarts_before + report.attempt
            if report.first is None or report.last is None:
                continue
            begun, now = report.first.get("done", 0), report.last.get("done", 0)
            if seen.attempt != report.attempt:
                seen.attempt = report.attempt
                job.repeated += max(0, job.done - begun)
            job.done = now
            job.rate = (now - begun) / report.seconds if report.seconds > 0 else 0.0
        self._changed = True
        self.write()

    def end_job(self, name: str, failure: str, done: int | None) -> None:
        """A job is done, or failed for this reason. done: how much of it was, None for all."""
        self._end(self._jobs[name], failure, done)
        self._changed = True
        self.write()

    def __enter__(self) -> "StatusFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._state, self._message = "failed" if kind else self.state, ""
        for job in self._jobs.values():
            if job.state == "running":
                job.state = "interrupted"
        self._changed = True
        self.write(now=True)

    def write(self, now: bool = False) -> None:
        """Write the file if something has changed and it is time to, or now."""
        if not self._changed or (time.monotonic() < self._next and not now):
            return
        began = time.thread_time()
        record = ListStatus(
            self._state, self._message, time.time(), socket.gethostname(), os.getpid(), tuple(self._jobs.values())
        )
        # The jobs are what matters; where their disk is full, they say so.
        with suppress(StoreError):
            write_json(self._path, {"schema": SCHEMA, "version": VERSION, **record.as_json()})
            self._changed = False
        self._next = time.monotonic() + max(_INTERVAL, _IDLE_SHARE * (time.thread_time() - began))

    @staticmethod
    def _end(job: JobStatus, failure: str, done: int | None) -> None:
        job.state, job.reason, job.rate = ("failed" if failure else "done"), failure, 0.0
        if not failure:
            job.done = done if done is not None else job.total


def read_status(folder: Path, is_done: Callable[[JobStatus], bool] = lambda job: False) -> ListStatus:
    """How far the jobs in a folder are, also while they run; StoreError if there is no status, or it is damaged.

    is_done: whether a job that is not known to be done is, because the process was killed before it could say so. If no
    process is at work, running jobs are interrupted ones.
    """
    path = folder / FILE
    record = read_json(path, SCHEMA, VERSION, _REMEDY)
    try:
        names = {f.name for f in fields(JobStatus)}
        jobs = [JobStatus(**{k: v for k, v in job.items() if k in names}) for job in record["jobs"]]
        _check(jobs, JobStatus(""), STATES)
        status = ListStatus(jobs=tuple(jobs), **{f.name: record[f.name] for f in fields(ListStatus) if f.name != "jobs"})
        _check([status], ListStatus("", "", 0.0, "", 0, ()), LIST_STATES)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    if status.state == "running" and is_in_use(folder) is False:
        status = ListStatus("interrupted", "", status.time, status.host, status.pid, status.jobs)
    for job in jobs:
        if job.state not in ("done", "failed") and is_done(job):
            job.state, job.rate, job.done = "done", 0.0, job.total or job.done
        elif job.state == "running" and status.state != "running":
            job.state, job.rate = "interrupted", 0.0
    return status


def _check(records: Iterable[JobStatus | ListStatus], usual: JobStatus | ListStatus, states: Iterable[str]) -> None:
    """TypeError or ValueError for values that no job and no list has. usual: a record with values of the right types."""
    for record in records:
        for f in fields(record):
            value, kind = getattr(record, f.name), type(getattr(usual, f.name))
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise TypeError(f"{f.name} is {value!r:.80}")
            if kind in (int, float) and not (0 if kind is int else -_MOST) <= value < _MOST:
                raise ValueError(f"{f.name} is {value!r:.80}")
        if record.state not in states:
            raise ValueError(f"state is {record.state!r:.80}")
