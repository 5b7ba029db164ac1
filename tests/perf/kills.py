"""SIGKILL a run at random moments, resume it each time, and compare the end with an unbroken run's, bit for bit.

    python -m tests.perf.kills --seconds 60 --kills 30

First an unbroken run of so many evaluations that the search takes --seconds here; then the same run, killed.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.store import Store
from tests.stored import course


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="mnist-cppn")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    args = parser.parse_args()
    base = [*args.changes, "stop.confidence="]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with Run.start(load(args.recipe, [*base, "stop.evaluations=20000"]), folder / "probe") as run:
            run.advance()
            evaluations = int(args.seconds * 1.3 * run.strategy.evaluations / run.seconds)
        changes = [*base, f"stop.evaluations={evaluations}"]
        with Run.start(load(args.recipe, changes), folder / "unbroken") as run:
            run.advance()
            seconds = run.seconds
        print(f"{args.recipe}: {evaluations:,} evaluations, unbroken in {seconds:.1f} s of search", flush=True)
        command = [sys.executable, "-m", "evofool", "run", args.recipe, "--out", str(folder / "killed")]
        for change in changes:
            command += ["--set", change]
        moments = random.Random(args.seed)
        after_first = done = 0
        started = time.perf_counter()
        while done < args.kills:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(moments.uniform(0.2, seconds / args.kills + 3))  # 3 s: about what a start takes, twice
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
            command = [*command[:4], *([str(folder / "killed")] if (folder / "killed/run.db").exists() else command[4:])]
            after_first += has_checkpoint(folder / "killed")
        kills = f"{done} kills, {after_first} of them after the first checkpoint, {time.perf_counter() - started:.0f} s"
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise SystemExit(f"after {kills}: the run could not be resumed")
        if done < args.kills:
            raise SystemExit(f"{kills}: the run ended before the last kill; this machine wants more --seconds")
        same = course(folder / "killed") == course(folder / "unbroken")
        print(f"{kills}: {'identical' if same else 'DIFFERENT'}")
        raise SystemExit(not same)


def has_checkpoint(folder: Path) -> bool:
    if not (folder / "run.db").exists():
        return False
    try:
        with Store.open(folder) as store:
            return bool(store.meta().committed)
    except OSError:
        return False


if __name__ == "__main__":
    main()
