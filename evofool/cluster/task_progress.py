"""Progress of tasks: an actor beside the driver that collects it, and what reports it from within a task."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

POLL = 1.0  # seconds between progress reports and between checks of whether to stop


def progress_actor() -> type:
    """The class of an actor beside the driver.

    It is made in a function so that Ray sends its code: its process then imports neither evofool nor torch.
    """

    class ProgressActor:
        def __init__(self) -> None:
            self._reports: dict[int, Any] = {}
            self._closing = False

        def report(self, index: int, report: Any) -> bool:
            self._reports[index] = report
            return self._closing

        def reports(self) -> dict[int, Any]:
            return self._reports

        def close(self) -> None:
            self._closing = True

    return ProgressActor


class Reporter:
    """Reports a job's progress to the ProgressActor, without waiting for it; returns True once the job should end."""

    def __init__(self, progress_actor: Any, index: int) -> None:
        self._progress_actor, self._index = progress_actor, index
        self._closing, self._next = False, 0.0
        self._answer = progress_actor.report.remote(index, {})

    def __call__(self, report: Mapping[str, Any]) -> bool:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with suppress(RayError):
                self._closing = ray.get(self._answer)
            self._answer = None
        if self._answer is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + POLL
            self._answer = self._progress_actor.report.remote(self._index, dict(report))
        return self._closing
