"""Intervals for the figures of a benchmark: classes are fixed, seeds are the sample, and thresholds are estimates.

Each seed gives one number: the share of classes accepted, or Q50, the queries until half of the classes are accepted. The
limits of the mean over seeds are Student's. All seeds share the same thresholds tau, which are estimated from a finite set
of real images; the variance from this does not shrink with more seeds. It enters as `replicates`: the numbers that each
seed would give with thresholds from each of B bootstrap samples of the real images. tests/perf/coverage.py measures how
often the limits contain the true value. Wilson's interval, for counts, is evofool.targets.validation.wilson.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evofool.bench.interval import Interval, Sign

NETWORKS_FOR_A_CLAIM = 5  # independently trained networks that a claim about a defence needs in each group
# Degrees of freedom of a bootstrap variance of a 5% quantile. Its own spread amounts to 7 (300 images) to 24 (5,000), but it
# is also 17% to 1% too large on average. One number covers both: limits with 20 contained 94 to 96% from 125 images on.
THRESHOLD_FREEDOM = 20

AT = (5, 25, 50, 75, 95)  # percent, of quantiles

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
) -> Interval:
    """The mean over seeds of a share in [0, 1] of `classes` classes: one point of a band.

    per_seed is (S,), replicates (B, S). With fewer than two seeds there are no limits.
    """
    shares = np.asarray(per_seed, float)[:, None]
    again = None if replicates is None else np.asarray(replicates, float)[..., None]
    value, low, high = (float(limit[0]) for limit in band(shares, again, classes, confidence))
    if len(shares) < 2:
        return Interval(value, None, None, len(shares), confidence=confidence)
    return Interval(value, low, high, len(shares), confidence=confidence)


def band(
    per_seed: np.ndarray,
    replicates: np.ndarray | None = None,
    classes: int | None = None,
    confidence: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean shares and their limits, point by point, of curves.

    per_seed is (S, Q), replicates (B, S, Q), all in [0, 1]; the three results are (Q,) float64. Limits of one seed are NaN.

    The value is the mean. Its limits are Wilson's, with the number of independent outcomes that would give the mean its
    variance, as in cluster sampling (Korn & Graubard 1998), and with Student's t. Averaging transformed shares would
    estimate another number: with the arcsine of the square root, limits contained the mean in 73 to 92% where seeds differ
    a lot and shares are 0.9. `classes` is the number of outcomes in a seed's share; half an outcome, over all seeds, counts
    as unknown. So equal seeds, even at 1, do not give an interval of width 0: 5 seeds with 10 of 10 classes give 0.91 to 1.
    Without `classes` equal seeds give an interval of width 0, which means only that they are equal.
    """
    shares = np.asarray(per_seed, float)
    seeds, value = len(shares), shares.mean(axis=0)
    if seeds < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    outcomes = math.inf if classes is None else float(seeds * classes)
    mean = value if classes is None else (value * outcomes + 0.5) / (outcomes + 1)
    between = shares.var(axis=0, ddof=1) / seeds + (0.5 / outcomes) ** 2
    common = 0.0 if replicates is None else np.asarray(replicates, float).mean(axis=1).var(axis=0, ddof=1)
    most = np.maximum(mean * (1 - mean), between + common)  # the variance of one outcome; there is at least one outcome
    some = most > 0
    most = np.where(some, most, 1.0)
    freedom = _freedom(mean, between * seeds / most, seeds, 0.0 if classes is None else 1 / classes)
    x = np.where(some, _half_over(between, freedom, common, confidence) ** 2 / most, 0.0)
    middle = (mean + x / 2) / (1 + x)
    half = np.sqrt(x * (mean * (1 - mean) + x / 4)) / (1 + x)
    return value, np.clip(middle - half, 0, value), np.clip(middle + half, value, 1)


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
    per_seed: Queries, budget: float, replicates: np.ndarray | None = None, confidence: float = 0.95
) -> Interval:
    """The geometric mean of the seeds' Q50, (S,); censored seeds make it a lower bound.

    replicates is (B, S). A censored seed counts as the budget, and with one high is None. Equal, uncensored seeds give an
    interval with the width of the thresholds' variance alone. If all seeds are censored, the value is None, and low is the
    budget if a median below it is rejected by the sign test at 1 - confidence (from 5 seeds on for 95%), else None.
    """
    x, beyond = _logs(per_seed, budget), _censored(per_seed, budget)
    common = 0.0 if replicates is None else threshold_variance(replicates, budget)
    return _geometric_mean(x, beyond, beyond, budget, common, confidence)


