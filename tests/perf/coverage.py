"""How often the intervals and bounds of evofool.bench.statistics hold the truth, on simulated scores whose truth is known.

    python -m tests.perf.coverage [--quick]

Classes differ: their levels are quantiles of a distribution of variance 1 (normal, uniform, or two groups). A class's margin
after the budget is its level, plus the seed's luck, which is common to all classes, plus the luck of this class in this
seed, which is normal. The two lucks together have `spread` times the classes' variance. The first has the part `common` of
it, and one of these distributions: normal; skewed (gamma, skewness 1); very skewed (exponential, skewness 2); heavy
(Student's t with 4 degrees of freedom); bad seeds (a fifth of them is 2.5 standard deviations below the others). `rare` says
whether the long tail is of bad or of good seeds. A part `stuck` of the seeds never succeeds in any class. Levels are moved
so that the share is the wanted one. The threshold tau is the 5% quantile of real images' margins (normal, variance 1), which
each repetition estimates anew on `images` of them, for all classes or for each; bootstrap samples of these give the
replicates.

The truth is what the true tau gives: of a share its mean over seeds; of Q50 and of the ratio to another arm the median over
seeds. A class's queries are 10 ** (2.5 + (tau - margin) / 2), rounded up. They are censored above the budget, which is the
queries that a part `within` of the seeds needs, or 30 times the median where seeds are stuck. The other arm is 1 harder,
gains half as much, has its own luck and the same tau.

A cell has, in percent: how often what is reported (an interval or a bound) holds the truth; after "two", how often it is an
interval, how often such an interval holds the truth, and its median width (of queries and ratios: high / low); after "bound"
the median bound; after "t", the same of Student's interval of the seeds, which takes no account of anything else.
"""

import argparse
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, stats

from evofool.bench.interval import Interval
from evofool.bench.statistics import band, paired_ratio, queries_interval

LEVEL, CHUNK, FAR = 0.05, 100, 1e30
LEAST = 0.92  # how often what is reported has to hold the truth
TAU = float(stats.norm.ppf(LEVEL))
Luck = Literal["normal", "skewed", "very skewed", "heavy", "bad seeds"]


@dataclass(frozen=True)
class Truth:
    share: float = 0.5
    spread: float = 0.3
    common: float = 0.5
    luck: Luck = "normal"
    rare: Literal["bad", "good"] = "bad"
    stuck: float = 0.0
    within: float = 1.0
    images: int = 1250
    by_class: bool = False  # tau
    levels: Literal["normal", "uniform", "two groups"] = "normal"

    def describe(self) -> str:
        kind = {"normal": "normal", "heavy": "heavy", "bad seeds": "bad seeds"}.get(
            self.luck, f"{self.luck}, rare {self.rare}"
        )
        parts = [f"share {self.share:g}", kind, f"spread {self.spread:g}", f"common {self.common:g}"]
        parts += [f"{self.stuck:.0%} stuck"] * (self.stuck > 0) + [f"budget at {self.within:.0%}"] * (self.within < 1)
        parts += [f"{self.images} images{' a class' * self.by_class}"] * (self.images != 1250 or self.by_class)
        return ", ".join(parts + [f"{self.levels} levels"] * (self.levels != "normal"))


