"""What workers buy: seconds until every digit is at 0.9999, of a target that takes 200 ms a batch, by number of workers.

    python -m tests.perf.time_to_quality --target "lenet-caffe?weights=lenet_caffe.safetensors"

Each number of workers searches with the lag that keeps two calls in flight at each of them, so what lag costs is in the
figures. A target that sleeps leaves the processor to others: --at-once searches go on beside each other, the more workers
the fewer. Clocks begin when every worker is ready; what that took is printed too. A search that meets the cap counts as
longer than any other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.store import Store
from tests.perf.search import await_workers, middle
from tests.perf.slow_targets import LENET

SLOW = "python:tests.perf.slow_targets:lenet_200ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet", help="the LeNet that sleeps")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--at-once", type=int, nargs="+", default=[10, 3, 1], help="searches, for each number of workers")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--recipe", default="mnist-cppn")
    parser.add_argument("--mode", default="reproducible", choices=["reproducible", "free"])
    parser.add_argument("--cap", type=int, default=60_000)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--one", type=int, nargs=2, metavar=("WORKERS", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_one(args, *args.one)))
        return
    columns = f"{'workers':>7}{'lag':>5}{'seconds':>9}{'(quartiles)':>16}{'faster':>8}"
    print(f"{columns}{'evaluations':>13}{'missed':>8}{'to begin':>10}", flush=True)
    base = None
    for workers, at_once in zip(args.workers, args.at_once, strict=True):
        line = [sys.executable, "-m", "tests.perf.time_to_quality", *sys.argv[1:], "--one", str(workers)]
        with ThreadPoolExecutor(at_once) as pool:
            seeds = range(args.first_seed, args.first_seed + args.seeds)
            found = list(pool.map(lambda seed, line=line: _ask([*line, str(seed)]), seeds))
        ends = [np.inf if one["seconds"] is None else one["seconds"] for one in found]
        median, (low, high) = float(np.median(ends)), np.quantile(ends, (0.25, 0.75), method="nearest")
        base = base or median
        quartiles = f"({low:,.0f} {high:,.0f})"
        missed = sum(one["seconds"] is None for one in found)
        print(
            f"{workers:>7}{_lag(workers):>5}{median:>9,.1f}{quartiles:>16}{base / median:>7.2f}x"
            f"{middle([one['evaluations'] for one in found]):>13,.0f}{missed:>8}"
            f"{np.median([one['start'] for one in found]):>8.1f} s",
            flush=True,
        )


def _lag(workers: int) -> int:
    return 2 * workers - 1


def _ask(line: list[str]) -> dict[str, float | None]:
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _one(args: argparse.Namespace, workers: int, seed: int) -> dict[str, float | None]:
    os.environ[LENET] = args.target
    changes = [f"target={SLOW}", f"search.seed={seed}", f"search.lag={_lag(workers)}", f"search.mode={args.mode}"]
    changes += [f"compute.workers={workers}", "stop.confidence=0.9999", f"stop.evaluations={args.cap}", *args.changes]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, Run.start(load(args.recipe, changes), Path(scratch) / "run") as run:
        started = time.perf_counter()
        await_workers(run)
        ready = time.perf_counter()
        reason = run.advance()
        took = time.perf_counter() - ready
        with Store.open(run.folder) as store:
            assert store.meta().committed == run.strategy.committed
        met = bool(reason) and "confidence" in str(reason)
        return {
            "seconds": took if met else None,
            "evaluations": run.strategy.evaluations if met else None,
            "start": ready - started,
            "target": started - began,
        }


if __name__ == "__main__":
    main()
