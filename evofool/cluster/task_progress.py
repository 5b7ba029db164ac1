"""Progress of tasks, and the files of those that do not share the driver's disk: from within a task to the driver.

Both go by way of an actor beside the driver, which also passes on the request to end.
"""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evofool.cluster.folder_changes import Changes, FolderWatcher
from evofool.cluster.job_function import RunningJob
from evofool.cluster.session import TRANSFER, ask, ready, result
from evofool.errors import StoreError

POLL = 1.0  # seconds between checks of the news and of whether to stop
_REPORT = 0.25  # seconds between reports of a job; the last one before a kill tells what is done twice
_FETCH = 5.0  # seconds that the actor has to hand over everything
_SILENT = 30.0  # seconds without an answer of the actor, after which it is replaced
_BEAT = 2.0  # seconds between signs of life of a job's process
_IDLE_SHARE = 20  # the next changes of a folder are looked for after this many times as long as the last ones took


class TaskNews:
    """The driver's side.

    running: by the job's index, those that a worker has begun, as of the last fetch. counts: by (index, attempt), how many
    reports and signs of life have come. answered: when the actor has last answered.
    """

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1}
        self.actor: Any = ask(lambda: ray.remote(_progress_actor()).options(**options).remote())
        self._answer: Any = None  # ray.ObjectRef of what the actor has
        self.answered = time.monotonic()
        self.running: dict[int, RunningJob] = {}
        self.counts: dict[tuple[int, int], tuple[int, int]] = {}

    def fetch(self, wait: bool = False) -> Iterator[tuple[int, int, int, Changes]]:
        """Update `running`; yields (index, attempt, number, changes in the job's folder), in the order of their numbers.

        Numbers begin with 1 in each attempt; one that is missing was lost with an actor that had to be replaced.
        What has arrived here; with wait also what has arrived at the actor.
        """
        for _ in range(2 if wait else 1):
            arrived = self._answer is not None and ready([self._answer], _FETCH if wait else 0)
            answer, self._answer = (self._answer, None) if arrived else (None, self._answer)
            if self._answer is None:
                self._answer = ask(self.actor.take.remote)
            if answer is not None:
                with suppress(RayError):
                    reports, changes, self.counts = result(answer, TRANSFER)
                    self.answered = time.monotonic()
                    self.running = {index: RunningJob(*report) for index, report in reports.items()}
                    yield from changes
        if time.monotonic() - self.answered > _SILENT:
            ask(lambda: ray.kill(self.actor, no_restart=False))
            self._answer, self.answered = None, time.monotonic()

    def ask_to_end(self) -> None:
        """From now on every report is answered with the request to end."""
        ask(self.actor.close.remote)

    def close(self) -> None:
        """Kill the actor."""
        ask(lambda: ray.kill(self.actor))


def _progress_actor() -> type:
    """The class of an actor beside the driver.

    It is made in a function so that Ray sends its code: its process then imports neither evofool nor torch.
    """

    class ProgressActor:
        def __init__(self) -> None:
            self._reports: dict[int, tuple[Any, ...]] = {}
            self._changes: list[tuple[int, int, int, Any]] = []
            self._counts: dict[tuple[int, int], tuple[int, int]] = {}
            self._closing = False

        def beat(self, index: int, attempt: int, reports: int = 0) -> None:
            """A sign of life of a job's process; also called for each report."""
            before = self._counts.get((index, attempt), (0, 0))
            self._counts[index, attempt] = before[0] + reports, before[1] + 1

        def report(self, index: int, report: tuple[Any, ...]) -> bool:
            self.beat(index, report[1], 1)
            self._reports[index] = report
            return self._closing

        def keep(self, index: int, attempt: int, number: int, changes: Any) -> None:
            self._changes.append((index, attempt, number, changes))

        def take(self) -> tuple[Any, ...]:
            changes, self._changes = self._changes, []
            return self._reports, changes, self._counts

        def close(self) -> None:
            self._closing = True

    return ProgressActor


class Reporter:
    """Reports a job's progress to the ProgressActor, without waiting for it; returns True once the job should end.

    If `watch` was called, changes in the job's folder are sent along, without waiting for them either.
    """

    def __init__(self, actor: Any, index: int, attempt: int) -> None:
        self._actor, self._index, self._attempt = actor, index, attempt
        self._node = socket.gethostname()
        self._first: dict[str, Any] | None = None
        self._began = 0.0
        self._closing, self._next = False, 0.0
        self._watcher: FolderWatcher | None = None
        self._sent = 0  # changes
        self._keeping: Any = None  # ray.ObjectRef, ready once the actor has the last changes
        self._next_look = 0.0
        self._answer = self._send(None)
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="evofool-beat", daemon=True).start()

    def end(self) -> None:
        """The job is done."""
        self._ended.set()

    def watch(self, folder: Path) -> None:
        """From now on changes in the folder, which the driver has as it is now, are sent at every report."""
        self._watcher = FolderWatcher(folder)
        self._watcher.changes()

    def __call__(self, report: Mapping[str, Any]) -> bool:
        if self._first is None:
            self._first, self._began = dict(report), time.monotonic()
        self._send_changes()
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with suppress(RayError):
                self._closing = ray.get(self._answer)
            self._answer = None
        if self._answer is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _REPORT
            self._answer = self._send(dict(report))
        return self._closing

    def _send(self, report: dict[str, Any] | None) -> Any:
        seconds = 0.0 if self._first is None else time.monotonic() - self._began
        return self._actor.report.remote(self._index, (self._node, self._attempt, self._first, report, seconds))

    def _send_changes(self) -> None:
        """Send what has changed since the last time, if that has arrived; it takes at most 5% of the job's time."""
        if self._watcher is None or time.monotonic() < self._next_look:
            return
        if self._keeping is not None and not ray.wait([self._keeping], timeout=0)[0]:
            return
        began = time.thread_time()
        with suppress(StoreError):  # of a file that cannot be read, the job itself will tell
            if changes := self._watcher.changes():
                self._sent += 1
                self._keeping = self._actor.keep.remote(self._index, self._attempt, self._sent, changes)
        self._next_look = time.monotonic() + _IDLE_SHARE * (time.thread_time() - began)

    def _beat(self) -> None:
        """Signs of life, also while the job does not report. The last one has to arrive before the next one is sent."""
        answer: Any = None
        while not self._ended.wait(_BEAT):
            with suppress(RayError):
                if answer is None or ray.wait([answer], timeout=0)[0]:
                    answer = self._actor.beat.remote(self._index, self._attempt)
