"""All that workers are to do: parts of orders, float32 logits of elites, checks of other workers. Independent of Ray."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from evofool.cluster.agreement import Contributor, References
from evofool.cluster.checks import Checks, Wrong
from evofool.cluster.jobs import CheckJob, JobQueue, OrderJob, ProbeJob, ReferenceJob
from evofool.cluster.messages import Lineage, Sender, WinnersMessage, decode_winners
from evofool.cluster.worker import Reply, spans
from evofool.search.evaluate import BatchEvaluator
from evofool.search.isolation import NOT_FINITE
from genomes import Genomes

Job = OrderJob | ReferenceJob | ProbeJob | CheckJob


class Taken(NamedTuple):
    """What follows from a worker's answer."""

    wrong: list[Wrong]  # workers that differ
    broken: str | None = None  # why the target broke, if other processes are to try the same images


class Work:
    """The jobs that are waiting, and what becomes of the answers."""

    def __init__(self, batch_evaluator: BatchEvaluator, jobs: JobQueue, checks: Checks) -> None:
        self.jobs, self.checks = jobs, checks
        self.references: deque[ReferenceJob] = deque()
        self.holds_orders = False  # while checks are completed
        self._batch_evaluator = batch_evaluator
        self._lineage = Lineage()

    def new_sender(self) -> Sender:
        """For a worker that knows no parents yet."""
        return Sender(self._batch_evaluator.encoding, self._lineage)

    def next_for(self, worker: Contributor, alone: bool) -> Job | None:
        """What a worker is to do next, checks first; None if there is nothing for it. alone: as in JobQueue.next."""
        check = self.checks.next_for(worker)
        if check:
            return check
        for job in self.references:
            if worker.number not in job.not_by:
                self.references.remove(job)
                return job
        return None if self.holds_orders else self.jobs.next(alone)

    def put_back(self, job: Job | None) -> None:
        """Return a job whose worker is gone. A new worker gets its probes anyway."""
        if isinstance(job, OrderJob):
            self.jobs.put_back(job)
        elif isinstance(job, ReferenceJob):
            self.references.appendleft(job)
        elif isinstance(job, CheckJob):
            self.checks.queue.appendleft(job)

    def take(self, by: Contributor, job: ReferenceJob | OrderJob | CheckJob | None, reply: Reply) -> Taken:
        """Take the answer of a worker; a job of None was discarded meanwhile."""
        if isinstance(job, CheckJob):
            return Taken(self.checks.answered_check(job, by, reply.value, reply.seconds))
        if isinstance(job, OrderJob):
            self._batch_evaluator.target.count(reply.images)
            return self._take_winners(by, job, reply)
        if job is None or job.again:
            self.checks.repeated += reply.images
        else:
            self._batch_evaluator.target.count(reply.images)
            self.checks.answered_references(by, job.work, reply.value)
        if job is not None:
            job.logits = reply.value
        return Taken([])

    def _take_winners(self, by: Contributor, job: OrderJob, reply: Reply) -> Taken:
        message: WinnersMessage = reply.value
        # An error may pass, as a time-out on a busy machine: then the image is evaluated by another process, as below.
        not_finite = [row for row, reason in message.broken if reason == NOT_FINITE]
        suspect = [job.order.cut(row, row + 1) for row in not_finite]
        suspect += [job.order.cut(begin, end) for begin, end in reply.unsteady]
        if suspect:
            reason = NOT_FINITE if not_finite else "the answer to them was NaN or infinite once"
            found = (self.checks.wrongly_broken(by, [order], reason) for order in suspect)
            if text := next(filter(None, found), None):
                self.put_back(job)
                return Taken([(by, text)])
        made = decode_winners(self._batch_evaluator.encoding, job.order, message, self._lineage)
        self.checks.answered_order(by, job.order, reply.seal, made.births.tolist())
        if self.jobs.complete(job, made, message.broken, by if not_finite else None):
            # The images or the worker's process may be the cause: a new process evaluates them again.
            return Taken([], message.broken[0][1])
        if message.broken:
            return Taken([])
        text = f"fails on an image of batch {job.order.batch} that {by} classifies"
        return Taken([(other, f"{other} {text}") for other in job.broken_by if other is not by])

    def reference_jobs(self, births: Sequence[int], genomes: Genomes) -> list[ReferenceJob]:
        """Queue jobs for float32 logits, in place of those that are left of an earlier call that failed."""
        jobs = [ReferenceJob(work) for work in _parts(births, genomes, self._batch_evaluator.reference_batch)]
        self.references = deque(jobs)
        return jobs

    def jobs_elsewhere(self, births: Sequence[int], genomes: Genomes) -> list[ReferenceJob]:
        """Queue jobs for float32 logits that do not go to the worker that scored an elite."""
        rows_of: dict[frozenset[int], list[int]] = {}
        for row, birth in enumerate(births):
            rows_of.setdefault(self.checks.scored_by(birth), []).append(row)
        jobs = [
            ReferenceJob(work, not_by=numbers, again=True)
            for numbers, rows in rows_of.items()
            for work in _parts([births[row] for row in rows], genomes[rows], self._batch_evaluator.chunk)
        ]
        self.references = deque(jobs)
        return jobs

    def clear(self) -> None:
        """The search goes back to its last checkpoint: all that is waiting, and all answers since then, are forgotten."""
        self.jobs.clear()
        self.references.clear()
        self._lineage.clear()
        self.checks.clear()


def _parts(births: Sequence[int], genomes: Genomes, step: int) -> Iterator[References]:
    """Genomes in parts of at most `step`."""
    for at, end in spans(len(births), step):
        part = tuple(births[at:end])
        yield References(part, {birth: genomes[at + i : at + i + 1] for i, birth in enumerate(part)})
