"""However many workers classify, a search ends with the same bits: recipes x lags x numbers of workers, compared.

    python -m tests.perf.cluster_same
    python -m tests.perf.cluster_same --recipes mnist-cppn --lags 8 --workers 0 2 --evaluations 2000

Each run is a process of its own, `evofool run`, with 0 workers in that process. Prints a row for each, a verdict for each
recipe and lag against the first of its --workers, and exits with 1 on any difference.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evofool.run.stored import StoredRun
from tests.stored import course

EVALUATIONS = {"mnist-cppn": 6000, "mnist-direct": 6000, "imagenet-cppn": 2000}


def differing(one: Path, other: Path) -> list[str]:
    """The parts in which the runs in two folders differ; none if they ended with the same bits."""
    a, b = course(one), course(other)
    return [part for part in a if a[part] != b[part]]


def verdict(differences: list[str]) -> str:
    return f"DIFFERENT in {', '.join(differences)}" if differences else "identical"


def command(recipe: str, out: Path, changes: list[str], *options: str) -> list[str]:
    """The `evofool run` that begins the run in out, or goes on with it."""
    sets = [word for change in changes for word in ("--set", change)]
    return [sys.executable, "-m", "evofool", "run", recipe, "--out", str(out), *options, *sets]


def finish(recipe: str, out: Path, changes: list[str], *options: str, limit: float) -> float:
    """Run it to its end in a process; seconds it took. SystemExit if it fails, or takes over limit seconds."""
    began = time.perf_counter()
    line = command(recipe, out, changes, *options)
    try:
        done = subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"no end in {limit:g} s: {' '.join(line)}") from None
    if done.returncode:
        raise SystemExit(f"ended with {done.returncode}: {' '.join(line)}\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=list(EVALUATIONS))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2, 4])
    parser.add_argument("--lags", nargs="+", type=int, default=[0, 8])
    parser.add_argument("--evaluations", type=int, help=f"of each run, instead of {EVALUATIONS}")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which a run is taken to hang")
    args = parser.parse_args()
    print(f"{'recipe':<16} {'lag':>3} {'workers':>7} {'evaluations':>11} {'search':>8} {'in all':>8}", flush=True)
    all_same = True
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in args.recipes:
            evaluations = args.evaluations or EVALUATIONS.get(recipe, 2000)
            fixed = [*args.changes, "stop.confidence=", f"stop.evaluations={evaluations}"]
            settled: list[str] = []
            for lag in args.lags:
                folders = []
                for workers in args.workers:
                    out = Path(scratch) / f"{recipe}-{lag}-{workers}"
                    changes = [*fixed, *settled, f"search.lag={lag}"]
                    took = finish(recipe, out, changes, f"--workers={workers}", limit=args.limit)
                    with StoredRun(out) as stored:
                        # Which number format is the fastest is measured, and may come out otherwise when asked again.
                        settled = [f"compute.format={stored.recipe.compute.format}"]
                        done, search = stored.evaluations, stored.meta.seconds
                    print(f"{recipe:<16} {lag:>3} {workers:>7} {done:>11,} {search:>6.1f} s {took:>6.1f} s", flush=True)
                    folders.append(out)
                found = {out: differing(folders[0], out) for out in folders[1:]}
                for out, differences in found.items():
                    if differences:
                        print(f"  {out.name} against {folders[0].name}: {verdict(differences)}")
                same = not any(found.values())
                all_same &= same
                print(f"{recipe}, lag {lag}: {'identical' if same else 'DIFFERENT'}", flush=True)
    raise SystemExit(not all_same)


if __name__ == "__main__":
    main()
