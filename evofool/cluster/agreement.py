"""What a worker answered, compared with what another process answers for the same images. Independent of Ray."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from evofool.cluster.messages import Seal, checksum, places
from evofool.cluster.worker import WorkerInfo
from evofool.search.evaluate import Order
from evofool.targets.network import FLOAT32
from evofool.targets.speed import NEAR
from genomes import Genomes

VERSIONS = ("torch", "numpy", "numba")
"""Keys of evofool.machine that can be made equal by installing the same packages."""
ROUGHLY_EQUAL = 1e-3  # between logits of two kinds of machine, as verify allows for log-odds ...
_ROUNDING = 1e-5  # ... or as a share of the image's largest logit: 1 against 2 torch threads of EfficientNet-Lite0


class Kind(NamedTuple):
    """What the last bits of a process's logits depend on."""

    machine: Mapping[str, Any]  # evofool.machine
    number_format: str
    on_device: bool  # whether images are drawn on a GPU, which may differ by a grey level

    @property
    def hardware(self) -> dict[str, Any]:
        return {key: value for key, value in self.machine.items() if key not in VERSIONS}

    def in_float32(self) -> "Kind":
        """Of logits that define the scores of elites (BatchEvaluator.reference_logits)."""
        return Kind(self.machine, FLOAT32, False)


class Allowance(NamedTuple):
    """How far a logit may lie from the same image's of another process: the larger one of `most` and a share.

    share: of the largest magnitude among the image's logits. median: for the median over all logits that are compared.
    """

    most: float = 0.0
    share: float = 0.0
    median: float = np.inf

    @property
    def exact(self) -> bool:
        return self.most == self.share == 0.0


def allowance(one: Kind, other: Kind, strict: bool, position: float) -> Allowance:
    """What is allowed between two kinds of process.

    strict: reproducible mode. Then logits on one kind of hardware have to be equal to the bit, whatever is installed there,
    unless they depend on an image's place in a chunk (position: Position.tolerance).
    """
    if one.number_format != other.number_format or one.on_device != other.on_device:
        return Allowance(NEAR[1], median=NEAR[0])
    if strict and one.hardware == other.hardware:
        return Allowance(share=position)
    if not one.number_format.startswith(FLOAT32) and one.machine != other.machine:
        return Allowance(NEAR[1], median=NEAR[0])
    return Allowance(ROUGHLY_EQUAL, max(_ROUNDING, position))


class Difference(NamedTuple):
    """Two answers differ by more than is allowed."""

    largest: float  # over the logits that are compared; inf where one is not finite
    allowed: float  # for the logit with the largest difference

    def __str__(self) -> str:
        if not np.isfinite(self.largest):
            return "NaN or infinity where finite logits are expected"
        if self.largest == 0:
            return "the checksums of their logits differ, although those that were compared one by one are equal"
        return f"largest difference {self.largest:.3g} in logits (tolerance {self.allowed:.3g})"


def same_gradients(one: Kind, other: Kind) -> bool:
    """Whether two kinds of process have gradients of equal bits: CPUs of one kind, with the same packages."""
    return one.machine == other.machine and "device" not in one.machine


def difference(
    answer: Seal | np.ndarray, logits: np.ndarray, allowed: Allowance, skipped: np.ndarray | None = None
) -> Difference | None:
    """How an answer differs from another process's logits (B, K); None if it does not differ by more than is allowed.

    skipped: (B,) bool, images that are not compared: they may be others in the other process.
    """
    logits = np.asarray(logits, np.float32)
    whole = skipped is None or not skipped.any()
    if whole and allowed.exact and (answer.checksum if isinstance(answer, Seal) else checksum(answer)) == checksum(logits):
        return None
    at = places(logits.size) if isinstance(answer, Seal) else np.arange(logits.size)
    given = np.asarray(answer.sample if isinstance(answer, Seal) else answer, np.float64).reshape(-1)
    if skipped is not None:
        compared = ~skipped[at // logits.shape[1]]
        if not compared.any():
            return None
        at, given = at[compared], given[compared]
    expected = logits.astype(np.float64).reshape(-1)[at]
    with np.errstate(invalid="ignore"):
        apart = np.abs(given - expected)
    same = (given == expected) | (np.isnan(given) & np.isnan(expected))
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    size = np.nan_to_num(np.abs(logits.astype(np.float64))).max(axis=1)[at // logits.shape[1]]
    limit = np.maximum(allowed.most, allowed.share * size)
    if not (whole and allowed.exact) and (apart <= limit).all() and np.median(apart) <= allowed.median:
        return None
    worst = int(apart.argmax())
    return Difference(float(apart[worst]), float(limit[worst]))


@dataclass(eq=False)
class References:
    """Genomes whose float32 logits are wanted."""

    births: tuple[int, ...]
    genomes: dict[int, Genomes]

    def batch(self) -> Genomes:
        return np.concatenate([self.genomes[birth] for birth in self.births])


@dataclass(eq=False)
class Contributor:
    """A worker's process whose answers are used, and those of them that are not agreed on yet."""

    number: int  # of the worker
    info: WorkerInfo
    kind: Kind
    unagreed: deque[int] = field(default_factory=deque)  # numbers of its answers, ascending
    last: "Evidence | None" = None  # of its last answer
    gone: bool = False  # its process has ended

    def agree(self, until: int) -> None:
        """Its answers up to this number are agreed on."""
        while self.unagreed and self.unagreed[0] <= until:
            self.unagreed.popleft()

    def __str__(self) -> str:
        return f"worker {self.number} on {self.info.node} ({self.info.device}, torch {self.kind.machine.get('torch')})"


@dataclass(eq=False)
class Evidence:
    """An answer of a worker that another process can repeat."""

    by: Contributor
    number: int  # in the order of all answers
    work: Order | References  # an order within one chunk, or genomes
    answer: Seal | np.ndarray

    def kind_of(self, process: Kind) -> Kind:
        """The kind of a process, as far as it matters for this work."""
        return process.in_float32() if isinstance(self.work, References) else process