# The rules were chosen on these, with 2, 3, 5 and 10 seeds of 10 and 100 classes,
CHOSEN = [
    *(Truth(spread=spread) for spread in (0.1, 1.0, 10.0)),
    Truth(images=300),
    Truth(0.5, 3, 0.5, "very skewed"),
    Truth(0.2, 1, 0.2, "very skewed", "good"),
    Truth(0.3, 1, 0.5, "very skewed", "good"),
    Truth(0.8, 0.5, 0.3, "very skewed"),
    Truth(0.9, 0.1, 0.2),
    Truth(0.9, 1, 0.5),
    Truth(0.9, 1, 0.5, "very skewed"),
    Truth(0.1, 2, 0.8),
    Truth(0.97, 0.3, 0.2),
    Truth(0.97, 1, 0.5, "very skewed"),
    Truth(0.997, 0.3, 0.2),
    Truth(0.003, 1, 0.5, "very skewed", "good"),
    *(Truth(within=within) for within in (0.9, 0.75, 0.5)),
    Truth(luck="very skewed", common=0.9, within=0.75),
]
# and confirmed on these, with other numbers of seeds and classes too.
CONFIRMED = [
    Truth(0.15, 0.5, 0.3, "skewed", "good"),
    Truth(0.4, 2, 0.7, "skewed", "good", levels="uniform"),
    Truth(0.6, 0.5, 0.3, "heavy", levels="two groups"),
    Truth(0.75, 1, 0.4, "skewed"),
    Truth(0.85, 0.2, 0.3, "heavy", levels="uniform"),
    Truth(0.5, 1, 0.0, images=300, levels="two groups"),
    Truth(0.6, 1, 1.0, "skewed", images=300),
    Truth(0.95, 0.5, 0.3, "heavy", images=300),
    Truth(0.99, 0.5, 0.3, "skewed", levels="uniform"),
    Truth(0.02, 1, 0.3, "skewed", "good"),
    Truth(0.5, 0.5, images=125, by_class=True),
    Truth(0.5, 0.5, 0.6, "skewed", within=0.9),
    Truth(0.5, 0.5, 0.6, "heavy", within=0.6, levels="uniform"),
]
# What seeds cannot show: a rare bad one among equal ones.
RARE = [
    Truth(0.85, 0.3, 0.3, stuck=0.15),
    Truth(0.765, 0.3, 0.3, stuck=0.15),
    Truth(0.5, 0.3, 0.5, stuck=0.3),
    Truth(0.9, 3, 0.5, "bad seeds"),
]
QUICK = [CHOSEN[1], CHOSEN[5], CHOSEN[9], CHOSEN[14], CHOSEN[17], RARE[1]]


@dataclass(frozen=True)
class Held:
    """Of one kind of figure: limits (R,), infinite or NaN where there are none, those of Student, and the truth."""

    low: np.ndarray
    high: np.ndarray
    student: tuple[np.ndarray, np.ndarray]
    truth: float
    logarithmic: bool

    @property
    def held(self) -> np.ndarray:
        return (np.nan_to_num(self.low, nan=-np.inf) <= self.truth) & (self.truth <= np.nan_to_num(self.high, nan=np.inf))

    def text(self) -> str:
        two, held = np.isfinite(self.low) & np.isfinite(self.high), self.held
        text = f"{100 * held.mean():.1f}"
        if two.mean() >= 0.01:
            width = self._width(self.low[two], self.high[two])
            text += (
                f" two {100 * two.mean():.0f}%" + f" {100 * held[two].mean():.0f}" * bool(two.mean() < 0.995) + f" {width}"
            )
        if two.mean() <= 0.99:
            limits = np.where(np.isfinite(self.low), self.low, self.high)[~two]
            known = limits[np.isfinite(limits)]
            text += f" bound {self._number(float(np.median(known)))}" if len(known) else " no bound"
        low, high = self.student
        by_t = (low <= self.truth) & (self.truth <= high)
        return f"{text} t {100 * by_t.mean():.0f} {self._width(low, high)}"

    def _width(self, low: np.ndarray, high: np.ndarray) -> str:
        return f"x{10 ** min(6.0, float(np.median(high - low))):.3g}" if self.logarithmic else f"{np.median(high - low):.2f}"

    def _number(self, limit: float) -> str:
        return f"{10**limit:.3g}" if self.logarithmic else f"{limit:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a few truths, 400 repetitions: two minutes")
    given = parser.parse_args()
    repetitions = 400 if given.quick else given.repetitions
    began = time.perf_counter()
    lists = [("Chosen on", CHOSEN, (2, 3, 5, 10), (10, 100)), ("Confirmed on", CONFIRMED, (2, 3, 5, 10), (10, 100))]
    lists += [("Confirmed on", CONFIRMED[:9], (4, 7), (20, 200)), ("Rare bad seeds", RARE, (2, 3, 5, 10), (10, 100))]
    if given.quick:
        lists = [("A few truths", QUICK, (3, 10), (10, 100))]
    for title, truths, seeds, classes in lists:
        table(title, truths, seeds, classes, repetitions, given.replicates)
    print(f"{time.perf_counter() - began:.0f} s")


