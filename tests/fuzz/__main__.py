"""`python -m tests.fuzz`: thousands of hostile inputs in child processes, and some by the real command line.

Exit status 1 if a rule was broken. Failing inputs are saved, and belong into rows.py once they are mended.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.command_line import try_command_lines
from tests.fuzz.every_area import AREAS, shares


@dataclass
class Outcome:
    """What came of the cases of one area, of all its processes."""

    examples: int = 0
    slowest: float = 0.0
    slowest_case: str = ""
    peak_mb: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, result: dict[str, Any]) -> None:
        self.examples += result["examples"]
        self.failures.update(result["failures"])
        self.peak_mb = max(self.peak_mb, result["peak_mb"])
        if result["slowest"] > self.slowest:
            self.slowest, self.slowest_case = result["slowest"], result["slowest_case"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seeds", default="1", help="seeds, as in 1,2; each draws all examples (default: 1)")
    parser.add_argument("--examples", type=int, default=20_000, help="in process, of all areas together")
    parser.add_argument("--command-lines", type=int, default=200, help="cases that the real command line gets")
    parser.add_argument("--areas", default=",".join(AREAS), help=f"some of {', '.join(AREAS)}, or none")
    parser.add_argument("--processes", type=int, default=2, help="child processes at a time")
    parser.add_argument("--out", type=Path, help="folder of failing inputs; a new temporary one by default")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="fuzz-failures-"))
    out.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in given.areas.split(",") if name != "none"]
    seeds = [int(seed) for seed in given.seeds.split(",")]
    jobs = [(seed, name, count) for seed in seeds for name, count in shares(given.examples).items() if name in wanted]
    outcomes: dict[tuple[int, str], Outcome] = {}
    with ThreadPoolExecutor(given.processes) as pool:
        for (seed, name, _), outcome in zip(jobs, pool.map(lambda job: _area(*job, out), jobs), strict=True):
            outcomes[seed, name] = outcome
            _print(f"{name}, seed {seed}", outcome)
    for seed in seeds if given.command_lines else ():
        outcome = Outcome()
        outcome.add(try_command_lines(given.command_lines, seed, given.processes, out / f"command-lines-{seed}"))
        outcomes[seed, "command line"] = outcome
        _print(f"command line, seed {seed}", outcome)
    total, failed = sum(each.examples for each in outcomes.values()), sum(len(each.failures) for each in outcomes.values())
    print(f"{total:,} examples, {failed} kinds of failure" + (f"; inputs in {out}" if failed else ""), flush=True)
    return 1 if failed else 0


def _area(seed: int, name: str, examples: int, out: Path) -> Outcome:
    """All examples of an area; a process that dies is replaced, with another seed for what is left."""
    outcome = Outcome()
    for attempt in range(50):
        if outcome.examples >= examples:
            break
        folder = out / f"{name}-{seed}-{attempt}"
        folder.mkdir()
        command = [sys.executable, "-W", "error", "-m", "tests.fuzz.child", name]
        arguments = [str(seed + 100 * attempt), str(examples - outcome.examples), str(folder)]
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
        with (folder / "output.txt").open("w") as output:
            status = subprocess.run([*command, *arguments], stdout=output, stderr=output, env=environment).returncode
        if (folder / "result.json").is_file():
            outcome.add(json.loads((folder / "result.json").read_text()))
            continue
        done = _done(folder)
        outcome.examples += max(1, done)
        outcome.failures[f"the process died with status {status}: {folder}"] += 1
        outcome.failures.update(path.read_text().split("\n")[0] for path in folder.glob("failure-*/fault.txt"))
    return outcome


def _done(folder: Path) -> int:
    """How many cases a process had begun before it died."""
    current = folder / "current.txt"
    return int(current.read_text().split("\n")[0]) + 1 if current.is_file() else 0


def _print(what: str, outcome: Outcome) -> None:
    print(
        f"{what}: {outcome.examples:,} examples, {len(outcome.failures)} kinds of failure, slowest {outcome.slowest:.2f} s, "
        f"memory +{outcome.peak_mb:.0f} MB",
        flush=True,
    )
    for reason, times in outcome.failures.most_common():
        print(f"  {times} x {reason}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
