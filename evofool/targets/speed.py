"""A target's speed, the difference of its faster number formats from float32, and the choice of the one to rank by."""

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
from evofool.targets.classifier import Target
from evofool.targets.cuda import own_stream
from evofool.targets.network import FLOAT32
from evofool.targets.photos import patterns

# A format can be chosen if its log-odds are this close to float32's (EfficientNet-Lite0 in bfloat16: 0.08 and 0.5) ...
NEAR = (0.25, 1.5)  # median, 99% quantile
# ... and if it is so much faster than the one before that a busy machine makes the same choice as an idle one.
FASTER = 1.2
SLOWER = 0.8  # on a CPU: native formats are 1.2 to 10 times as fast as float32, so a format below this is emulated
_CPU_SAMPLE = 16  # images: float32 passes over a whole chunk take seconds on a CPU, and small ones favour float32
_ROUNDS, _SECONDS = 6, 0.7  # a format is timed this often, or for this long


@dataclass(frozen=True)
class FormatChoice:
    """The format and chunk to rank by.

    rates: images/s of each format tried. differences from float32: (median, 99% quantile). dropped: formats that cannot be
    used, with the reason.
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
                    "forward pass; use a smaller network, free the device, or set device=cpu"
                ) from None
        # Outside the handler, since the exception keeps the tensors of the failed pass alive.
        torch.cuda.empty_cache()
        chunk //= 2


def images_per_second(target: Target, number_format: str, chunk: int, workers: int = 1, seconds: float = 1.0) -> float:
    """Images per second of `workers` concurrent threads, with one torch thread each; counts queries.

    Measured after a first chunk of each, for `seconds` or one chunk of every worker, whichever is longer. An error in a
    worker is raised here.
    """
    images = patterns(target.shape, chunk)
    start = threading.Barrier(workers + 1)
    faults: list[BaseException] = []
    ends = [(0, 0.0)] * workers

    def work(worker: int) -> None:
        try:
            own_stream(target.network.device if target.network else torch.device("cpu"), 1)
            target.logits(images, chunk, number_format)
            start.wait()
            begin, done = time.perf_counter(), 0
            while not done or time.perf_counter() - begin < seconds:
                target.logits(images, chunk, number_format)
                done += 1
            ends[worker] = done, time.perf_counter() - begin
        except BaseException as fault:
            faults.append(fault)
            start.abort()

    with torch_threads(1):
        threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(workers)]
        for thread in threads:
            thread.start()
        with suppress(threading.BrokenBarrierError):
            start.wait()
        for thread in threads:
            thread.join()
    for fault in faults:
        if not isinstance(fault, threading.BrokenBarrierError):
            raise fault
    return sum(done * chunk / passed for done, passed in ends)


@dataclass(frozen=True)
class SpeedMeasurement:
    """A setting and its images per second; None if it did not fit the memory."""

    number_format: str
    chunk: int
    workers: int
    images_per_second: float | None


def measure_speeds(
    target: Target, formats: Sequence[str], chunks: Sequence[int], seconds: float = 0.5
) -> Iterator[SpeedMeasurement]:
    """The speed of every format and chunk, with one worker and target.streams; compiled formats with the last chunk only."""
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
    return _difference(target.logits(images, 0, number_format), target.logits(images), target.multilabel)


def native_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; others emulate it, slower than float32."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        checks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(check() for check in checks if check is not None)
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last one is ARM's


def _choose(target: Target, chunk: int) -> FormatChoice:
    on_cpu = target.details.get("device", "cpu") == "cpu"
    images = patterns(target.shape, min(chunk, _CPU_SAMPLE) if on_cpu else chunk)
    if len(target.formats) == 1 and (on_cpu or target.network is None):
        return FormatChoice(FLOAT32, chunk, {}, {}, {})  # no choice, and a black box's answers may cost money
    reference, differences, dropped = target.logits(images), {}, {}
    for number_format in target.formats[1:]:
        if on_cpu and number_format.startswith("bfloat16") and not native_bfloat16():
            dropped[number_format] = "this CPU has no bfloat16"
            continue
        try:
            difference = _difference(target.logits(images, 0, number_format), reference, target.multilabel)
        except torch.cuda.OutOfMemoryError:
            raise
        except TargetError as fault:  # a missing compiler, a layer without this type
            cause = fault.__cause__ or fault
            dropped[number_format] = f"{type(cause).__name__}: {str(cause)[:200]}"
            continue
        if not np.isfinite(difference).all():
            dropped[number_format] = "returns NaN or infinity"
            continue
        differences[number_format] = difference
        if difference[0] > NEAR[0] or difference[1] > NEAR[1]:
            dropped[number_format] = (
                f"log-odds differ from float32 by {difference[0]:.2g} (median) and {difference[1]:.2g} (99%); "
                f"at most {NEAR[0]:g} and {NEAR[1]:g} are allowed"
            )
    rates = _rates(target, images, [f for f in target.formats if f not in dropped])
    chosen = choose_for_cpu(rates) if on_cpu else choose_for_gpu(rates)
    if not on_cpu:
        images_per_second(target, chosen, chunk, target.streams, 0.0)  # whether passes at the same time fit the memory
    return FormatChoice(chosen, chunk, rates, differences, dropped)


def choose_for_cpu(rates: dict[str, float]) -> str:
    """The last format, in the order of rates, that is not clearly slower than the first, float32."""
    float32 = next(iter(rates))
    return next(f for f in reversed(rates) if rates[f] >= SLOWER * rates[float32])


def choose_for_gpu(rates: dict[str, float]) -> str:
    """The format to use: in the order of rates, each has to be FASTER times as fast as the best one before it."""
    best, *others = rates
    for number_format in others:
        if rates[number_format] >= FASTER * rates[best]:
            best = number_format
    return best


def _rates(target: Target, images: np.ndarray, formats: list[str]) -> dict[str, float]:
    """images/s by format: the best of some rounds over all formats, so that a busy moment affects all formats."""
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


def _difference(logits: np.ndarray, reference: np.ndarray, multilabel: bool) -> tuple[float, float]:
    if not (np.isfinite(logits).all() and np.isfinite(reference).all()):
        return float("nan"), float("nan")
    difference = np.abs(scores.log_odds(logits, multilabel) - scores.log_odds(reference, multilabel))
    median, most = np.quantile(difference, [0.5, 0.99])
    return float(median), float(most)
