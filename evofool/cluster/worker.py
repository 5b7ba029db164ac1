"""What runs in an actor: the target, built once, and what this worker was told so far. Knows nothing of Ray."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.cluster.messages import OrderMessage, ParentUpdate, Receiver, encode_winners
from evofool.errors import EvofoolError, ScoreError, TargetError
from evofool.machine import machine
from evofool.search.archive import Winners
from evofool.search.evaluate import BatchEvaluator, Order, stays_on_device
from evofool.targets import target
from genomes import Key

_MOST_ASIDE = 8  # images that break the target in one call, before it is taken for broken itself
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


class Reply(NamedTuple):
    """What a worker says of a call."""

    value: Any  # WinnersMessage, or float32 logits
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
        self._receiver = Receiver(judge["encoding"], seed, batch)

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
        self._batch_evaluator = BatchEvaluator(
            target=self.target, resident=stays_on_device(self.target, known["edges"]), **known
        )
        self._warm_up()
        device = str(self.target.details.get("device", "cpu"))
        if device.startswith("cuda"):
            device = torch.cuda.get_device_name(device)
        known_format, there = self._batch_evaluator.number_format, self.target.formats
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
        encoding, key = self._batch_evaluator.encoding, Key(0, 0)
        some = encoding.random(self._batch_evaluator.chunk, key)
        encoding.render(encoding.vary(some, some, key))

    def judge(self, message: OrderMessage) -> Reply:
        """The winners of an order, without those that break the target by themselves."""
        began, before = time.perf_counter(), self.target.queries
        order = self._receiver.decode(message)
        aside: list[tuple[int, str]] = []
        cuts = pairwise([*self._batch_evaluator.parts(order), order.size])
        parts = [self._careful(order.cut(at, end), at, aside) for at, end in cuts]
        return Reply(
            encode_winners(order, Winners.merged(parts), aside), self.target.queries - before, time.perf_counter() - began
        )

    def plain(self, births: tuple[int, ...], update: ParentUpdate) -> Reply:
        """The plain logits of genomes."""
        began, before = time.perf_counter(), self.target.queries
        genomes = self._receiver.apply(update, births)
        logits = self._batch_evaluator.reference_logits(np.concatenate([genomes[birth] for birth in births]))
        return Reply(logits, self.target.queries - before, time.perf_counter() - began)

    def _careful(self, order: Order, begin: int, aside: list[tuple[int, str]]) -> Winners:
        """The winners of a chunk, or of its halves where it cannot be judged, down to the image that breaks the target.

        Every image keeps its row in the forward pass (BatchEvaluator.part), since its last bits may depend on that.
        """
        try:
            return self._batch_evaluator(order)
        except OUT_OF_MEMORY:
            raise
        except (ScoreError, TargetError) as error:
            if order.size == 1:
                aside.append((begin, str(error)))
                if len(aside) > _MOST_ASIDE:
                    raise
                return Winners.none(self._batch_evaluator.encoding)
        half = order.size // 2
        cuts = (order.cut(0, half), begin), (order.cut(half, order.size), begin + half)
        return Winners.merged([self._careful(cut, at, aside) for cut, at in cuts])


def steps(size: int, step: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of pieces of `step` rows, the last one shorter."""
    return ((at, min(at + step, size)) for at in range(0, size, step))
