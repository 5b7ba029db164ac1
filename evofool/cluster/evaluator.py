"""Orders evaluated by Ray actors on this machine or others.

Each actor builds its target once. evofool/cluster/messages.py defines what is sent to an actor; evofool/cluster/jobs.py
keeps what has to be repeated when an actor dies. Dead actors are replaced here, not by Ray, because a new actor has to be
sent what its predecessor had received. By measurement, two calls are queued at each actor, so that it never waits.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from evofool.cluster.gauges import Gauges
from evofool.cluster.jobs import JobQueue, OrderJob
from evofool.cluster.membership import connect, in_words, knock, leave, reserved
from evofool.cluster.messages import Lineage, Sender, WinnersMessage, decode_winners
from evofool.cluster.worker import OUT_OF_MEMORY, Hello, Reply, Worker, steps
from evofool.errors import EvofoolError, TargetError
from evofool.machine import machine
from evofool.search.archive import Winners
from evofool.search.evaluate import BatchEvaluator, Order
from genomes import Genomes

_GLANCE = 0.2  # seconds between looks at timeouts and at who asks us to stop
_PATIENCE = 20.0  # seconds without any worker after which it is said what is waited for
_GONE = 2.0  # seconds without any worker after which it is asked whether there still is a cluster
_BACK_OFF = 30.0  # seconds at most before a worker that dies at once is started again
_FIRST_CALL = 4  # times as long as others may a worker's first call take
_HOPELESS = 3  # starts of a worker that fail, with nobody at work, end the search


@dataclass(eq=False)
class _Plain:
    """Genomes to be measured."""

    births: tuple[int, ...]
    genomes: dict[int, Genomes]
    failures: int = 0
    logits: np.ndarray | None = None


@dataclass
class _Call:
    job: OrderJob | _Plain
    answer: Any  # ray.ObjectRef


@dataclass(eq=False)
class _Seat:
    """A worker's place: whoever sits there is replaced when it dies."""

    number: int
    actor: Any = None
    placed: Any = None  # ray.ObjectRef that is there once the actor has room, until it has been seen
    greeting: Any = None  # ray.ObjectRef of a Hello, until it is here
    sender: Sender | None = None
    hello: Hello | None = None
    calls: deque[_Call] = field(default_factory=deque)
    since: float = 0.0  # when what it does now began, or when it was asked for
    ready: float = 0.0
    images: int = 0
    proven: bool = False  # this actor has answered a call
    busy: float = 0.0  # seconds within calls, of this actor
    starts: int = 0
    futile: int = 0  # starts in a row that came to nothing
    not_before: float = 0.0
    worked: float = 0.0  # seconds that earlier actors of this seat lived, ready, and how much of it they were busy
    worked_busy: float = 0.0


