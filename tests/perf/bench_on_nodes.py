"""A benchmark on a cluster of two nodes, of which one is killed twice, ends with the results of one without workers.

    python -m tests.perf.bench_on_nodes
    python -m tests.perf.bench_on_nodes --queries 10000 --kills 4

3 targets x 2 arms x 2 seeds, on nodes of ray.cluster_utils.Cluster on this machine that do not see the driver's folder. Each
node has one processor and one GPU, which does not exist but is counted, and each cell reserves both. A node is killed while
both are at a cell that has saved, and another one takes its place. Prints what each kill cost: evaluations done twice beside
the most between two states of that cell that came to the driver. Exits with 1 where results differ, a cell began again from
the beginning, a kill cost more than that, or a cell had no GPU.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from evofool.bench.bench import run_bench
from evofool.bench.plan import BenchRecipe, parse
from evofool.cluster import tasks
from evofool.cluster.folder_changes import apply_changes
from evofool.run.stored import StoredRun
from evofool.sweep.runner import WorkProgress
from evofool.sweep.status import ListStatus, read_status

TARGETS = '''
"""Three networks that note, for each call, the process, the number of images and what it has reserved."""
import os, sys, time
import torch
from evofool.targets import target

class Noted(torch.nn.Module):
    shape, labels = (1, 28, 28), tuple("0123456789")

    def __init__(self, shift):
        super().__init__()
        self.network, self.shift = target("lenet").network.module, shift
        self.reserved = "{}"
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            context = ray.get_runtime_context()
            import json
            self.reserved = json.dumps(context.get_assigned_resources() | {"ids": ray.get_gpu_ids()})
        self.pause = float(os.environ.get("NOTED_PAUSE", 0)) if self.reserved != "{}" else 0.0
        note = os.environ.get("NOTED_CALLS")
        self.note = None if note is None else os.open(note, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def forward(self, x):
        if self.note is not None:
            os.write(self.note, f"{os.getpid()}\\t{len(x)}\\t{self.reserved}\\n".encode())
        time.sleep(self.pause)
        return self.network(x) * torch.linspace(1, 1 + self.shift, 10)

def a(): return Noted(0.0)
def b(): return Noted(0.1)
def c(): return Noted(0.2)
'''


@dataclass
class Arrivals:
    """By the name of a cell, the evaluations of each state of its folder that came to the driver."""

    found: dict[str, list[int]] = field(default_factory=dict)

    def apply(self, changes: Any, folder: Path) -> None:
        """apply_changes, noted."""
        apply_changes(changes, folder)
        self.found.setdefault(f"{folder.parent.name}/{folder.name}", []).append(evaluations(folder))


@dataclass(frozen=True)
class Kill:
    """A kill of a node. before: the cells that ran then, and their evaluations that had come to the driver.

    cells: the processes of that node that were at a cell.
    """

    seconds: float
    before: dict[str, int]
    cells: int


def recipe(targets: int, seeds: int, queries: int, arms: list[str], workers: int = 0, address: str = "local") -> BenchRecipe:
    """The benchmark, with GPUs reserved where there are workers."""
    return parse(
        {
            "images": "digits",
            "targets": [{"target": f"python:noted_nets:{name}", "name": name} for name in "abc"[:targets]],
            "arms": arms,
            "budgets": [queries // 10, queries],
            "seeds": seeds,
            "workers": workers,
            "ray": {"address": address, "gpus": 1.0 if workers else 0.0},
        },
        "here",
    )


def evaluations(folder: Path) -> int:
    """Of a cell's run as of its last checkpoint; 0 if there is none."""
    if not (folder / "run.db").is_file():
        return 0
    with StoredRun(folder) as stored:
        return stored.evaluations


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster whose head does no work, with two nodes of one processor and one GPU each."""
    from ray.cluster_utils import Cluster

    # Ray's paths for sockets must be short.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": folder})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, num_gpus=1)
            yield cluster
        finally:
            cluster.shutdown()


class Killer:
    """Kills one node after the other, each while all workers are at cells that have come to the driver in this attempt."""

    def __init__(self, cluster: Any, folder: Path, arrivals: Arrivals, kills: int, total: int) -> None:
        self._total = total
        self._cluster, self._folder, self._arrivals, self._left = cluster, folder, arrivals, kills
        self._counted: dict[str, int] = {}
        self.kills: list[Kill] = []

    def __call__(self, progress: WorkProgress) -> bool:
        """Called with the progress of the benchmark; kills a node if it is time to. Never ends the benchmark."""
        if not self._left or progress.running < 2:
            return False
        running = [job.name for job in read_status(self._folder).jobs if job.state == "running"]
        states = {name: self._arrivals.found.get(name, []) for name in running}
        at = {name: found[-1] for name, found in states.items() if len(found) >= self._counted.get(name, 0) + 2}
        if len(at) == 2 and all(0.1 < done / self._total < 0.6 for done in at.values()):
            began = time.perf_counter()
            cells = self._kill(self._cluster.list_all_nodes()[-1])
            self._cluster.add_node(num_cpus=1, num_gpus=1)
            self.kills.append(Kill(time.perf_counter() - began, at, cells))
            self._counted = {name: len(found) for name, found in self._arrivals.found.items()}
            self._left -= 1
        return False

    def _kill(self, node: Any) -> int:
        """Kill all processes of a node at once, as a machine that loses its power; its workers would outlive its raylet.

        Returns how many of them were at a cell.
        """
        (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
        pids = [raylet, *children(raylet)]
        cells = sum("run_job" in title(pid) for pid in pids)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)
        return cells


def title(pid: int) -> str:
    """What a process calls itself."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found


