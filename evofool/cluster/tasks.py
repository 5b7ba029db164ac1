"""Jobs as Ray tasks, a limited number at a time: a job that fails leaves the others alone.

A job is a run of its own, of minutes or hours. A job whose worker died or hangs is repeated here, not by Ray, which does not
report how often it repeats. One actor beside the driver collects the jobs' progress and asks them to end (task_progress.py).
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, TaskUnschedulableError

from evofool.cluster.folder_changes import apply_changes
from evofool.cluster.folder_transfer import (
    is_shared,
    leave_token,
    read_files,
    remove_token,
    replace_folder,
    restore_folder,
    write_files,
)
from evofool.cluster.job_function import JobFailure, JobFunction, RunningJob, call_job, failure_of, name_of
from evofool.cluster.room import has_room, shortage_text
from evofool.cluster.session import TRANSFER, ask, check_cluster, connect, disconnect, owns_cluster, ready
from evofool.cluster.settings import RayOptions
from evofool.cluster.silence import Silence
from evofool.cluster.task_progress import POLL, Reporter, TaskNews
from evofool.errors import ClusterError, StoreError
from evofool.machine import torch_threads

_SHORTAGE_NOTE = 20.0  # seconds without any running job after which a note says what the workers need
_REPLACED_NOTE = 30.0  # seconds for which a note says that a worker was replaced
_LATE = 5.0  # seconds without news, after which a silence is not the jobs' own
_GRACE = 20.0  # seconds that jobs which report progress have to end once they are asked to, and others once they are killed


@dataclass(frozen=True)
class JobsProgress:
    """Progress of all jobs. running: by the job's index, those that a worker has begun."""

    total: int
    done: int
    failed: int  # of those that are done
    running: Mapping[int, RunningJob]
    seconds: float
    note: str = ""  # that a worker was replaced, or what is waited for if none has been running for long


def run_jobs(
    function: str | JobFunction,
    jobs: Sequence[Mapping[str, Any]],
    options: RayOptions,
    *,
    workers: int,
    shared: Path | None = None,
    threads: int = 1,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[JobsProgress], Any] = lambda progress: None,
) -> Iterator[tuple[int, Any]]:
    """Run function(job) for every job, at most `workers` at once; yields (index, result or JobFailure) as jobs end.

    function is a function of a module, or its name as "package.module:function". Jobs and results are JSON-like values. If
    the function has a parameter `on_progress`, it is passed a function that takes a mapping, the job's report, and returns
    True once the job should save and end. It may be called often, but only while the job can be continued from its files as
    they are; at most four reports a second are sent.

    shared: a folder that every job's "folder" lies below. A worker that cannot see it works in a temporary folder with
    the contents of the job's folder. What changes there is sent when the job reports, and is in the job's folder before a
    job whose worker died is repeated; what the worker leaves there is in it before its index is yielded, also if the job
    failed.

    Each worker reserves what options says, and runs torch with `threads` threads; a job whose worker dies is repeated
    options.retries times. So is a job that hangs: its process gives no sign of life for options.timeout seconds, or it does
    not begin, or reports no progress, for four times as long. stop and on_progress are called about once a second. When
    stop() is true, or the generator is closed or left by an error, jobs that have reported progress are asked to end and
    have 20 seconds to do so; the others are killed, and their folders are those of interrupted runs. RecipeError if Ray
    cannot be reached, ClusterError if it is lost.
    """
    name = name_of(function)
    connect(options, workers)
    try:
        token = leave_token(shared) if shared else ""
        call = _Call(name, threads, os.getcwd(), str(shared.absolute()) if shared else "", token)
        pool = _TaskPool(jobs, call, options)
        try:
            yield from pool.results(workers, stop, on_progress)
        finally:
            pool.end()
            if shared:
                remove_token(shared)
    finally:
        disconnect()


class _Call(NamedTuple):
    """What all tasks have in common."""

    function: str
    threads: int
    cwd: str
    shared: str  # the driver's folder with the token, "" if there is none
    token: str


class _TaskReply(NamedTuple):
    value: Any  # result or JobFailure
    files: dict[str, bytes] | None  # the new contents of the job's folder, if the worker does not share it


