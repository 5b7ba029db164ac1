"""What runs in an actor: the target, built once, and the parents and thresholds received so far. Independent of Ray."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from evofool.cluster.messages import OrderMessage, ParentUpdate, Receiver, encode_winners
from evofool.errors import EvofoolError
from evofool.machine import machine
from evofool.search.evaluate import BatchEvaluator, stays_on_device
from evofool.search.isolation import isolate
from evofool.targets import target
from genomes import Key


class Reply(NamedTuple):
    """A worker's answer to a call."""

    value: Any  # WinnersMessage, or float32 logits
    images: int  # that the target answered
    seconds: float  # from taking the call to answering it


@dataclass(frozen=True)
class WorkerInfo:
    """A worker once its target is built, or the error because of which it cannot be built."""

    error: str = ""
    fingerprint: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    node: str = ""
    pid: int = 0


class Worker:
    """The class of the actors. evaluator_settings: the fields of the batch evaluator, but for target and resident."""

    def __init__(
        self, spec: str, evaluator_settings: dict[str, Any], seed: int, batch: int, threads: int, folder: str
    ) -> None:
        self._spec, self._settings, self._threads, self._folder = spec, evaluator_settings, threads, folder
        self._receiver = Receiver(evaluator_settings["encoding"], seed, batch)

    def placed(self) -> None:
        """Returns once the actor has its resources."""

    def build(self) -> WorkerInfo:
        """Build the target."""
        # python: targets look for their module in the folder where they were named, which another machine may lack.
        with suppress(OSError):
            os.chdir(self._folder)
        torch.set_num_threads(self._threads)
        try:
            self.target = target(self._spec)
        except EvofoolError as error:
            return WorkerInfo(str(error))
        resident = stays_on_device(self.target, self._settings["edges"])
        self._batch_evaluator = BatchEvaluator(target=self.target, resident=resident, **self._settings)
        self._warm_up()
        device = str(self.target.details.get("device", "cpu"))
        if device.startswith("cuda"):
            device = torch.cuda.get_device_name(device)
        if self._batch_evaluator.number_format not in self.target.formats:
            available = ", ".join(self.target.formats)
            return WorkerInfo(
                f"{socket.gethostname()} lacks the format {self._batch_evaluator.number_format}; it has {available}"
            )
        return WorkerInfo(
            fingerprint=self.target.fingerprint(),
            machine=machine(self._threads) | ({} if device == "cpu" else {"device": device}),
            device=device,
            node=socket.gethostname(),
            pid=os.getpid(),
        )

    def _warm_up(self) -> None:
        """Compile the kernels that make and render a chunk, without a query to the target."""
        encoding, key = self._batch_evaluator.encoding, Key(0, 0)
        genomes = encoding.random(self._batch_evaluator.chunk, key)
        encoding.render(encoding.vary(genomes, genomes, key))

    def evaluate(self, message: OrderMessage) -> Reply:
        """The winners of an order, and the rows that break the target by themselves."""
        began, before = time.perf_counter(), self.target.queries
        order = self._receiver.decode(message)
        answer = encode_winners(order, *isolate(self._batch_evaluator, order))
        return Reply(answer, self.target.queries - before, time.perf_counter() - began)

    def reference_logits(self, births: tuple[int, ...], update: ParentUpdate) -> Reply:
        """The float32 logits of genomes."""
        began, before = time.perf_counter(), self.target.queries
        genomes = self._receiver.apply(update, births)
        logits = self._batch_evaluator.reference_logits(np.concatenate([genomes[birth] for birth in births]))
        return Reply(logits, self.target.queries - before, time.perf_counter() - began)


def spans(size: int, step: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of parts of `step` rows; the last one may be shorter."""
    return ((at, min(at + step, size)) for at in range(0, size, step))
