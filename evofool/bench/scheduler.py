"""Running the jobs of a benchmark, its trainings and cells, in this process or by workers, with progress reports."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from evofool.bench.cell import clear_folder, run_cell
from evofool.bench.cell_job import CellJob
from evofool.bench.entries import train
from evofool.errors import EvofoolError, Interrupted
from evofool.targets import is_black_box

_FUNCTIONS = {"evofool.bench.entries:train": train, "evofool.bench.cell:run_cell": run_cell}
"""What jobs are given to, by the name under which a worker finds it."""


@dataclass(frozen=True)
class BenchProgress:
    """How far a benchmark is.

    message: what it does, where that is not running cells. done: finished jobs, of `total`. running: jobs that are running,
    and running_share how much of them is done, in jobs. done_here: jobs finished in this sitting, in so many seconds.
    """

    message: str = ""
    done: int = 0
    total: int = 0
    running: int = 0
    running_share: float = 0.0
    done_here: int = 0
    seconds: float = 0.0


OnProgress = Callable[[BenchProgress], bool]
"""Called often; returns True once the benchmark should save and end."""


@dataclass(frozen=True)
class Workers:
    """Who runs the jobs: so many processes of the Ray cluster at an address, or with 0 this process, one after the other."""

    number: int = 0
    address: str = "local"


@dataclass(frozen=True)
class JobsOutcome:
    """failures: for every job why it failed, "" if it did not. interrupted: whether on_progress ended the work."""

    failures: tuple[str, ...]
    interrupted: bool


def run_cells(
    jobs: Sequence[CellJob], folder: Path, workers: Workers, on_progress: OnProgress, total: int = 0
) -> JobsOutcome:
    """Run cells, in parallel if there are workers. folder: contains all of theirs. total: the number of all cells.

    Those of black boxes run in this process, one after the other, once the workers are done: their bills and rates are kept
    per process.
    """
    for job in jobs:  # here, since a worker may not see this disk
        clear_folder(job)
    return _run(
        "evofool.bench.cell:run_cell", [job.to_dict() for job in jobs], folder, workers, _Tracker(on_progress, total)
    )


def train_networks(
    jobs: Sequence[Mapping[str, Any]], folder: Path, workers: Workers, on_progress: OnProgress
) -> JobsOutcome:
    """Train networks (entries.training_jobs), in parallel if there are workers. folder: contains all of theirs."""
    return _run("evofool.bench.entries:train", jobs, folder, workers, _Tracker(on_progress, len(jobs), "training networks"))


def reporter(on_progress: OnProgress, prefix: str = "") -> Callable[[str], None]:
    """A function that reports a message, and raises Interrupted where on_progress returns True."""

    def report(message: str) -> None:
        if on_progress(BenchProgress(prefix + message)):
            raise Interrupted

    return report


class _Tracker:
    """Counts the jobs that ended and reports progress. interrupted: whether on_progress has returned True."""

    def __init__(self, on_progress: OnProgress, total: int, message: str = "") -> None:
        self.interrupted = False
        self._on_progress, self._message = on_progress, message
        self._total, self._before, self._done = total, 0, 0
        self._began = time.perf_counter()

    def begin(self, jobs: int) -> None:
        self._total = self._total or jobs
        self._before = self._total - jobs

    def job_ended(self) -> bool:
        self._done += 1
        return self.report(0, 0.0)

    def report(self, running: int, share: float, note: str = "") -> bool:
        seconds = time.perf_counter() - self._began
        done = self._before + self._done
        progress = BenchProgress(self._message or note, done, self._total, running, share, self._done, seconds)
        self.interrupted = self._on_progress(progress) or self.interrupted
        return self.interrupted


def _run(function: str, jobs: Sequence[Mapping[str, Any]], folder: Path, workers: Workers, tracker: _Tracker) -> JobsOutcome:
    failures = ["it was not started"] * len(jobs)
    tracker.begin(len(jobs))
    local = {index: job for index, job in enumerate(jobs) if not workers.number or is_black_box(job.get("target", ""))}
    remote = {index: job for index, job in enumerate(jobs) if index not in local}
    for index, failure in chain(_remote(function, remote, folder, workers, tracker), _local(function, local, tracker)):
        failures[index] = failure
        if tracker.job_ended():
            break
    return JobsOutcome(tuple(failures), tracker.interrupted)


def _local(function: str, jobs: Mapping[int, Mapping[str, Any]], tracker: _Tracker) -> Iterator[tuple[int, str]]:
    """(index, why it failed, or "") of each job that ended, in this process."""
    for index, job in jobs.items():
        if tracker.interrupted:
            return
        try:
            result = _FUNCTIONS[function](job, partial(_report_one, tracker, job))
        except EvofoolError as error:
            yield index, str(error)
        except MemoryError:
            yield index, "out of memory"
        else:
            if result is None:
                return
            yield index, ""


def _remote(
    function: str, jobs: Mapping[int, Mapping[str, Any]], folder: Path, workers: Workers, tracker: _Tracker
) -> Iterator[tuple[int, str]]:
    """As _local, by workers, in the order in which they end."""
    if not jobs:
        return
    from evofool.cluster.job_function import JobFailure
    from evofool.cluster.settings import RayOptions
    from evofool.cluster.tasks import JobsProgress, run_jobs

    indices = list(jobs)

    def on_progress(progress: JobsProgress) -> None:
        share = sum(_share(jobs[indices[number]], running.report or {}) for number, running in progress.running.items())
        tracker.report(len(progress.running), share, progress.note)

    for number, result in run_jobs(
        function,
        list(jobs.values()),
        RayOptions(address=workers.address),
        workers=min(workers.number, len(jobs)),
        shared=folder.absolute(),
        stop=lambda: tracker.interrupted,
        on_progress=on_progress,
    ):
        yield indices[number], result.message if isinstance(result, JobFailure) else ""


def _report_one(tracker: _Tracker, job: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    return tracker.report(1, _share(job, report))


def _share(job: Mapping[str, Any], report: Mapping[str, Any]) -> float:
    """How much of a running job is done, 0 to 1."""
    return min(1.0, report.get("queries", 0) / job["queries"]) if "queries" in job else 0.0
