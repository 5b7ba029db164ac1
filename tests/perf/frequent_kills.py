"""A run on a slow machine that is killed every few seconds still advances: batches gained by so many kills.

    python -m tests.perf.frequent_kills --kills 20 --seconds 10

The target is a LeNet that sleeps a second in each forward pass; a batch is one pass. Prints the batches that the run's file
has after each kill, and how long the process took to its first new batch, about: the seconds that gained no batch.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from evofool.errors import StoreError
from evofool.run.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="mnist-cppn")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0, help="from each start to its kill")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        line = [sys.executable, "-m", "evofool", "run"]
        new = [args.recipe, "--set", "target=python:tests.perf.slow_targets:lenet_1s", "--out", str(folder)]
        batches = [0]
        for _ in range(args.kills):
            begun = (folder / "run.db").exists()
            process = subprocess.Popen(
                [*line, *([str(folder), "--trust"] if begun else new)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(args.seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
            batches.append(_committed(folder))
        gained = [after - before for before, after in pairwise(batches)]
        lost = args.seconds - sum(gained) / len(gained)
        print(f"{args.kills} kills, each {args.seconds:g} s after a start: {batches[-1]} batches of 1 s")
        print(f"gained from one kill to the next: {' '.join(map(str, gained))}")
        print(f"starts that gained nothing: {gained.count(0)}; seconds of a start without a batch: {lost:.1f}")


def _committed(folder: Path) -> int:
    try:
        with Store.open(folder) as store:
            return store.meta().committed
    except StoreError:  # killed before there was a file
        return 0


if __name__ == "__main__":
    main()
