"""Intervals for what a bench reports: classes are fixed, seeds are the sample, and the thresholds are estimated too.

A seed gives one number: the share of classes accepted, or the queries Q50 until half of them are. The limits of a mean of
these are Student's. All seeds are judged by the same thresholds tau, which come from a finite set of real images; what that
adds to the variance does not shrink with more seeds. It enters as `replicates`: what each seed would have given, had the
thresholds come from each of B bootstrap samples of the real images. How often the limits hold the truth is measured by
tests/perf/coverage.py. Wilson's interval, for plain counts, is evofool.targets.validation.wilson.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evofool.bench.interval import Interval, Sign

NETWORKS_FOR_A_CLAIM = 5  # independently trained ones, in each group, before anything is said of a defence
# Of a bootstrap variance of a 5% quantile. By its own spread 7 (300 images) to 24 (5,000), but it also is 17 to 1% too large
# on average, and both together are met by one number: limits with 20 held 94 to 96% from 125 images on.
TAU_FREEDOM = 20

AT = (5, 25, 50, 75, 95)  # percent, of quantiles

Queries = Sequence[int | float | None]  # None, NaN or beyond the budget: censored


@dataclass(frozen=True)
class Difference:
    """Of two arms' mean shares, a - b, paired by seed, between two limits; None where there is no spread to go by."""

    value: float
    low: float | None
    high: float | None
    pairs: int


