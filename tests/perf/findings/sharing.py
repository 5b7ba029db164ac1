"""Statements 9 to 13, 28 and 29 of docs/findings.md: whether sharing between classes helps, and what to rank by.

python -m tests.perf.findings.sharing SET OUT [--processes 2] [--statements 9,10,11,29]

SET: a folder in which `evofool set build set-1` has done its cells, with SqueezeNet among the photographs. Each of these
cells is a MAP-Elites search that ranks by log-odds. For each one OUT gets a run of the same recipe and seed with
search.competition=per-class, and for statements 28 and 29 with search.rank=margin. A classifier's value is the mean over
seeds of the figure of the cell less that of the run in OUT. Runs that OUT has are not made again. Figures are over the
classes that were searched for: how many are reached (a confidence of 0.99), medians of log-odds and of margins.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from evofool.printer import print_lines
from evofool.run.stored import StoredRun
from evofool.targets import target as load_target
from tests.perf.findings.common import DEFENDED, FOOLS, SEEDS, UNDEFENDED, judge, parser_of, search

PHOTOGRAPHS = (*(f"efficientnet-lite{k}" for k in range(3)), "torchvision_squeezenet1_0")


class Comparison(NamedTuple):
    """statement: the first one of each classifier, or the one of all. change: of the recipe, for the control."""

    statement: int
    arm: str
    classifiers: Sequence[str]
    change: tuple[str, str]
    figure: str

    def runs(self) -> Iterator[tuple[str, int]]:
        """Classifier and seed."""
        return ((name, seed) for name in self.classifiers for seed in SEEDS)


ALONE, BY_MARGIN = ("competition", "per-class"), ("rank", "margin")
COMPARISONS = (
    Comparison(9, "cppn", UNDEFENDED, ALONE, "reached"),
    Comparison(10, "canvas", UNDEFENDED, ALONE, "reached"),
    Comparison(11, "cppn", DEFENDED, ALONE, "log_odds"),
    Comparison(12, "cppn", PHOTOGRAPHS, ALONE, "log_odds"),
    Comparison(13, "canvas", PHOTOGRAPHS, ALONE, "log_odds"),
    Comparison(28, "canvas", PHOTOGRAPHS, BY_MARGIN, "margin"),
    Comparison(29, "cppn", UNDEFENDED, BY_MARGIN, "margin"),
)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--statements", default=",".join(str(of.statement) for of in COMPARISONS))
    given = parser.parse_args()
    comparisons = [of for of in COMPARISONS if str(of.statement) in given.statements.split(",")]
    wanted = [(of, name, seed) for of in comparisons for name, seed in of.runs()]
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        jobs = [(cell(given.set, of, *at), control(given.out, of, *at), of.change) for of, *at in wanted]
        for number, folder in enumerate(pool.map(run_control, *zip(*jobs, strict=True)), 1):
            print_lines(f"{number} of {len(jobs)}: {folder.relative_to(given.out)}")
    for of in comparisons:
        print_comparison(of, given.set, given.out)


def print_comparison(of: Comparison, folder: Path, out: Path) -> None:
    """Print figures by classifier, and judge the statement."""
    differences = []
    for name in of.classifiers:
        pairs = [(figures(cell(folder, of, name, seed)), figures(control(out, of, name, seed))) for seed in SEEDS]
        ours, theirs = ({key: [found[key] for found in side] for key in pairs[0][0]} for side in zip(*pairs, strict=True))
        listed = "; ".join(f"{key} {shown(ours[key])} and {shown(theirs[key])}" for key in ours)
        print_lines(f"  {name}, {of.arm}, as it is and with {of.change[0]}={of.change[1]}: {listed}")
        differences.append([a - b for a, b in zip(ours[of.figure], theirs[of.figure], strict=True)])
    what = f"{of.arm}, {of.figure}, less {of.change[1]}"
    if of.classifiers == PHOTOGRAPHS:  # fixed networks: each by itself, over seeds
        for name, by_seed in zip(of.classifiers, differences, strict=True):
            judge(of.statement, f"{what}, {name}, by seed", by_seed, above=0)
    else:
        judge(of.statement, what, [float(np.mean(by_seed)) for by_seed in differences], above=0)


def shown(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)


def cell(folder: Path, of: Comparison, name: str, seed: int) -> Path:
    """The cell of the set."""
    return folder / "cells" / name / f"{of.arm}-{seed}"


def control(out: Path, of: Comparison, name: str, seed: int) -> Path:
    """The run of the same recipe with the change."""
    return out / f"{of.change[0]}-{of.change[1]}" / name / f"{of.arm}-{seed}"


def run_control(source: Path, folder: Path, change: tuple[str, str]) -> Path:
    """Run the recipe of a run with another value of search.KEY."""
    torch.set_num_threads(1)
    with StoredRun(source) as stored:
        recipe = stored.recipe
    changed = recipe.model_copy(update={"search": recipe.search.model_copy(update=dict([change]))})
    folder.parent.mkdir(parents=True, exist_ok=True)
    search(changed, folder, load_target(recipe.target))
    return folder


def figures(folder: Path) -> dict[str, float]:
    """By name, over the classes that were searched for; one without an image counts as minus infinity."""
    with StoredRun(folder) as stored:
        elites = stored.listed()
        missing = len(stored.recipe.search.classes or stored.labels) - len(elites)
        none = [-np.inf] * missing
        return {
            "reached": float(sum(elite.confidence >= FOOLS for elite in elites)),
            "log_odds": float(np.median([*(elite.row.log_odds for elite in elites), *none])),
            "margin": float(np.median([*(elite.row.margin for elite in elites), *none])),
        }


if __name__ == "__main__":
    main()