@dataclass
class _TaskPool:
    """The driver's side."""

    jobs: Sequence[Mapping[str, Any]]
    call: _Call
    options: RayOptions
    running: dict[Any, int] = field(default_factory=dict)  # index by ray.ObjectRef of a _TaskReply

    def __post_init__(self) -> None:
        self._news = TaskNews()
        self._task = ray.remote(_task()).options(**self.options.remote_options(), max_retries=0)
        self._attempts = [0] * len(self.jobs)  # workers that a job has had before, by the job's index
        self._deaths = [0] * len(self.jobs)  # of a job's workers, by the job's index
        self._applied: dict[tuple[int, int], int] = {}  # by (index, attempt), the number of the last changes written
        self._answered: set[int] = set()  # jobs whose folders are final
        self._last_running = self._began = time.monotonic()
        self._silence = Silence(self.options.timeout)
        self._looked = time.monotonic()  # for tasks that hang
        self._replaced = ("", 0.0)  # why and when a worker was replaced last
        self._hung: dict[Any, tuple[str, float]] = {}  # why and when a task was killed, by its answer; "" if it only waited

    def results(
        self, workers: int, stop: Callable[[], bool], on_progress: Callable[[JobsProgress], Any]
    ) -> Iterator[tuple[int, Any]]:
        todo = deque(range(len(self.jobs)))
        done = failed = 0
        polled, retries = -POLL, self.options.retries
        while todo or self.running:
            if time.monotonic() - polled >= POLL:
                polled = time.monotonic()
                if stop():
                    return
                on_progress(self._progress(done, failed))
            while todo and len(self.running) < workers:
                index = todo.popleft()
                if (failure := self._send(index)) is not None:
                    done, failed = done + 1, failed + 1
                    yield index, failure
            if not self.running:
                continue
            answers = ready(list(self.running), POLL, 1) and ready(list(self.running), 0, len(self.running))
            for answer in [*answers, *(self._stuck() - set(answers))]:
                index = self.running.pop(answer)
                hung = self._hung.pop(answer, None)
                try:
                    value = self._take(index, answer, wait=hung is None)
                except RayError as error:
                    self._fetch(wait=True)  # what the worker had reported, and sent of its folder
                    on_progress(self._snapshot(done, failed, lost=index))
                    self._attempts[index] += 1
                    reason = _reason(error) if hung is None else hung[0]
                    self._deaths[index] += bool(reason)
                    self._replaced = reason, time.monotonic()
                    if self._deaths[index] <= retries:
                        todo.append(index)  # after the others: it may need more than its worker had
                        continue
                    times = f"{retries + 1} times" if retries else "once"
                    value = JobFailure("died", f"its worker died {times}, the last time because {reason}")
                done, failed = done + 1, failed + isinstance(value, JobFailure)
                yield index, value

    def end(self) -> None:
        """End all running jobs: those that report progress get time to do so, and their folders come back."""
        try:
            self._fetch()
            self._news.ask_to_end()
            reporting = [answer for answer, index in self.running.items() if self._has_reported(index)]
            self._kill(set(self.running) - set(reporting))
            if reporting:
                for answer in ready(reporting, _GRACE, len(reporting)):
                    with suppress(RayError):
                        self._take(self.running.pop(answer), answer)
        finally:
            # If the cluster is lost, its processes have ended or will; the error that says so is on its way.
            with suppress(ClusterError):
                killed = bool(self.running)
                self._kill(set(self.running))
                if killed:
                    self._fetch(wait=True)
                self._news.close()

    # -- inside

    def _send(self, index: int) -> JobFailure | None:
        """Start a job's task; a JobFailure if its folder cannot be read."""
        job, files = dict(self.jobs[index]), []
        if self.call.shared:
            folder = Path(job["folder"]).absolute()
            job["folder"] = str(folder)
            try:
                restore_folder(folder)
                # In a list, so that only a worker that needs the files fetches them.
                content = read_files(folder)
                files = [ask(lambda: ray.put(content), TRANSFER)] if content else []
            except StoreError as error:
                return failure_of(error)
        sent = tuple(self.call), index, self._attempts[index], job, files, self._news.actor
        self.running[ask(lambda: self._task.remote(*sent))] = index
        self._silence.begin(index, time.monotonic())
        return None

    def _kill(self, answers: set[Any]) -> None:
        for answer in answers:
            del self.running[answer]
            self._cancel(answer)
        if answers:
            # Their processes have to be gone before anything else opens their folders.
            ready(list(answers), _GRACE, len(answers))

    @staticmethod
    def _cancel(answer: Any) -> None:
        """Kill a task's process; Ray takes 5 s for one that is stopped."""
        with suppress(RayError):
            ask(lambda: ray.cancel(answer, force=True))

    def _stuck(self) -> set[Any]:
        """The answers of tasks that were killed, and whose nodes have not confirmed it."""
        now = time.monotonic()
        return {answer for answer, (_, when) in self._hung.items() if now - when > _GRACE}

    def _take(self, index: int, answer: Any, wait: bool = True) -> Any:
        """The result of a task, once its files are in the job's folder; RayError if the worker died, or did not wait."""
        try:
            reply: _TaskReply = ask(lambda: ray.get(answer, timeout=None if wait else 0), TRANSFER)
            self._answered.add(index)
        except RayTaskError as error:  # not raised by the job, whose errors are in its reply
            hint = "; install on every node what is installed here" if "No module named" in str(error.cause) else ""
            return JobFailure(
                "fault",
                f"its worker cannot start, or cannot send its result: {error.cause}{hint}",
                type(error.cause).__name__,
            )
        if reply.files is not None:
            try:
                replace_folder(reply.files, Path(self.jobs[index]["folder"]).absolute())
            except StoreError as error:
                return failure_of(error)
        return reply.value

    def _progress(self, done: int, failed: int) -> JobsProgress:
        check_cluster()
        self._fetch()
        self._kill_hung()
        now = time.monotonic()
        text, when = self._replaced
        note = f"a worker was replaced, since {text}" if text and now - when < _REPLACED_NOTE else ""
        if not self.running or any(self._begun(index) for index in self.running.values()):
            self._last_running = now
        elif now - self._last_running > _SHORTAGE_NOTE:
            if ask(lambda: has_room(self.options, owns_cluster())):
                note = f"no worker has begun yet, although Ray has room; each may take {4 * self.options.timeout:g} seconds"
            else:
                note = f"no worker is running: {ask(lambda: shortage_text(self.options))}; waiting for resources"
        return self._snapshot(done, failed, note)

    def _snapshot(self, done: int, failed: int, note: str = "", lost: int | None = None) -> JobsProgress:
        """As of the last news. lost: the index of a job whose worker has died, which is shown as it was then."""
        indices = [*self.running.values(), *([] if lost is None else [lost])]
        running = {index: job for index in indices if (job := self._begun(index))}
        return JobsProgress(len(self.jobs), done, failed, running, time.monotonic() - self._began, note)

    def _begun(self, index: int) -> RunningJob | None:
        """A job as its present worker reports it; None until that worker has begun."""
        job = self._news.running.get(index)
        return job if job and job.attempt == self._attempts[index] else None

    def _has_reported(self, index: int) -> bool:
        job = self._begun(index)
        return bool(job and job.last)

    def _fetch(self, wait: bool = False) -> None:
        """Fetch the latest reports, and write what has changed in folders that workers do not share."""
        for index, attempt, number, changes in self._news.fetch(wait):
            # Those of a worker that is taken to be dead, or has answered meanwhile, are for another state of the folder.
            if index in self._answered or attempt != self._attempts[index]:
                continue
            # After some that were lost, or could not be written, the next ones do not fit; all files come at the end.
            if number != self._applied.get((index, attempt), 0) + 1:
                continue
            with suppress(StoreError):
                apply_changes(changes, Path(self.jobs[index]["folder"]).absolute())
                self._applied[index, attempt] = number

    def _kill_hung(self) -> None:
        """Kill the tasks that are silent for too long."""
        now = time.monotonic()
        current = {index: self._news.counts.get((index, self._attempts[index]), (0, 0)) for index in self.running.values()}
        for index, counts in current.items():
            self._silence.update(index, counts, now)
        # Also if this process was stopped for a while: what has come of the tasks' signs by now is old.
        if max(now - self._news.answered, now - self._looked) > _LATE:
            self._silence.restart(current, now)
        self._looked = now
        for answer, index in self.running.items():
            if answer in self._hung or not (reason := self._silence.reason(index, now)):
                continue
            # One that has no process yet loses nothing by being sent again; where there is room, its process hangs.
            waits = not self._silence.begun(index) and not ask(lambda: has_room(self.options, owns_cluster()))
            self._hung[answer] = "" if waits else reason, now
            self._cancel(answer)


