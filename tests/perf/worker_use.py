"""How busy workers are: a target that sleeps 20 ms a forward pass, two workers, in both modes; then one of them three times
slower.

    python -m tests.perf.worker_use --seconds 20

Use is the share of a stretch, begun once every worker has answered, that a worker's target slept. A driver that nobody waits
for would bring it to 100%, but for drawing, which is the worker's work too: "busy" counts that in.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from evofool.recipe import load
from evofool.run.run import Run
from tests.perf.slow_targets import FOLDER

FORWARD = 0.02  # seconds
SLOWER = 3.0
CASES = {
    "reproducible": ("sleep_20ms", ["search.mode=reproducible"]),
    "free": ("sleep_20ms", ["search.mode=free"]),
    "free, one three times slower": ("uneven_20ms", ["search.mode=free"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stretch")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lag", type=int, help="of the reproducible search; what two calls in flight each need")
    parser.add_argument("--recipe", default="mnist-cppn")
    args = parser.parse_args()
    lag = 2 * args.workers - 1 if args.lag is None else args.lag
    print(f"{'mode':<30}{'lag':>4}{'use':>7}{'busy':>7}{'images/s':>10}  of each worker", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[FOLDER] = scratch
        for name, (target, changes) in CASES.items():
            base = [f"target=python:tests.perf.slow_targets:{target}", "stop.confidence=", "stop.evaluations=100000000"]
            base += [*changes, f"search.lag={lag}", f"compute.workers={args.workers}"]
            with Run.start(load(args.recipe, base), Path(scratch) / name) as run:
                chunk = run.recipe.chunk
                each, seconds = _stretch(run, args.seconds)
            rates = [one["images"] / chunk / seconds for one in each]
            slow = min(range(len(rates)), key=rates.__getitem__) if "slower" in name else None
            use = [rate * FORWARD * (SLOWER if i == slow else 1.0) for i, rate in enumerate(rates)]
            busy = [one["busy_seconds"] / seconds for one in each]
            use_and_rates = ", ".join(f"{u:.0%} of {r * chunk:,.0f}/s" for u, r in zip(use, rates, strict=True))
            used, worked = sum(use) / len(use), sum(busy) / len(busy)
            shown = lag if name == "reproducible" else "-"
            print(f"{name:<30}{shown:>4}{used:>7.1%}{worked:>7.1%}{sum(rates) * chunk:>10,.0f}  {use_and_rates}", flush=True)


def _stretch(run: Run, seconds: float) -> tuple[list[dict[str, Any]], float]:
    """What each worker did in so many seconds after all had begun."""
    seen: list[tuple[float, list[dict[str, Any]]]] = []

    def tick(run: Run) -> bool:
        each, now = run.evaluator.workers(), time.perf_counter()
        if not seen and all(one["images"] > 0 for one in each):
            seen.append((now, each))
        if seen and now - seen[0][0] >= seconds:
            seen.append((now, each))
            return True
        return False

    run.advance(tick, every=0.05)
    (began, before), (ended, after) = seen[0], seen[-1]
    gains = [
        {key: b[key] - a[key] for key in ("images", "busy_seconds")} for a, b in zip(before, after, strict=True)
    ]  # fmt: skip
    return gains, ended - began


if __name__ == "__main__":
    main()
