"""One area's cases in a process of its own, with limits of memory and time: `python -m tests.fuzz.child`.

Arguments: area, seed, number of examples, and a folder, which gets current.txt, the case that is being tried, so that the
parent knows which one killed this process, and result.json at the end. Failing cases become folders.
"""

import faulthandler
import gc
import json
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from tests.fuzz.every_area import AREAS
from tests.fuzz.room import Fault, attempt
from tests.fuzz.search import draw

MEMORY = 1 << 30
"""Bytes of address space that a case may take."""
SECONDS = 10
"""Of processor time that a case may take."""
WALL = 40
"""Seconds after which a case that uses no processor hangs."""


class TooSlow(BaseException):
    """Not an Exception, so that nothing handles it."""


def main(name: str, seed: int, examples: int, folder: Path) -> None:
    area = AREAS[name]
    torch.set_num_threads(1)
    area.prepare()
    area.warm()
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    result: dict[str, Any] = {"examples": 0, "failures": {}, "slowest": 0.0, "slowest_case": "", "peak_mb": 0.0}
    known: Counter[str] = Counter()
    stack = (folder / "stack.txt").open("w")
    baseline = 0.0

    def take(case: Any) -> None:
        nonlocal baseline
        (folder / "current.txt").write_text(f"{result['examples']}\n{case!r}\n")
        if result["examples"] == 10:  # by then everything that is needed once is loaded
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, resource.RLIM_INFINITY))
            baseline = _peak()
        result["examples"] += 1
        began = time.process_time()
        faulthandler.dump_traceback_later(WALL + 5, exit=True, file=stack)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL)
        try:
            attempt(area, case)
        except Fault as fault:
            _keep(fault, case)
        except TooSlow as slow:
            _keep(Fault(f"over {SECONDS} s: {slow}"), case)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
        seconds = time.process_time() - began
        if seconds > result["slowest"]:
            result["slowest"], result["slowest_case"] = seconds, repr(case)[:300]

    def _keep(fault: Fault, case: Any) -> None:
        reason = str(fault).split("\n")[0][:200]
        known[reason] += 1
        result["failures"] = dict(known)
        if known[reason] <= 3:
            place = folder / f"failure-{len(known)}-{known[reason]}"
            place.mkdir()
            (place / "case.txt").write_text(f"{name}\n{case!r}\n", encoding="utf-8", errors="backslashreplace")
            (place / "fault.txt").write_text(str(fault), encoding="utf-8", errors="backslashreplace")

    # Hypothesis keeps all that it has drawn of one search, so there are many short ones.
    for start in range(0, examples, 250):
        draw(area, min(250, examples - start), seed * 1_000 + start // 250, take)
        gc.collect()
    result["peak_mb"] = (_peak() - baseline) / 1024
    (folder / "result.json").write_text(json.dumps(result))


def _stop(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"in {frame.f_code.co_name}, {Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "")


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak() -> float:
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
