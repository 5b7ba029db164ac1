"""Batches judged in pieces by workers that may die: what is to be done, done again, split, and set aside.

Knows nothing of how a piece reaches a worker. Judging a piece twice is harmless: the same rows give the same winners.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from evofool.errors import ScoreError, TargetError
from evofool.search.archive import Quarantined, Winners
from evofool.search.evaluate import Order, children
from genomes import Encoding

_PARTS = 8  # that a piece which kills its worker is split into


@dataclass(eq=False)
class Job:
    """Some rows of a batch. strikes: how often whoever had them died over them, or worse."""

    order: Order
    batch: "_Batch"
    strikes: int = 0


@dataclass(eq=False)
class _Batch:
    order: Order
    left: int  # rows whose winners are not here
    parts: list[Winners] = field(default_factory=list)
    aside: dict[int, Quarantined] = field(default_factory=dict)  # by birth


class Jobs:
    """The batches under way and what is left to do of them.

    in_order: results come in the order of submission, else as they are complete. A piece of several rows that was struck
    `retries` times is split; a row that was struck once more than that, alone, is quarantined: it wins nothing. More than
    `most` of these end the search with a ScoreError, a batch of several of which nothing is left with a TargetError.
    """

    def __init__(self, encoding: Encoding, *, in_order: bool, retries: int, most: int, who: str) -> None:
        self.encoding = encoding
        self.in_order, self.retries, self.most, self.who = in_order, retries, most, who
        self.quarantined = 0
        self._batches: dict[int, _Batch] = {}  # in the order of submission
        self._queue: deque[Job] = deque()

    def add(self, order: Order, pieces: Iterable[Order]) -> None:
        """Take an order, cut into pieces."""
        batch = self._batches[order.batch] = _Batch(order, order.size)
        self._queue += [Job(piece, batch) for piece in pieces]

    def next(self) -> Job | None:
        """What to do now; None if all is with workers, or done."""
        return self._queue.popleft() if self._queue else None

    def give_back(self, job: Job) -> None:
        """The worker is gone, for no fault of this job's."""
        self._queue.appendleft(job)

    def done(self, job: Job, winners: Winners, aside: Sequence[tuple[int, str]] = ()) -> bool:
        """The job's winners are here; told once. aside: rows of it that broke the target, and how.

        Such rows are given out again, each alone, until they broke it `retries` times. Returns whether any were.
        """
        job.batch.parts.append(winners)
        job.batch.left -= job.order.size - len(aside)
        doubts = [(Job(job.order.cut(row, row + 1), job.batch, self._struck(job)), why) for row, why in aside]
        again = [one for one, _ in doubts if one.strikes < self.retries]
        self._queue.extendleft(reversed(again))
        for one, why in doubts:
            if one.strikes >= self.retries:
                self._set_aside(one, one.order, why)
                one.batch.left -= 1
        return bool(again)

    @staticmethod
    def _struck(job: Job) -> int:
        """How often a row of the job has broken the target by now: what a job was struck with before was all of it."""
        return job.strikes + 1 if job.order.size == 1 else 1

    def blame(self, job: Job, why: str) -> None:
        """The worker died over this job, or hung: give it out again, in pieces, or set it aside."""
        job.strikes += 1
        order, size = job.order, job.order.size
        if job.strikes < self.retries or (size == 1 and job.strikes == self.retries):
            self._queue.appendleft(job)
        elif size == 1:
            self._set_aside(job, order, f"{why}, {job.strikes} times")
            job.batch.left -= 1
        else:
            step = -(-size // _PARTS)
            cuts = [order.cut(at, min(at + step, size)) for at in range(0, size, step)]
            # The next strike splits again: a batch comes down to the one image in few deaths.
            self._queue.extendleft(Job(cut, job.batch, self.retries - 1) for cut in reversed(cuts))

    def results(self) -> Iterator[tuple[Order, Winners]]:
        """Take out what is complete; in order, up to the first batch that is not."""
        for number, batch in list(self._batches.items()):
            if batch.left == 0:
                if batch.order.size > 1 and len(batch.aside) == batch.order.size:
                    raise TargetError(
                        f"{self.who}: fails on every image of batch {number}: {next(iter(batch.aside.values())).why}"
                    )
                del self._batches[number]
                # Pieces come as workers finish them: sorted, the batch is the same whoever was first.
                parts = sorted((p for p in batch.parts if len(p.births)), key=lambda part: part.births[0])
                winners = Winners.merged(parts) if parts else Winners.none(self.encoding)
                aside = tuple(one for _, one in sorted(batch.aside.items()))
                yield batch.order, replace(winners, quarantined=aside)
            elif self.in_order:
                return

    def pending(self) -> list[Order]:
        return [batch.order for batch in self._batches.values()]

    def _set_aside(self, job: Job, one: Order, why: str) -> None:
        aside, birth = job.batch.aside, one.first_birth
        if birth in aside:
            return
        self.quarantined += 1
        if self.quarantined > self.most:
            self.give_back(job)
            raise ScoreError(
                f"batch {one.batch}: {self.who}: {why}. More than {self.most} images were set aside by now: check the "
                "target, or raise compute.ray.quarantine"
            )
        mother, father = int(one.mothers[0]), int(one.fathers[0])
        aside[birth] = Quarantined(birth, one.batch, mother, father, children(self.encoding, one), why)
