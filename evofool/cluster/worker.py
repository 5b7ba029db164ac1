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

from evofool.ascend.surrogates import Climb, Surrogates
from evofool.cluster.messages import OrderMessage, ParentUpdate, Receiver, Seal, encode_winners, seal
from evofool.errors import EvofoolError
from evofool.image_metrics.unlike import Unlike
from evofool.machine import machine
from evofool.search.evaluate import BatchEvaluator, on_host, stays_on_device
from evofool.search.isolation import isolate
from evofool.targets import Target, target
from genomes import Key


class Reply(NamedTuple):
    """A worker's answer to a call."""

    value: Any  # WinnersMessage, or float32 logits
    images: int  # that the target answered
    seconds: float  # from taking the call to answering it
    seal: Seal | None = None  # of an order's last chunk that was classified
    unsteady: tuple[tuple[int, int], ...] = ()  # (begin, end) of an order's rows that broke the target, but not again


@dataclass(frozen=True)
class WorkerInfo:
    """A worker once its target is built, or the error because of which it cannot be built."""

    error: str = ""
    fingerprint: str = ""
    surrogates: tuple[str, ...] = ()  # their fingerprints
    unlike: tuple[float, ...] = ()  # by class the limits of its constraint on likeness (image_metrics.unlike)
    machine: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    node: str = ""
    pid: int = 0
    on_device: bool = False  # images are drawn on its GPU


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is built with."""

    spec: str  # of the target
    evaluator_settings: dict[str, Any]  # the fields of the batch evaluator, but for target, surrogates, resident and permits
    seed: int
    batch: int
    threads: int
    folder: str  # in which modules of python: targets are looked for
    surrogates: tuple[tuple[str, ...], Climb] | None = None  # their specs, and how children climb
    unlike: tuple[Any, ...] | None = None  # Unlike.settings


class Worker:
    """The class of the actors; build() comes first."""

    def forget(self) -> None:
        """Forget all parents and thresholds: the search goes back to a checkpoint, and births get other genomes."""
        setup = self._setup
        self._receiver = Receiver(setup.evaluator_settings["encoding"], setup.seed, setup.batch)

    def build(self, setup: WorkerSetup) -> WorkerInfo:
        """Build the target."""
        self._setup = setup
        self.forget()
        # python: targets look for their module in the folder where they were named, which another machine may lack.
        with suppress(OSError):
            os.chdir(setup.folder)
        torch.set_num_threads(setup.threads)
        try:
            self.target = target(setup.spec)
        except EvofoolError as error:
            return WorkerInfo(str(error))
        surrogates = None
        if setup.surrogates:
            specs, climb = setup.surrogates
            try:
                networks = [target(spec) for spec in specs]
                surrogates = Surrogates(networks, self.target, setup.evaluator_settings["encoding"], climb)
            except EvofoolError as error:
                return WorkerInfo(str(error))
        permits = Unlike(*setup.unlike) if setup.unlike else None
        resident = stays_on_device(self.target, setup.evaluator_settings["edges"], permits is not None)
        self._batch_evaluator = BatchEvaluator(
            target=self.target, resident=resident, surrogates=surrogates, permits=permits, **setup.evaluator_settings
        )
        self._warm_up()
        if self._batch_evaluator.number_format not in self.target.formats:
            available = ", ".join(self.target.formats)
            return WorkerInfo(
                f"{socket.gethostname()} lacks the format {self._batch_evaluator.number_format}; it has {available}"
            )
        return WorkerInfo(
            fingerprint=self.target.fingerprint(),
            surrogates=surrogates.fingerprints if surrogates else (),
            unlike=tuple(permits.distances.values()) if permits else (),
            machine=machine(setup.threads) | device_record(self.target),
            device=device_name(self.target),
            node=socket.gethostname(),
            pid=os.getpid(),
            on_device=resident,
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
        found = isolate(self._batch_evaluator, order)
        answer = encode_winners(self._batch_evaluator.encoding, order, found.winners, found.broken)
        last = seal(found.last[0], on_host(found.last[1])) if found.last else None
        return Reply(answer, self.target.queries - before, time.perf_counter() - began, last, tuple(found.unsteady))

    def check(self, message: OrderMessage) -> Reply:
        """The logits, (B, K) float32, of an order that lies within one chunk."""
        began, before = time.perf_counter(), self.target.queries
        logits = self._batch_evaluator.logits(self._receiver.decode(message))
        return Reply(logits, self.target.queries - before, time.perf_counter() - began)

    def reference_logits(self, births: tuple[int, ...], update: ParentUpdate) -> Reply:
        """The float32 logits of genomes."""
        began, before = time.perf_counter(), self.target.queries
        genomes = self._receiver.apply(update, births)
        logits = self._batch_evaluator.reference_logits(np.concatenate([genomes[birth] for birth in births]))
        return Reply(logits, self.target.queries - before, time.perf_counter() - began)


def device_name(target: Target) -> str:
    """The device that a target runs on; of a GPU its model."""
    device = str(target.details.get("device", "cpu"))
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def device_record(target: Target) -> dict[str, str]:
    """What is added to evofool.machine for a target that does not run on the CPU."""
    name = device_name(target)
    return {} if name == "cpu" else {"device": name}


def spans(size: int, step: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of parts of `step` rows; the last one may be shorter."""
    return ((at, min(at + step, size)) for at in range(0, size, step))
