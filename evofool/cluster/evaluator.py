"""Orders evaluated by Ray actors on this machine or others.

Each actor builds its target once. evofool/cluster/messages.py defines what is sent to an actor; evofool/cluster/jobs.py
keeps what has to be repeated when an actor dies. Dead actors are replaced here, not by Ray, because a new actor has to be
sent what its predecessor had received.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
from ray.exceptions import RayError, RayTaskError

from evofool.cluster.actors import new_actor
from evofool.cluster.agreement import Contributor, Kind
from evofool.cluster.checks import Checks
from evofool.cluster.dashboard import Dashboard
from evofool.cluster.jobs import CheckJob, JobQueue, OrderJob, ProbeJob
from evofool.cluster.session import ask, check_cluster, connect, disconnect, owns_cluster, ready, result
from evofool.cluster.settings import RayOptions, idle_workers_text
from evofool.cluster.slots import WorkerSlot
from evofool.cluster.start_up import FIRST, StartUp, start_error, unfit
from evofool.cluster.work import Job, Work
from evofool.cluster.worker import Reply, WorkerInfo, WorkerSetup, device_record, spans
from evofool.errors import EvofoolError, TargetError
from evofool.image_metrics.unlike import Unlike
from evofool.machine import machine
from evofool.search.archive import Winners
from evofool.search.evaluate import AnswersWithdrawn, BatchEvaluator, Measured, Order
from evofool.search.isolation import OUT_OF_MEMORY
from genomes import Genomes

_POLL = 0.2  # seconds between checks of time-outs and of whether to give up
_MIN_STARTING = 2  # workers that start at a time, at least, also on a machine with one processor
_LAST_CHECKS = 10.0  # seconds in which workers may complete checks, before this process does


class RayEvaluator:
    """An Evaluator whose orders go to as many actors as requested, or as there is room for.

    in_order: results come in the order of submission, and any number of workers gives the same bits; else results come as
    they are complete, and every worker always has work. Workers may join and leave; one without resources is waited for.
    evofool/cluster/checks.py finds workers that are wrong.
    """

    def __init__(
        self,
        batch_evaluator: BatchEvaluator,
        options: RayOptions,
        *,
        workers: int,
        seed: int,
        batch: int,
        torch_threads: int,
        in_order: bool,
        lag: int,
    ) -> None:
        self.batch_evaluator = batch_evaluator
        self.at_once = workers
        self.notes: list[str] = []
        self.machines: list[dict[str, Any]] = []
        self._options, self._in_order, self._lag = options, in_order, lag
        jobs = JobQueue(
            batch_evaluator.encoding,
            in_order=in_order,
            retries=options.retries,
            max_quarantined=options.quarantine,
            target_name=batch_evaluator.target.name,
            keep=batch_evaluator.keep,
            surrogates=batch_evaluator.surrogates,
        )
        target = batch_evaluator.target
        record = machine(torch_threads) | device_record(target)
        checks = Checks(
            batch_evaluator,
            strict=in_order,
            own=Kind(record, batch_evaluator.number_format, batch_evaluator.resident),
            threads=torch_threads,
            note=self._note,
        )
        self._jobs, self._checks = jobs, checks
        self._work = Work(batch_evaluator, jobs, checks)
        connect(options, workers)
        settings = {
            name: getattr(batch_evaluator, name)
            for name in ("encoding", "chunk", "rank", "competition", "descriptor", "edges", "number_format", "keep")
        }
        self._setup = WorkerSetup(batch_evaluator.target.name, settings, seed, batch, torch_threads, os.getcwd())
        if surrogates := batch_evaluator.surrogates:
            specs = tuple(network.name for network in surrogates.networks)
            self._setup = replace(self._setup, surrogates=(specs, surrogates.climb))
        if isinstance(permits := batch_evaluator.permits, Unlike):
            self._setup = replace(self._setup, unlike=permits.settings)
        chunks = ceil(batch / batch_evaluator.chunk)
        if in_order and (note := idle_workers_text(workers, chunks, lag, options.in_flight)):
            self._note(note)
        self._dashboard = Dashboard()
        self._slots = [WorkerSlot(number) for number in range(workers)]
        self._last_difference = ""
        self._start_up = StartUp(options, workers)
        try:
            self._start_workers()
        except BaseException:
            self.close()
            raise

    @property
    def orders_in_progress(self) -> int | None:
        return None if self._in_order else max(1, self._wanted_calls())

    @property
    def repeated(self) -> int:
        return self._checks.repeated

    @property
    def check_seconds(self) -> float:
        return self._checks.check_seconds

    def submit(self, order: Order) -> None:
        """Cut into so many parts of whole chunks that every worker gets its share of the orders under way, and send them."""
        chunks = ceil(order.size / self.batch_evaluator.chunk)
        parts = 1
        if self._in_order:
            parts = min(chunks, ceil((self._wanted_calls() or self.at_once) / (self._lag + 1)))
        step = ceil(chunks / parts) * self.batch_evaluator.chunk
        self._jobs.add(order, [order.cut(at, end) for at, end in spans(order.size, step)])
        self._checks.note_order(order)
        # At once: a worker without a call does not wait until other batches are committed and drawn.
        self._fill()

    def results(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Order, Winners]]:
        while self._jobs.pending():
            yield from self._jobs.results()
            if self._jobs.pending():
                self._step()
                if give_up():
                    return

    def pending(self) -> list[Order]:
        return self._jobs.pending()

    def reference_logits(self, births: Sequence[int], genomes: Genomes) -> np.ndarray:
        jobs = self._work.reference_jobs(births, genomes)
        while any(job.logits is None for job in jobs):
            self._step()
        return np.concatenate([job.logits for job in jobs if job.logits is not None])

    def measure_elsewhere(self, births: Sequence[int], genomes: Genomes) -> Measured | None:
        """By this process where only the worker that scored an elite is at work."""
        jobs = self._work.jobs_elsewhere(births, genomes)
        with self._holding_orders():
            while any(job.logits is None for job in jobs):
                numbers = {slot.number for slot in self._working()}
                alone = next((job for job in self._work.references if numbers <= job.not_by), None)
                if alone:
                    self._work.references.remove(alone)
                    alone.logits = self._checks.measure(alone.work)
                else:
                    self._step()
        logits = np.concatenate([job.logits for job in jobs if job.logits is not None])
        row_of = {birth: row for row, birth in enumerate(birth for job in jobs for birth in job.work.births)}
        return Measured(logits[[row_of[birth] for birth in births]], self._checks.exact(self.machines))

    def mark(self) -> int:
        return self._checks.mark()

    def confirmed(self, mark: int) -> bool:
        return self._checks.confirmed(mark)

    def confirm(self) -> None:
        """By the workers, for some seconds, then by this process: they may be gone, or busy."""
        mark, end = self.mark(), time.monotonic() + _LAST_CHECKS
        with self._holding_orders(), suppress(EvofoolError):
            while not self.confirmed(mark) and self._working() and time.monotonic() < end:
                self._step()
        for job in self._checks.outstanding():
            self._wrong(self._checks.decide(job, last=True))

    def rewind(self, committed: int) -> None:
        self._work.clear()
        for slot in self._slots:
            ask(partial(slot.forget, self._work.new_sender()))

    def workers(self) -> list[dict[str, Any]]:
        """By slot: node, device, images, images/s and share of time busy since it was ready, calls in flight, restarts."""
        now = time.monotonic()
        return [slot.figures(now) for slot in self._slots]

    def close(self) -> None:
        for slot in self._slots:
            with suppress(Exception):  # of a cluster that is lost
                ask(slot.kill)
        if self._slots:
            self._slots = []
            disconnect()

    # -- inside

    def _working(self) -> list[WorkerSlot]:
        return [slot for slot in self._slots if slot.contributor]

    @contextmanager
    def _holding_orders(self) -> Iterator[None]:
        """Workers get no more orders in this block."""
        self._work.holds_orders = True
        try:
            yield
        finally:
            self._work.holds_orders = False

    def _wanted_calls(self) -> int:
        """The number of calls that keep the workers busy."""
        return sum(slot.wanted_calls(self._options.in_flight) for slot in self._working())

    def _step(self) -> None:
        """Send jobs to workers, wait for the first answers, take them, and check the workers."""
        if self._slots and all(slot.retired for slot in self._slots):
            raise TargetError(f"no worker is left: {self._last_difference}")
        self._fill()
        contributors = [slot.contributor for slot in self._working() if slot.contributor]
        while check := self._checks.without_worker(contributors, self._options.timeout):
            overdue = time.monotonic() - check.begun > self._options.timeout
            self._wrong(self._checks.decide(check, last=overdue))
        waiting = {slot.building: slot for slot in self._slots if slot.building is not None}
        waiting |= {call.answer: slot for slot in self._slots for call in slot.calls}
        if not contributors:
            self._checks.answer_probes()
        if waiting:
            refs = list(waiting)
            arrived = ready(refs, _POLL)
            if arrived and len(refs) > 1:
                arrived = ready(refs, 0, len(refs))
            answers = set(arrived)
            for slot in dict.fromkeys(waiting[ref] for ref in arrived):
                self._take(slot, answers)
        else:
            time.sleep(_POLL)
        self._check_workers()

    def _fill(self) -> None:
        self._start_workers()
        working = self._working()
        # Every worker gets its first call before any gets its second.
        wanted = [slot.wanted_calls(self._options.in_flight) for slot in working]
        for depth in range(max(wanted, default=0)):
            for slot, most in zip(working, wanted, strict=True):
                assert slot.contributor is not None
                free = len(slot.calls) == depth < most and not slot.has_suspect
                if free and (job := self._work.next_for(slot.contributor, alone=depth == 0)):
                    ask(partial(slot.send, job))

    def _start_workers(self) -> None:
        """On this machine alone as many at a time as there are processors, so that the first ones begin sooner."""
        now = time.monotonic()
        at_once = max(_MIN_STARTING, os.cpu_count() or 1) if owns_cluster() else len(self._slots)
        starting = sum(slot.building is not None for slot in self._slots)
        for slot in self._slots:
            if slot.actor is None and now >= slot.start_after and not slot.retired and starting < at_once:
                ask(partial(slot.start, partial(new_actor, self._options), self._setup))
                starting += 1

    def _take(self, slot: WorkerSlot, answers: set[Any]) -> None:
        """Take what has arrived of a slot's calls, in the order in which they were sent. answers: all that have arrived."""
        if slot.building is not None:
            self._take_info(slot)
            return
        while slot.calls and slot.calls[0].answer in answers:
            call = slot.calls[0]
            try:
                reply: Reply = result(call.answer)
            except RayTaskError as error:
                self._raised(slot, call.job, error.cause)
                return
            except RayError as error:
                if isinstance(call.job, ProbeJob):
                    self._checks.other_probes()  # an image of it may kill workers
                self._lost(slot, f"the worker's process died ({type(error).__name__})")
                self._start_up.died(slot.number)
                return
            slot.finish(reply)
            self._start_up.answer(slot.number)
            self._take_reply(slot, call.job, reply)
            if not slot.actor:
                return

    def _take_reply(self, slot: WorkerSlot, job: Job | None, reply: Reply) -> None:
        if isinstance(job, ProbeJob):
            self._take_probe(slot, job, reply.value)
            return
        assert slot.contributor is not None
        taken = self._work.take(slot.contributor, job, reply)
        if taken.broken:
            self._note(f"a worker was replaced: {taken.broken}")
            self._replace(slot)
        self._wrong(taken.wrong)

    def _take_probe(self, slot: WorkerSlot, job: ProbeJob, logits: np.ndarray) -> None:
        """A new worker has answered a probe; after the last one it gets work."""
        assert slot.candidate is not None
        text = self._checks.probed(job, slot.candidate, logits)
        if text:
            self._wrong([(slot.candidate, text)])
        elif not slot.calls:
            self._accept(slot)

    def _wrong(self, wrong: Sequence[tuple[Contributor, str]]) -> None:
        """End workers that are wrong. AnswersWithdrawn if any of them has given answers that are not agreed on."""
        withdrawn = []
        for worker, text in wrong:
            slot = self._slots[worker.number]
            slot.wrong += 1
            if slot.candidate is worker:
                self._replace(slot)
            self._last_difference = text
            self._note(f"{text}. It is {'not used until the run is resumed' if slot.retired else 'started once more'}")
            if self._checks.withdraw(worker):
                withdrawn.append(text)
        if withdrawn:
            raise AnswersWithdrawn("; ".join(withdrawn))

    def _take_info(self, slot: WorkerSlot) -> None:
        try:
            info: WorkerInfo = result(slot.building)
        except RayError as error:
            info = WorkerInfo(start_error(error))
            if not info.error:
                self._lost(slot, "its process was killed or crashed while it started")
                self._start_up.died(slot.number)
                return
        slot.building = None
        if reason := info.error or unfit(info, self.batch_evaluator):
            self._failed_start(slot, reason)
            return
        kind = Kind(info.machine, self.batch_evaluator.number_format, info.on_device)
        slot.begin(Contributor(slot.number, info, kind), self._work.new_sender())
        for probe in self._checks.probes():
            ask(partial(slot.send, probe))

    def _accept(self, slot: WorkerSlot) -> None:
        """A worker has answered all probes as it should: it gets work."""
        slot.contributor = slot.candidate
        assert slot.contributor is not None
        self._checks.accept(slot.contributor)
        info = slot.contributor.info
        if info.machine not in self.machines:
            self.machines.append(info.machine)
        own = machine(info.machine.get("threads", 1))
        if info.machine != own and "device" not in info.machine:
            differing = ", ".join(k for k, v in own.items() if info.machine.get(k) != v)
            self._note(
                f"{info.node} is another kind of machine ({differing}): last bits may depend on which machine evaluates an "
                "image"
            )

    def _failed_start(self, slot: WorkerSlot, reason: str) -> None:
        """A worker cannot build its target."""
        ask(slot.stop)
        self._note(f"worker {slot.number} cannot start: {reason}")
        self._start_up.failed(slot.number, reason, bool(self._working()))

    def _raised(self, slot: WorkerSlot, job: Job | None, cause: BaseException) -> None:
        """A call raised an error. Its worker is replaced although it lives, since a broken device stays broken."""
        if isinstance(job, ProbeJob) and isinstance(cause, EvofoolError):
            self._checks.other_probes()
            self._failed_start(slot, str(cause))
            return
        if isinstance(job, OrderJob) and isinstance(cause, EvofoolError) and slot.contributor:
            parts = pairwise([*self.batch_evaluator.parts(job.order), job.order.size])
            orders = [job.order.cut(at, end) for at, end in parts]
            if text := self._checks.wrongly_broken(slot.contributor, orders, str(cause)):
                self._wrong([(slot.contributor, text)])
                return
        if job and not isinstance(job, CheckJob) and job.failures >= self._options.retries - 1:
            if isinstance(cause, EvofoolError):
                self._replace(slot)
                raise type(cause)(*cause.args)
            if isinstance(cause, OUT_OF_MEMORY) and not self._start_up.answered:
                self._replace(slot)
                raise TargetError(
                    f"{self.batch_evaluator.target.name}: a worker's memory does not hold {self.batch_evaluator.chunk} "
                    "images; start another run with a smaller compute.chunk, or give each worker more (compute.ray.gpus, "
                    "compute.ray.memory)"
                )
        self._lost(slot, f"it raises {type(cause).__name__}: {str(cause)[:200]}")

    def _lost(self, slot: WorkerSlot, reason: str) -> None:
        """A worker is gone: its oldest call counts a failure, the calls that waited behind it do not."""
        self._note(f"a worker was replaced: {reason}")
        jobs = ask(slot.stop)
        for job in reversed(jobs[1:]):
            self._work.put_back(job)
        if not jobs or jobs[0] is None:
            return
        job = jobs[0]
        if isinstance(job, OrderJob):
            self._jobs.fail(job, reason)
            return
        job.failures += 1
        if isinstance(job, ProbeJob):
            return
        if job.failures <= self._options.retries:
            self._work.put_back(job)
        elif isinstance(job, CheckJob):
            self._wrong(self._checks.decide(job, last=True))
        else:
            raise TargetError(f"{self.batch_evaluator.target.name}: elites cannot be scored in float32: {reason}")

    def _replace(self, slot: WorkerSlot) -> None:
        """End the actor of a slot and repeat its calls, without counting a failure."""
        for job in reversed(ask(slot.stop)):
            self._work.put_back(job)

    def _check_workers(self) -> None:
        """Find calls and starts that hang, and a lost cluster; update the dashboard."""
        check_cluster()
        now = time.monotonic()
        for slot in self._slots:
            limit = self._options.timeout * (1 if slot.answered else FIRST)
            if slot.calls and now - slot.since > limit:
                self._lost(slot, f"no answer in {limit:g} seconds")
        for slot, reason in list(self._start_up.hanging(self._slots, now)):
            if reason:
                self._failed_start(slot, reason)
            else:
                ask(slot.stop)
        if note := self._start_up.note(self._slots, bool(self._working()), now):
            self.notes.append(note)
        self._dashboard.update(self.workers, now)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