def networks_interval(networks: Sequence[Interval], budget: float, confidence: float = 0.95) -> Interval:
    """The geometric mean of Q50 over independently trained networks, one number each; see queries_interval.

    A network whose Q50 is a lower bound makes the mean a lower bound, and is counted in `censored`.
    """
    x, opened = _networks(networks, budget)
    beyond = np.array([network.value is None for network in networks], bool)
    return _geometric_mean(x, opened, beyond, budget, 0.0, confidence)


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
    """The geometric mean of a's Q50 over b's, paired by seed; replicates are (B, S), for the same resampled thresholds.

    threshold_variance: of the mean log10 ratio, instead of replicates, where a and b have different thresholds.

    Where a is censored, the pair's ratio is at least budget / b: value and low are then lower bounds and high is None.
    Where b is censored, value and high are upper bounds and low is None. With pairs of both kinds all three are None. A pair
    with both censored is left out; it counts in `censored`, as the others do, and not in `number`.
    """
    assert len(a) == len(b), (len(a), len(b))
    a_open, b_open = _censored(a, budget), _censored(b, budget)
    kept = np.flatnonzero(~(a_open & b_open))
    over, under = bool(a_open[kept].any()), bool(b_open[kept].any())
    censored = int((a_open | b_open).sum())
    if not len(kept) or (over and under):
        return Interval(None, None, None, len(kept), censored, confidence, "unknown")
    x = _logs(a, budget)[kept] - _logs(b, budget)[kept]
    common = threshold_variance
    if a_replicates is not None and b_replicates is not None:
        again = _logs(a_replicates, budget)[:, kept] - _logs(b_replicates, budget)[:, kept]
        common = again.mean(axis=1).var(ddof=1)
    return _on_logs(x, common, confidence, censored, ">=" if over else "<=" if under else "=")


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
    half = float(_half_over(apart.var(ddof=1) / n, n - 1, threshold_variance, confidence))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), n)


# --- two groups


