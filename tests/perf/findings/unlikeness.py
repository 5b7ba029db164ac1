"""Statements 14 to 16 of docs/findings.md: what a limit on likeness costs, on ten networks.

python -m tests.perf.findings.unlikeness SET OUT [--processes 2]

SET: a folder in which `evofool set build set-1` has trained its networks. Runs of `mnist-cppn`, of the same with
search.unlike "shape>95", and with "others>90", seeds 0 to 4, until all digits are at 0.99 or 50,000 evaluations (networks
with outlier exposure: the first and the last, 10,000 evaluations), into OUT; runs that it has are not made again. A run that
missed the cap counts as the cap, so a ratio may be too small; how many missed it is printed.
"""

import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from evofool import recipe as recipes
from evofool.printer import print_lines
from evofool.run.stored import StoredRun
from evofool.targets import target as load_target
from tests.perf.findings.common import DEFENDED, FOOLS, UNDEFENDED, judge, parser_of, search

LIMITS = ("", "shape>95", "others>90")
SEEDS = range(5)
CAP, EVALUATIONS = 50_000, 10_000
NEVER = 0.999999999999  # a confidence that no search reaches for all digits, so that it makes all of its evaluations


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    jobs = [(name, limit, seed) for name in UNDEFENDED for limit in LIMITS for seed in SEEDS]
    jobs += [(name, limit, seed) for name in DEFENDED for limit in (LIMITS[0], LIMITS[-1]) for seed in SEEDS]
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        list(pool.map(run, [given.set] * len(jobs), [given.out] * len(jobs), jobs))
    by_limit = {limit: np.array([evaluations(given.out, name, limit) for name in UNDEFENDED]) for limit in LIMITS}
    for limit, found in by_limit.items():
        medians = ", ".join(f"{value:,.0f}" for value in np.median(found, axis=1))
        print_lines(f"{limit or 'no limit'}: {medians}; {(found >= CAP).sum()} of {found.size} missed {CAP:,}")
    logs = {limit: np.log(np.median(found, axis=1)) for limit, found in by_limit.items()}
    for number, limit, sides in ((14, "shape>95", {"below": math.log(1.5)}), (15, "others>90", {"above": math.log(2)})):
        judge(number, f"{limit}, times the evaluations", (logs[limit] - logs[""]).tolist(), **sides, shown=math.exp)
    odds = {limit: np.array([log_odds(given.out, name, limit) for name in DEFENDED]) for limit in (LIMITS[0], LIMITS[-1])}
    for limit, found in odds.items():
        print_lines(f"outlier exposure, {limit or 'no limit'}: median log-odds {np.round(found, 2).tolist()}")
    judge(16, "others>90 on defended networks, difference", (odds[LIMITS[-1]] - odds[""]).tolist(), below=0)


def folder_of(out: Path, name: str, limit: str, seed: int) -> Path:
    return out / (limit.replace(">", "-") or "none") / name / f"{seed}"


def run(of_set: Path, out: Path, job: tuple[str, str, int]) -> None:
    """Run one job: a network, a limit and a seed."""
    torch.set_num_threads(1)
    name, limit, seed = job
    with StoredRun(of_set / "cells" / name / "cppn-0") as stored:
        spec = stored.recipe.target
    ends = (
        [f"stop.evaluations={CAP}", f"stop.confidence={FOOLS}"]
        if name in UNDEFENDED
        else [f"stop.evaluations={EVALUATIONS}"]
    )
    unlike = [f"search.unlike={limit}"] if limit else []
    recipe = recipes.load("mnist-cppn", [f"target={spec}", f"search.seed={seed}", "compute.format=float32", *ends, *unlike])
    folder = folder_of(out, name, limit, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    search(recipe, folder, load_target(spec))


def evaluations(out: Path, name: str, limit: str) -> list[float]:
    """By seed, until all digits were at 0.99, in whole batches."""
    found = []
    for seed in SEEDS:
        with StoredRun(folder_of(out, name, limit, seed)) as stored:
            reached = sum(elite.confidence >= FOOLS for elite in stored.listed())
            found.append(float(stored.evaluations if reached == len(stored.labels) else CAP))
    return found


def log_odds(out: Path, name: str, limit: str) -> float:
    """The median over digits, averaged over seeds; a digit without an image counts as minus infinity."""
    medians = []
    for seed in SEEDS:
        with StoredRun(folder_of(out, name, limit, seed)) as stored:
            values = [elite.row.log_odds for elite in stored.listed()]
            medians.append(float(np.median([*values, *[-np.inf] * (len(stored.labels) - len(values))])))
    return float(np.mean(medians))


if __name__ == "__main__":
    main()