def _reason(error: RayError) -> str:
    """Why a worker died, without Ray's own words, which are many."""
    if isinstance(error, OutOfMemoryError):
        return "the memory of its node ran out"
    if isinstance(error, NodeDiedError):
        return "its node was lost"
    if isinstance(error, TaskUnschedulableError):
        return "no node can run it"
    return f"its process was killed or crashed ({type(error).__name__})"


def _task() -> Callable[..., _TaskReply]:
    """The task. It is made in a function so that Ray sends its code, and it gives a sign of life before its imports."""

    def run_job(call: tuple[Any, ...], index: int, attempt: int, *rest: Any) -> Any:
        rest[-1].beat.remote(index, attempt)
        from evofool.cluster.tasks import _Call, _run_job

        return _run_job(_Call(*call), index, attempt, *rest)

    return run_job


def _run_job(
    call: _Call, index: int, attempt: int, job: dict[str, Any], files: list[Any], progress_actor: Any
) -> _TaskReply:
    """The job, in its own folder or, if the driver's disk is not shared, in a temporary copy of it."""
    reporter = Reporter(progress_actor, index, attempt)
    try:
        return _run_reported(call, job, files, reporter)
    finally:
        reporter.end()


def _run_reported(call: _Call, job: dict[str, Any], files: list[Any], reporter: Reporter) -> _TaskReply:
    # Relative paths and the modules of python: targets are looked up there. Another machine may lack the folder.
    with suppress(OSError):
        os.chdir(call.cwd)
    with torch_threads(call.threads):
        if not call.shared or is_shared(call.shared, call.token):
            return _TaskReply(call_job(call.function, job, reporter), None)
        with tempfile.TemporaryDirectory(prefix="evofool-") as temporary:
            folder = Path(temporary) / Path(job["folder"]).name
            if files:
                write_files(ray.get(files[0]), folder)
            reporter.watch(folder)
            value = call_job(call.function, job | {"folder": str(folder)}, reporter)
            return _TaskReply(value, read_files(folder) if folder.exists() else None)
