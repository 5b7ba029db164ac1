"""Which figure tells plain, adversarially trained and outlier-exposed digit networks apart?

    python -m tests.perf.ranking OUT          # about an hour on a quiet core; the table of docs/measured.md

The networks are trained, attacked by the suite of the headline with 100 queries a class and 3 seeds, and scored; the same
command continues what was interrupted. Of each kind the first 3 networks choose the figure: of those of the whole suite that
whose least difference between two kinds is the largest, in standard deviations over networks. The other 5 say whether it
holds: Welch's 95% intervals of the differences, with a star where they exclude 0. --copies 3 stops after the choice. All
figures are by the margin.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from evofool.bench.bench import run_bench
from evofool.bench.cell_plan import plan_cells
from evofool.bench.collect import collect_cells
from evofool.bench.entries import entries
from evofool.bench.headline import SUITE
from evofool.bench.manifest import open_manifest
from evofool.bench.plan import BenchRecipe, parse
from evofool.bench.prepare import PreparedTarget, prepare
from evofool.bench.scoring import Scoring

KINDS = ("none", "adversarial", "outlier-exposure")
CHOOSE, CONFIRM = 3, 5
CLASSES = 10
ARMS = {"suite": SUITE, "without gradients": ("canvas", "square"), "apgd": ("apgd",)}
PER_CLASS = (1, 2, 5, 10, 20, 50, 100)

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--copies", type=int, default=CHOOSE + CONFIRM)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    recipe = parse(
        {
            "name": "ranking",
            "images": "digits",
            "arms": SUITE,
            "budgets": [100 * CLASSES],
            "seeds": args.seeds,
            "targets": [{"train": kind, "copies": args.copies} for kind in KINDS],
        },
        "ranking",
    )
    run_bench(recipe, args.out)
    found = measured(recipe, args.out)
    print(f"{args.copies} networks of each kind, {args.seeds} seeds; top-1 of real digits:")
    for kind in KINDS:
        print(f"  {kind:<18}" + " ".join(f"{figures['top-1']:.3f}" for figures in found[kind]))
    ranked = sorted(found[KINDS[0]][0], key=lambda name: -least_distance(found, name, slice(CHOOSE)))
    print(f"\nChosen on the first {CHOOSE} networks of each kind\n{heads()}")
    for name in ranked:
        print(line(found, name, slice(CHOOSE)), flush=True)
    if args.copies > CHOOSE + 1:
        print(f"\nConfirmed on the others\n{heads()}")
        for name in ranked:
            print(line(found, name, slice(CHOOSE, None)), flush=True)


def measured(recipe: BenchRecipe, out: Path) -> dict[str, list[Figures]]:
    """By kind, the figures of each network, from the cells that run_bench left."""
    found: dict[str, list[Figures]] = {kind: [] for kind in KINDS}
    with open_manifest(recipe, out) as manifest:
        for entry in entries(recipe, out, manifest.pinned()):
            prepared = prepare(recipe, entry, manifest, lambda _: None)
            assert isinstance(prepared, PreparedTarget), (entry.name, prepared)
            cells = collect_cells(plan_cells(recipe, prepared, out), {})
            found[entry.defence].append(figures_of(Scoring(prepared.calibration, cells.data, recipe.budgets)))
    return found


def figures_of(scoring: Scoring) -> Figures:
    """All candidates: means over seeds, each for the suite and for parts of it; and what accuracy costs."""
    figures = {"top-1": scoring.calibration.top1}
    for title, arms in ARMS.items():
        for level in ("tau5", "tau50"):
            at = np.fmin.reduce([scoring.acceptance(arm, level).at for arm in arms])
            for queries in PER_CLASS:
                figures[f"{title}: share at {level}, {queries} a class"] = float((at <= queries * CLASSES).mean())
            logs = np.log10(np.fmin(at, scoring.budget))  # fmin: a class that is never accepted counts as the budget
            figures[f"{title}: mean log10 queries, {level}"] = float(logs.mean())
            figures[f"{title}: log10 Q50, {level}"] = float(np.sort(logs, axis=1)[:, (CLASSES + 1) // 2 - 1].mean())
        best = np.max([[cell.trace.best() for cell in scoring.cells[arm].values()] for arm in arms], axis=0)
        figures[f"{title}: best margin, median real = 1"] = float(np.median(best / scoring.calibration.scale, axis=1).mean())
        figures[f"{title}: percentile of the best margin"] = float(scoring.calibration.percentile(best).mean())
    return figures


def values(found: dict[str, list[Figures]], name: str, part: slice) -> list[np.ndarray]:
    return [np.array([figures[name] for figures in found[kind][part]]) for kind in KINDS]


def least_distance(found: dict[str, list[Figures]], name: str, part: slice) -> float:
    """The least difference between two kinds, in standard deviations over networks (the mean variance of the two)."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
        return 0.0 if a.mean() == b.mean() else float(abs(a.mean() - b.mean()) / max(spread, 1e-9))

    return min(distance(a, b) for a, b in combinations(values(found, name, part), 2))


def welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The 95% interval of the difference of the means, b - a."""
    from scipy import special

    one, two, middle = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b), float(b.mean() - a.mean())
    if one + two == 0:
        return middle, middle
    freedom = (one + two) ** 2 / (one**2 / (len(a) - 1) + two**2 / (len(b) - 1))
    half = float(special.stdtrit(freedom, 0.975) * np.sqrt(one + two))
    return middle - half, middle + half


def heads() -> str:
    pairs = "".join(f"{f'{b} - {a}':>34}" for a, b in combinations(KINDS, 2))
    return f"{'figure':<50}{'least':>6}" + "".join(f"{kind:>18}" for kind in KINDS) + pairs


def line(found: dict[str, list[Figures]], name: str, part: slice) -> str:
    groups = values(found, name, part)
    text = f"{name:<50}{least_distance(found, name, part):>6.1f}"
    text += "".join(f"{f'{group.mean():.3f} ± {group.std(ddof=1):.3f}':>18}" for group in groups)
    for a, b in combinations(groups, 2):
        low, high = welch(a, b)
        mark = " " if low <= 0 <= high else "*"
        text += f"{f'{b.mean() - a.mean():+.3f} [{low:+.3f}, {high:+.3f}]{mark}':>34}"
    return text


if __name__ == "__main__":
    main()
