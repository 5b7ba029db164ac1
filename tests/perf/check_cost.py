"""What comparing workers costs: the search time of mnist-cppn with two workers, with checks and without, alternating.

python -m tests.perf.check_cost --pairs 7
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

from evofool.cluster.checks import Checks
from evofool.recipe import load
from evofool.run.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    changes = [
        f"stop.evaluations={args.evaluations}",
        "stop.confidence=",
        "search.lag=3",
        "compute.workers=2",
        *args.changes,
    ]
    ratios = []
    for pair in range(args.pairs):
        seconds = {}
        for checked in (True, False) if pair % 2 else (False, True):
            with tempfile.TemporaryDirectory() as scratch:
                seconds[checked], repeated = _search(changes, Path(scratch) / "run", checked)
            print(
                f"pair {pair}: {'with' if checked else 'without'} checks {seconds[checked]:.2f} s, {repeated:,} again",
                flush=True,
            )
        ratios.append(seconds[True] / seconds[False])
    print(f"with checks / without: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def _search(changes: list[str], folder: Path, checked: bool) -> tuple[float, int]:
    """(seconds of search, images evaluated again). Both workers are at work before it begins."""
    with Run.start(load("mnist-cppn", changes), folder) as run:
        while any(one["state"] != "working" for one in run.evaluator.workers()):
            run.evaluator._step()  # type: ignore[attr-defined]
        if checked:
            run.advance()
        else:
            with (
                patch.object(Checks, "mark", lambda self: 0),
                patch.object(Checks, "confirmed", lambda self, mark: True),
                patch.object(Run, "_measure_elites_again", lambda self: None),
            ):
                run.advance()
        return run.seconds, run.repeated


if __name__ == "__main__":
    main()
