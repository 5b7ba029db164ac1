"""Intervals for the figures of a benchmark: classes are fixed, seeds are the sample, and thresholds are estimates.

Each seed gives one number: the share of classes accepted, or Q50, the queries until half of the classes are accepted. A
share is averaged over seeds. Q50 is that of the median seed, since a seed may never reach half of the classes; the mean of
log10 Q50 estimates it where no seed is censored.

All seeds share the same thresholds tau, which are estimated from a finite set of real images; the variance from this does
not shrink with more seeds. It enters as `replicates`: the numbers that each seed would give with thresholds from each of B
bootstrap samples of the real images. tests/perf/coverage.py measures how often the limits contain the true value.
Wilson's interval, for counts, is evofool.targets.validation.wilson.

Where an interval cannot be trusted, there is a bound: one limit only. For shares the rule is in evofool.bench.limits; for
queries and ratios it is: with censored seeds there is a bound, unless order statistics that are not censored enclose the
median (at 95% from 9 seeds on with one censored, from 12 on with two).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evofool.bench.interval import Interval, Sign
from evofool.bench.limits import CORRELATION, censored_low, half_over, half_width, outward, ranks, share_limits

NETWORKS_FOR_A_CLAIM = 5  # independently trained networks that a claim about a defence needs in each group

AT = (5, 25, 50, 75, 95)  # percent, of quantiles

# Of the variance that classes of the assumed correlation give to a share, where two arms are compared. With fewer, two seeds
# show next to nothing; with 10, up to 10% of comparisons of equal arms showed a difference, at a correlation of 0.4, where
# up to 6% do so with 6.
_ASSUMED_FREEDOM = 6
_ROUNDING = 1e-12  # of log10 of the budget: math and NumPy may differ in the last bit

Queries = Sequence[int | float | None]  # None, NaN or beyond the budget: censored


@dataclass(frozen=True)
class Difference:
    """The difference a - b of two arms' mean shares, paired by seed; the limits are None where all pairs are equal."""

    value: float
    low: float | None
    high: float | None
    pairs: int


def quantiles(values: np.ndarray, at: Sequence[int] = AT) -> dict[str, float]:
    """Quantiles by percent ("50": the median), linearly interpolated; empty without values.

    An infinite value counts as the minimum, or the maximum, of 0 and the finite values.
    """
    if not len(values):
        return {}
    finite = values[np.isfinite(values)]
    known = np.clip(values, finite.min(initial=0.0), finite.max(initial=0.0))
    return {str(percent): float(np.quantile(known, percent / 100)) for percent in at}


# --- one arm


def share_interval(
    per_seed: Sequence[float] | np.ndarray,
    replicates: np.ndarray | None = None,
    classes: int | None = None,
    confidence: float = 0.95,
    common: float = 0.0,
) -> Interval:
    """The mean over seeds of a share in [0, 1] of `classes` classes, or other outcomes: one point of a band.

    per_seed is (S,), replicates (B, S). common: without replicates, the variance of the mean from what all seeds share, such
    as the real images. With fewer than two seeds there are no limits. Near 0 or 1 there is a bound only: ">=" with low, or
    "<=" with high.
    """
    shares = np.asarray(per_seed, float)[:, None]
    again = None if replicates is None else np.asarray(replicates, float)[..., None]
    value, *limits = (float(limit[0]) for limit in band(shares, again, classes, confidence, common))
    low, high = (None if math.isnan(limit) else limit for limit in limits)
    bound: Sign = "=" if (low is None) == (high is None) else ">=" if high is None else "<="
    return Interval(value, low, high, len(shares), confidence=confidence, bound=bound)


