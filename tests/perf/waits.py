"""Everything that a search or a benchmark with workers could wait for without end, and kills while workers start.

    python -m tests.perf.waits                     all of it, about half an hour on two quiet cores
    python -m tests.perf.waits raylet cell kills   only those whose names contain one of these

For each wait: the seconds until evofool says what happened, the sentence, how the command ended, and whether anything of
Ray's own was printed. Then five rounds of ten SIGKILLs of workers, each from the moment on at which the first one appears.
Exits with 1 if a command does not end as it should. Linux only, as tests/perf/cluster_faults.py.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.perf.cluster_faults import MARK, TARGET, kill_all, mark_of, marked, saved_batches, start_cluster
from tests.perf.cluster_same import command, differing, finish, verdict

RECIPE = "mnist-cppn"
LIMIT = 900.0  # seconds after which a command is taken to hang
NOISE = re.compile(r"state-dump|SYSTEM_ERROR|Traceback|\(raylet\)|rpc_client|core_worker|gcs_client|logging\.cc|SIGTERM")
SEARCH = [f"target={TARGET}", "stop.confidence=", "stop.evaluations=100000", "search.lag=8"]
HANGS = '''
"""Put on the workers' path: a process of Ray's that runs workers sleeps, at the stage that EVOFOOL_HANGS names."""
import os, sys, time

class _Sleeper:
    def find_spec(self, name, path=None, target=None):
        if name == "evofool.cluster.worker":
            time.sleep(100_000)

def is_worker():
    with open("/proc/self/cmdline", "rb") as file:
        return b"default_worker.py" in file.read()

if os.environ.get("EVOFOOL_HANGS") in ("process", "import") and is_worker():
    if os.environ["EVOFOOL_HANGS"] == "process":
        time.sleep(100_000)
    sys.meta_path.insert(0, _Sleeper())
'''
TARGETS = """
import os, signal, sys, time
from tests.perf.slow_targets import lenet_200ms

def in_a_worker():
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None

def hangs():
    if in_a_worker():
        time.sleep(100_000)
    return lenet_200ms()

def crashes():
    if in_a_worker():
        os.kill(os.getpid(), signal.SIGSEGV)
    return lenet_200ms()
"""
BENCH = """
images = "digits"
budgets = [100_000]
seeds = 3
arms = ["cppn"]
[[targets]]
target = "lenet"
"""


@dataclass
class Running:
    """A command whose lines are read as they come, each with its moment."""

    line: list[str]
    mark: str
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            self.line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=os.environ | {MARK: mark_of(self.mark)} | self.environment,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for text in self.process.stdout:
            self.lines.append((time.perf_counter(), text.rstrip()))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """SystemExit if it ends before, or takes too long."""
        began = time.perf_counter()
        while not condition():
            if self.process.poll() is not None or time.perf_counter() - began > LIMIT:
                text = "\n".join(line for _, line in self.lines[-5:])
                raise SystemExit(f"{' '.join(self.line)}: not as far as it should be ({self.process.poll()}):\n{text}")
            time.sleep(0.1)

    def end(self) -> int | None:
        """Its exit status; None if it does not end."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(LIMIT)
        return None


@dataclass(frozen=True)
class Wait:
    """What breaks, what is said then, the exit status, and whether a cluster is joined that others have started."""

    break_it: Callable[[Running, Path], None]
    says: str
    status: int
    joined: bool = False
    changes: tuple[str, ...] = ()
    hangs: str = ""
    bench: bool = False


def signal_to(name: str, number: signal.Signals, count: int = 1, cluster: bool = False) -> Callable[[Running, Path], None]:
    """Send it once the search has saved something, or the cell has begun, to processes of this name."""

    def send(running: Running, folder: Path) -> None:
        if "bench" not in running.line:
            running.wait_for(lambda: saved_batches(folder) > 0)
        mark = f"{running.mark}-cluster" if cluster else running.mark
        running.wait_for(lambda: bool(processes(mark, name)))
        if "bench" in running.line:
            time.sleep(5.0)
        for pid in processes(mark, name)[:count]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    return send


def nothing(_running: Running, _folder: Path) -> None:
    """It is broken from the start on."""


def processes(mark: str, name: str) -> list[int]:
    """Those that have this mark, and whose program's name begins so."""
    found = []
    for pid in marked(mark):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
            if words and Path(words[0]).name.startswith(name):
                found.append(pid)
    return sorted(found)


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
FAST, SLOW = ("compute.ray.timeout=5",), ("compute.ray.timeout=20",)
WAITS = {
    "cell stopped": Wait(signal_to("ray::run_job", STOP), r"replaced, since its process gave no sign", 0, bench=True),
    "call: worker stopped": Wait(signal_to("ray::Worker", STOP), r"no answer in 20 seconds", 0, changes=SLOW),
    "start: process hangs": Wait(nothing, r"Ray has not started its process in 20 s", 2, changes=FAST, hangs="process"),
    "start: import hangs": Wait(nothing, r"its target was not loaded in 20 seconds", 2, changes=FAST, hangs="import"),
    "start: target hangs": Wait(
        nothing, r"its target was not loaded in 20 seconds", 2, changes=(*FAST, "target=python:waits_targets:hangs")
    ),
    "start: target crashes": Wait(
        nothing, r"killed or crashed 7 times", 2, changes=("target=python:waits_targets:crashes",)
    ),
    "own raylet killed": Wait(signal_to("raylet", KILL), r"evofool: the Ray instance that .*raylet has ended", 2),
    "own gcs killed": Wait(signal_to("gcs_server", KILL), r"evofool: the Ray instance that .*gcs_server has ended", 2),
    "own raylet stopped": Wait(signal_to("raylet", STOP), r"evofool: the Ray instance that ", 2),
    "own gcs stopped": Wait(signal_to("gcs_server", STOP), r"evofool: the Ray instance that .*no answer", 2),
    "joined raylet killed": Wait(
        signal_to("raylet", KILL, cluster=True), r"evofool: the Ray cluster at .*raylet on this machine", 2, joined=True
    ),
    "joined gcs killed": Wait(
        signal_to("gcs_server", KILL, cluster=True), r"evofool: the Ray cluster at .*nothing listens", 2, joined=True
    ),
    "joined raylet stopped": Wait(
        signal_to("raylet", STOP, cluster=True), r"evofool: the Ray cluster at ", 2, joined=True
    ),
    "joined gcs stopped": Wait(
        signal_to("gcs_server", STOP, cluster=True), r"evofool: the Ray cluster at .*no answer", 2, joined=True
    ),
}  # fmt: skip
"""By name."""