def table(
    title: str, truths: list[Truth], seeds: tuple[int, ...], classes: tuple[int, ...], repetitions: int, replicates: int
) -> None:
    print(f"\n## {title}\n\n| truth | classes | figure |", " | ".join(f"{s} seeds" for s in seeds), "|")
    print("|" + "---|" * (3 + len(seeds)))
    below, number = [], 0
    for truth in truths:
        for k in classes:
            columns = [covered(truth, k, s, repetitions, replicates) for s in seeds]
            for what in columns[0]:
                print(f"| {truth.describe()} | {k} | {what} |", " | ".join(c[what].text() for c in columns), "|", flush=True)
                number += len(columns)
                below += [
                    f"{what} {100 * c[what].held.mean():.1f}%, {s} seeds of {k} classes: {truth.describe()}"
                    for c, s in zip(columns, seeds, strict=True)
                    if c[what].held.mean() < LEAST
                ]
    print(f"\nUnder {LEAST:.0%}: {len(below)} of {number}", *below, sep="\n")


def covered(truth: Truth, classes: int, seeds: int, repetitions: int, replicates: int) -> dict[str, Held]:
    """By figure, the limits that all repetitions report."""
    rng = np.random.default_rng(zlib.crc32(repr((truth, classes, seeds)).encode()))
    margins_of = sampler(truth, classes, rng)
    many = margins_of(1000, 10)
    a, b = (half(many - harder, np.full((len(many), 1, 1), TAU), gain)[:, 0].ravel() for harder, gain in ((0, 2), (1, 1)))
    budget = float(np.quantile(a, truth.within)) if truth.within < 1 else 30 * float(np.median(a)) if truth.stuck else FAR
    b = rng.permutation(b)  # another arm has its own luck
    with_ratio = truth.share == 0.5 and truth.within == 1 and not truth.stuck
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {what: [] for what in ("share", "Q50", "ratio")[: 2 + with_ratio]}
    for estimate, again in thresholds(truth, classes, repetitions, replicates, rng):
        margins = margins_of(CHUNK, seeds)
        shares, shares_again = accepted(margins, estimate[:, None])[:, 0], accepted(margins, again)
        _, low, high = band(shares.T, shares_again.transpose(1, 2, 0), classes)
        rows["share"].append((low, high, *student(shares)))
        q, q_again = half(margins, estimate[:, None], 2)[:, 0], half(margins, again, 2)
        found = [queries_interval(q[i].tolist(), budget, q_again[i]) for i in range(CHUNK)]
        rows["Q50"].append((*limits(found), *student(np.log10(np.minimum(q, budget)))))
        if with_ratio:
            other = margins_of(CHUNK, seeds) - 1
            r, r_again = half(other, estimate[:, None], 1)[:, 0], half(other, again, 1)
            found = [paired_ratio(q[i].tolist(), r[i].tolist(), FAR, q_again[i], r_again[i]) for i in range(CHUNK)]
            rows["ratio"].append((*limits(found), *student(np.log10(q) - np.log10(r))))
    truths = {"share": truth.share, "Q50": np.log10(np.median(a)), "ratio": np.median(np.log10(a) - np.log10(b))}
    out = {}
    for what, parts in rows.items():
        low, high, t_low, t_high = np.concatenate([np.stack(part) for part in parts], axis=1)
        out[what] = Held(low, high, (t_low, t_high), float(truths[what]), what != "share")
    return out


