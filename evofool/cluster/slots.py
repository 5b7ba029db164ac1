"""A slot for one worker: its actor, the calls it has, and figures over all actors that the slot has had."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray

from evofool.cluster.agreement import VERSIONS, Contributor, References
from evofool.cluster.jobs import OrderJob, ProbeJob
from evofool.cluster.messages import Sender
from evofool.cluster.work import Job
from evofool.cluster.worker import Reply, WorkerInfo, WorkerSetup

_LONG_CALL = 0.1  # seconds; beside such a call the time between two calls (some ms) is short
_MAX_DELAY = 30.0  # seconds at most before a worker that dies at once is started again
_MAX_WRONG = 2  # processes of a worker that differ from others before it is not used any more


@dataclass
class Call:
    job: Job | None  # None: its answer is not wanted any more
    answer: Any  # ray.ObjectRef of a Reply


@dataclass(eq=False)
class WorkerSlot:
    """One of the workers: an actor that dies is replaced by another one in the same slot."""

    number: int
    actor: Any = None
    placed: bool = False  # whether the actor has got a process
    building: Any = None  # ray.ObjectRef of a WorkerInfo; None once it has arrived
    sender: Sender | None = None
    info: WorkerInfo | None = None  # None until the actor has built its target
    candidate: Contributor | None = None  # its process, once that has built its target
    contributor: Contributor | None = None  # the same; None until it has answered the probes as it should
    calls: deque[Call] = field(default_factory=deque)
    since: float = 0.0  # when its current call began, or its actor was started
    ready_since: float = 0.0
    images: int = 0
    busy: float = 0.0  # seconds within calls, of this actor
    last_seconds: float | None = None  # of its last call; None until this actor has answered one
    starts: int = 0
    failed_starts: int = 0  # in a row
    start_after: float = 0.0
    wrong: int = 0  # processes that differed from others
    earlier_seconds: float = 0.0  # for which earlier actors of the slot were ready
    earlier_busy: float = 0.0

    @property
    def retired(self) -> bool:
        """Whether it is not started any more, because too many of its processes differed from others."""
        return self.wrong >= _MAX_WRONG

    def start(self, make_actor: Callable[[], Any], setup: WorkerSetup) -> None:
        """Start an actor."""
        self.actor = make_actor()
        self.placed = False
        self.building = self.actor.build.remote(setup)
        self.since = time.monotonic()
        self.starts += 1

    def begin(self, candidate: Contributor, sender: Sender) -> None:
        """The actor has built its target."""
        self.candidate, self.info, self.sender = candidate, candidate.info, sender
        self.ready_since = self.since = time.monotonic()

    @property
    def answered(self) -> bool:
        """Whether this actor has answered a call."""
        return self.last_seconds is not None

    @property
    def has_suspect(self) -> bool:
        """Whether a part of an order that has failed is among the calls.

        Such a job is sent alone. Where a worker dies with two calls, its answer to the first one may be lost, and the first
        one would be blamed for what the second one did.
        """
        return any(isinstance(call.job, OrderJob) and call.job.failures for call in self.calls)

    def wanted_calls(self, in_flight: int) -> int:
        """The calls that it is to have at once; in_flight as in RayOptions."""
        if in_flight:
            return in_flight
        return 2 if self.last_seconds is not None and self.last_seconds < _LONG_CALL else 1

    def send(self, job: Job) -> None:
        """Queue a call at the actor."""
        assert self.sender is not None
        if not self.calls:
            self.since = time.monotonic()
        if isinstance(job, OrderJob):
            answer = self.actor.evaluate.remote(self.sender.encode(job.order))
        else:
            work = job.order if isinstance(job, ProbeJob) else job.work
            if isinstance(work, References):
                answer = self.actor.reference_logits.remote(work.births, self.sender.update(work.births, work.genomes))
            else:
                answer = self.actor.check.remote(self.sender.encode_check(work))
        self.calls.append(Call(job, answer))

    def forget(self, sender: Sender) -> None:
        """Discard the calls, and what the actor knows; a new sender is needed. Probes are still wanted."""
        for call in self.calls:
            call.job = call.job if isinstance(call.job, ProbeJob) else None
        if self.sender is not None:
            self.actor.forget.remote()
            self.sender = sender

    def finish(self, reply: Reply) -> None:
        """The oldest call is answered."""
        self.calls.popleft()
        self.since = time.monotonic()
        self.images += reply.images
        self.busy += reply.seconds
        self.last_seconds = reply.seconds
        self.failed_starts = 0

    def stop(self) -> list[Job | None]:
        """Kill the actor; returns the jobs of its calls, oldest first. A failed start, until an actor answers a call."""
        jobs = [call.job for call in self.calls]
        if self.candidate:
            self.candidate.gone = True
        if self.info:
            self.earlier_seconds += time.monotonic() - self.ready_since
            self.earlier_busy += self.busy
        self.busy, self.last_seconds = 0.0, None
        self.kill()
        self.actor = self.building = self.sender = self.info = None
        self.candidate = self.contributor = None
        self.calls.clear()
        self.failed_starts += 1
        # The first one is replaced at once; those that die before they have answered anything wait longer each time.
        delay = min(_MAX_DELAY, 2.0 ** (self.failed_starts - 1)) if self.failed_starts > 1 else 0.0
        self.start_after = time.monotonic() + delay
        return jobs

    def kill(self) -> None:
        if self.actor is not None:
            with suppress(Exception):
                ray.kill(self.actor)

    def figures(self, now: float) -> dict[str, Any]:
        """A row of RayEvaluator.workers."""
        seconds = self.earlier_seconds + (now - self.ready_since if self.info else 0.0)
        busy = self.earlier_busy + self.busy
        return {
            "worker": self.number,
            "state": self._state(),
            "node": self.info.node if self.info else "",
            "pid": self.info.pid if self.info else 0,
            "device": self.info.device if self.info else "",
            **{name: str(self.info.machine.get(name, "")) if self.info else "" for name in VERSIONS},
            "images": self.images,
            "images_per_second": self.images / seconds if seconds else 0.0,
            "busy": min(1.0, busy / seconds) if seconds else 0.0,
            "busy_seconds": busy,
            "in_flight": len(self.calls),
            "restarts": max(0, self.starts - 1),
        }

    def _state(self) -> str:
        if self.contributor:
            return "working"
        return "retired" if self.retired else "differs" if self.wrong else "starting"
