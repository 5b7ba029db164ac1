"""The machine, as far as it decides the last bits of a forward pass."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch with this many threads, then as before: their number decides last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def keep_memory() -> None:
    """Have the C library keep big blocks that were freed, for the whole process, where it is glibc.

    It gives them back to the system at once by itself, and a forward pass then waits for fresh zeroed pages: measured on
    EfficientNet-Lite0 with two shared cores, 10 instead of 42 images/s in float32 at a batch of 64. No bit depends on it.
    """
    trim_threshold, mmap_threshold = -1, -3
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(threads: int) -> dict[str, Any]:
    """What decides the last bits of a forward pass: machines that agree in all of it are of one kind."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "numba": version("numba"),
        "threads": threads,
    }
