"""Orders judged by Ray's actors, near or far: the only file that imports ray.

One actor holds one target, built once; what reaches it are parcels (evofool/shipping.py), and what is to be done again when
it dies is known to evofool/jobs.py. Actors are replaced here and not by Ray, since a new one knows nothing of what its
predecessor was told. Measured design: two calls wait at each actor, so that it never waits for the search.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util import metrics

from evofool.archive import Winners
from evofool.errors import EvofoolError, RecipeError, ScoreError, TargetError
from evofool.evaluate import Judge, Order, stays_on_device
from evofool.jobs import Job, Jobs
from evofool.machine import machine
from evofool.shipping import Descent, Found, Parcel, Receiver, Sender, Told, found, winners
from evofool.targets import target
from evofool.targets.speed import Choice, choose
from genomes import Genomes, Key

_STORE_BYTES = 1 << 29  # shared memory of a Ray of our own: what travels is small
_CONNECT = 10.0  # seconds
_CHOICE = 300.0  # seconds that a worker may take to begin and to try number formats
_GLANCE = 0.2  # seconds between looks at timeouts and at who asks us to stop
_PATIENCE = 20.0  # seconds without any worker after which it is said what is waited for
_GONE = 2.0  # seconds without any worker after which it is asked whether there still is a cluster
_BACK_OFF = 30.0  # seconds at most before a worker that dies at once is started again
_FIRST_CALL = 4  # times as long as others may a worker's first call take
_HOPELESS = 3  # starts of a worker that fail, with nobody at work, end the search
_MOST_ASIDE = 8  # images that break the target in one call, before it is taken for broken itself
_MEMORY = (MemoryError, torch.OutOfMemoryError)


class Reply(NamedTuple):
    """What a worker says of a call."""

    value: Any  # Found, or float32 logits
    images: int  # that the target answered
    seconds: float  # from taking the call up to answering it


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself, once its target is built. error: why it cannot be built."""

    error: str = ""
    fingerprint: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    node: str = ""
    pid: int = 0


class Worker:
    """Runs in an actor: the target, and what this worker was told so far."""

    def __init__(self, spec: str, judge: dict[str, Any], seed: int, batch: int, threads: int, folder: str) -> None:
        self._spec, self._judge_with, self._threads, self._folder = spec, judge, threads, folder
        self._told = Receiver(judge["encoding"], seed, batch)

    def here(self) -> None:
        """There is room for it."""

    def hello(self) -> Hello:
        """Build the target."""
        with suppress(OSError):  # where it was named: python: looks for its module there. Another machine may have no such
            os.chdir(self._folder)
        torch.set_num_threads(self._threads)
        try:
            self.target = target(self._spec)
        except EvofoolError as error:
            return Hello(str(error))
        known = self._judge_with
        self._judge = Judge(target=self.target, resident=stays_on_device(self.target, known["edges"]), **known)
        self._warm_up()
        device = str(self.target.details.get("device", "cpu"))
        if device.startswith("cuda"):
            device = torch.cuda.get_device_name(device)
        known_format, there = self._judge.number_format, self.target.formats
        if known_format not in there:
            return Hello(f"{socket.gethostname()} does not rank in {known_format}, it has {', '.join(there)}")
        return Hello(
            fingerprint=self.target.fingerprint(),
            machine=machine(self._threads) | ({} if device == "cpu" else {"device": device}),
            device=device,
            node=socket.gethostname(),
            pid=os.getpid(),
        )

    def _warm_up(self) -> None:
        """Compile the kernels that make and draw a chunk; the target is not asked."""
        encoding, key = self._judge.encoding, Key(0, 0)
        some = encoding.random(self._judge.chunk, key)
        encoding.render(encoding.vary(some, some, key))

    def judge(self, parcel: Parcel) -> Reply:
        """The winners of an order, without those that break the target by themselves."""
        began, before = time.perf_counter(), self.target.queries
        order = self._told.order(parcel)
        aside: list[tuple[int, str]] = []
        parts = [self._careful(order.cut(at, end), at, aside) for at, end in _steps(order.size, self._judge.chunk)]
        return Reply(found(order, Winners.merged(parts), aside), self.target.queries - before, time.perf_counter() - began)

    def plain(self, births: tuple[int, ...], told: Told) -> Reply:
        """The plain logits of genomes."""
        began, before = time.perf_counter(), self.target.queries
        genomes = self._told.learn(told, births)
        logits = self._judge.plain(np.concatenate([genomes[birth] for birth in births]))
        return Reply(logits, self.target.queries - before, time.perf_counter() - began)

    def _careful(self, order: Order, begin: int, aside: list[tuple[int, str]]) -> Winners:
        """The winners of a chunk, or of its halves where it cannot be judged, down to the image that breaks the target.

        What else shares a forward pass changes no bit, since a short one is padded.
        """
        try:
            return self._judge(order)
        except _MEMORY:
            raise
        except (ScoreError, TargetError) as error:
            if order.size == 1:
                aside.append((begin, str(error)))
                if len(aside) > _MOST_ASIDE:
                    raise
                return Winners.none(self._judge.encoding)
        half = order.size // 2
        cuts = (order.cut(0, half), begin), (order.cut(half, order.size), begin + half)
        return Winners.merged([self._careful(cut, at, aside) for cut, at in cuts])


