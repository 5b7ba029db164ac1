"""How often `evofool gate --against` fails healthy networks, and how often it finds a network that became easier to fool.

    evofool bench trainings.toml --out runs/trainings         # ten trainings of one architecture, plain and defended
    python -m tests.perf.gate_errors runs/trainings/results/plain-*.json --harder runs/trainings/results/exposed-*.json

Each line draws a network now and N others before, all different, from the results, and some of their seeds. A healthy
network is one of them as it is. A factor of 2 takes the queries of those before times 2, and leaves those above the budget
out, as a search would. --harder: networks that are replaced by one of the others, which has to be found always. In brackets:
95% of a bootstrap over trainings.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path

import numpy as np

from evofool.bench.compare import read_result
from evofool.bench.gate.against_arms import attacks_classes_apart
from evofool.bench.gate.against_check import CONFIDENCE, MARGIN, arm_check, became_easier
from evofool.bench.gate.earlier import EarlierResults
from evofool.bench.gate.log_ratio import LogPairs, middle, needed_seeds
from evofool.bench.result_file import load_result
from evofool.bench.statistics import paired_ratio, q50

FACTORS = (1.0, 1.5, 2.0, 3.0)
BOOTSTRAPS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="of networks that were trained alike")
    parser.add_argument("--harder", nargs="*", type=Path, default=[])
    parser.add_argument("--arms", nargs="*", default=["apgd", "cppn", "per-class", "random"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[3, 5])
    parser.add_argument("--earlier", nargs="*", type=int, default=[1, 2, 3, 5])
    parser.add_argument("--margins", nargs="*", type=float, default=[MARGIN])
    parser.add_argument("--confidence", type=float, default=CONFIDENCE)
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    alike, harder = read(args.results), read(args.harder)
    budget = alike.first.budget
    print(f"{len(alike)} trainings, {len(harder)} harder ones, {len(alike.first.protocol.seeds)} seeds, {budget:,} queries")
    print_spreads(alike, args.arms)
    print("\nShare of gates that fail, now against N before:")
    head = "".join(f"{f'factor {factor:g}' if factor > 1 else 'healthy':>24}" for factor in FACTORS)
    print(f"{'arm':<10}{'seeds':>6}{'N':>3}{'margin':>8}{head}{'harder replaced':>24}")
    for arm in args.arms:
        queries = alike.queries(arm, alike.seeds(arm))
        others = harder.queries(arm, harder.seeds(arm)) if len(harder) else None
        for seeds in args.seeds:
            for n in args.earlier:
                for margin in args.margins:
                    line = f"{arm:<10}{seeds:>6}{n:>3}{margin:>8g}"
                    rng = np.random.default_rng([seeds, n])
                    gate = Gate(arm, budget, margin, args.confidence)
                    for factor in FACTORS:
                        line += f"{gate.failures(queries, n, seeds, factor, args.draws, rng):>24}"
                    if others is not None and len(others) >= n:
                        line += f"{gate.replaced(queries, others, n, seeds, args.draws, rng):>24}"
                    print(line, flush=True)
    print_strict(alike, args.arms)


def read(paths: Sequence[Path]) -> EarlierResults:
    return EarlierResults(tuple(read_result(load_result(path), str(path)) for path in paths))


class Gate:
    """One arm's rule."""

    def __init__(self, arm: str, budget: float, margin: float, confidence: float) -> None:
        self.arm, self.budget, self.margin, self.confidence = arm, budget, margin, confidence

    def fails(self, now: np.ndarray, before: np.ndarray) -> bool:
        pairs = LogPairs(now, before, self.budget, attacks_classes_apart(self.arm))
        return not np.isnan(now).all() and became_easier(pairs, self.confidence, self.margin)

    def failures(self, queries: np.ndarray, n: int, seeds: int, factor: float, draws: int, rng: np.random.Generator) -> str:
        """The share of gates that fail with n networks before, whose queries are `factor` times what they were."""
        shifted = np.where(queries * factor <= self.budget, queries * factor, np.nan)
        chosen = drawn(len(queries), n + 1, draws, rng)
        found = []
        for networks in chosen:
            rows = rng.choice(queries.shape[1], seeds, replace=False)
            found.append(self.fails(queries[networks[0], rows], shifted[networks[1:]][:, rows]))
        return with_interval(np.array(found, float), chosen, len(queries), rng)

    def replaced(
        self, queries: np.ndarray, harder: np.ndarray, n: int, seeds: int, draws: int, rng: np.random.Generator
    ) -> str:
        """The share of gates that fail with n harder networks before."""
        found = []
        for _ in range(draws):
            rows = rng.choice(queries.shape[1], seeds, replace=False)
            before = rng.choice(len(harder), n, replace=False)
            found.append(self.fails(queries[rng.integers(len(queries)), rows], harder[before][:, rows]))
        return f"{100 * np.mean(found):.1f}%"