def limits(found: list[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """log10 of low and high, infinite where there is none."""
    low = [-np.inf if i.low is None else np.log10(i.low) for i in found]
    return np.array(low), np.array([np.inf if i.high is None else np.log10(i.high) for i in found])


def student(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's limits of the means of (R, S) values."""
    seeds, mean = values.shape[1], values.mean(axis=1)
    half_width = stats.t.ppf(0.975, seeds - 1) * values.std(axis=1, ddof=1) / np.sqrt(seeds)
    return mean - half_width, mean + half_width


# --- truths


def sampler(truth: Truth, classes: int, rng: np.random.Generator) -> Callable[[int, int], np.ndarray]:
    """A function that draws margins (R, S, K) of R repetitions and S seeds."""
    at = (np.arange(classes) + 0.5) / classes
    level = {"normal": stats.norm.ppf(at), "uniform": at, "two groups": (at > 0.6) * 2.0 + 0.3 * stats.norm.ppf(at)}[
        truth.levels
    ]
    level = level / level.std()
    own, sd = np.sqrt(truth.spread * (1 - truth.common)), np.sqrt(truth.spread * truth.common)
    lucks = sd * luck(truth, (np.arange(1000) + 0.5) / 1000)

    def expected(shift: float) -> float:
        """The share of accepted classes."""
        above = level + shift + lucks[:, None] - TAU
        each = stats.norm.cdf(above / own) if own > 0 else above >= 0
        return float(each.mean()) * (1 - truth.stuck)

    shift = 0.0
    if truth.stuck and truth.share >= 0.999 * (1 - truth.stuck):
        shift = 100.0  # all other seeds succeed in all classes
    else:
        shift = optimize.brentq(lambda x: expected(x) - truth.share, -60, 60)

    def draw(repetitions: int, seeds: int) -> np.ndarray:
        shape = (repetitions, seeds, 1)
        found = level + shift + sd * luck(truth, rng.random(shape)) + own * rng.standard_normal((*shape[:2], classes))
        return np.where(rng.random(shape) < truth.stuck, -1e3, found)

    return draw


def luck(truth: Truth, u: np.ndarray) -> np.ndarray:
    """The quantiles at u in 0..1 of a seed's luck, of mean 0 and variance 1 (bad seeds: the fifth from below)."""
    if truth.luck == "bad seeds":
        return np.where(u < 0.2, -2.0, 0.5)
    v = 1 - u if truth.rare == "bad" else u
    tail = -1 if truth.rare == "bad" else 1
    return np.asarray(
        {
            "normal": lambda: stats.norm.ppf(u),
            "heavy": lambda: stats.t.ppf(u, 4) / np.sqrt(2),
            "skewed": lambda: tail * (stats.gamma.ppf(v, 4) - 4) / 2,
            "very skewed": lambda: tail * (stats.expon.ppf(v) - 1),
        }[truth.luck]()
    )


def thresholds(
    truth: Truth, classes: int, repetitions: int, replicates: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Estimates of tau, (CHUNK, G), and of their bootstrap samples, (CHUNK, B, G); G is 1, or a threshold for each class.

    The quantile lies between two order statistics (Weibull's rule, as in calibration). Those of a bootstrap sample are
    drawn without drawing the sample: the ranks that they take are order statistics of uniform numbers, which are Beta.
    """
    groups, n = (classes if truth.by_class else 1), truth.images
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
    """Q50 (R, B, S): the queries at which half of the classes have come to their threshold; infinite of stuck seeds."""
    need = (margins.shape[2] + 1) // 2 - 1
    if tau.shape[2] > 1:
        short = np.partition(tau[:, :, None] - margins[:, None], need, axis=3)[..., need]
    else:
        short = tau + np.partition(-margins, need, axis=2)[:, None, :, need]
    return np.where(short > 50, FAR * 10, np.ceil(10 ** (2.5 + np.minimum(short, 50) / gain)))


if __name__ == "__main__":
    main()