@dataclass(eq=False)
class _Plain:
    """Genomes to be measured."""

    births: tuple[int, ...]
    genomes: dict[int, Genomes]
    strikes: int = 0
    logits: np.ndarray | None = None


@dataclass
class _Call:
    job: Job | _Plain
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
        judge: Judge,
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
        self.judge = judge
        self.at_once = workers
        self.notes: list[str] = []
        self.machines: list[dict[str, Any]] = []
        self._in_order, self._lag, self._in_flight, self._timeout = in_order, lag, in_flight, timeout
        self._retries = retries
        self._jobs = Jobs(judge.encoding, in_order=in_order, retries=retries, most=quarantine, who=judge.target.name)
        self._plains: deque[_Plain] = deque()
        self._descent: Descent = Descent()
        connect(address, workers, cpus, environment)
        self._asks = {"CPU": cpus, "GPU": gpus, "memory": memory * 2**30, **resources}
        options = _options(cpus, gpus, memory, resources, placement, environment) | {"max_restarts": 0}
        known = {
            name: getattr(judge, name)
            for name in ("encoding", "chunk", "rank", "competition", "descriptor", "edges", "number_format")
        }
        maker = ray.remote(Worker).options(**options)
        self._start = partial(maker.remote, judge.target.name, known, seed, batch, torch_threads, os.getcwd())
        if in_order:
            self._foresee(workers, ceil(batch / judge.chunk))
        self._gauges = _Gauges()
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
        chunks = ceil(order.size / self.judge.chunk)
        pieces = 1
        if self._in_order:
            pieces = min(chunks, ceil(self._in_flight * max(1, len(self._ready())) / (self._lag + 1)))
        step = ceil(chunks / pieces) * self.judge.chunk
        self._jobs.add(order, [order.cut(at, end) for at, end in _steps(order.size, step)])

    def results(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Order, Winners]]:
        while self._jobs.pending():
            yield from self._jobs.results()
            if self._jobs.pending():
                self._turn()
                if give_up():
                    return

    def pending(self) -> list[Order]:
        return self._jobs.pending()

    def plain_logits(self, births: Sequence[int], genomes: Genomes) -> np.ndarray:
        jobs = []
        for at, end in _steps(len(births), self.judge.chunk):
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
            self._note(
                f"search.lag {self._lag} keeps {pieces} chunks under way: {workers - pieces} of {workers} workers will "
                f"have nothing to do. A run of its own with search.lag={ceil(self._in_flight * workers / chunks) - 1}, a "
                "smaller compute.chunk, or search.mode=free feeds them all"
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

    def _send(self, seat: _Seat, job: Job | _Plain) -> None:
        assert seat.sender is not None
        if not seat.calls:
            seat.since = time.monotonic()
        if isinstance(job, Job):
            answer = seat.actor.judge.remote(seat.sender.parcel(job.order))
        else:
            answer = seat.actor.plain.remote(job.births, seat.sender.tell(job.births, job.genomes))
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
            self.judge.target.count(reply.images)
            if isinstance(call.job, Job):
                sent: Found = reply.value
                made = winners(self.judge.encoding, call.job.order, sent, self._descent)
                if self._jobs.done(call.job, made, sent.aside):
                    # Is it the images, or this process? A fresh one is asked.
                    self._note(f"a worker was replaced: {sent.aside[0][1]}")
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
        ours = self.judge.target
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
        seat.hello, seat.sender = hello, Sender(self.judge.encoding, self._descent)
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

    def _raised(self, seat: _Seat, job: Job | _Plain, cause: BaseException) -> None:
        """The worker lives and says that it cannot do this. It is replaced all the same: a broken device stays broken."""
        if job.strikes >= self._retries - 1:
            if isinstance(cause, EvofoolError):
                self._recall(seat)
                raise type(cause)(*cause.args)
            if isinstance(cause, _MEMORY) and not self._answered:
                self._recall(seat)
                raise TargetError(
                    f"{self.judge.target.name}: a worker's memory does not hold {self.judge.chunk} images; start another "
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
            if isinstance(job, Job):
                self._jobs.blame(job, why)
                return
            job.strikes += 1
            if job.strikes > self._retries:
                raise TargetError(f"{self.judge.target.name}: elites cannot be measured in plain float32: {why}")
            self._plains.appendleft(job)

    def _recall(self, seat: _Seat) -> None:
        """End the actor of a seat; what it was asked is asked again."""
        calls = list(seat.calls)
        self._strand(seat)
        for call in reversed(calls):
            self._back(call.job)

    def _back(self, job: Job | _Plain) -> None:
        if isinstance(job, Job):
            self._jobs.give_back(job)
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
                asked, there = _resources(self._asks), _resources(ray.available_resources())
                self.notes.append(
                    f"no worker is at work: each asks for {asked or 'nothing'}, free are {there or 'none'}; waiting for "
                    "room, or for a target that takes long to load"
                )
        self._gauges.show(self._seats, now)

    def _miss_cluster(self) -> None:
        """TargetError if the head of the cluster is gone; Ray would end this process a minute later."""
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
        except OSError as error:
            raise TargetError(
                f"the Ray cluster at {self._head} is gone ({error}); go on with another, or --workers 0"
            ) from None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class _Gauges:
    """Figures for a cluster's own dashboard, every other second."""

    def __init__(self) -> None:
        tags = ("worker", "node")
        self._images = metrics.Gauge("evofool_images_per_second", "Images that a worker classifies", tag_keys=tags)
        self._busy = metrics.Gauge("evofool_busy_share", "Share of time that a worker is busy", tag_keys=tags)
        self._restarts = metrics.Gauge("evofool_restarts", "How often a worker was replaced", tag_keys=tags)
        self._seen: dict[int, tuple[float, int, float]] = {}
        self._next = 0.0

    def show(self, seats: list[_Seat], now: float) -> None:
        if now < self._next:
            return
        self._next = now + 2.0
        for seat in seats:
            tags = {"worker": str(seat.number), "node": seat.hello.node if seat.hello else ""}
            busy = seat.worked_busy + seat.busy
            then, images, busy_then = self._seen.get(seat.number, (now, seat.images, busy))
            self._seen[seat.number] = now, seat.images, busy
            span = max(now - then, 1e-9)
            self._images.set((seat.images - images) / span, tags)
            self._busy.set(min(1.0, (busy - busy_then) / span), tags)
            self._restarts.set(max(0, seat.starts - 1), tags)


@dataclass
class _Membership:
    """This process in a Ray: how many evaluators use it, and whether one of them joined or started it."""

    users: int = 0
    ours: bool = False


_MEMBERSHIP = _Membership()


def connect(address: str, workers: int, cpus: float, environment: dict[str, Any]) -> None:
    """Join a Ray cluster, or start one of our own on this machine; whoever does so has to leave().

    One that this process has joined already is used as it is. RecipeError if the address cannot be reached.
    """
    if ray.is_initialized():
        _MEMBERSHIP.users += 1
        return
    # What Ray would send home, and a warning about devices that it hides from actors without GPUs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # What a lost worker was asked is asked again: what became of its answers is of no interest.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    quiet["runtime_env"] = _lists(environment) or None
    try:
        if address not in ("local", "auto"):
            # Ray itself would go on trying for minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
        if address == "local":
            ray.init(
                address="local",
                num_cpus=max(1, ceil(workers * cpus)),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, OSError):
            words = (
                f"no Ray answers there ({words}); start one with `ray start --head`, or take --ray local. One that has a "
                "token wants RAY_AUTH_MODE=token here"
            )
        raise RecipeError(f'compute.ray.address "{address}": {words}') from None
    _MEMBERSHIP.users += 1
    _MEMBERSHIP.ours = True


def leave() -> None:
    """The last one to leave a Ray that was joined, or started, here parts from it, or ends it."""
    _MEMBERSHIP.users -= 1
    if _MEMBERSHIP.ours and not _MEMBERSHIP.users:
        _MEMBERSHIP.ours = False
        ray.shutdown()


def choose_there(
    spec: str,
    chunk: int,
    threads: int,
    *,
    address: str,
    cpus: float,
    gpus: float,
    memory: float,
    resources: dict[str, float],
    placement: str,
    environment: dict[str, Any],
) -> Choice:
    """targets.speed.choose, where a worker would be: for a search on a machine that lacks the device."""
    connect(address, 1, cpus, environment)
    try:
        chooser = ray.remote(_choose).options(**_options(cpus, gpus, memory, resources, placement, environment))
        answer = chooser.remote(spec, chunk, threads, os.getcwd())
        came, _ = ray.wait([answer], timeout=_CHOICE)
        if not came:
            raise RecipeError(
                f"no worker has tried the number formats of {spec} in {_CHOICE:g} s: it asks for "
                f"{_resources({'CPU': cpus, 'GPU': gpus, 'memory': memory * 2**30, **resources})}, free are "
                f"{_resources(ray.available_resources()) or 'none'}. Name one, as in --set compute.format=bfloat16"
            )
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, EvofoolError):
            raise type(error.cause)(*error.cause.args) from None
        raise TargetError(f"{spec}: a worker cannot try its number formats: {error.cause}") from None
    except RayError as error:
        raise TargetError(f"{spec}: a worker cannot try its number formats ({type(error).__name__})") from None
    finally:
        leave()


def _choose(spec: str, chunk: int, threads: int, folder: str) -> Choice:
    with suppress(OSError):
        os.chdir(folder)
    torch.set_num_threads(threads)
    return choose(target(spec), chunk)


def _options(
    cpus: float, gpus: float, memory: float, resources: dict[str, float], placement: str, environment: dict[str, Any]
) -> dict[str, Any]:
    """What a worker reserves, in Ray's words."""
    options: dict[str, Any] = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "resources": resources or None,
        "scheduling_strategy": placement,
    }
    if memory:
        options["memory"] = int(memory * 2**30)
    if environment:
        options["runtime_env"] = _lists(environment)
    return options


def _lists(value: Any) -> Any:
    """Plain data with its tuples as lists, which is what Ray wants."""
    if isinstance(value, dict):
        return {key: _lists(one) for key, one in value.items()}
    return [_lists(one) for one in value] if isinstance(value, tuple) else value


def _resources(amounts: Mapping[str, float]) -> str:
    """What Ray counts, in words; memory, which it counts in bytes, in GiB."""
    shown = {k: v for k, v in sorted(amounts.items()) if v and not k.startswith(("node:", "object_store"))}
    return ", ".join(f"{v / 2**30:,.0f} GiB of memory" if k == "memory" else f"{v:g} {k}" for k, v in shown.items())


def _steps(size: int, step: int) -> Iterator[tuple[int, int]]:
    return ((at, min(at + step, size)) for at in range(0, size, step))
