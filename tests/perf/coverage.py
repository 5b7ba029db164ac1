"""How often the 95% intervals of evofool.bench.statistics hold the truth, on simulated scores whose truth is known.

    python -m tests.perf.coverage

An elite's margin after the budget is what its class allows (K fixed classes, normal quantiles of variance 1), plus the
seed's luck, plus the seed's luck with this class. The two lucks together have `spread` times the classes' variance, the
first has the part `common` of it. The threshold tau is the 5% quantile of real images' margins (normal, variance 1), which
each repetition estimates anew on `images` of them, for all classes or, where it says so, for each; B bootstrap samples of
these give the replicates. The truth is what the TRUE tau gives: the expected share of accepted classes, and the expected
log10 Q50 (a class's queries are 10 ** ((tau - margin) / 2), so 10 times as many add 2 to its margin). The other arm of the
paired ratio is 1 harder, gains half as much, has its own luck, and is compared with the same tau.

A share of 0.5 means that classes are set so that half are expected to be accepted. The bootstrap that resamples seeds,
classes within them and tau is there for comparison, for the share.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from evofool.bench.statistics import band, paired_ratio, queries_interval

SPREADS = (0.1, 0.3, 1.0, 3.0, 10.0)
LEVEL, CHUNK, FAR = 0.05, 100, 1e30
WHAT = ("share", "Q50", "ratio", "bootstrap")


@dataclass(frozen=True)
class World:
    classes: int
    seeds: int
    images: int
    share: float = 0.5
    common: float = 0.5
    by_class: bool = False  # tau

    def describe(self) -> str:
        tau = " of each class" if self.by_class else ""
        return f"| {self.classes} | {self.seeds} | {self.images}{tau} | {self.share:g} | {self.common:g} |"


WORLDS = [
    *(World(k, s, n) for k in (10, 1000) for s in (5, 10) for n in (300, 1250)),
    *(World(10, s, 125, by_class=True) for s in (5, 10)),
    *(World(k, s, 1250, common=c) for c in (0.0, 1.0) for k in (10, 1000) for s in (5, 10)),
    *(World(k, s, 1250, share=p) for p in (0.2, 0.9, 0.97) for k in (10, 1000) for s in (5, 10)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--only", type=int, help="the first so many rows")
    given = parser.parse_args()
    print("Seed variance in class variances; in each cell:", ", ".join(WHAT))
    print()
    print("| classes | seeds | real images | share | common part |", " | ".join(f"{s:g}x" for s in SPREADS), "|")
    print("|" + "---|" * (5 + len(SPREADS)))
    outside = []
    for world in WORLDS[: given.only]:
        cells = []
        for spread in SPREADS:
            held = covered(world, spread, given.repetitions, given.replicates)
            cells.append(", ".join(f"{100 * h:.1f}" for h in held))
            outside += [
                f"{WHAT[i]} {100 * held[i]:.1f}% at {spread:g}x: {world}" for i in range(3) if not 0.93 <= held[i] <= 0.97
            ]
        print(world.describe(), " | ".join(cells), "|", flush=True)
    print()
    print(f"Outside 93 to 97%: {len(outside)} of {3 * len(SPREADS) * len(WORLDS[: given.only])}")
    print(*outside, sep="\n")


def covered(world: World, spread: float, repetitions: int, replicates: int) -> np.ndarray:
    """The part of repetitions whose interval held the truth, in WHAT's order, (4,)."""
    rng = np.random.default_rng([world.classes, world.seeds, world.images, int(100 * spread), int(100 * world.share)])
    tau = float(stats.norm.ppf(LEVEL))
    level = stats.norm.ppf((np.arange(world.classes) + 0.5) / world.classes)
    level /= level.std()

    def expected(shift: float) -> float:
        return float(stats.norm.cdf((level + shift - tau) / np.sqrt(spread)).mean())

    level += optimize.brentq(lambda shift: expected(shift) - world.share, -60, 60)
    own = np.sqrt(spread * (1 - world.common))
    median = _median_margin(level, own, rng)
    log_q50, log_ratio = (tau - median) / 2, (tau - median) / 2 - (tau - median + 1) / 1
    held: list[np.ndarray] = []
    for estimate, again in thresholds(world, repetitions, replicates, rng):
        margins, other = (
            level
            - harder
            + np.sqrt(spread * world.common) * rng.standard_normal((CHUNK, world.seeds, 1))
            + own * rng.standard_normal((CHUNK, world.seeds, world.classes))
            for harder in (0, 1)
        )
        shares, shares_again = accepted(margins, estimate[:, None]), accepted(margins, again)
        _, low, high = band(shares[:, 0].T, shares_again.transpose(1, 2, 0), world.classes)
        a, a_again = half(margins, estimate[:, None], 2), half(margins, again, 2)
        b, b_again = half(other, estimate[:, None], 1), half(other, again, 1)
        q50 = [queries_interval(a[i, 0].tolist(), FAR, a_again[i]) for i in range(CHUNK)]
        ratio = [paired_ratio(a[i, 0].tolist(), b[i, 0].tolist(), FAR, a_again[i], b_again[i]) for i in range(CHUNK)]
        others = hierarchical(shares_again, world.classes, rng)
        held.append(
            np.array(
                [
                    (low <= world.share) & (world.share <= high),
                    [i.low <= 10**log_q50 <= i.high for i in q50 if i.low is not None and i.high is not None],
                    [i.low <= 10**log_ratio <= i.high for i in ratio if i.low is not None and i.high is not None],
                    (others[0] <= world.share) & (world.share <= others[1]),
                ]
            )
        )
    return np.asarray(np.concatenate(held, axis=1).mean(axis=1))