def band(
    per_seed: np.ndarray,
    replicates: np.ndarray | None = None,
    classes: int | None = None,
    confidence: float = 0.95,
    common: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean shares and their limits, point by point, of curves.

    per_seed is (S, Q), replicates (B, S, Q), all in [0, 1]; common: as in share_interval. The three results are (Q,)
    float64. A limit is NaN where there is none: both of one seed, and one of a share near 0 or 1 (evofool.bench.limits has
    the rule).

    The value is the mean. Its limits are Wilson's, with the number of independent outcomes that would give the mean its
    variance, as in cluster sampling (Korn & Graubard 1998), and with Student's t. Averaging transformed shares would
    estimate another number: with the arcsine of the square root, limits contained the mean in 73 to 92% where seeds differ
    a lot and shares are 0.9. `classes` is the number of outcomes in a seed's share; without it all limits are two-sided,
    and equal seeds give an interval of width 0, which means only that they are equal.
    """
    shares = np.asarray(per_seed, float)
    value = shares.mean(axis=0)
    if len(shares) < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    of_all = common if replicates is None else np.asarray(replicates, float).mean(axis=1).var(axis=0, ddof=1)
    return value, *share_limits(shares, of_all, classes, confidence)


def shares(at: np.ndarray, grid: Sequence[int] | np.ndarray) -> np.ndarray:
    """The share of classes accepted within each number of queries of the grid, (..., Q) float64.

    at is (..., K): the number of queries after which each class was accepted, NaN where it never was.
    """
    known = np.sort(np.where(np.isnan(at), np.inf, at), axis=-1).reshape(-1, at.shape[-1])
    counts = np.stack([np.searchsorted(row, grid, side="right") for row in known])
    return np.asarray((counts / at.shape[-1]).reshape(*at.shape[:-1], len(grid)))


def q50(at: np.ndarray) -> np.ndarray:
    """The lowest number of queries within which at least half of the classes are accepted, (...); NaN where never.

    at is as in `shares`, K at least 1. This is the Kaplan-Meier median, because all censoring is at the budget.
    """
    return np.asarray(np.sort(at, axis=-1)[..., (at.shape[-1] + 1) // 2 - 1])


def queries_interval(
    per_seed: Queries,
    budget: float,
    replicates: np.ndarray | None = None,
    confidence: float = 0.95,
    whole: bool = True,
) -> Interval:
    """Q50 of the median seed, from the seeds' Q50, (S,); replicates is (B, S).

    whole: whether they are whole numbers, so that even equal seeds are known up to rounding only.

    Without censored seeds the value is the geometric mean, with Student's limits. Otherwise it is the median of the seeds,
    of which censored ones count as the budget, and None if that is the budget. Then there is a low limit only (from two
    seeds that are not censored, or from five seeds on), or two limits if order statistics give them. If all seeds are
    censored, low is the budget if a median below it is rejected by the sign test at 1 - confidence (5 seeds for 95%),
    else None.
    """
    x, beyond = _logs(per_seed, budget), _censored(per_seed, budget)
    common = 0.0 if replicates is None else threshold_variance(replicates, budget)
    return _of_queries(x, beyond, budget, common, confidence, _rounding(per_seed, budget) if whole else 0.0)


def networks_interval(networks: Sequence[Interval], budget: float, confidence: float = 0.95) -> Interval:
    """The median Q50 over independently trained networks, one number each; see queries_interval.

    A network whose Q50 is a lower bound counts as censored there, and in `censored`.
    """
    return _of_queries(*_networks(networks, budget), budget, 0.0, confidence)


def threshold_variance(replicates: np.ndarray, budget: float) -> float:
    """The variance of the mean log10 Q50 that comes from estimating the thresholds; replicates is (B, S)."""
    return float(_logs(replicates, budget).mean(axis=1).var(ddof=1))


# --- two arms, paired by seed


def paired_ratio(
    a: Queries,
    b: Queries,
    budget: float,
    a_replicates: np.ndarray | None = None,
    b_replicates: np.ndarray | None = None,
    threshold_variance: float = 0.0,
    confidence: float = 0.95,
) -> Interval:
    """The ratio of a's Q50 to b's, paired by seed; replicates are (B, S), for the same resampled thresholds.

    threshold_variance: of the mean log10 ratio, instead of replicates, where a and b have different thresholds.

    The value is the median over seeds, as in queries_interval. Where a is censored, the pair's ratio is at least budget / b:
    value and low are then lower bounds and high is None. Where b is censored, value and high are upper bounds and low is
    None. Two limits are left where order statistics give them. With pairs of both kinds and no such limits all three are
    None. A pair with both censored is left out; it counts in `censored`, as the others do, and not in `number`.
    """
    assert len(a) == len(b), (len(a), len(b))
    a_open, b_open = _censored(a, budget), _censored(b, budget)
    kept = np.flatnonzero(~(a_open & b_open))
    censored = int((a_open | b_open).sum())
    if not len(kept):
        return Interval(None, None, None, 0, censored, confidence, "unknown")
    x = _logs(a, budget)[kept] - _logs(b, budget)[kept]
    common = threshold_variance
    if a_replicates is not None and b_replicates is not None:
        again = _logs(a_replicates, budget)[:, kept] - _logs(b_replicates, budget)[:, kept]
        common = again.mean(axis=1).var(ddof=1)
    rounding = _rounding(a, budget) + _rounding(b, budget)
    found = _median(x, a_open[kept], b_open[kept], common, confidence, rounding)
    return replace(found, censored=censored)


def paired_difference(
    a: Sequence[float], b: Sequence[float], threshold_variance: float = 0.0, confidence: float = 0.95
) -> Difference:
    """The difference a - b of mean shares in [0, 1], (S,) each, paired by seed, with Student's limits.

    threshold_variance: of the mean difference, where a and b have different thresholds. Without limits if all differences
    are equal.
    """
    apart = np.asarray(a, float) - np.asarray(b, float)
    n, value = len(apart), float(apart.mean())
    if n < 2 or np.ptp(apart) < 1e-12:
        return Difference(value, None, None, n)
    half = float(half_over(apart.var(ddof=1) / n, n - 1, threshold_variance, confidence))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), n)


def fooled_difference(a: np.ndarray, b: np.ndarray, threshold_variance: float = 0.0, confidence: float = 0.95) -> Difference:
    """The difference a - b of the mean shares of classes that two arms fool, paired by seed and class.

    a, b: (S, K) bool. threshold_variance: of the difference, where the two have different thresholds. No limits for one
    seed.

    The limits are Newcombe's (1998, method 10): Wilson's of both shares, with Student's t, joined by squares of distances
    and the correlation of the pairs. The classes of a seed are no independent outcomes, and few seeds hardly show how much
    they depend on each other. So the variance of each share is a mean of two, by degrees of freedom (as in Smyth 2004): that
    between the seeds, S - 1, and that of classes with the correlation CORRELATION, _ASSUMED_FREEDOM. It is not below the
    second one.
    """
    from scipy import special

    seeds, value = len(a), float(a.mean() - b.mean())
    if seeds < 2:
        return Difference(value, None, None, seeds)
    freedom = _ASSUMED_FREEDOM + seeds - 1
    t = float(special.stdtrit(freedom, (1 + confidence) / 2))
    outcomes = min(_outcomes(hits) for hits in (a, b))
    (low_a, high_a), (low_b, high_b) = (_wilson(float(hits.mean()), _outcomes(hits), t) for hits in (a, b))
    phi = _pair_correlation(a, b, outcomes)
    of_thresholds = t * math.sqrt(threshold_variance)

    def joined(one: float, other: float) -> float:
        return math.hypot(math.sqrt(max(0.0, one**2 + other**2 - 2 * phi * one * other)), of_thresholds)

    low = value - joined(float(a.mean()) - low_a, high_b - float(b.mean()))
    high = value + joined(high_a - float(a.mean()), float(b.mean()) - low_b)
    return Difference(value, max(-1.0, low), min(1.0, high), seeds)


def _outcomes(hits: np.ndarray) -> float:
    """The number of independent outcomes that gives the share of (S, K) hits its variance; see fooled_difference."""
    seeds, classes = hits.shape
    assumed = seeds * classes / (1 + CORRELATION * (classes - 1))
    share = float(hits.mean())
    between = float(hits.mean(axis=1).var(ddof=1)) / seeds / (share * (1 - share)) if 0 < share < 1 else 0.0
    mean = (_ASSUMED_FREEDOM / assumed + (seeds - 1) * between) / (_ASSUMED_FREEDOM + seeds - 1)
    return min(assumed, 1 / mean)


def _wilson(share: float, outcomes: float, t: float) -> tuple[float, float]:
    x = t**2 / outcomes
    middle, half = (share + x / 2) / (1 + x), math.sqrt(x * (share * (1 - share) + x / 4)) / (1 + x)
    return max(0.0, middle - half), min(1.0, middle + half)


def _pair_correlation(a: np.ndarray, b: np.ndarray, outcomes: float) -> float:
    """Newcombe's correlation of pairs, by counts of so many outcomes, with his correction where it is positive."""
    both, first, second, neither = (float(hits.mean()) * outcomes for hits in (a & b, a & ~b, ~a & b, ~a & ~b))
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    apart = both * neither - first * second
    return (max(apart - outcomes / 2, 0.0) if apart > 0 else apart) / math.sqrt(product) if product > 0 else 0.0


# --- two groups


def welch_ratio(
    a_networks: Sequence[Interval], b_networks: Sequence[Interval], budget: float, confidence: float = 0.95
) -> Interval:
    """The ratio of two groups' Q50, a over b: independently trained networks, one number each.

    Without censored networks, of geometric means, with Welch's interval on logarithms; no limits with fewer than two
    networks in a group. A claim needs NETWORKS_FOR_A_CLAIM in each. `number` is that of the smaller group.

    A network whose Q50 is a bound is censored: its number is only known to be above, and enters no mean or variance. The
    ratio is then that of the groups' medians, of which a censored one counts as the least that it can be, and its limits
    follow from those of each group (networks_interval) by squares of distances (Zou & Donner 2008). Where a's median has no
    high limit the ratio is a lower bound, where b's has none an upper bound, and where neither has one it is unknown.
    """
    (x, over), (y, under) = _networks(a_networks, budget), _networks(b_networks, budget)
    number, censored = min(len(x), len(y)), int(over.sum() + under.sum())
    if number == 0:
        return Interval(None, None, None, number, censored, confidence, "unknown")
    if not censored:
        middle = x.mean() - y.mean()
        if number < 2:
            return Interval(float(10**middle), None, None, number, 0, confidence)
        half = half_width(x.var(ddof=1) / len(x), len(x) - 1, y.var(ddof=1) / len(y), len(y) - 1, confidence)
        return Interval(float(10**middle), float(10 ** (middle - half)), float(10 ** (middle + half)), number, 0, confidence)
    of_a, of_b = (_of_queries(*group, budget, 0.0, confidence) for group in ((x, over), (y, under)))
    opened = of_a.bound == ">=", of_b.bound == ">="
    if all(opened):
        return Interval(None, None, None, number, censored, confidence, "unknown")
    middles = [math.log10(of.value or budget) for of in (of_a, of_b)]
    bound: Sign = ">=" if opened[0] else "<=" if opened[1] else "="
    low = None if opened[1] else _apart(middles, of_a.low, of_b.high, -1)
    high = None if opened[0] else _apart(middles, of_a.high, of_b.low, 1)
    return Interval(10 ** (middles[0] - middles[1]), low, high, number, censored, confidence, bound)


def _apart(middles: Sequence[float], of_a: float | None, of_b: float | None, side: int) -> float | None:
    """The limit of a ratio on one side, from those of both numbers, whose logarithms are `middles`; None without them."""
    if of_a is None or of_b is None:
        return None
    distance = math.hypot(math.log10(of_a) - middles[0], math.log10(of_b) - middles[1])
    return float(10 ** (middles[0] - middles[1] + side * distance))


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """(U of a, two-sided p) of scipy's Mann-Whitney test, which is exact for small samples without ties."""
    from scipy import stats

    result = stats.mannwhitneyu(a, b, alternative="two-sided")
    return float(result.statistic), float(result.pvalue)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median between two order statistics, for any distribution; the interval's confidence is the one attained.

    The narrowest symmetric pair that attains the requested confidence; if none does (95% needs six values), the minimum and
    the maximum.
    """
    x = np.sort(np.asarray(values, float))
    n = len(x)
    if n < 2:
        return Interval(float(x[0]) if n else None, None, None, n, confidence=0.0)
    k, attained = ranks(n, confidence)
    if not k:
        k, attained = 1, 1 - 2 * 0.5**n
    return Interval(float(np.median(x)), float(x[k - 1]), float(x[n - k]), n, confidence=attained)


# --- scales and limits


def _censored(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    return ~(np.asarray(queries, float) <= budget)  # None becomes NaN, for which the comparison is false


def _logs(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    """log10; a censored value counts as the budget."""
    return np.log10(np.where(_censored(queries, budget), budget, np.asarray(queries, float)))


def _rounding(queries: Queries, budget: float) -> float:
    """The mean variance of log10 of queries because they are whole numbers."""
    return float((10.0 ** (-2 * _logs(queries, budget))).mean()) / (12 * math.log(10) ** 2)


def _networks(networks: Sequence[Interval], budget: float) -> tuple[np.ndarray, np.ndarray]:
    """log10 of each network's Q50, with the budget where it is above it, and (n,) bool: which of them are bounds."""
    return _logs([network.value for network in networks], budget), np.array(
        [network.bound != "=" for network in networks], bool
    )


def _of_queries(
    x: np.ndarray, beyond: np.ndarray, budget: float, common: float, confidence: float, rounding: float = 0.0
) -> Interval:
    """Of logarithms x, of which (n,) bool `beyond` are lower bounds: the budget, or the mean of a network below it."""
    n, most = len(x), math.log10(budget) - _ROUNDING
    if (x[beyond] >= most).sum() == n:
        low = budget if 0.5**n <= 1 - confidence else None
        return Interval(None, low, None, n, n, confidence, ">=")
    found = _median(x, beyond, np.zeros(n, bool), common, confidence, rounding)
    at_budget = found.value is not None and beyond.any() and float(np.median(x)) >= most
    return replace(found, value=None) if at_budget else found


def _median(
    x: np.ndarray, over: np.ndarray, under: np.ndarray, common: float, confidence: float, rounding: float
) -> Interval:
    """10 to the median of n logarithms, of which those `over`, (n,) bool, are lower bounds and those `under` upper bounds.

    common: the variance of their mean from the thresholds; rounding: the least variance of one of them.
    """
    n, censored, middle = len(x), int((over | under).sum()), float(np.median(x))
    if not censored:
        middle = float(x.mean())
        if n < 2:
            return Interval(10**middle, None, None, n, 0, confidence)
        half = float(half_over(max(float(x.var(ddof=1)), rounding) / n, n - 1, common, confidence))
        return Interval(10**middle, 10 ** (middle - half), 10 ** (middle + half), n, 0, confidence)
    k = ranks(n, confidence)[0]
    if k:
        low = float(np.sort(np.where(under, -np.inf, x))[k - 1])
        high = float(np.sort(np.where(over, np.inf, x))[n - k])
        if math.isfinite(low) and math.isfinite(high):
            low, high = (outward(middle, limit, common, confidence, side) for limit, side in ((low, -1), (high, 1)))
            return Interval(10**middle, 10**low, 10**high, n, censored, confidence)
    if over.any() and under.any():
        return Interval(None, None, None, n, censored, confidence, "unknown")
    side = 1 if over.any() else -1
    bound: Sign = ">=" if over.any() else "<="
    if n < 2:
        return Interval(10**middle, None, None, n, censored, confidence, bound)
    lowest = censored_low(side * x, over | under, rounding, common, confidence)
    limit = 10 ** (side * lowest) if math.isfinite(lowest) else None
    below, above = (limit, None) if side > 0 else (None, limit)
    return Interval(10**middle, below, above, n, censored, confidence, bound)
