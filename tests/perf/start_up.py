"""How much later a search with workers begins than one without: seconds from the command to its first evaluations, in turns.

    python -m tests.perf.start_up --rounds 5

Evaluating begins when the first batch is committed. Each is a process of its own, so imports count.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMED = """
import sys, time
from evofool.recipe import load
from evofool.run.run import Run
with Run.start(load(sys.argv[1], sys.argv[3:]), sys.argv[2]) as run:
    run.advance(batches=1)
    print(time.time())
print("ray" in sys.modules)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recipes", nargs="+", default=["mnist-cppn", "imagenet-cppn"])
    args = parser.parse_args()
    for recipe in args.recipes:
        times: dict[int, list[float]] = {0: [], args.workers: []}
        for _ in range(args.rounds):
            for workers, seconds in times.items():
                seconds.append(_begin(recipe, workers))
        local, far = (statistics.median(seconds) for seconds in times.values())
        print(
            f"{recipe}: {local:.1f} s alone, {far:.1f} s with {args.workers} workers (medians of {args.rounds}), "
            f"{far - local:.1f} s more",
            flush=True,
        )


def _begin(recipe: str, workers: int) -> float:
    # Which number format is the fastest is measured at the start of either; a given one shows what workers add.
    changes = [f"compute.workers={workers}", "compute.format=float32", "search.lag=3"]
    with tempfile.TemporaryDirectory() as scratch:
        began = time.time()
        line = [sys.executable, "-c", TIMED, recipe, str(Path(scratch) / "run"), *changes]
        done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    moment, imported = done.stdout.split()[-2:]
    assert imported == str(bool(workers)), "ray is imported for workers alone"
    return float(moment) - began


if __name__ == "__main__":
    main()