def thresholds(
    world: World, repetitions: int, replicates: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Estimates of tau, (CHUNK, G), and of their bootstrap samples, (CHUNK, B, G); G is 1, or a threshold for each class.

    The quantile lies between two order statistics (Weibull's rule, as in calibration). Those of a bootstrap sample are
    drawn without drawing the sample: the ranks that they take are order statistics of uniform numbers, which are Beta.
    """
    groups, n = (world.classes if world.by_class else 1), world.images
    at = LEVEL * (n + 1)
    k, part = int(at), at - int(at)
    rows = np.arange(CHUNK * groups)[:, None]
    for _ in range(repetitions // CHUNK):
        real = np.sort(rng.standard_normal((CHUNK * groups, n)), axis=1)
        first = rng.beta(k, n - k + 1, (CHUNK * groups, replicates))
        second = first + (1 - first) * rng.beta(1, n - k, first.shape)
        one, two = (real[rows, np.minimum((u * n).astype(int), n - 1)] for u in (first, second))
        estimate = (1 - part) * real[:, k - 1] + part * real[:, k]
        again = ((1 - part) * one + part * two).reshape(CHUNK, groups, replicates)
        yield estimate.reshape(CHUNK, groups), again.transpose(0, 2, 1)


def accepted(margins: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Shares (R, B, S) of margins (R, S, K) at the thresholds (R, B, 1 or K)."""
    if tau.shape[2] > 1:
        return np.asarray((margins[:, None] >= tau[:, :, None]).mean(axis=3))
    ordered, k = np.sort(margins, axis=2), margins.shape[2]
    out = np.empty((len(tau), tau.shape[1], margins.shape[1]))
    for r in range(len(tau)):
        for s in range(margins.shape[1]):
            out[r, :, s] = 1 - np.searchsorted(ordered[r, s], tau[r, :, 0]) / k
    return out


def half(margins: np.ndarray, tau: np.ndarray, gain: float) -> np.ndarray:
    """Q50 (R, B, S): the queries at which half of the classes have come to their threshold."""
    need = (margins.shape[2] + 1) // 2 - 1
    if tau.shape[2] > 1:
        short = np.partition(tau[:, :, None] - margins[:, None], need, axis=3)[..., need]
    else:
        short = tau + np.partition(-margins, need, axis=2)[:, None, :, need]
    return np.asarray(10 ** (short / gain))


def hierarchical(shares: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """2.5% and 97.5% of (R, B, S) shares by resampled tau, seeds resampled, and classes (a binomial number) within them."""
    drawn = rng.integers(0, shares.shape[2], shares.shape)
    means = rng.binomial(classes, np.take_along_axis(shares, drawn, axis=2)).mean(axis=2) / classes
    return np.asarray(np.quantile(means, (0.025, 0.975), axis=1))


def _median_margin(level: np.ndarray, own: float, rng: np.random.Generator) -> float:
    """What half of the classes reach, expected over luck: the seed's own moves all classes alike, and is 0 on average."""
    need = (len(level) + 1) // 2 - 1
    draws = [
        np.partition(-(level + own * rng.standard_normal((1000, len(level)))), need, axis=1)[:, need]
        for _ in range(4_000_000 // (1000 * len(level)) + 8)
    ]
    return -float(np.mean(draws))


if __name__ == "__main__":
    main()
