"""Break what a distributed search runs on, and compare its end with that of an unbroken search in one process, bit for bit.

    python -m tests.perf.cluster_faults workers node driver cluster

workers: SIGKILL of a random worker, again and again, while one search goes on.
node: a cluster of two nodes loses one of them, and later gains another.
driver: SIGKILL of the search itself, which has a Ray of its own, and resumed each time; nothing of that Ray may stay behind.
cluster: SIGKILL of every process of the cluster that the search has joined, and of the search if it does not end by
itself; resumed on another cluster.

Run from the repository root, on Linux: processes are recognised by a mark in their environment, read from /proc. The target
is tests/perf/slow_targets.py's, so that a search lasts while things happen. Exits with 1 if an end differs or a process
stays.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.store import Store
from tests.perf.cluster_same import command, differing, finish, verdict
from tests.perf.kills import has_checkpoint

RECIPE = "mnist-cppn"
TARGET = "python:tests.perf.slow_targets:lenet_200ms"
MARK = "EVOFOOL_FAULTS"
"""Environment variable that marks the processes of a search, or of a cluster, and whatever they start."""
LIMIT = 1800.0  # seconds after which a search is taken to hang
LINGERS = 120.0  # seconds after which a process that should be gone is taken to stay; Ray's agents take some 70
_ENDS_ALONE = 90.0  # seconds that a search without its cluster may take to end by itself


def workers(args: argparse.Namespace, folder: Path, changes: list[str], draw: random.Random) -> bool:
    """Kills are spread over the evaluations, each somewhere in its share of them."""
    every = args.evaluations / args.kills
    due = [every * (k + draw.uniform(0.1, 0.8)) for k in range(args.kills)]
    killed: list[int] = []
    aimed: set[int] = set()

    def kill(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    def tick(run: Run) -> bool:
        alive = [one["pid"] for one in run.evaluator.workers() if one["pid"] and one["pid"] not in aimed]
        if alive and len(aimed) < args.kills and run.strategy.evaluations >= due[len(aimed)]:
            pid = draw.choice(alive)
            aimed.add(pid)
            # By another thread: a tick comes at a moment of the search's own choosing.
            threading.Timer(draw.uniform(0.0, 0.5), kill, (pid,)).start()
        return _late(run)

    with Run.start(load(RECIPE, changes), folder) as run:
        ended = run.advance(tick, every=0.05)
        each, notes = run.evaluator.workers(), run.evaluator.notes
    restarts = sum(one["restarts"] for one in each)
    print(f"  {len(killed)} workers killed, {restarts} restarts; ended: {ended}; notes: {notes or 'none'}")
    if len(killed) < args.kills:
        print("  FAILED: the search ended before the last kill; give it more --evaluations")
    return ended is not None and len(killed) == args.kills


def node(args: argparse.Namespace, folder: Path, changes: list[str], draw: random.Random) -> bool:
    """Nodes of one processor each, so that a worker whose node is gone has no room until there is another node."""
    from ray.cluster_utils import Cluster

    seen: list[str] = []
    state: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temp:
        quiet = {"include_dashboard": False, "temp_dir": temp}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(args.workers)]

        def tick(run: Run) -> bool:
            each = run.evaluator.workers()
            state["work"] = sum(one["state"] == "working" for one in each)
            state["fewest"] = min(state.get("fewest", args.workers), state["work"]) if "lost" in state else args.workers
            part = run.strategy.evaluations / args.evaluations
            if "lost" not in state and part > 1 / 3 and state["work"] == args.workers:
                seen.append(f"{state['work']} at work")
                began = time.perf_counter()
                cluster.remove_node(draw.choice(nodes), allow_graceful=False)
                state["lost"] = run.strategy.evaluations
                seen.append(f"a node lost at {state['lost']:,} evaluations ({time.perf_counter() - began:.1f} s)")
            elif "gained" not in state and part > 2 / 3:
                seen.append(f"{state['work']} at work")
                began = time.perf_counter()
                cluster.add_node(num_cpus=1)
                state["gained"] = run.strategy.evaluations
                seen.append(f"another node at {state['gained']:,} ({time.perf_counter() - began:.1f} s)")
            return _late(run)

        try:
            with Run.start(load(RECIPE, [*changes, f"compute.ray.address={cluster.address}"]), folder) as run:
                ended = run.advance(tick)
                each = run.evaluator.workers()
        finally:
            cluster.shutdown()
    restarts = sum(one["restarts"] for one in each)
    print(f"  {', '.join(seen)}, {state['work']} at work at the end, {restarts} restarts; ended: {ended}")
    tried = {"lost", "gained"} <= state.keys() and state["fewest"] < args.workers == state["work"]
    if not tried:
        print("  FAILED: no worker was without a node, or none came to the new one; give it more --evaluations")
    return ended is not None and tried


def driver(args: argparse.Namespace, folder: Path, changes: list[str], draw: random.Random) -> bool:
    """One kill in four comes at any moment from the start on, the others after a checkpoint of their own sitting."""
    stayed: list[str] = []
    longest = got_on = 0.0
    for number in range(args.kills):
        with _search(folder, changes, f"driver-{number}") as process:
            if draw.random() < 0.25:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0.2, 15.0))
            else:
                _await_progress(process, folder)
                time.sleep(draw.uniform(0.0, 2.0))
                got_on += 1
            if process.poll() is not None:
                print(f"  FAILED: the search ended ({process.returncode}) before kill {number + 1}; more --evaluations")
                return False
            process.kill()
            process.wait()
        began = time.perf_counter()
        left = _gone(f"driver-{number}")
        longest = max(longest, time.perf_counter() - began)
        stayed += left
        for pid in marked(f"driver-{number}"):
            _kill(pid)
    finish(RECIPE, folder, changes, limit=LIMIT)
    print(
        f"  {args.kills} kills, {got_on:.0f} of them after a checkpoint of their own sitting; processes left behind after "
        f"{LINGERS:g} s: {', '.join(stayed) or 'none'} (all gone in {longest:.1f} s at the most)"
    )
    return not stayed


def cluster(args: argparse.Namespace, folder: Path, changes: list[str], draw: random.Random) -> bool:
    """--kills clusters are lost; the search ends on one that stays."""
    # A cluster that finds a token in the home folder wants it of all who come, and they do not look for it.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    fine = True
    for number in range(args.kills + 1):
        mark, last = f"cluster-{number}", number == args.kills
        with tempfile.TemporaryDirectory() as temp:
            try:
                address = start_cluster(mark, args.workers, Path(temp))
                options = [*changes, f"compute.ray.address={address}"]
                if last:
                    finish(RECIPE, folder, options, limit=LIMIT)
                    break
                with _search(folder, options, f"{mark}-driver", stderr=Path(temp) / "stderr") as process:
                    _await_progress(process, folder)
                    time.sleep(draw.uniform(0.0, 2.0))
                    killed = kill_all(mark)
                    began = time.perf_counter()
                    try:
                        status = process.wait(_ENDS_ALONE)
                        how = f"ended by itself with {status} after {time.perf_counter() - began:.1f} s"
                    except subprocess.TimeoutExpired:
                        how = f"did not end in {_ENDS_ALONE:g} s and was killed"
                        process.kill()
                messages = (Path(temp) / "stderr").read_text(errors="replace").strip().splitlines()
                print(f"  cluster {number} at {address}: {killed} processes killed; the search {how}", flush=True)
                for line in messages[-3:]:
                    print(f"    its last messages: {line[:300]}")
                left = _gone(f"{mark}-driver")
                if left:
                    print(f"  FAILED: stayed behind: {', '.join(left)}")
                    kill_all(f"{mark}-driver")
                    fine = False
            finally:
                kill_all(mark)
    return fine


SCENARIOS: dict[str, tuple[Callable[[argparse.Namespace, Path, list[str], random.Random], bool], int, int]] = {
    "workers": (workers, 20, 12_000),
    "node": (node, 1, 9_000),
    "driver": (driver, 10, 9_000),
    "cluster": (cluster, 2, 6_000),
}
"""By name: what it does, and its default numbers of kills and evaluations."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="+", choices=list(SCENARIOS))
    parser.add_argument("--kills", type=int, help="of each scenario")
    parser.add_argument("--evaluations", type=int, help="of each search")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lag", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    asked, same = (args.kills, args.evaluations), True
    for name in args.scenarios:
        breaks, kills, evaluations = SCENARIOS[name]
        args.kills, args.evaluations = asked[0] or kills, asked[1] or evaluations
        changes = [f"target={TARGET}", *args.changes, "stop.confidence=", f"search.lag={args.lag}"]
        changes.append(f"stop.evaluations={args.evaluations}")
        with tempfile.TemporaryDirectory() as scratch:
            unbroken, broken = Path(scratch) / "unbroken", Path(scratch) / "broken"
            # Streams that sleep at once: the slow target is waited for once for all that are under way.
            took = finish(RECIPE, unbroken, [*changes, f"compute.streams={args.lag + 1}"], limit=LIMIT)
            print(
                f"{name}: {args.evaluations:,} evaluations, lag {args.lag}, unbroken in one process in {took:.0f} s",
                flush=True,
            )
            began = time.perf_counter()
            held = breaks(args, broken, [*changes, f"compute.workers={args.workers}"], random.Random(args.seed))
            found = differing(unbroken, broken)
            print(f"{name}: {verdict(found)}, {time.perf_counter() - began:.0f} s", flush=True)
            same &= held and not found
    raise SystemExit(not same)


