"""One of two workers is wrong: whether it is named, when, and whether the archive is that of a search without it.

    python -m tests.perf.wrong_workers
    python -m tests.perf.wrong_workers --faults later nan --seeds 0 1 --mode free

mnist-cppn against the bundled LeNet, changed in the first worker (wrong_targets.py). Both workers are at work before the
search begins. Prints a row for each fault and seed, and exits with 1 if a worker is not named or an archive differs. In free
mode the archive is compared with a replay in this process.
"""

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path

from evofool.recipe import load
from evofool.run.replay import content, differences, replay
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from tests.perf import wrong_targets

FAULTS = ("doubles", "adds", "nan", "later", "other_torch")


def differing(one: Path, other: Path) -> list[str]:
    with StoredRun(one) as a, StoredRun(other) as b:
        return differences(content(a), content(b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=3600)
    parser.add_argument("--mode", choices=("reproducible", "free"), default="reproducible")
    args = parser.parse_args()
    print(
        "fault        seed named  noticed at    after rewound to repeated  differing",
        flush=True,
    )
    fine = True
    for fault in args.faults:
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                fine &= _row(args, fault, seed, Path(scratch))
    raise SystemExit(not fine)


def _row(args: argparse.Namespace, fault: str, seed: int, scratch: Path) -> bool:
    os.environ[wrong_targets.FOLDER] = str(scratch)
    changes = [
        f"search.seed={seed}",
        f"search.mode={args.mode}",
        "search.lag=3",
        "stop.confidence=",
        f"stop.evaluations={args.evaluations}",
    ]
    target = f"target=python:tests.perf.wrong_targets:{fault}"
    noticed: list[float] = []

    def tick(run: Run) -> bool:
        if not noticed and _named(run):
            noticed.append(time.time())
        return False

    with Run.start(load("mnist-cppn", [*changes, target, "compute.workers=2"]), scratch / "run") as run:
        while not _named(run) and any(one["state"] != "working" for one in run.evaluator.workers()):
            run.evaluator._step()  # type: ignore[attr-defined]
        tick(run)
        run.advance(tick, every=0.0)
        tick(run)
        named, repeated = _named(run), run.repeated
        rewound = re.findall(r"rewound to ([\d,]+) evaluations, .*?, from ([\d,]+), because", "\n".join(run.warnings))
    if args.mode == "free":
        found = list(replay(scratch / "run", scratch / "again", trust=True).differences)
    else:
        with Run.start(load("mnist-cppn", [*changes, target]), scratch / "undisturbed") as run:
            run.advance()
        found = differing(scratch / "undisturbed", scratch / "run")
    first = scratch / "first.json"
    after = "-"
    if noticed and first.exists():
        after = f"{noticed[0] - json.loads(first.read_text())['time']:.1f} s"
    back, at = rewound[0] if rewound else ("-", "start")
    print(
        f"{fault:<12} {seed:>4} {'yes' if named else 'NO':<6} {at:>10} {after:>8} {back:>10} {repeated:>8,}  "
        f"{', '.join(found) or 'nothing'}",
        flush=True,
    )
    return named and not found


def _named(run: Run) -> bool:
    return any(
        note.startswith("worker ") and ("answers differently" in note or "fails on" in note) for note in run.evaluator.notes
    )


if __name__ == "__main__":
    main()