class RayEvaluator:
    """Where orders go: to as many actors as asked for, or as there is room for; see recipe.RayPart for the rest.

    In order, results come in the order of submission and any number of workers gives the same bits; else as they are
    complete, and each worker has always something to do. Workers may join and leave: one without a place is waited for.
    """

    def __init__(
        self,
        batch_evaluator: BatchEvaluator,
        *,
        workers: int,
        seed: int,
        batch: int,
        torch_threads: int,
        in_order: bool,
        lag: int,
        address: str,
        cpus: float,
        gpus: float,
        memory: float,
        resources: dict[str, float],
        placement: str,
        environment: dict[str, Any],
        in_flight: int,
        timeout: float,
        retries: int,
        quarantine: int,
    ) -> None:
        self.batch_evaluator = batch_evaluator
        self.at_once = workers
        self.notes: list[str] = []
        self.machines: list[dict[str, Any]] = []
        self._in_order, self._lag, self._in_flight, self._timeout = in_order, lag, in_flight, timeout
        self._retries = retries
        self._jobs = JobQueue(
            batch_evaluator.encoding,
            in_order=in_order,
            retries=retries,
            max_quarantined=quarantine,
            target_name=batch_evaluator.target.name,
        )
        self._plains: deque[_Plain] = deque()
        self._lineage: Lineage = Lineage()
        connect(address, workers, cpus, environment)
        self._asks = {"CPU": cpus, "GPU": gpus, "memory": memory * 2**30, **resources}
        options = reserved(cpus, gpus, memory, resources, placement, environment) | {"max_restarts": 0}
        known = {
            name: getattr(batch_evaluator, name)
            for name in ("encoding", "chunk", "rank", "competition", "descriptor", "edges", "number_format")
        }
        maker = ray.remote(Worker).options(**options)
        self._start = partial(maker.remote, batch_evaluator.target.name, known, seed, batch, torch_threads, os.getcwd())
        if in_order:
            self._foresee(workers, ceil(batch / batch_evaluator.chunk))
        self._gauges = Gauges()
        self._seats = [_Seat(number) for number in range(workers)]
        self._head = ray.get_runtime_context().gcs_address
        self._answered = False  # by any worker
        self._alone_since, self._waiting_told = time.monotonic(), False
        for seat in self._seats:
            self._seat(seat)

    @property
    def under_way(self) -> int | None:
        return None if self._in_order else self._in_flight * max(1, len(self._ready()))

    def submit(self, order: Order) -> None:
        """Cut into as many pieces of whole chunks as give every worker its share of what is under way."""
        chunks = ceil(order.size / self.batch_evaluator.chunk)
        pieces = 1
        if self._in_order:
            pieces = min(chunks, ceil(self._in_flight * max(1, len(self._ready())) / (self._lag + 1)))
        step = ceil(chunks / pieces) * self.batch_evaluator.chunk
        self._jobs.add(order, [order.cut(at, end) for at, end in steps(order.size, step)])

    def results(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Order, Winners]]:
        while self._jobs.pending():
            yield from self._jobs.results()
            if self._jobs.pending():
                self._turn()
                if give_up():
                    return

    def pending(self) -> list[Order]:
        return self._jobs.pending()

    def reference_logits(self, births: Sequence[int], genomes: Genomes) -> np.ndarray:
        jobs = []
        for at, end in steps(len(births), self.batch_evaluator.chunk):
            mine = tuple(births[at:end])
            jobs.append(_Plain(mine, {b: genomes[at + i : at + i + 1] for i, b in enumerate(mine)}))
        self._plains = deque(jobs)  # what an earlier call was given up with is nobody's any more
        while any(job.logits is None for job in jobs):
            self._turn()
        return np.concatenate([job.logits for job in jobs if job.logits is not None])

    def workers(self) -> list[dict[str, Any]]:
        """By seat: what it runs on, images, images/s and share of time busy since it is ready, calls in flight, restarts."""
        now, out = time.monotonic(), []
        for seat in self._seats:
            lived = seat.worked + (now - seat.ready if seat.hello else 0.0)
            busy = seat.worked_busy + seat.busy
            out.append(
                {
                    "worker": seat.number,
                    "state": "works" if seat.hello else "starts",
                    "node": seat.hello.node if seat.hello else "",
                    "pid": seat.hello.pid if seat.hello else 0,
                    "device": seat.hello.device if seat.hello else "",
                    "images": seat.images,
                    "images_per_second": seat.images / lived if lived else 0.0,
                    "busy": min(1.0, busy / lived) if lived else 0.0,
                    "busy_seconds": busy,
                    "in_flight": len(seat.calls),
                    "restarts": max(0, seat.starts - 1),
                }
            )
        return out

    def close(self) -> None:
        for seat in self._seats:
            if seat.actor is not None:
                with suppress(Exception):
                    ray.kill(seat.actor)
        if self._seats:
            self._seats = []
            leave()

    # -- inside

    def _ready(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.hello]

    def _turn(self) -> None:
        """Give out what there is to do, wait for whatever comes first, and take it in."""
        self._fill()
        waiting = {seat.greeting: seat for seat in self._seats if seat.greeting is not None}
        waiting |= {call.answer: seat for seat in self._seats for call in seat.calls}
        if waiting:
            refs = list(waiting)
            came, _ = ray.wait(refs, timeout=_GLANCE)
            if came and len(refs) > 1:
                came, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            here = set(came)
            for seat in dict.fromkeys(waiting[ref] for ref in came):
                self._take(seat, here)
        else:
            time.sleep(_GLANCE)
        self._look()

    def _foresee(self, workers: int, chunks: int) -> None:
        """Say so if some workers will have nothing to do."""
        pieces = (self._lag + 1) * chunks
        if pieces < workers:
            enough = ceil(self._in_flight * workers / chunks) - 1
            self._note(
                f"search.lag {self._lag} keeps {pieces} chunk{'s' * (pieces > 1)} under way: {workers - pieces} of "
                f"{workers} workers will have nothing to do. A run of its own with search.lag={enough}, a smaller "
                "compute.chunk, or search.mode=free feeds them all"
            )

    def _fill(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if seat.actor is None and now >= seat.not_before:
                self._seat(seat)
        ready = self._ready()
        # First everybody's first call, then everybody's second: nobody has two while another has none.
        for depth in range(self._in_flight):
            for seat in ready:
                if len(seat.calls) == depth:
                    job = self._plains.popleft() if self._plains else self._jobs.next()
                    if job is None:
                        return
                    self._send(seat, job)

    def _send(self, seat: _Seat, job: OrderJob | _Plain) -> None:
        assert seat.sender is not None
        if not seat.calls:
            seat.since = time.monotonic()
        if isinstance(job, OrderJob):
            answer = seat.actor.judge.remote(seat.sender.encode(job.order))
        else:
            answer = seat.actor.plain.remote(job.births, seat.sender.update(job.births, job.genomes))
        seat.calls.append(_Call(job, answer))

    def _take(self, seat: _Seat, here: set[Any]) -> None:
        """What has come from this seat, in the order in which it was asked; here: the answers that have come at all."""
        if seat.greeting is not None:
            self._greet(seat)
            return
        while seat.calls and seat.calls[0].answer in here:
            call = seat.calls[0]
            try:
                reply: Reply = ray.get(call.answer)
            except RayTaskError as error:
                self._raised(seat, call.job, error.cause)
                return
            except RayError as error:
                self._lost(seat, f"the worker's process died over it ({type(error).__name__})")
                return
            seat.calls.popleft()
            seat.since = time.monotonic()
            seat.images += reply.images
            seat.busy += reply.seconds
            seat.proven, seat.futile, self._answered = True, 0, True
            self.batch_evaluator.target.count(reply.images)
            if isinstance(call.job, OrderJob):
                sent: WinnersMessage = reply.value
                made = decode_winners(self.batch_evaluator.encoding, call.job.order, sent, self._lineage)
                if self._jobs.complete(call.job, made, sent.broken):
                    # Is it the images, or this process? A fresh one is asked.
                    self._note(f"a worker was replaced: {sent.broken[0][1]}")
                    self._recall(seat)
                    return
            else:
                call.job.logits = reply.value

    def _greet(self, seat: _Seat) -> None:
        try:
            hello: Hello = ray.get(seat.greeting)
        except RayError as error:
            words = str(error).strip().splitlines()  # the last one is what was raised there, if anything was
            why = words[-1] if words else type(error).__name__
            hint = "; install on every node what is installed here" if "No module named" in why else ""
            hello = Hello(f"a worker's process died while it began: {why}{hint}")
        seat.greeting = None
        ours = self.batch_evaluator.target
        if not hello.error and hello.fingerprint != ours.fingerprint():
            hello = Hello(
                f"{hello.node} has another {ours.name} than this machine: labels, preprocessing or weights differ; "
                "put the same files there"
            )
        if hello.error:
            self._refuse(seat, hello.error)
            return
        if hello.machine not in self.machines:
            self.machines.append(hello.machine)
        seat.hello, seat.sender = hello, Sender(self.batch_evaluator.encoding, self._lineage)
        seat.ready = seat.since = time.monotonic()
        here = machine(hello.machine.get("threads", 1))
        if hello.machine != here and "device" not in hello.machine:
            differing = ", ".join(k for k, v in here.items() if hello.machine.get(k) != v)
            self._note(f"{hello.node} is another kind of machine ({differing}): last bits may depend on who judges what")

    def _refuse(self, seat: _Seat, why: str) -> None:
        """Who sits there cannot work."""
        self._vacate(seat)
        self._note(f"worker {seat.number} cannot work: {why}")
        if seat.futile >= _HOPELESS and not self._ready():
            raise TargetError(f"no worker can be started: {why}")

    def _raised(self, seat: _Seat, job: OrderJob | _Plain, cause: BaseException) -> None:
        """The worker lives and says that it cannot do this. It is replaced all the same: a broken device stays broken."""
        if job.failures >= self._retries - 1:
            if isinstance(cause, EvofoolError):
                self._recall(seat)
                raise type(cause)(*cause.args)
            if isinstance(cause, OUT_OF_MEMORY) and not self._answered:
                self._recall(seat)
                raise TargetError(
                    f"{self.batch_evaluator.target.name}: a worker's memory does not hold {self.batch_evaluator.chunk} "
                    "images; start another "
                    "run with a smaller compute.chunk, or give each worker more (compute.ray.gpus, compute.ray.memory)"
                )
        self._lost(seat, f"it raises {type(cause).__name__}: {str(cause)[:200]}")

    def _lost(self, seat: _Seat, why: str) -> None:
        """Whoever sat here is gone: the call it was at is to blame, those that waited are not."""
        self._note(f"a worker was replaced: {why}")
        calls = list(seat.calls)
        self._strand(seat)
        for call in reversed(calls[1:]):
            self._back(call.job)
        if calls:
            job = calls[0].job
            if isinstance(job, OrderJob):
                self._jobs.fail(job, why)
                return
            job.failures += 1
            if job.failures > self._retries:
                raise TargetError(f"{self.batch_evaluator.target.name}: elites cannot be measured in float32: {why}")
            self._plains.appendleft(job)

    def _recall(self, seat: _Seat) -> None:
        """End the actor of a seat; what it was asked is asked again."""
        calls = list(seat.calls)
        self._strand(seat)
        for call in reversed(calls):
            self._back(call.job)

    def _back(self, job: OrderJob | _Plain) -> None:
        if isinstance(job, OrderJob):
            self._jobs.put_back(job)
        else:
            self._plains.appendleft(job)

    def _strand(self, seat: _Seat) -> None:
        """End the actor of a seat and forget its calls."""
        if seat.hello:
            seat.worked += time.monotonic() - seat.ready
            seat.worked_busy += seat.busy
        seat.busy, seat.proven = 0.0, False
        self._vacate(seat)

    def _vacate(self, seat: _Seat) -> None:
        if seat.actor is not None:
            with suppress(Exception):
                ray.kill(seat.actor)
        seat.actor = seat.placed = seat.greeting = seat.sender = seat.hello = None
        seat.calls.clear()
        seat.futile += 1
        # The first one is replaced at once; those that die before they did anything wait ever longer.
        seat.not_before = time.monotonic() + (min(_BACK_OFF, 2.0 ** (seat.futile - 1)) if seat.futile > 1 else 0.0)

    def _seat(self, seat: _Seat) -> None:
        seat.actor = self._start()
        seat.placed = seat.actor.here.remote()
        seat.greeting = seat.actor.hello.remote()
        seat.since = time.monotonic()
        seat.starts += 1

    def _look(self) -> None:
        """What is not told by an answer: calls that hang, workers that are never placed, figures for the dashboard."""
        now = time.monotonic()
        for seat in self._seats:
            if seat.placed is not None and ray.wait([seat.placed], timeout=0)[0]:
                seat.placed, seat.since = None, now
            # A network may be compiled in a worker's first call.
            limit = self._timeout * (1 if seat.proven else _FIRST_CALL)
            if now - seat.since <= limit:
                continue
            if seat.calls:
                self._lost(seat, f"no answer in {limit:g} seconds")
            elif seat.greeting is not None and seat.placed is None:
                self._refuse(seat, f"its target was not loaded in {limit:g} seconds")
        if self._ready():
            self._alone_since, self._waiting_told = now, False
        elif now - self._alone_since > _GONE:
            self._miss_cluster()
            if now - self._alone_since > _PATIENCE and not self._waiting_told:
                self._waiting_told = True
                asked, there = in_words(self._asks), in_words(ray.available_resources())
                self.notes.append(
                    f"no worker is at work: each asks for {asked or 'nothing'}, free are {there or 'none'}; waiting for "
                    "room, or for a target that takes long to load"
                )
        self._gauges.show(self.workers, now)

    def _miss_cluster(self) -> None:
        """TargetError if the head of the cluster is gone; Ray would end this process a minute later."""
        try:
            knock(self._head)
        except OSError as error:
            raise TargetError(
                f"the Ray cluster at {self._head} is gone ({error}); go on with another, or --workers 0"
            ) from None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
