"""Checks that workers agree: probes when they start, and some of their answers repeated by another process.

Independent of Ray. Every answer of a worker carries a seal of its last chunk's logits. At a checkpoint the last answer of
each worker since the one before is repeated by another worker, or by this process, which takes two of them at a time, in
turn. The checkpoint is written once all of these are agreed on. Where two workers differ, this process decides which of
them is wrong; where it has another kind of device, and both are within what is allowed then, a third worker does, and
without one the worker that was accepted first.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from evofool.cluster.agreement import (
    ROUGHLY_EQUAL,
    VERSIONS,
    Contributor,
    Difference,
    Evidence,
    Kind,
    References,
    allowance,
    difference,
    same_gradients,
)
from evofool.cluster.jobs import CheckJob, ProbeJob
from evofool.cluster.messages import Seal
from evofool.errors import EvofoolError
from evofool.machine import torch_threads
from evofool.search.evaluate import BatchEvaluator, Order
from evofool.targets.network import FLOAT32
from genomes import Key

_FIRST_BIRTH = 1 << 61  # of the images of probes and their parents; births of a search are lower
_PROBE_SEED = 0
_OWN = 2  # workers that this process checks at a checkpoint
_MAX_SCORED = 1 << 18  # births of which it is known which worker scored them

Wrong = tuple[Contributor, str]
"""A worker that differs, and how."""


class Checks:
    """The search's side of all checks of its workers.

    strict: reproducible mode. own: what this process is.
    repeated counts the images that were evaluated for checks; they are no queries of the target.
    """

    def __init__(
        self,
        batch_evaluator: BatchEvaluator,
        *,
        strict: bool,
        own: Kind,
        threads: int,
        note: Callable[[str], None],
    ) -> None:
        self.repeated = 0
        self.check_seconds = 0.0  # of a worker for its check at the last checkpoint, or of this process for all of its own
        self.queue: deque[CheckJob] = deque()
        self._batch_evaluator, self._strict = batch_evaluator, strict
        self._own, self._threads, self._note = own, threads, note
        self._answers = self._turns = 0
        self._own_seconds = 0.0  # that this process has taken for checks since the last checkpoint
        self._marked = False  # whether there was a checkpoint
        self._contributors: list[Contributor] = []
        self._first: Contributor | None = None  # the worker that was accepted first
        self._running: dict[Contributor, CheckJob] = {}  # by the worker that is checked
        self._scored_by: OrderedDict[int, int] = OrderedDict()  # by birth, the number of a worker
        self._newest: Order | None = None
        self._next_births = _FIRST_BIRTH
        self._probes: list[ProbeJob] = []

    # -- when a worker starts

    def probes(self) -> list[ProbeJob]:
        """The questions to a worker that has just started: new images, and elites once there are some."""
        if not self._probes:
            self._probes = [ProbeJob(self._synthetic())]
        if len(self._probes) == 1 and self._newest is not None:
            self._probes.append(ProbeJob(self._elites(self._newest)))
        return list(self._probes)

    def answer_probes(self) -> None:
        """Answer new probes in this process, so that the first worker does not wait for that."""
        if not self._probes:
            for job in self.probes():
                job.own = self._repeat(job.order)

    def other_probes(self) -> None:
        """Ask the next worker for other images: the target may break on one of these."""
        self._probes = []

    def note_order(self, order: Order) -> None:
        """The parents of an order are elites, which probes use."""
        if order.parents and order.size and order.mothers[0] >= 0:
            self._newest = order

    def probed(self, job: ProbeJob, by: Contributor, logits: np.ndarray) -> str | None:
        """How a new worker's answer to a probe differs; None if it does not."""
        self.repeated += len(logits)
        if job.own is None:
            job.own = self._repeat(job.order)
        if job.own is not None:
            found = self._difference(logits, by.kind, *job.own)
            if found:
                return self._text(by, found, "this machine")
        if job.first is not None:
            found = self._difference(logits, by.kind, job.first[0], job.first[1].kind)
            if found:
                return self._text(by, found, str(job.first[1]))
        job.first = job.first or (logits, by)
        return None

    def accept(self, worker: Contributor) -> None:
        """A new worker has answered all probes as it should."""
        self._contributors.append(worker)
        self._first = self._first or worker

    def _synthetic(self) -> Order:
        """New children of new parents, so that variation and drawing are compared too."""
        encoding, n, births = self._batch_evaluator.encoding, self._batch_evaluator.chunk, self._new_births()
        key, none = Key(_PROBE_SEED, births), np.zeros(0)
        parents = encoding.random(n, key)
        mothers = births + np.arange(n)
        fathers = np.where(encoding.uses_second_parent(n, key), np.roll(mothers, 1), -1)
        genomes = {birth: parents[i : i + 1] for i, birth in enumerate(mothers.tolist())}
        return Order(key, self._new_births(), n, none, none, mothers, fathers, genomes)

    def _elites(self, order: Order) -> Order:
        """The parents of an order themselves: images that other workers have survived."""
        genomes = list(order.parents.values())[: self._batch_evaluator.chunk]
        births, none, unknown = self._new_births(), np.zeros(0), np.full(len(genomes), -1, np.int64)
        parents = {births + i: genome for i, genome in enumerate(genomes)}
        return Order(Key(_PROBE_SEED, births), births, len(genomes), none, none, unknown, unknown, parents)

    def _new_births(self) -> int:
        """The first of a chunk of births that no other image has: workers remember genomes by birth."""
        self._next_births += self._batch_evaluator.chunk
        return self._next_births - self._batch_evaluator.chunk

    # -- while they answer

    def answered_order(self, by: Contributor, order: Order, seal: Seal | None, births: Iterable[int]) -> None:
        """A worker has answered an order. births: of its winners."""
        if seal is not None:
            self._contributed(by, order.cut(seal.begin, seal.begin + seal.size), seal)
        for birth in births:
            self._scored_by[birth] = by.number
        while len(self._scored_by) > _MAX_SCORED:
            self._scored_by.popitem(last=False)

    def answered_references(self, by: Contributor, work: References, logits: np.ndarray) -> None:
        """A worker has answered the float32 logits of genomes."""
        self._contributed(by, work, logits)

    def _contributed(self, by: Contributor, work: Order | References, answer: Seal | np.ndarray) -> None:
        self._answers += 1
        by.unagreed.append(self._answers)
        by.last = Evidence(by, self._answers, work, answer)

    def mark(self) -> int:
        """Evaluator.mark."""
        self._probes = self._probes[:1]  # later ones have newer elites
        self._contributors = [c for c in self._contributors if c.unagreed or not c.gone]
        # At the first one all workers have just agreed with this process on probes, and would wait while it repeats a chunk.
        own = self._own_turn(self._contributors) if self._marked else []
        self._marked, self._own_seconds = True, 0.0
        for contributor in self._contributors:
            running = self._running.get(contributor)
            if not contributor.unagreed or (running and running.evidence.number >= contributor.unagreed[-1]):
                continue
            assert contributor.last is not None
            if running and running in self.queue:
                self.queue.remove(running)  # the later answer stands for the earlier ones too
            self._running[contributor] = job = CheckJob(contributor.last, time.monotonic(), contributor in own)
            self.queue.append(job)
            self._turns += job.here
        return self._answers

    def _own_turn(self, workers: Sequence[Contributor]) -> list[Contributor]:
        """The workers that this process checks itself: workers that become wrong in the same way agree with each other.

        They take turns, two at a time. Of two workers neither checks the other then: the one whose last answer was right may
        be wrong by the time of its check. None where this process is of another kind: it might be slow, and could compare
        but roughly.
        """
        answered = [worker for worker in workers if worker.unagreed]
        chosen = [answered[(self._turns + k) % len(answered)] for k in range(min(_OWN, len(answered)))]
        return [worker for worker in chosen if worker.kind.hardware == self._own.hardware]

    def confirmed(self, mark: int) -> bool:
        """Evaluator.confirmed."""
        return all(not c.unagreed or c.unagreed[0] > mark for c in self._contributors)

    def next_for(self, worker: Contributor) -> CheckJob | None:
        """The next check that this worker can do, which leaves the queue."""
        for job in self.queue:
            if job.may_go_to(worker):
                self.queue.remove(job)
                return job
        return None

    def without_worker(self, workers: Sequence[Contributor], patience: float) -> CheckJob | None:
        """A check that none of these workers can do, or that has waited so many seconds; it leaves the queue."""
        now = time.monotonic()
        for job in self.queue:
            if now - job.begun > patience or not any(job.may_go_to(worker) for worker in workers):
                self.queue.remove(job)
                return job
        return None

    def answered_check(self, job: CheckJob, by: Contributor, logits: np.ndarray, seconds: float) -> list[Wrong]:
        """A worker has repeated another's work: the workers that are wrong."""
        self.repeated += len(logits)
        self.check_seconds = max(seconds, self._own_seconds)
        evidence = job.evidence
        if self._running.get(evidence.by) is not job:
            return []  # a later answer is being checked instead
        found = self._differs(evidence, (evidence.by, evidence.answer), logits, evidence.kind_of(by.kind))
        if found:
            job.others.append((by, logits))
            return self.decide(job)
        self._agree(job)
        return [
            (other, self._text(other, apart, f"{evidence.by} and {by}"))
            for other, answer in job.others
            if (apart := self._differs(evidence, (other, answer), logits, evidence.kind_of(by.kind)))
        ]

    def outstanding(self) -> list[CheckJob]:
        """All checks that are not completed; workers are not asked any more."""
        self.queue.clear()
        return list(self._running.values())

    def decide(self, job: CheckJob, last: bool = False) -> list[Wrong]:
        """Repeat a worker's work in this process: the workers that are wrong. last: no other worker can be asked."""
        evidence, began = job.evidence, time.monotonic()
        own = self._repeat(evidence.work)
        if not job.others:
            self._own_seconds += time.monotonic() - began
            self.check_seconds = self._own_seconds
        answers = [(evidence.by, evidence.answer), *job.others]
        if own is not None:
            wrong = [
                (worker, self._text(worker, found, "this machine"))
                for worker, answer in answers
                if (found := self._differs(evidence, (worker, answer), own[0], evidence.kind_of(own[1])))
            ]
            if wrong or not job.others:
                self._agree(job) if all(worker is not evidence.by for worker, _ in wrong) else self._drop(job)
                return wrong
        if job.here and not last:
            job.here = False  # a worker may be able to
            self.queue.append(job)
            return []
        if not job.others:
            self._agree(job)
            self._note(f"answers of {evidence.by} are not checked: the target fails on these images on this machine")
            return []
        if not last and len(job.others) == 1 and any(job.may_go_to(c) and not c.gone for c in self._contributors):
            self.queue.append(job)
            return []
        other, logits = job.others[-1]
        found = self._differs(evidence, (evidence.by, evidence.answer), logits, evidence.kind_of(other.kind))
        assert found is not None
        alike = [
            self._differs(evidence, (by, answer), logits, evidence.kind_of(other.kind)) is None
            for by, answer in job.others[:-1]
        ]
        if evidence.by is self._first and not any(alike):
            self._agree(job)
            return [(other, self._text(other, found, str(evidence.by)))]
        self._drop(job)
        return [(evidence.by, self._text(evidence.by, found, str(other)))]

    def wrongly_broken(self, by: Contributor, orders: Sequence[Order], reason: str) -> str | None:
        """How a worker differs for which the target breaks on images of these orders, each within one chunk.

        None if it breaks on them in this process too, or if this process lacks the search's number format and cannot tell.
        """
        if self._batch_evaluator.number_format not in self._batch_evaluator.target.formats:
            return None
        answers = [self._repeat(order) for order in orders]
        if any(answer is None or not np.isfinite(answer[0]).all() for answer in answers):
            return None
        return f"{by} fails on images that this machine classifies: {reason}"

    def withdraw(self, worker: Contributor) -> bool:
        """A worker was wrong. Returns whether it had given answers that are not agreed on."""
        had_answered = bool(worker.unagreed)
        self._running.pop(worker, None)
        self.queue = deque(job for job in self.queue if job.evidence.by is not worker)
        self._contributors = [other for other in self._contributors if other is not worker]
        if self._first is worker:
            self._first = next(iter(self._contributors), None)
        for probe in self._probes:
            if probe.first and probe.first[1] is worker:
                probe.first = None
        return had_answered

    def clear(self) -> None:
        """The search goes back to its last checkpoint: all answers since then are forgotten."""
        self.queue.clear()
        self._running.clear()
        self._newest = None
        self._contributors = [contributor for contributor in self._contributors if not contributor.gone]
        for contributor in self._contributors:
            contributor.unagreed.clear()
            contributor.last = None

    # -- at the end

    def scored_by(self, birth: int) -> frozenset[int]:
        """The number of the worker that scored an image; empty if that is not known."""
        return frozenset([self._scored_by[birth]]) if birth in self._scored_by else frozenset()

    def measure(self, work: References) -> np.ndarray:
        """(B, K) the float32 logits of genomes, by this process. TargetError if its target breaks."""
        with torch_threads(self._threads), self._counted_apart():
            return self._batch_evaluator.reference_logits(work.batch())

    def exact(self, machines: Iterable[Mapping[str, Any]]) -> bool:
        """Whether logits of these machines and of this one have to be equal to the bit."""
        kinds = [self._own._replace(machine=machine) for machine in machines]
        return all(allowance(kind, self._own, self._strict, self._batch_evaluator.position).exact for kind in kinds)

    # -- inside

    def _repeat(self, work: Order | References) -> tuple[np.ndarray, Kind] | None:
        """This process's logits for work, and what it is for them; None if its target breaks.

        Where it does not have the search's number format, it takes float32.
        """
        e, own = self._batch_evaluator, self._own
        if isinstance(work, Order) and e.number_format not in e.target.formats:
            e, own = replace(e, number_format=FLOAT32), own._replace(number_format=FLOAT32)
        try:
            with torch_threads(self._threads), self._counted_apart():
                return (e.logits(work) if isinstance(work, Order) else e.reference_logits(work.batch())), own
        except EvofoolError:
            return None

    @contextmanager
    def _counted_apart(self) -> Iterator[None]:
        """Count this process's evaluations among the repeated ones, and not as queries."""
        target = self._batch_evaluator.target
        before = target.queries
        try:
            yield
        finally:
            repeated = target.queries - before
            target.count(-repeated)
            self.repeated += repeated

    def _difference(self, answer: Seal | np.ndarray, of: Kind, logits: np.ndarray, other: Kind) -> Difference | None:
        return difference(answer, logits, allowance(of, other, self._strict, self._batch_evaluator.position))

    def _differs(
        self, evidence: Evidence, answered: tuple[Contributor, Seal | np.ndarray], logits: np.ndarray, other: Kind
    ) -> Difference | None:
        """How an answer to this work differs from the logits of a process of another kind.

        Children that climb surrogates' gradients are compared only where these have equal bits.
        """
        by, answer = answered
        of, work = evidence.kind_of(by.kind), evidence.work
        skipped = None
        if isinstance(work, Order) and work.climbs is not None and not same_gradients(of, other):
            skipped = work.climbs >= 0
        return difference(answer, logits, allowance(of, other, self._strict, self._batch_evaluator.position), skipped)

    def _text(self, worker: Contributor, found: Difference, other: str) -> str:
        """What is wrong with a worker, and what can be done."""
        theirs, ours = worker.kind.machine, self._own.machine
        differing = [name for name in VERSIONS if theirs.get(name) != ours.get(name)]
        if differing:
            here = ", ".join(f"{name} {ours.get(name)}" for name in differing)
            there = ", ".join(f"{name} {theirs.get(name)}" for name in differing)
            remedy = f"it has {there}, this machine {here}: install there what is installed here"
        else:
            remedy = f"check the memory, the device and the files of {worker.info.node}"
            if found.allowed == 0 and 0 < found.largest < ROUGHLY_EQUAL:
                remedy += ", or start another run with search.mode=free, which allows such differences"
        return f"{worker} answers differently from {other}: {found}; {remedy}"

    def _agree(self, job: CheckJob) -> None:
        job.evidence.by.agree(job.evidence.number)
        self._drop(job)

    def _drop(self, job: CheckJob) -> None:
        if self._running.get(job.evidence.by) is job:
            del self._running[job.evidence.by]
