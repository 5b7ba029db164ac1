"""Batches evaluated in parts by workers that may die: the queue of jobs, repeated jobs, splits, and quarantine.

Independent of how a job reaches a worker. Evaluating a job twice is harmless: the same rows give the same winners.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evofool.ascend.surrogates import Surrogates
from evofool.cluster.agreement import Contributor, Evidence, Kind, References
from evofool.errors import ScoreError
from evofool.search.archive import Quarantined, Winners
from evofool.search.evaluate import Order
from evofool.search.isolation import Quarantine, refuse_whole_batch
from genomes import Encoding

_PARTS = 8  # that a job which kills its worker is split into


@dataclass(eq=False)
class OrderJob:
    """Some rows of a batch. failures: how often its rows have failed: their worker died, or they broke the target."""

    order: Order
    batch: "_PendingBatch"
    failures: int = 0
    broken_by: tuple[Contributor, ...] = ()  # the workers for which its rows broke the target


@dataclass(eq=False)
class ReferenceJob:
    """Genomes whose float32 logits are wanted. not_by: numbers of workers that are not to be asked.

    again: they have been scored before, and are measured again to compare.
    """

    work: References
    not_by: frozenset[int] = frozenset()
    again: bool = False
    failures: int = 0
    logits: np.ndarray | None = None


@dataclass(eq=False)
class ProbeJob:
    """A question to a worker that has just started, whose answer is known or will be."""

    order: Order
    failures: int = 0
    own: "tuple[np.ndarray, Kind] | None" = None  # this process's answer
    first: "tuple[np.ndarray, Contributor] | None" = None  # that of the first worker that was accepted


@dataclass(eq=False)
class CheckJob:
    """Work of one worker that another process repeats.

    here: in this process. others: the workers that answered differently, with their logits.
    """

    evidence: Evidence
    begun: float  # time.monotonic
    here: bool = False
    failures: int = 0
    others: list[tuple[Contributor, np.ndarray]] = field(default_factory=list)

    @property
    def work(self) -> Order | References:
        return self.evidence.work

    def may_go_to(self, worker: Contributor) -> bool:
        return not self.here and worker is not self.evidence.by and all(worker is not other for other, _ in self.others)


@dataclass(eq=False)
class _PendingBatch:
    order: Order
    missing: int  # rows without a result
    parts: list[Winners] = field(default_factory=list)
    quarantined: dict[int, Quarantined] = field(default_factory=dict)  # by birth


class JobQueue:
    """The batches under way and the jobs that remain of them.

    in_order: results come in the order of submission, else as they are complete. A job of several rows that has failed
    `retries` times is split. A row that fails alone once more than that is quarantined: it wins nothing. More than
    max_quarantined of them end the search with a ScoreError; a batch of several rows that are all quarantined ends it with a
    TargetError. target_name is for messages. keep, surrogates: those of the BatchEvaluator.
    """

    def __init__(
        self,
        encoding: Encoding,
        *,
        in_order: bool,
        retries: int,
        max_quarantined: int,
        target_name: str,
        keep: int = 1,
        surrogates: Surrogates | None = None,
    ) -> None:
        self.encoding, self.keep = encoding, keep
        self.in_order, self.retries, self.target_name = in_order, retries, target_name
        self._aside = Quarantine(encoding, target_name, max_quarantined, surrogates)
        self._batches: dict[int, _PendingBatch] = {}  # in the order of submission
        self._queue: deque[OrderJob] = deque()

    def add(self, order: Order, parts: Iterable[Order]) -> None:
        """Add an order, cut into parts."""
        batch = self._batches[order.batch] = _PendingBatch(order, order.size)
        self._queue += [OrderJob(part, batch) for part in parts]

    def next(self, alone: bool = True) -> OrderJob | None:
        """The next job; None if there is none. alone: its worker has no other call, so that a job that has failed may go."""
        job = next((job for job in self._queue if alone or not job.failures), None)
        if job:
            self._queue.remove(job)
        return job

    def put_back(self, job: OrderJob) -> None:
        """Return a job whose worker is gone for another reason: it comes next, and counts no failure."""
        self._queue.appendleft(job)

    def complete(
        self, job: OrderJob, winners: Winners, broken: Sequence[tuple[int, str]] = (), by: Contributor | None = None
    ) -> bool:
        """Take a job's winners; called once per job. by: the worker that answered.

        broken: rows of it that broke the target, each with the reason. They are queued again, each alone, until they have
        failed `retries` times. Returns whether any were.
        """
        job.batch.parts.append(winners)
        job.batch.missing -= job.order.size - len(broken)
        broken_by = job.broken_by if by is None else (*job.broken_by, by)
        failed = [
            (OrderJob(job.order.cut(row, row + 1), job.batch, self._failures_of_row(job), broken_by), reason)
            for row, reason in broken
        ]
        again = [row_job for row_job, _ in failed if row_job.failures < self.retries]
        self._queue.extendleft(reversed(again))
        for row_job, reason in failed:
            if row_job.failures >= self.retries:
                self._quarantine(row_job, reason)
                row_job.batch.missing -= 1
        return bool(again)

    @staticmethod
    def _failures_of_row(job: OrderJob) -> int:
        """How often a broken row has failed by now; earlier failures of several rows count for the job as a whole."""
        return job.failures + 1 if job.order.size == 1 else 1

    def fail(self, job: OrderJob, reason: str) -> None:
        """The worker died or hung while it had this job: queue it again, as a whole or split, or quarantine it."""
        job.failures += 1
        order, size = job.order, job.order.size
        if job.failures < self.retries or (size == 1 and job.failures == self.retries):
            self._queue.appendleft(job)
        elif size == 1:
            self._quarantine(job, f"{reason}, {job.failures} times")
            job.batch.missing -= 1
        else:
            step = -(-size // _PARTS)
            cuts = [order.cut(at, min(at + step, size)) for at in range(0, size, step)]
            # The next failure splits again, so that few deaths narrow a batch down to one image.
            self._queue.extendleft(OrderJob(cut, job.batch, self.retries - 1) for cut in reversed(cuts))

    def results(self) -> Iterator[tuple[Order, Winners]]:
        """Remove and yield the complete batches; in order, up to the first batch that is not complete."""
        for number, batch in list(self._batches.items()):
            if batch.missing == 0:
                quarantined = tuple(q for _, q in sorted(batch.quarantined.items()))
                refuse_whole_batch(batch.order, [q.reason for q in quarantined], self.target_name)
                del self._batches[number]
                # Parts arrive as workers finish them: sorted, the batch is the same whichever was first.
                told = (p for p in batch.parts if len(p.births) or len(p.turned_away.births))
                parts = sorted(told, key=lambda part: part.births[:1].tolist())
                winners = Winners.merged(parts, self.keep) if parts else Winners.none(self.encoding)
                yield batch.order, replace(winners, quarantined=quarantined)
            elif self.in_order:
                return

    @property
    def quarantined(self) -> int:
        """The number of quarantined images."""
        return len(self._aside)

    def pending(self) -> list[Order]:
        return [batch.order for batch in self._batches.values()]

    def clear(self) -> None:
        """Forget all batches and jobs, but not how many images were quarantined."""
        self._batches.clear()
        self._queue.clear()

    def _quarantine(self, job: OrderJob, reason: str) -> None:
        """Quarantine the one row of a job."""
        if job.order.first_birth in job.batch.quarantined:
            return
        try:
            job.batch.quarantined[job.order.first_birth] = self._aside.add(job.order, reason)
        except ScoreError:
            self.put_back(job)
            raise
