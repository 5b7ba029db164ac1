"""What workers buy: seconds until the median digit, and all digits, are at 0.9999, of a target that takes 200 ms a pass.

    python -m tests.perf.time_to_quality --target "lenet-caffe?weights=lenet_caffe.safetensors" --goal median

One search at a time. Every seed is searched with each number of workers and in both modes, in turns, so that a busy moment
of the machine is shared by all. A clock begins when every worker is ready and ends with the commit that reaches the goal.

The reference is one worker in the setting that is the fastest for it: no lag (the worker waits some ms between calls), or a
lag of 1 and two calls in flight (it never waits, and parents are a batch older). `speed-up` is the reference's geometric
mean of seconds over that of W workers at the same seeds, `of W` the same over W, with an interval of 95% (a bootstrap over
the seeds). Medians of seconds and evaluations stand beside. `use` is the share of the time for which the workers' targets
slept: where it is equal, the evaluations alone decide. `load` is that of the machine. A search that meets the cap counts
with the time until then.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from evofool.cluster.evaluator import RayEvaluator
from evofool.cluster.session import connect, disconnect
from evofool.cluster.settings import RayOptions
from evofool.cluster.slots import WorkerSlot
from evofool.cluster.worker import WorkerSetup
from evofool.recipe import load
from evofool.run.run import Run
from evofool.scores import needed_log_odds
from tests.perf.search import await_workers
from tests.perf.slow_targets import LENET

SLOW = "python:tests.perf.slow_targets:lenet_200ms"
FORWARD = 0.2  # seconds
LEVEL = 0.9999
REFERENCES = {"1 worker, lag 0": ["search.lag=0"], "1 worker, lag 1": ["search.lag=1", "compute.ray.in_flight=2"]}
"""Of one worker; in free mode it is the first one, or with two calls in flight the second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet", help="the LeNet that sleeps")
    parser.add_argument("--goal", default="median", choices=["median", "all"], help="the digits to be at 0.9999")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--recipe", default="mnist-cppn")
    parser.add_argument("--cap", type=int, default=60_000)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--save", type=Path, help="a file of JSON lines; searches that it has are not repeated")
    args = parser.parse_args()
    os.environ[LENET] = args.target
    _keep_actors()
    connect(RayOptions(), max(args.workers))
    settings = {name: (1, changes) for name, changes in REFERENCES.items()}
    for workers in args.workers:
        settings[f"{workers} workers, lag {workers - 1}"] = workers, [f"search.lag={workers - 1}"]
        settings[f"{workers} workers, free"] = workers, ["search.mode=free"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    known = _known(args.save)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, (workers, changes) in settings.items():
            one = known.get((name, seed)) or _search(args, workers, seed, changes)
            found[name].append(one)
            if args.save and (name, seed) not in known:
                with args.save.open("a") as file:
                    print(json.dumps({"name": name, "seed": seed, **one}), file=file)
        print(
            f"seed {seed}: {', '.join(f'{last:.1f}' for last in (each[-1]['seconds'] for each in found.values()))} s",
            flush=True,
        )
    _print_table(found, {name: workers for name, (workers, _) in settings.items()}, np.random.default_rng(0))


def _print_table(found: dict[str, list[dict[str, float]]], workers: dict[str, int], draws: np.random.Generator) -> None:
    """A row for each setting; found has its searches, in the order of the seeds."""
    logs = {name: np.log([one["seconds"] for one in each]) for name, each in found.items()}
    reference = min(REFERENCES, key=lambda name: logs[name].mean())
    print(f"reference: {reference}")
    print(
        f"{'':<20}{'seconds':>9}{'evaluations':>13}{'use':>6}{'speed-up':>10}{'of W':>7}  95% interval{'missed':>8}"
        f"{'load':>6}"
    )
    for name, each in found.items():
        gains = logs[reference] - logs[name]
        resampled = gains[draws.integers(0, len(gains), (10_000, len(gains)))].mean(axis=1)
        gain, low, high = np.exp([gains.mean(), *np.quantile(resampled, (0.025, 0.975))])
        column = {key: [one[key] for one in each] for key in each[0]}
        w = workers[name]
        print(
            f"{name:<20}{np.median(column['seconds']):>9.2f}{np.median(column['evaluations']):>13,.0f}"
            f"{np.mean(column['use']):>6.0%}{gain:>10.2f}{gain / w:>7.2f}  {low / w:.2f} to {high / w:.2f}"
            f"{sum(not one['met'] for one in each):>8}{np.median(column['load']):>6.1f}",
            flush=True,
        )


def _known(file: Path | None) -> dict[tuple[str, int], dict[str, float]]:
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {(row.pop("name"), row.pop("seed")): row for row in rows}


def _search(args: argparse.Namespace, workers: int, seed: int, changes: list[str]) -> dict[str, float]:
    """One search, until the goal or the cap."""
    changes = [f"target={SLOW}", f"search.seed={seed}", f"compute.workers={workers}", "stop.confidence=", *changes]
    changes += [f"stop.evaluations={args.cap}", *args.changes]
    worst = np.median if args.goal == "median" else np.min
    needed = needed_log_odds(LEVEL)
    end: list[tuple[float, float]] = []

    def tick(run: Run) -> bool:
        if worst(run.archive.best()) >= needed:
            end.append((time.perf_counter(), _slept(run)))
        return bool(end)

    with tempfile.TemporaryDirectory() as scratch, Run.start(load(args.recipe, changes), Path(scratch) / "run") as run:
        await_workers(run)
        ready, before = time.perf_counter(), _slept(run)
        run.advance(tick, every=0.0)
        met = bool(end)
        ended, slept = end[0] if met else (time.perf_counter(), _slept(run))
        return {
            "seconds": ended - ready,
            "evaluations": run.strategy.evaluations,
            "met": met,
            "use": (slept - before) / (workers * (ended - ready)),
            "load": os.getloadavg()[0],
        }


_KEPT: list[Any] = []
"""Actors that no search uses: sixteen new processes take a minute on two cores."""


def _keep_actors() -> None:
    """Searches take the actors that earlier ones have left."""
    start = WorkerSlot.start

    def start_kept(slot: WorkerSlot, make_actor: Any, setup: WorkerSetup) -> None:
        start(slot, _KEPT.pop if _KEPT else make_actor, setup)

    def close(self: RayEvaluator) -> None:
        _KEPT.extend(slot.actor for slot in self._slots if slot.actor)
        self._slots = []
        disconnect()

    WorkerSlot.start = start_kept  # type: ignore[method-assign]
    RayEvaluator.close = close  # type: ignore[method-assign]


def _slept(run: Run) -> float:
    """Seconds for which the targets of all workers have slept so far, those of calls that are not answered included."""
    now, slots = time.monotonic(), run.evaluator._slots  # type: ignore[attr-defined]
    answered = sum(slot.images for slot in slots) / run.recipe.chunk * FORWARD
    return answered + sum(min(FORWARD, now - slot.since) for slot in slots if slot.calls)


if __name__ == "__main__":
    main()
