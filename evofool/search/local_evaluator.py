"""Orders evaluated in this process."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.machine import machine
from evofool.search.archive import Winners
from evofool.search.evaluate import BatchEvaluator, Measured, Order
from evofool.search.isolation import OnAnswers, Quarantine, isolate, refuse_whole_batch
from evofool.targets.cuda import own_stream
from genomes import Genomes


class LocalEvaluator:
    """Evaluates in this process: one chunk after another, or as many at once as there are streams.

    Streams are threads, each with torch_threads for its forward passes (numba and torch release the interpreter lock), so
    that one draws while another classifies; on a GPU each has a CUDA stream. Their number does not change results.

    An image that breaks the target is evaluated once more, alone, and then quarantined: at most `quarantine` of them, before
    a ScoreError ends the search. A black box is not queried again for images that it refused: its error is raised.

    on_answers is called with the answers to every chunk, from the thread that evaluates it; with one stream in the order of
    births. A chunk that is evaluated again, because the search was interrupted before it was committed, is passed again.
    """

    orders_in_progress: int | None = None
    repeated, check_seconds = 0, 0.0

    def __init__(
        self, batch_evaluator: BatchEvaluator, streams: int = 1, torch_threads: int = 1, quarantine: int = 16
    ) -> None:
        self.batch_evaluator = batch_evaluator
        self.at_once = streams
        self.on_answers: OnAnswers | None = None
        self.notes: list[str] = []
        self.machines = [machine(torch_threads)]
        e = batch_evaluator
        self._quarantine = Quarantine(e.encoding, e.target.name, quarantine, e.surrogates)
        self._orders: deque[_Submitted] = deque()
        self._pool: ThreadPoolExecutor | None = None
        if streams > 1:
            device = e.target.network.device if e.target.network else torch.device("cpu")
            self._pool = ThreadPoolExecutor(streams, "evofool", own_stream, (device, torch_threads))

    def submit(self, order: Order) -> None:
        self._orders.append(_Submitted(order))

    def results(self, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Order, Winners]]:
        """In the order of submission. A batch is always finished; give_up is not called."""
        while self._orders:
            head = self._orders[0]
            for submitted in self._orders:
                self._begin(submitted)
            try:
                winners = self._merged(head.order, self._parts(head))
            except BaseException:
                # A later call evaluates the batch again; logits that are still being computed are not waited for.
                self.batch_evaluator.target.cancel()
                for submitted in self._orders:
                    for part in submitted.parts:
                        part.cancel()
                    submitted.parts = []
                raise
            self._orders.popleft()
            yield head.order, winners

    def pending(self) -> list[Order]:
        return [submitted.order for submitted in self._orders]

    def reference_logits(self, births: Sequence[int], genomes: Genomes) -> np.ndarray:
        step = self.batch_evaluator.reference_batch
        parts = [genomes[at : at + step] for at in range(0, len(genomes), step)]
        answers = (
            self._pool.map(self.batch_evaluator.reference_logits, parts)
            if self._pool
            else map(self.batch_evaluator.reference_logits, parts)
        )
        return np.concatenate(list(answers))

    def workers(self) -> list[dict[str, Any]]:
        return []

    def mark(self) -> int:
        return 0

    def confirmed(self, mark: int) -> bool:
        return True

    def confirm(self) -> None: ...

    def rewind(self, committed: int) -> None:
        self._orders.clear()

    def measure_elsewhere(self, births: Sequence[int], genomes: Genomes) -> Measured | None:
        return None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self.batch_evaluator.target.cancel()

    # -- inside

    def _begin(self, submitted: "_Submitted") -> None:
        if self._pool is not None and not submitted.parts:
            submitted.parts = [self._pool.submit(self._part, order) for order in self._chunks(submitted.order)]

    def _parts(self, submitted: "_Submitted") -> "list[_Part]":
        """The chunks of an order, evaluated; what the first one that failed has raised."""
        if self._pool is None:
            return [self._part(order) for order in self._chunks(submitted.order)]
        wait(submitted.parts, return_when=FIRST_EXCEPTION)
        failed = [part for part in submitted.parts if part.done() and part.exception()]
        return [part.result() for part in failed or submitted.parts]

    def _chunks(self, order: Order) -> list[Order]:
        ends = [*self.batch_evaluator.parts(order), order.size]
        return [order.cut(begin, end) for begin, end in pairwise(ends)]

    def _part(self, order: Order) -> "_Part":
        """A chunk. An image that breaks the target alone gets another chance: the fault may have passed."""
        found = isolate(self.batch_evaluator, order, self.on_answers)
        parts, aside, varies = [found.winners], [], bool(found.unsteady)
        for row, _ in found.broken:
            alone = order.cut(row, row + 1)
            again = isolate(self.batch_evaluator, alone, self.on_answers)
            parts.append(again.winners)
            aside += [(alone, reason) for _, reason in again.broken]
            varies |= not again.broken
        return _Part(Winners.merged(parts, self.batch_evaluator.keep), aside, varies)

    def _merged(self, order: Order, parts: "Sequence[_Part]") -> Winners:
        aside = [image for part in parts for image in part.aside]
        if any(part.varies for part in parts) and not self.notes:
            self.notes.append(
                f"images of batch {order.batch} broke {self.batch_evaluator.target.name} once, not twice: its answers vary"
            )
        refuse_whole_batch(order, [reason for _, reason in aside], self.batch_evaluator.target.name)
        quarantined = tuple(self._quarantine.add(alone, reason) for alone, reason in aside)
        winners = Winners.merged([part.winners for part in parts], self.batch_evaluator.keep)
        return replace(winners, quarantined=quarantined)


class _Part(NamedTuple):
    """A chunk's winners.

    aside: the images that are to be quarantined, each an order of its own, with the reason. varies: some images broke the
    target, but not again.
    """

    winners: Winners
    aside: list[tuple[Order, str]]
    varies: bool


@dataclass
class _Submitted:
    """An order, and its chunks that are being evaluated."""

    order: Order
    parts: list[Future[_Part]] = field(default_factory=list)
