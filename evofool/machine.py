"""The machine, as far as it decides the last bits of a forward pass."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
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