def measured(name: str, wait: Wait, scratch: Path) -> bool:
    """One row of the table; whether it is as it should be."""
    mark, folder = name.replace(" ", "-").replace(":", ""), scratch / "run"
    path = os.pathsep.join([str(scratch), os.getcwd(), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path} | ({"EVOFOOL_HANGS": wait.hangs} if wait.hangs else {})
    with _cluster(f"{mark}-cluster", scratch / "ray") if wait.joined else _none() as address:
        changes = [*SEARCH, *wait.changes, "compute.workers=2", *([f"compute.ray.address={address}"] if address else [])]
        if wait.status == 0:
            changes.append("stop.evaluations=1500")
        line = command(RECIPE, folder, changes)
        if wait.bench:
            (scratch / "bench.toml").write_text(BENCH)
            line = [sys.executable, "-m", "evofool", "bench", str(scratch / "bench.toml"), "--out", str(folder)]
            line += ["--workers", "2", "--set", "ray.timeout=10"]
        try:
            running = Running(line, mark, environment)
            wait.break_it(running, folder)
            began = time.perf_counter()
            status = running.end()
            ended = time.perf_counter() - began
        finally:
            kill_all(mark)
    said = [(when - began, line) for when, line in list(running.lines) if re.search(wait.says, line)]
    noise = [line for _, line in running.lines if NOISE.search(line)]
    after, sentence = said[0] if said else (float("nan"), "NOTHING")
    fine = status == wait.status and bool(said) and not noise
    print(
        f"{name:<22} {after:>7.1f} s {ended:>7.1f} s  exit {status}  {'NOISE ' if noise else ''}{sentence[:220]}", flush=True
    )
    for line in [*noise[:3], *([] if fine else [line for _, line in running.lines[-4:]])]:
        print(f"    | {line[:200]}", flush=True)
    return fine


@contextmanager
def _cluster(mark: str, temp: Path) -> Iterator[str]:
    try:
        yield start_cluster(mark, 2, temp)
    finally:
        kill_all(mark)


@contextmanager
def _none() -> Iterator[str]:
    yield ""


def kills(rounds: int, number: int, scratch: Path) -> bool:
    """SIGKILL of workers while they start: whatever process of theirs there is, every half a second."""
    changes = [*SEARCH, "stop.evaluations=600"]
    finish(RECIPE, scratch / "unbroken", [*changes, "compute.streams=9"], limit=LIMIT)
    fine = True
    for round_number in range(rounds):
        draw, mark, folder = random.Random(round_number), f"kills-{round_number}", scratch / f"round-{round_number}"
        try:
            running = Running(command(RECIPE, folder, [*changes, "compute.workers=2"]), mark)
            running.wait_for(lambda mark=mark: bool(processes(mark, "ray::")))  # type: ignore[misc]
            first = time.perf_counter()
            killed: set[int] = set()
            while len(killed) < number and running.process.poll() is None and time.perf_counter() - first < LIMIT:
                if pids := [p for p in processes(mark, "ray::Worker") or processes(mark, "ray::IDLE") if p not in killed]:
                    killed.add(pid := draw.choice(pids))
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(draw.uniform(0.1, 0.5))
            span, status = time.perf_counter() - first, running.end()
        finally:
            kill_all(mark)
        found = differing(scratch / "unbroken", folder) if status == 0 else ["its end"]
        noise = [line for _, line in running.lines if NOISE.search(line)]
        print(
            f"round {round_number + 1}: {len(killed)} SIGKILLs in {span:.1f} s, exit {status}, {verdict(found)}"
            f"{', NOISE' if noise else ''}",
            flush=True,
        )
        for line in [*noise[:2], *([line for _, line in running.lines[-3:]] if status else [])]:
            print(f"    | {line[:200]}", flush=True)
        fine &= status == 0 and len(killed) == number and not found and not noise
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names of waits, or `kills`; all of them by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10, help="of each round")
    args = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster that finds a token in the home folder wants it of all who come
    fine = True
    print(f"{'wait':<22} {'said':>9} {'ended':>9}", flush=True)
    for name, wait in WAITS.items():
        if not args.names or any(part in name for part in args.names):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                (Path(scratch) / "sitecustomize.py").write_text(HANGS)
                (Path(scratch) / "waits_targets.py").write_text(TARGETS)
                fine &= measured(name, wait, Path(scratch))
    if not args.names or "kills" in args.names:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            fine &= kills(args.rounds, args.kills, Path(scratch))
    raise SystemExit(not fine)


if __name__ == "__main__":
    main()