# -- searches


def _search(folder: Path, changes: list[str], mark: str, stderr: Path = Path(os.devnull)) -> "subprocess.Popen[bytes]":
    """A search in a process, begun or gone on with; it and what it starts are marked."""
    with stderr.open("wb") as file:
        line = command(RECIPE, folder, changes)
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=file, env=os.environ | {MARK: mark_of(mark)})


def _await_progress(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until the search has saved more than there was, or has ended."""
    before, began = saved_batches(folder), time.perf_counter()
    while process.poll() is None and saved_batches(folder) <= before:
        time.sleep(0.2)
        if time.perf_counter() - began > LIMIT:
            process.kill()
            raise SystemExit(f"no checkpoint in {LIMIT:g} s after batch {before}")


def saved_batches(folder: Path) -> int:
    if not has_checkpoint(folder):
        return 0
    with Store.open(folder) as store:
        return int(store.meta().committed)


def _late(run: Run) -> bool:
    return run.seconds > LIMIT


# -- processes


def mark_of(name: str) -> str:
    return f"{os.getpid()}-{name}"


def marked(name: str) -> list[int]:
    """The processes that live and have this mark, according to /proc."""
    wanted = f"{MARK}={mark_of(name)}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # One that is gone, or a zombie, has no environment.
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _gone(name: str) -> list[str]:
    """Wait until no process has this mark; the names of those that stay."""
    end = time.perf_counter() + LINGERS
    while left := marked(name):
        if time.perf_counter() > end:
            return [_program(pid) for pid in left]
        time.sleep(0.1)
    return []


def _program(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return f"{pid}"
    return f"{pid} {' '.join(Path(word).name for word in arguments[:3])}"


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_all(name: str) -> int:
    """SIGKILL to all that have this mark, until none is left; how many there were."""
    killed: set[int] = set()
    while left := marked(name):
        killed.update(left)
        for pid in left:
            _kill(pid)
        time.sleep(0.05)
    return len(killed)


def start_cluster(mark: str, cpus: int, temp: Path) -> str:
    """`ray start --head`, with ports of its own; its address."""
    port, agent = _free_ports(2)
    line = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        f"--dashboard-agent-listen-port={agent}",
        f"--num-cpus={cpus}",
        f"--temp-dir={temp}",
        "--object-store-memory=200000000",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {MARK: mark_of(mark)})
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return f"127.0.0.1:{port}"


def _free_ports(n: int) -> list[int]:
    held = [socket.socket() for _ in range(n)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


if __name__ == "__main__":
    main()