def drawn(networks: int, number: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, number): different networks in random order; all ordered pairs equally often, or nearly so."""
    if number == 2:
        pairs = np.array(list(permutations(range(networks), 2)))
        return np.concatenate([pairs] * max(1, round(draws / len(pairs))))
    return np.stack([rng.choice(networks, number, replace=False) for _ in range(draws)])


def with_interval(found: np.ndarray, chosen: np.ndarray, networks: int, rng: np.random.Generator) -> str:
    """The mean and its interval: a bootstrap sample counts a draw as often as its networks are in the sample.

    Too few draws are of networks that are all in a sample if they have more than four: then there is no interval.
    """
    if chosen.shape[1] > 4:
        return f"{100 * found.mean():.1f}%"
    weights = rng.multinomial(networks, np.full(networks, 1 / networks), BOOTSTRAPS)[:, chosen].prod(axis=2)
    known = weights.sum(axis=1) > 0
    means = (weights[known] @ found) / weights[known].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{100 * found.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]%"


def print_spreads(alike: EarlierResults, arms: Sequence[str]) -> None:
    """Standard deviations of log10 of the queries, of the geometric mean over classes and of Q50."""
    print(
        "\nStandard deviations of log10 of the queries (a censored search counts as the budget);\n"
        "ratio: of the ratio that a gate estimates between two trainings, with all seeds; chance: its part between 3 seeds"
    )
    columns = ("seeds: mean", "Q50", "blocks", "trainings: mean", "Q50", "paired", "ratio", "chance")
    print(f"{'arm':<10}{'accepted':>9}" + "".join(f"{column:>{max(8, len(column) + 2)}}" for column in columns))
    budget = alike.first.budget
    for arm in arms:
        queries = alike.queries(arm, alike.seeds(arm))
        logs = np.fmin(np.log10(queries), np.log10(budget))
        halves = np.fmin(np.log10(q50(queries)), np.log10(budget))
        means = logs.mean(axis=2)
        seeds = len(means[0])
        blocks = np.sqrt(np.mean([middle(each, True).error ** 2 for each in logs]) * seeds)
        pairs = [(means[i] - means[j]).var(ddof=1) / 2 for i, j in combinations(range(len(means)), 2)]
        shifts = [middle(logs[i] - logs[j], attacks_classes_apart(arm)) for i, j in combinations(range(len(logs)), 2)]
        ratio = np.sqrt(np.mean([shift.value**2 for shift in shifts]))
        chance = np.sqrt(np.mean([shift.error**2 for shift in shifts]) * seeds / 3)
        print(
            f"{arm:<10}{1 - np.isnan(queries).mean():>9.0%}{within(means):>13.3f}{within(halves):>8.3f}{blocks:>8.3f}"
            f"{between(means):>17.3f}{between(halves):>8.3f}{np.sqrt(np.mean(pairs)):>8.3f}{ratio:>8.3f}{chance:>8.3f}"
        )


def within(values: np.ndarray) -> float:
    return float(np.sqrt(values.var(axis=1, ddof=1).mean()))


def between(values: np.ndarray) -> float:
    """Of the networks themselves: seeds' part of the variance of their means is taken off."""
    own = values.mean(axis=1).var(ddof=1) - values.var(axis=1, ddof=1).mean() / values.shape[1]
    return float(np.sqrt(max(0.0, own)))


def print_strict(alike: EarlierResults, arms: Sequence[str]) -> None:
    """How many seeds a strict gate asks for, how often it passes healthy networks, and how often Q50 alone would."""
    print(
        "\nStrict, one earlier result: seeds that it asks for from 3, and how many healthy pairs pass with 3;\n"
        "and how many by the lower limit of the paired Q50 ratio, at least 0.75, with 3 seeds"
    )
    for arm in arms:
        queries = alike.queries(arm, alike.seeds(arm))
        budget, apart = alike.first.budget, attacks_classes_apart(arm)
        needs = [needed_seeds(each[:3], budget, apart, MARGIN, CONFIDENCE) for each in queries]
        pairs = list(permutations(range(len(queries)), 2))
        strict = [passes_strict(LogPairs(queries[i, :3], queries[[j], :3], budget, apart)) for i, j in pairs]
        variances = [record.q50.threshold_variance if record.q50 else 0.0 for record in alike.arms(arm)]
        halves = [by_halves(queries[i, :3], queries[j, :3], budget, variances[i] + variances[j]) for i, j in pairs]
        ordered = sorted(np.inf if need is None else need for need in needs)
        print(
            f"{arm:<10} needs {ordered[0]:g} to {ordered[-1]:g}, median {np.median(ordered):g}; {np.mean(strict):.0%} of "
            f"{len(pairs)} pairs pass; by Q50: {np.mean(halves):.0%}"
        )


def passes_strict(pairs: LogPairs) -> bool:
    return arm_check("arm", pairs, decides=True, strict=True, confidence=CONFIDENCE).status == "passes"


def by_halves(now: np.ndarray, before: np.ndarray, budget: float, variance: float) -> bool:
    """Whether the lower limit of the ratio of Q50, with the variance of the thresholds, is at least MARGIN."""
    ratio = paired_ratio(q50(now).tolist(), q50(before).tolist(), budget, threshold_variance=variance)
    return bool(np.isnan(q50(now)).all()) or (ratio.low is not None and ratio.low >= MARGIN)


if __name__ == "__main__":
    main()
