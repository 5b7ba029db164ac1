"""Kernels that another process compiles, while this one imports its packages and draws with slower code of the same bits.

numba compiles a kernel when it is first called, and keeps the machine code on disk. On a new installation that takes about
ten seconds for CPPNs. Compiling holds the interpreter's lock, so a thread would not help; a process does, and this one finds
the machine code on disk when it calls the kernel.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numba

_STAGES: dict[str, threading.Event] = {}
"""Stages of the process that was started, by name: "package.module:function". Set when the process has ended, too."""
_PATIENCE = 60.0  # seconds, many times what a stage takes; then the kernel is compiled by who calls it
_started = threading.Lock()


def begin(stages: Sequence[str], last: Any) -> bool:
    """Start a process that calls functions without arguments, "package.module:function", one after another.

    Each has to call the kernels that are to be compiled, on as little as possible. last: the kernel (a dispatcher of numba)
    that is compiled last. If its machine code is on disk nothing is started, nor if a process was started before. Returns
    whether one was started. A process that fails is no error: then kernels are compiled when they are called.
    """
    with _started:
        interpreted = bool(getattr(numba.config, "DISABLE_JIT", False))
        if _STAGES or interpreted or on_disk(last):
            return False
        own = {stage: threading.Event() for stage in stages}
        _STAGES.update(own)
    try:
        # Ctrl-C is not for it: what it compiles serves the next command. It imports from where this process does and, by -P,
        # nothing from the current folder.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from genomes import compilation; compilation.main()", *stages],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
    except (OSError, TypeError):  # TypeError: an embedded Python has no sys.executable
        _set_all(own)
        return False
    threading.Thread(target=_listen, args=(process, own), daemon=True).start()
    return True


def wait(stage: str) -> None:
    """Return when a stage of begin is done, after a minute at most; at once if there is no such stage."""
    if (event := _STAGES.get(stage)) is not None:
        event.wait(_PATIENCE)


def is_pending(stage: str) -> bool:
    """Whether a stage of begin is not done yet."""
    return (event := _STAGES.get(stage)) is not None and not event.is_set()


def on_disk(kernel: Any) -> bool:
    """Whether a kernel (a dispatcher of numba, cache=True) has machine code of its present source on disk.

    numba has no public question for that. Where its internals have changed the answer is False: a process is then started
    that finds all kernels on disk.
    """
    try:
        return bool(kernel._cache._cache_file._load_index())
    except Exception:  # numba's reader of a damaged file may raise anything; numba itself compiles then
        return False


def _listen(process: "subprocess.Popen[str]", stages: dict[str, threading.Event]) -> None:
    with process, contextlib.suppress(OSError, ValueError):
        for line in process.stdout or ():
            if (event := stages.get(line.strip())) is not None:
                event.set()
    _set_all(stages)


def _set_all(stages: dict[str, threading.Event]) -> None:
    for event in stages.values():
        event.set()


def main() -> None:
    """The other process: call the functions that its arguments name, and print each name when its function has returned."""
    for stage in sys.argv[1:]:
        module, _, name = stage.partition(":")
        getattr(import_module(module), name)()
        with contextlib.suppress(OSError):  # the process that asked may have ended; its kernels serve the next one
            os.write(1, f"{stage}\n".encode())