def quantiles(values: np.ndarray, at: Sequence[int] = AT) -> dict[str, float]:
    """By percent ("50": the median) what so many of the values are at most, linear between two; empty if there are none.

    What is infinite counts as the least, or the greatest, of 0 and the finite values.
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
    """The mean over seeds of a share in [0, 1], of `classes` classes; see band, of which this is one point.

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

    The value is the plain mean. Its limits are Wilson's, with the number of outcomes that would give the mean its
    variance, as sampling of clusters has it (Korn & Graubard 1998), and Student's t. Averaging transformed shares instead
    estimates another number: by the arcsine of the root, limits held it in 73 to 92% where seeds differ a lot and shares
    are 0.9. `classes` is how many outcomes a seed's share is made of: half of one, over all seeds, counts as unknown.
    So seeds that all agree, even at 1, do not give a width of nought: 5 seeds with 10 of 10 classes give 0.91 to 1. Without
    `classes` they do, and that says only that they agreed.
    """
    shares = np.asarray(per_seed, float)
    seeds, value = len(shares), shares.mean(axis=0)
    if seeds < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    outcomes = math.inf if classes is None else float(seeds * classes)
    mean = value if classes is None else (value * outcomes + 0.5) / (outcomes + 1)
    own = shares.var(axis=0, ddof=1) / seeds + (0.5 / outcomes) ** 2
    common = 0.0 if replicates is None else np.asarray(replicates, float).mean(axis=1).var(axis=0, ddof=1)
    most = np.maximum(mean * (1 - mean), own + common)  # the variance of one outcome; of none there is less than one
    some = most > 0
    most = np.where(some, most, 1.0)
    freedom = _freedom(mean, own * seeds / most, seeds, 0.0 if classes is None else 1 / classes)
    x = np.where(some, _half_over(own, freedom, common, confidence) ** 2 / most, 0.0)
    middle = (mean + x / 2) / (1 + x)
    half = np.sqrt(x * (mean * (1 - mean) + x / 4)) / (1 + x)
    return value, np.clip(middle - half, 0, value), np.clip(middle + half, value, 1)


def shares(at: np.ndarray, grid: Sequence[int] | np.ndarray) -> np.ndarray:
    """The share of classes accepted within each number of queries of the grid, (..., Q) float64.

    at is (..., K): after how many queries each class was accepted, NaN for one that never was.
    """
    known = np.sort(np.where(np.isnan(at), np.inf, at), axis=-1).reshape(-1, at.shape[-1])
    counts = np.stack([np.searchsorted(row, grid, side="right") for row in known])
    return np.asarray((counts / at.shape[-1]).reshape(*at.shape[:-1], len(grid)))


def q50(at: np.ndarray) -> np.ndarray:
    """The least number of queries within which half of the classes, or more, are accepted, (...); NaN where never.

    at is as in `shares`, K at least 1. That is Kaplan and Meier's median: all censoring is at the budget, where their curve
    is the empirical one.
    """
    return np.asarray(np.sort(at, axis=-1)[..., (at.shape[-1] + 1) // 2 - 1])


def queries_interval(
    per_seed: Queries, budget: float, replicates: np.ndarray | None = None, confidence: float = 0.95
) -> Interval:
    """The geometric mean of the seeds' Q50, (S,), of which censored ones make a bound from below.

    replicates is (B, S). A censored seed counts as the budget, and high is None where there is one. Seeds that all agree,
    uncensored, give a width of nought, but for tau's. If all are censored the value is None, and low is the budget where
    that many would by chance (a median below it, the sign test) be rarer than 1 - confidence: from 5 seeds on for 95%; else
    None.
    """
    x, beyond = _logs(per_seed, budget), _censored(per_seed, budget)
    common = 0.0 if replicates is None else tau_variance(replicates, budget)
    return _geometric_mean(x, beyond, beyond, budget, common, confidence)


def networks_interval(networks: Sequence[Interval], budget: float, confidence: float = 0.95) -> Interval:
    """The geometric mean of Q50 over independently trained networks, one number each, as queries_interval has it of seeds.

    A network whose own Q50 is a bound from below makes the mean one, and counts in `censored`.
    """
    x, opened = _networks(networks, budget)
    beyond = np.array([network.value is None for network in networks], bool)
    return _geometric_mean(x, opened, beyond, budget, 0.0, confidence)


def tau_variance(replicates: np.ndarray, budget: float) -> float:
    """The variance of the mean log10 Q50 over seeds that thresholds from a finite set of real images bring; (B, S)."""
    return float(_logs(replicates, budget).mean(axis=1).var(ddof=1))


# --- two arms, paired by seed


def paired_ratio(
    a: Queries,
    b: Queries,
    budget: float,
    a_replicates: np.ndarray | None = None,
    b_replicates: np.ndarray | None = None,
    tau_variance: float = 0.0,
    confidence: float = 0.95,
) -> Interval:
    """The geometric mean of a's Q50 over b's, pairs by seed; replicates are (B, S), by the same resampled thresholds.

    tau_variance: in their place, of the mean log10 ratio, where a and b are judged by thresholds of their own.

    Where a is censored, its pair's ratio is at least budget / b: the value and low are then bounds from below and high is
    None. Where b is, the value and high are bounds from above and low is None. With pairs of both kinds nothing is bounded,
    and all three are None. A pair with both censored tells nothing: it is left out, and counted in `censored` with
    the one-sided ones; `number` counts the pairs that are left.
    """
    assert len(a) == len(b), (len(a), len(b))
    a_open, b_open = _censored(a, budget), _censored(b, budget)
    told = np.flatnonzero(~(a_open & b_open))
    over, under = bool(a_open[told].any()), bool(b_open[told].any())
    censored = int((a_open | b_open).sum())
    if not len(told) or (over and under):
        return Interval(None, None, None, len(told), censored, confidence, "unknown")
    x = _logs(a, budget)[told] - _logs(b, budget)[told]
    common = tau_variance
    if a_replicates is not None and b_replicates is not None:
        again = _logs(a_replicates, budget)[:, told] - _logs(b_replicates, budget)[:, told]
        common = again.mean(axis=1).var(ddof=1)
    return _on_logs(x, common, confidence, censored, ">=" if over else "<=" if under else "=")


def paired_difference(
    a: Sequence[float], b: Sequence[float], tau_variance: float = 0.0, confidence: float = 0.95
) -> Difference:
    """Two arms' mean shares in [0, 1], (S,) each, a - b, paired by seed; the limits are Student's on the differences.

    tau_variance: of the mean difference, where a and b are judged by thresholds of their own. Differences that are all equal
    have no spread to go by, and no limits.
    """
    apart = np.asarray(a, float) - np.asarray(b, float)
    n, value = len(apart), float(apart.mean())
    if n < 2 or np.ptp(apart) < 1e-12:
        return Difference(value, None, None, n)
    half = float(_half_over(apart.var(ddof=1) / n, n - 1, tau_variance, confidence))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), n)


# --- two groups


def welch_ratio(
    a_networks: Sequence[Interval], b_networks: Sequence[Interval], budget: float, confidence: float = 0.95
) -> Interval:
    """The ratio of two groups' geometric mean Q50, a over b: independently trained networks, one number each.

    Welch's interval on logarithms; None under two networks in a group. A claim needs NETWORKS_FOR_A_CLAIM in each.
    Networks whose own Q50 is a bound make one of the ratio, as in paired_ratio; `number` is the smaller group's.
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
    """U of a, and the two-sided p: exact for small samples without ties, as scipy chooses."""
    from scipy import stats

    result = stats.mannwhitneyu(a, b, alternative="two-sided")
    return float(result.statistic), float(result.pvalue)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median between two order statistics, whatever the distribution; the interval's confidence is what they attain.

    The narrowest symmetric pair that attains the one asked for; if none does (95% needs six values) the least and the
    greatest value.
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

    spread is the seeds' variance over mean (1 - mean); `single` of it, 1 / classes, is what independent outcomes have. What
    exceeds that is a common fate of a seed's classes, and a rare bad seed is easily missed: then the variance is too small.
    Its own variance (relative: 2 / (S - 1) + excess kurtosis / S) is taken from the Beta distribution of that spread.
    """
    fate = np.clip((spread - single) / max(1 - single, 1e-9), 1e-9, 0.95)
    part = (1 - single) * fate / (single + (1 - single) * fate)
    n = 1 / fate - 1
    a, b = np.maximum(mean, 1e-12) * n, np.maximum(1 - mean, 1e-12) * n
    excess = 6 * ((a - b) ** 2 * (n + 1) - a * b * (n + 2)) / (a * b * (n + 2) * (n + 3))
    return 2 / (2 / (seeds - 1) + np.maximum(excess, 0) * part**2 / seeds)


def _censored(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    return ~(np.asarray(queries, float) <= budget)  # None becomes NaN, which no number is under


def _logs(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    """log10, with what is censored counted as the budget."""
    return np.log10(np.where(_censored(queries, budget), budget, np.asarray(queries, float)))


def _half_over(
    seeds: np.ndarray | float, freedom: np.ndarray | float, tau: np.ndarray | float, confidence: float
) -> np.ndarray:
    """As _half, of the variance of a mean over seeds and of the thresholds'; never less than without the latter.

    Satterthwaite's degrees of freedom jump with the smallest addition to a variance that few seeds gave.
    """
    alone = _half(seeds, freedom, 0.0, TAU_FREEDOM, confidence)
    return np.maximum(alone, _half(seeds, freedom, tau, TAU_FREEDOM, confidence))


def _half(
    one: np.ndarray | float, freedom: np.ndarray | float, two: np.ndarray | float, two_freedom: float, confidence: float
) -> np.ndarray:
    """Half the width of Student's interval with the sum of two variances of means (Welch 1947, Satterthwaite 1946)."""
    from scipy import special

    one, two = np.asarray(one, float), np.asarray(two, float)
    below = one**2 / freedom + two**2 / two_freedom
    known = below > 0
    total = np.where(known, (one + two) ** 2 / np.where(known, below, 1.0), 1.0)
    return np.asarray(special.stdtrit(total, (1 + confidence) / 2) * np.sqrt(one + two))


def _networks(networks: Sequence[Interval], budget: float) -> tuple[np.ndarray, np.ndarray]:
    """log10 of each one's Q50, what is beyond the budget counted as the budget, and (n,) bool: which are bounds."""
    return _logs([one.value for one in networks], budget), np.array([one.bound != "=" for one in networks], bool)


def _geometric_mean(
    x: np.ndarray, opened: np.ndarray, beyond: np.ndarray, budget: float, common: float, confidence: float
) -> Interval:
    """Of logarithms x. opened: (n,) bool, those that are bounds from below; beyond: of these, those beyond the budget."""
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
