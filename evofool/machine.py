"""The properties of a machine and its settings that affect the last bits of a forward pass."""

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

_SETTINGS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
)
"""Environment variables that change bits and that torch does not report. ATEN_CPU_CAPABILITY is in "capability"."""
_MKL_MODES = {0: "off", 1: "off", 2: "AUTO", 3: "COMPATIBLE", 4: "SSE2", 6: "SSSE3", 7: "SSE4_1", 8: "SSE4_2", 9: "AVX"}
_MKL_MODES |= {10: "AVX2", 11: "AVX512_MIC", 12: "AVX512", 13: "AVX512_MIC_E1", 14: "AVX512_E1"}
_ALL, _STRICT = -1, 0x10000  # MKL_CBWR_ALL, MKL_CBWR_STRICT


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch with this number of threads inside the block; the number affects last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def keep_memory() -> None:
    """Configure glibc to keep large freed blocks of memory, for the whole process. Does nothing for other C libraries.

    By default glibc returns them to the system at once, and each forward pass waits for new zeroed pages: measured on
    EfficientNet-Lite0 with two shared cores, 10 instead of 42 images/s in float32 at a batch of 64. This does not change
    results.
    """
    trim_threshold, mmap_threshold = -1, -3
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def mkl_mode() -> str:
    """How MKL chooses between its kernels in this process, as a value of MKL_CBWR; "none" if torch has no MKL.

    MKL fixes the mode at its first call.

    - "AUTO": the choice depends only on the processor and the shapes. In all measured products of several rows (torch 2.13,
      MKL 2024.2, AMD EPYC with AVX-512) a row then has the same bits at every position. A single row still differs from the
      same row among others. "COMPATIBLE" is slower, and rows are equal less often.
    - "off": the choice also depends on memory addresses, and the last bits of a row depend on its position.
    - "unknown": MKL does not report the mode; the settings of `machine` then contain the variable.

    `import evofool` sets MKL_CBWR=AUTO unless the user has set the variable. It has no effect after the first matrix
    product: if the mode is "off" nevertheless, import evofool first, or set MKL_CBWR=AUTO before Python starts. The mode
    cannot be changed later, neither by the variable nor by MKL's mkl_cbwr_set.
    """
    if not torch.backends.mkl.is_available():
        return "none"
    for library in (Path(torch.__file__).parent / "lib" / "libtorch_cpu.so", None):
        for name in ("mkl_serv_cbwr_get", "mkl_cbwr_get", "MKL_CBWR_Get"):
            with suppress(OSError, AttributeError, TypeError):
                mode = int(getattr(ctypes.CDLL(None if library is None else str(library)), name)(_ALL))
                strict = ",STRICT" if mode & _STRICT else ""
                return _MKL_MODES.get(mode & ~_STRICT, str(mode)) + strict
    return "unknown"


def machine(threads: int) -> dict[str, Any]:
    """What affects the last bits of a forward pass. Machines with equal values are of the same kind."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        first: dict[str, str] = {}  # the fields of the first processor
        for key, _, value in (line.partition(":") for line in lines):
            first.setdefault(key.strip(), value.strip())
        # The name alone may stand for several generations: a hypervisor can shorten it to "AMD EPYC".
        cpu = f"{first['model name']} (family {first['cpu family']}, model {first['model']})"
    except (OSError, KeyError):
        pass
    settings = (*_SETTINGS, "MKL_CBWR") if mkl_mode() == "unknown" else _SETTINGS
    return {
        "cpu": cpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "numba": version("numba"),
        "threads": threads,
        "mkl": mkl_mode(),
        "settings": " ".join(f"{name}={os.environ[name]}" for name in settings if name in os.environ),
    }
