"""A first run, before any kernel is compiled: seconds until there are elites, with and without compiling ahead, in turns.

    python -m tests.perf.first_use --rounds 5

Each is a process of its own with an empty folder for numba's cache, so all kernels are compiled. Seconds are counted from
the start of the process to the end of torch's import, to the first batch of random images, and to the twentieth batch, whose
images are varied in mnist-cppn. "warm" is a process that finds every kernel on disk.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMED = """
import sys, time
from evofool.recipe import load
from evofool.search.first_calls import compile_ahead
recipe = load(sys.argv[1], [])
if sys.argv[3] == "ahead":
    compile_ahead(recipe.encoding.kind)
import torch
moments = [time.time()]
from evofool.run.run import Run
with Run.start(recipe, sys.argv[2]) as run:
    for batches in (1, 20):
        run.advance(batches=batches)
        moments.append(time.time())
print(moments[0], moments[1], moments[-1])
"""
WAYS = ("ahead", "when called", "warm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipe", default="mnist-cppn")
    args = parser.parse_args()
    times: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as warm:
        _begin(args.recipe, "ahead", warm)
        _begin(args.recipe, "when called", warm)
        for _ in range(args.rounds):
            for way, found in times.items():
                with tempfile.TemporaryDirectory() as cold:
                    found.append(_begin(args.recipe, way, warm if way == "warm" else cold))
    for way, found in times.items():
        torch, first, varied = (statistics.median(column) for column in zip(*found, strict=True))
        after = sorted(row[1] - row[0] for row in found)
        print(
            f"{args.recipe}, {way}: torch {torch:.1f} s, first elites {first:.1f} s ({after[0]:.1f} to {after[-1]:.1f} s "
            f"after torch), twentieth batch {varied:.1f} s (medians of {args.rounds})",
            flush=True,
        )


def _begin(recipe: str, way: str, cache: str) -> list[float]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    with tempfile.TemporaryDirectory() as scratch:
        began = time.time()
        line = [sys.executable, "-c", TIMED, recipe, str(Path(scratch) / "run"), way]
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [float(moment) - began for moment in done.stdout.split()]


if __name__ == "__main__":
    main()
