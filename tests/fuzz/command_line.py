"""Cases given to the real command line, each in a process of its own."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import evofool
from tests.fuzz.every_area import AREAS
from tests.fuzz.room import Area, Fault, Room, check_output, memory
from tests.fuzz.search import draw

MEMORY, SECONDS, WALL = 1 << 30, 10.0, 120.0
"""Bytes in memory and seconds of processor time that a command may take, and seconds after which it hangs."""


def try_command_lines(examples: int, seed: int, processes: int, out: Path) -> dict[str, Any]:
    """Draw cases of all areas that have commands, and run the commands. The result has the keys of a child's."""
    areas = [area for area in AREAS.values() if area.name in WITH_COMMANDS]
    total = sum(area.weight for area in areas)
    jobs: list[tuple[Area, Any]] = []
    for area in areas:
        area.prepare()
        found: list[Any] = []
        draw(area, 6 * examples * area.weight // total + 20, seed * 7_919, found.append)
        kept = [case for case in found if _has_command(area, case)]
        jobs += [(area, case) for case in kept[-max(1, round(examples * area.weight / total)) :]]
    result: dict[str, Any] = {"examples": len(jobs), "slowest": 0.0, "slowest_case": "", "peak_mb": 0.0}
    failures: Counter[str] = Counter()
    lock = threading.Lock()

    def run(job: tuple[Area, Any]) -> None:
        fault, seconds, peak = _run(*job)
        with lock:
            result["peak_mb"] = max(result["peak_mb"], peak / (1 << 20))
            if seconds > result["slowest"]:
                result["slowest"], result["slowest_case"] = seconds, repr(job[1])[:300]
            if fault:
                place = out / f"failure-{sum(failures.values()) + 1}"
                place.mkdir(parents=True)
                (place / "case.txt").write_text(f"{job[0].name}\n{job[1]!r}\n", "utf-8", "backslashreplace")
                (place / "fault.txt").write_text(fault, "utf-8", "backslashreplace")
                failures[fault.split("\n")[0][:200]] += 1

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, jobs))
    return {**result, "failures": dict(failures)}


WITH_COMMANDS = ("recipes", "weights", "benches", "pictures", "run bytes", "run tables")


def _has_command(area: Area, case: Any) -> bool:
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        room = Room(Path(name))
        room.work.mkdir()
        return area.line(case, room) is not None


def _run(area: Area, case: Any) -> tuple[str, float, float]:
    """(what is wrong, or "", seconds of processor time, the most bytes in memory) of a case's command."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory()))
    room = Room(folder)
    room.work.mkdir()
    seconds, peak = 0.0, 0.0
    try:
        arguments = area.line(case, room) or []
        home = str(Path(evofool.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": home, "TMPDIR": str(room.work), "OMP_NUM_THREADS": "1"}
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "evofool", *map(str, arguments)],
                cwd=room.work, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)),
            )  # fmt: skip
            timer = threading.Timer(WALL, process.kill)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0
        check_output(process.returncode, (folder / "output").read_text(encoding="utf-8", errors="replace"))
        room.check()
        if seconds > SECONDS or peak > MEMORY:
            raise Fault(
                f"it takes {seconds:.1f} s of processor time and {peak / (1 << 20):.0f} MB: {' '.join(map(str, arguments))}"
            )
    except Fault as fault:
        return str(fault), seconds, peak
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "", seconds, peak