def welch_ratio(
    a_networks: Sequence[Interval], b_networks: Sequence[Interval], budget: float, confidence: float = 0.95
) -> Interval:
    """The ratio of two groups' geometric mean Q50, a over b: independently trained networks, one number each.

    Welch's interval on logarithms; no limits with fewer than two networks in a group. A claim needs NETWORKS_FOR_A_CLAIM in
    each. Networks whose Q50 is a bound make the ratio a bound, as in paired_ratio; `number` is that of the smaller group.
    """
    (x, over), (y, under) = _networks(a_networks, budget), _networks(b_networks, budget)
    number, censored = min(len(x), len(y)), int(over.sum() + under.sum())
    if number == 0 or (over.any() and under.any()):
        return Interval(None, None, None, number, censored, confidence, "unknown")
    bound: Sign = ">=" if over.any() else "<=" if under.any() else "="
    middle = x.mean() - y.mean()
    if number < 2:
        return Interval(float(10**middle), None, None, number, censored, confidence, bound)
    half = _half(x.var(ddof=1) / len(x), len(x) - 1, y.var(ddof=1) / len(y), len(y) - 1, confidence)
    low = None if bound == "<=" else float(10 ** (middle - half))
    high = None if bound == ">=" else float(10 ** (middle + half))
    return Interval(float(10**middle), low, high, number, censored, confidence, bound)


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
    from scipy import stats

    x = np.sort(np.asarray(values, float))
    n = len(x)
    if n < 2:
        return Interval(float(x[0]) if n else None, None, None, n, confidence=0.0)
    attained = 1 - 2 * stats.binom.cdf(np.arange((n + 1) // 2), n, 0.5)
    k = max(0, int((attained >= confidence).sum()) - 1)
    return Interval(float(np.median(x)), float(x[k]), float(x[n - 1 - k]), n, confidence=float(attained[k]))


# --- scales and limits


def _freedom(mean: np.ndarray, spread: np.ndarray, seeds: int, single: float) -> np.ndarray:
    """Degrees of freedom of a variance over seeds of shares: fewer than S - 1 where shares are skewed.

    spread is the seeds' variance over mean (1 - mean); independent outcomes give `single`, 1 / classes. A larger spread
    means that the classes of a seed are correlated; then a rare bad seed is easily missed, and the variance is estimated
    too low. The variance of the estimate (relative: 2 / (S - 1) + excess kurtosis / S) is that of the Beta distribution
    with this spread.
    """
    correlation = np.clip((spread - single) / max(1 - single, 1e-9), 1e-9, 0.95)
    part = (1 - single) * correlation / (single + (1 - single) * correlation)
    n = 1 / correlation - 1
    a, b = np.maximum(mean, 1e-12) * n, np.maximum(1 - mean, 1e-12) * n
    excess = 6 * ((a - b) ** 2 * (n + 1) - a * b * (n + 2)) / (a * b * (n + 2) * (n + 3))
    return 2 / (2 / (seeds - 1) + np.maximum(excess, 0) * part**2 / seeds)


def _censored(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    return ~(np.asarray(queries, float) <= budget)  # None becomes NaN, for which the comparison is false


def _logs(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    """log10; a censored value counts as the budget."""
    return np.log10(np.where(_censored(queries, budget), budget, np.asarray(queries, float)))


def _half_over(
    seeds: np.ndarray | float, freedom: np.ndarray | float, tau: np.ndarray | float, confidence: float
) -> np.ndarray:
    """_half of the variance over seeds and that of the thresholds; never less than without the thresholds' variance.

    This is needed because Satterthwaite's degrees of freedom rise with any addition to a variance of few seeds.
    """
    alone = _half(seeds, freedom, 0.0, THRESHOLD_FREEDOM, confidence)
    return np.maximum(alone, _half(seeds, freedom, tau, THRESHOLD_FREEDOM, confidence))


def _half(
    one: np.ndarray | float, freedom: np.ndarray | float, two: np.ndarray | float, two_freedom: float, confidence: float
) -> np.ndarray:
    """Half the width of Student's interval for the sum of two variances of means (Welch 1947, Satterthwaite 1946)."""
    from scipy import special

    one, two = np.asarray(one, float), np.asarray(two, float)
    below = one**2 / freedom + two**2 / two_freedom
    known = below > 0
    total = np.where(known, (one + two) ** 2 / np.where(known, below, 1.0), 1.0)
    return np.asarray(special.stdtrit(total, (1 + confidence) / 2) * np.sqrt(one + two))


def _networks(networks: Sequence[Interval], budget: float) -> tuple[np.ndarray, np.ndarray]:
    """log10 of each network's Q50, with the budget where it is above it, and (n,) bool: which of them are bounds."""
    return _logs([network.value for network in networks], budget), np.array(
        [network.bound != "=" for network in networks], bool
    )


def _geometric_mean(
    x: np.ndarray, opened: np.ndarray, beyond: np.ndarray, budget: float, common: float, confidence: float
) -> Interval:
    """Of logarithms x. opened: (n,) bool, lower bounds; beyond: (n,) bool, those of them that are above the budget."""
    n, censored = len(x), int(opened.sum())
    if beyond.all():
        low = budget if 0.5**n <= 1 - confidence else None
        return Interval(None, low, None, n, censored, confidence, ">=")
    return _on_logs(x, common, confidence, censored, ">=" if censored else "=")


def _on_logs(x: np.ndarray, common: float, confidence: float, censored: int, bound: Sign) -> Interval:
    middle = float(x.mean())
    if len(x) < 2:
        return Interval(10**middle, None, None, len(x), censored, confidence, bound)
    half = float(_half_over(x.var(ddof=1) / len(x), len(x) - 1, common, confidence))
    low, high = (None if bound == "<=" else 10 ** (middle - half)), (None if bound == ">=" else 10 ** (middle + half))
    return Interval(10**middle, low, high, len(x), censored, confidence, bound)
