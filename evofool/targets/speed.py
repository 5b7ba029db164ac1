"""How fast a target answers, how far its fast number formats are from the plain one, and which of them to rank by."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evofool import scores
from evofool.errors import TargetError
from evofool.machine import torch_threads
from evofool.targets.network import FLOAT32
from evofool.targets.photos import patterns
from evofool.targets.target import Target

# A format may be ranked by if its log-odds are this near the plain ones (EfficientNet-Lite0 in bfloat16: 0.08 and 0.5) ...
NEAR = (0.25, 1.5)  # median, 99% quantile
# ... and if it is so much faster than the one before that a busy machine chooses as an idle one does.
FASTER = 1.2
SLOWER = 0.8  # on a CPU: formats come out 1.2 to 10 times as fast as plain, so what is slower than this is imitated
_CPU_SAMPLE = 16  # images: plain passes over a whole chunk take seconds on a CPU, and smaller ones flatter plain
_ROUNDS, _SECONDS = 6, 0.7  # a format is timed so often, or until so much time went into it


@dataclass(frozen=True)
class FormatChoice:
    """The setting to rank by. rates: images/s of each format tried; differences: (median, 99% quantile) from plain.

    dropped: what cannot be ranked by, and why.
    """

    number_format: str
    chunk: int
    rates: dict[str, float]
    differences: dict[str, tuple[float, float]]
    dropped: dict[str, str]


def choose_format(target: Target, chunk: int) -> FormatChoice:
    """The number format to rank by, of those close to float32, and the largest chunk up to `chunk` that fits the memory.

    On a CPU it is the last of target.formats that is not clearly slower than float32 (`choose_for_cpu`): bfloat16 where the
    CPU has it, so that a recipe ranks by the same format however busy the machine is. On a GPU it is the fastest
    (`choose_for_gpu`). Uses torch's current threads; takes some seconds on a CPU, and on a GPU as long as torch.compile
    takes. TargetError if one image does not fit.
    """
    while True:
        try:
            return _choose(target, chunk)
        except torch.cuda.OutOfMemoryError:
            if chunk == 1:
                raise TargetError(
                    f"{target.name}: the memory of {target.details.get('device', 'its device')} does not hold one image's "
                    "forward pass; take a smaller network or free the device, or state device=cpu"
                ) from None
        # Outside the handler: the exception holds on to the tensors of the pass that failed.
        torch.cuda.empty_cache()
        chunk //= 2


def images_per_second(target: Target, number_format: str, chunk: int, workers: int = 1, seconds: float = 1.0) -> float:
    """Images a second of `workers` threads that ask for chunks side by side, one torch thread each; the queries count.

    Measured after a first chunk each, for `seconds` or one chunk of every worker, whichever is longer. Whatever stops a
    worker is raised here.
    """
    images = patterns(target.shape, chunk)
    ready = threading.Barrier(workers + 1)
    faults: list[BaseException] = []
    ends = [(0, 0.0)] * workers

    def work(worker: int) -> None:
        try:
            torch.set_num_threads(1)
            target.logits(images, chunk, number_format)
            ready.wait()
            begin, done = time.perf_counter(), 0
            while not done or time.perf_counter() - begin < seconds:
                target.logits(images, chunk, number_format)
                done += 1
            ends[worker] = done, time.perf_counter() - begin
        except BaseException as fault:
            faults.append(fault)
            ready.abort()

    with torch_threads(1):
        threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(workers)]
        for thread in threads:
            thread.start()
        with suppress(threading.BrokenBarrierError):
            ready.wait()
        for thread in threads:
            thread.join()
    for fault in faults:
        if not isinstance(fault, threading.BrokenBarrierError):
            raise fault
    return sum(done * chunk / passed for done, passed in ends)


@dataclass(frozen=True)
class SpeedMeasurement:
    """A setting and what it gives; None where the memory did not hold it."""

    number_format: str
    chunk: int
    workers: int
    images_per_second: float | None


def measure_speeds(
    target: Target, formats: Sequence[str], chunks: Sequence[int], seconds: float = 0.5
) -> Iterator[SpeedMeasurement]:
    """The rate of every format with every chunk, by one worker and by as many as pay; compiled ones with the last chunk."""
    for number_format in formats:
        for chunk in chunks if "compiled" not in number_format else chunks[-1:]:
            for workers in sorted({1, target.streams}):
                try:
                    yield SpeedMeasurement(
                        number_format, chunk, workers, images_per_second(target, number_format, chunk, workers, seconds)
                    )
                except torch.cuda.OutOfMemoryError:
                    yield SpeedMeasurement(number_format, chunk, workers, None)


def log_odds_difference(target: Target, number_format: str, images: np.ndarray) -> tuple[float, float]:
    """Median and 99% quantile of |log-odds - float32 log-odds| over all images (uint8 (B, C, H, W)) and classes."""
    return _apart(target.logits(images, 0, number_format), target.logits(images))


def native_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; others imitate it, slower than float32."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(ask() for ask in asked if ask is not None)
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last one is ARM's


def _choose(target: Target, chunk: int) -> FormatChoice:
    on_cpu = target.details.get("device", "cpu") == "cpu"
    images = patterns(target.shape, min(chunk, _CPU_SAMPLE) if on_cpu else chunk)
    if len(target.formats) == 1 and (on_cpu or target.network is None):
        return FormatChoice(FLOAT32, chunk, {}, {}, {})  # nothing to choose, and a black box's answers may cost
    plain, differences, dropped = target.logits(images), {}, {}
    for number_format in target.formats[1:]:
        if on_cpu and number_format.startswith("bfloat16") and not native_bfloat16():
            dropped[number_format] = "this CPU has no bfloat16"
            continue
        try:
            apart = _apart(target.logits(images, 0, number_format), plain)
        except torch.cuda.OutOfMemoryError:
            raise
        except TargetError as fault:  # a compiler that is missing, a layer that lacks the type
            cause = fault.__cause__ or fault
            dropped[number_format] = f"{type(cause).__name__}: {str(cause)[:200]}"
            continue
        if not np.isfinite(apart).all():
            dropped[number_format] = "answers NaN or infinity"
            continue
        differences[number_format] = apart
        if apart[0] > NEAR[0] or apart[1] > NEAR[1]:
            dropped[number_format] = (
                f"log-odds differ from float32 by {apart[0]:.2g} (median) and {apart[1]:.2g} (99%); "
                f"at most {NEAR[0]:g} and {NEAR[1]:g} are allowed"
            )
    rates = _rates(target, images, [f for f in target.formats if f not in dropped])
    return FormatChoice(choose_for_cpu(rates) if on_cpu else choose_for_gpu(rates), chunk, rates, differences, dropped)


def choose_for_cpu(rates: dict[str, float]) -> str:
    """Of formats in their order the last one that is not clearly slower than the first, plain."""
    plain = next(iter(rates))
    return next(f for f in reversed(rates) if rates[f] >= SLOWER * rates[plain])


def choose_for_gpu(rates: dict[str, float]) -> str:
    """Of formats in their order the one to take: each has to be FASTER times as fast as the best one before it."""
    best, *others = rates
    for number_format in others:
        if rates[number_format] >= FASTER * rates[best]:
            best = number_format
    return best


def _rates(target: Target, images: np.ndarray, formats: list[str]) -> dict[str, float]:
    """The best of some rounds, the formats in turn, so that a busy moment does not fall on one of them."""
    best, spent = dict.fromkeys(formats, 0.0), dict.fromkeys(formats, 0.0)
    for _ in range(_ROUNDS):
        for number_format in formats:
            if spent[number_format] < _SECONDS:
                begin = time.perf_counter()
                target.logits(images, 0, number_format)
                passed = time.perf_counter() - begin
                spent[number_format] += passed
                best[number_format] = max(best[number_format], len(images) / passed)
    return best


def _apart(logits: np.ndarray, plain: np.ndarray) -> tuple[float, float]:
    if not (np.isfinite(logits).all() and np.isfinite(plain).all()):
        return float("nan"), float("nan")
    apart = np.abs(scores.log_odds(logits) - scores.log_odds(plain))
    median, most = np.quantile(apart, [0.5, 0.99])
    return float(median), float(most)