def on_nodes(bench: BenchRecipe, folder: Path, cluster: Any, kills: int) -> tuple[Any, Killer, Arrivals, ListStatus]:
    """The benchmark on the cluster; nodes are killed meanwhile."""
    arrivals = Arrivals()
    killer = Killer(cluster, folder, arrivals, kills, bench.budget)
    with (
        mock.patch.object(tasks, "leave_token", return_value="of a disk that workers do not see"),
        mock.patch.object(tasks, "apply_changes", arrivals.apply),
    ):
        outcome = run_bench(bench, folder, killer)
    return outcome, killer, arrivals, read_status(folder)


def without_timings(results: dict[str, Any]) -> dict[str, Any]:
    """The results of all targets that have to be equal."""
    return {name: {key: value for key, value in result.items() if key != "timings"} for name, result in results.items()}


def calls(note: Path) -> tuple[int, set[str]]:
    """The number of images that the networks have classified, and what the processes had reserved that did so."""
    rows = [line.split("\t") for line in note.read_text().splitlines()]
    return sum(int(row[1]) for row in rows), {row[2] for row in rows}


@contextmanager
def noted_nets(folder: Path) -> Iterator[Path]:
    """The module of networks, importable here and by workers; yields the file of the next calls."""
    (folder / "noted_nets.py").write_text(TARGETS)
    before, note = dict(os.environ), folder / "calls"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path.cwd()), before.get("PYTHONPATH", "")])
    os.environ["NOTED_CALLS"] = str(note)
    sys.path.insert(0, str(folder))
    try:
        yield note
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("noted_nets", None)
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs=2, default=["cppn", "per-class"])
    parser.add_argument("--queries", type=int, default=6000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds that a worker sleeps at each call of a network")
    args = parser.parse_args()
    os.environ["NOTED_PAUSE"] = str(args.pause)  # a quick machine would finish a cell before its node is killed
    size = args.targets, args.seeds, args.queries, args.arms
    with tempfile.TemporaryDirectory() as scratch, noted_nets(Path(scratch)) as note:
        folder = Path(scratch)
        began = time.perf_counter()
        alone = run_bench(recipe(*size), folder / "alone")
        images, _ = calls(note)
        note.unlink()
        print(f"without workers: {time.perf_counter() - began:.0f} s, {images:,} images classified", flush=True)
        began = time.perf_counter()
        with two_nodes() as cluster:
            bench = recipe(*size, 2, cluster.address)
            outcome, killer, arrivals, status = on_nodes(bench, folder / "nodes", cluster, args.kills)
        images_on_nodes, reserved = calls(note)
        print(f"on two nodes: {time.perf_counter() - began:.0f} s, {images_on_nodes:,} images classified")
    same = without_timings(alone.results) == without_timings(outcome.results)
    print(f"results of {len(outcome.results)} targets, {len(status.jobs)} cells: {'identical' if same else 'DIFFERENT'}")
    good = same and len(killer.kills) == args.kills
    if len(killer.kills) < args.kills:
        print(f"FAILED: {len(killer.kills)} of {args.kills} kills; give it more --queries")
    for number, kill in enumerate(killer.kills, 1):
        at = ", ".join(f"{name} at {done:,}" for name, done in kill.before.items())
        print(f"kill {number}: {kill.cells} worker(s), with {at}; another node after {kill.seconds:.1f} s")
    for job in status.jobs:
        if job.restarts:
            states = [0, *arrivals.found[job.name]]
            most = max(b - a for a, b in pairwise(states))
            print(
                f"  {job.name}: {job.restarts} worker(s) lost, {job.repeated:,} of {job.total:,} evaluations done twice; "
                f"{len(states) - 1} states came to the driver, at most {most:,} evaluations apart"
            )
            good &= job.repeated <= job.restarts * most and job.repeated < job.total // 2
    lost, twice = (sum(getattr(job, name) for job in status.jobs) for name in ("restarts", "repeated"))
    print(f"{lost} workers lost in {len(killer.kills)} kills; {twice:,} evaluations done twice as of their last reports")
    print(f"{images_on_nodes - images:,} more images were classified than without workers")
    gpus = {json.loads(text).get("GPU", 0) for text in reserved if text != "{}"}
    ids = sorted({str(json.loads(text)["ids"]) for text in reserved if text != "{}"})
    print(f"each cell had reserved {', '.join(f'{gpu:g} GPU' for gpu in sorted(gpus))}, of number {', '.join(ids)}")
    raise SystemExit(not (good and lost >= args.kills and gpus == {1.0}))


if __name__ == "__main__":
    main()
