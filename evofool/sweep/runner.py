"""Runs a list of jobs, in this process or by workers, with progress and a status file: the one way to run many runs."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from evofool.cluster.job_function import JobFailure, RunningJob, call_job
from evofool.cluster.settings import RayOptions
from evofool.errors import Interrupted
from evofool.sweep.status import JobStatus, StatusFile
from evofool.sweep.time_left import Running, TimeLeft
from evofool.targets import is_black_box


@dataclass(frozen=True)
class Job:
    """The arguments of a function, in JSON-like values.

    The function takes them and, as on_progress, a function that it calls with {"done": number} often, first before it does
    anything, and that returns True once the job should save and end. It returns None if it was ended like this. name: for
    people. arguments: "folder" is written to; if "target" is the spec of a black box, the job is done in this process.
    total: how many the job has to do of what "done" counts, 0 if that is not known.
    """

    name: str
    arguments: Mapping[str, Any]
    total: int = 0

    @property
    def folder(self) -> Path:
        """What it writes to."""
        return Path(self.arguments["folder"])


@dataclass(frozen=True)
class WorkProgress:
    """How far a list of jobs is.

    message: what is done, where that is not running jobs. done: finished jobs, of `total`. running: jobs that are running.
    seconds_left: an estimate, None while there is none.
    """

    message: str = ""
    done: int = 0
    total: int = 0
    running: int = 0
    seconds_left: float | None = None


OnProgress = Callable[[WorkProgress], bool]
"""Called often; returns True once the work should be saved and ended."""


@dataclass(frozen=True)
class Workers:
    """Who runs the jobs: so many workers of Ray, or with 0 this process, one job after the other."""

    number: int = 0
    ray: RayOptions = field(default_factory=RayOptions)


@dataclass(frozen=True)
class JobsOutcome:
    """failures: for every job why it failed, "" if it did not. interrupted: whether on_progress ended the work."""

    failures: tuple[str, ...]
    interrupted: bool


def run_jobs(
    function: str,
    jobs: Sequence[Job],
    folder: Path,
    workers: Workers,
    on_progress: OnProgress,
    *,
    message: str = "",
    settled: Sequence[tuple[Job, str]] = (),
    status: StatusFile | None = None,
) -> JobsOutcome:
    """Run a function, "package.module:function", for each job, in parallel if there are workers.

    A job that fails leaves the others alone. folder: contains all of theirs. message: names the work in progress reports.
    settled: jobs that are not run, with the reason why they failed earlier, "" for those that are done; they are counted as
    done. Jobs with black boxes run in this process, one after the other, once the workers are done: their bills and rates
    are kept per process.
    """
    tracker = _Tracker(jobs, settled, folder, on_progress, message, status)
    failures = ["it was not started"] * len(jobs)
    local = [index for index, job in enumerate(jobs) if not workers.number or is_black_box(job.arguments.get("target", ""))]
    remote = [index for index in range(len(jobs)) if index not in set(local)]
    for index, result in chain(
        _remote(function, jobs, remote, folder, workers, tracker), _local(function, jobs, local, tracker)
    ):
        failures[index] = result.message if isinstance(result, JobFailure) else ""
        if tracker.job_ended(index, result):
            break
    return JobsOutcome(tuple(failures), tracker.interrupted)


def reporter(on_progress: OnProgress, prefix: str = "") -> Callable[[str], None]:
    """A function that reports a message, and raises Interrupted where on_progress returns True."""

    def report(message: str) -> None:
        if on_progress(WorkProgress(prefix + message)):
            raise Interrupted

    return report


class _Tracker:
    """Counts the jobs that ended and reports progress. interrupted: whether on_progress has returned True."""

    def __init__(
        self,
        jobs: Sequence[Job],
        settled: Sequence[tuple[Job, str]],
        folder: Path,
        on_progress: OnProgress,
        message: str,
        status: StatusFile | None,
    ) -> None:
        self.interrupted = False
        self._jobs, self._on_progress, self._message, self._status = jobs, on_progress, message, status
        self._before, self._done, self._total = len(settled), 0, len(settled) + len(jobs)
        self._time_left, self._running = TimeLeft(), dict[int, RunningJob]()
        if status is not None:
            listed = [*jobs, *(job for job, _ in settled)]
            rows = [JobStatus(job.name, _from(job.folder, folder), total=job.total) for job in listed]
            status.message(message)
            status.begin(sorted(rows, key=lambda row: row.folder), {job.name: failure for job, failure in settled})

    def job_ended(self, index: int, result: Any) -> bool:
        self._done += 1
        self._time_left.ended(index)
        self._running.pop(index, None)
        if self._status is not None:
            failure = result.message if isinstance(result, JobFailure) else ""
            done = result.get("done") if isinstance(result, Mapping) else None
            self._status.end_job(self._jobs[index].name, failure, done)
        return self._report(self._running, "")

    def report(self, running: Mapping[int, RunningJob], note: str = "") -> bool:
        """running: by index."""
        if self._status is not None:
            self._status.update({self._jobs[index].name: job for index, job in running.items()})
        self._running = dict(running)
        return self._report(self._running, note)

    def _report(self, running: Mapping[int, RunningJob], note: str) -> bool:
        done = self._before + self._done
        shares = {
            index: Running(self._share(index, job.last), self._share(index, job.first), job.seconds)
            for index, job in running.items()
        }
        left = self._time_left.seconds(shares, self._total - done - len(running))
        progress = WorkProgress(self._message or note, done, self._total, len(running), left)
        self.interrupted = self._on_progress(progress) or self.interrupted
        return self.interrupted

    def _share(self, index: int, report: Mapping[str, Any] | None) -> float:
        """How much of a running job is done by one of its reports, 0 to 1."""
        total = self._jobs[index].total
        return min(1.0, (report or {}).get("done", 0) / total) if total else 0.0


class _Reporter:
    """Reports the progress of a job in this process."""

    def __init__(self, index: int, tracker: _Tracker) -> None:
        self._index, self._tracker = index, tracker
        self._node = socket.gethostname()
        self._first: Mapping[str, Any] | None = None
        self._began = time.monotonic()

    def __call__(self, report: Mapping[str, Any]) -> bool:
        if self._first is None:
            self._first, self._began = report, time.monotonic()
        running = RunningJob(self._node, 0, self._first, report, time.monotonic() - self._began)
        return self._tracker.report({self._index: running})


def _local(function: str, jobs: Sequence[Job], indices: Sequence[int], tracker: _Tracker) -> Iterator[tuple[int, Any]]:
    """(index, result or JobFailure) of each job that ended, in this process."""
    for index in indices:
        if tracker.interrupted:
            return
        result = call_job(function, jobs[index].arguments, _Reporter(index, tracker))
        if result is None:
            return
        yield index, result


def _remote(
    function: str, jobs: Sequence[Job], indices: Sequence[int], folder: Path, workers: Workers, tracker: _Tracker
) -> Iterator[tuple[int, Any]]:
    """As _local, by workers, in the order in which they end."""
    if not indices:
        return
    from evofool.cluster.tasks import JobsProgress
    from evofool.cluster.tasks import run_jobs as run_tasks

    def on_progress(progress: JobsProgress) -> None:
        tracker.report({indices[number]: job for number, job in progress.running.items()}, progress.note)

    for number, result in run_tasks(
        function,
        [jobs[index].arguments for index in indices],
        workers.ray,
        workers=min(workers.number, len(indices)),
        shared=folder.absolute(),
        stop=lambda: tracker.interrupted,
        on_progress=on_progress,
    ):
        yield indices[number], result


def _from(path: Path, folder: Path) -> str:
    """A path from a folder on; as it is if it is not below it."""
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
