"""Intervals for what a bench reports: classes are fixed, seeds are the sample, and the thresholds are estimated too.

A seed gives one number: the share of classes accepted, or the queries Q50 until half of them are. The limits of a mean of
these are Student's. All seeds are judged by the same thresholds tau, which come from a finite set of real images; what that
adds to the variance does not shrink with more seeds. It enters as `replicates`: what each seed would have given, had the
thresholds come from each of B bootstrap samples of the real images. How often the limits hold the truth is measured by
tests/perf/coverage.py. Wilson's interval, for plain counts, is evofool.targets.handshake.wilson.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NETWORKS_FOR_A_CLAIM = 5  # independently trained ones, in each group, before anything is said of a defence
# Of a bootstrap variance of a 5% quantile. By its own spread 7 (300 images) to 24 (5,000), but it also is 17 to 1% too large
# on average, and both together are met by one number: limits with 20 held 94 to 96% from 125 images on.
TAU_FREEDOM = 20

Queries = Sequence[int | float | None]  # None, NaN or beyond the budget: censored


@dataclass(frozen=True)
class Interval:
    """A value between two limits; None where there is none: nothing known, or unbounded by censoring."""

    value: float | None
    low: float | None
    high: float | None
    number: int  # of seeds, pairs or networks behind it (of two groups: of the smaller)
    censored: int = 0  # of those, how many only give a bound
    confidence: float = 0.95  # that was asked for; of median_interval: that was attained


@dataclass(frozen=True)
class Difference:
    """Of two arms' mean shares, a - b, paired by seed; p is of the two-sided test on the transformed scale."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int


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
    x = np.where(some, _half(own, freedom, common, TAU_FREEDOM, confidence) ** 2 / most, 0.0)
    middle = (mean + x / 2) / (1 + x)
    half = np.sqrt(x * (mean * (1 - mean) + x / 4)) / (1 + x)
    return value, np.clip(middle - half, 0, value), np.clip(middle + half, value, 1)


def curve(accepted_at: Queries, grid: Sequence[int] | np.ndarray) -> np.ndarray:
    """The share of classes accepted within each number of queries of the grid, (len(grid),) float64.

    accepted_at has an entry for each class, None for one that never was.
    """
    known = np.sort([q for q in accepted_at if q is not None])
    return np.searchsorted(known, np.asarray(grid), side="right") / len(accepted_at)


def q50(accepted_at: Queries, budget: float) -> float | None:
    """The least number of queries within which half of the classes, or more, are accepted; None beyond the budget.

    That is Kaplan and Meier's median: all censoring is at the budget, where their curve is the empirical one.
    """
    known = sorted(q for q in accepted_at if q is not None and q <= budget)
    half = (len(accepted_at) + 1) // 2
    return known[half - 1] if 0 < half <= len(known) else None


def queries_interval(
    per_seed: Queries, budget: float, replicates: np.ndarray | None = None, confidence: float = 0.95
) -> Interval:
    """The geometric mean of the seeds' Q50, (S,); a censored seed counts as the budget.

    replicates is (B, S). With censored seeds the value and low are bounds from below and high is None.
    Seeds that all agree, uncensored, give a width of nought, but for tau's.
    If all are censored, low is the budget where that many would by chance (a median below it, the sign test) be rarer than
    1 - confidence: from 5 seeds on for 95%; else None.
    """
    x = _logs(per_seed, budget)
    seeds, censored = len(x), int(_censored(per_seed, budget).sum())
    value = 10 ** x.mean()
    if censored == seeds:
        low = budget if 0.5**seeds <= 1 - confidence else None
        return Interval(float(value), low, None, seeds, censored, confidence)
    common = 0.0 if replicates is None else _logs(replicates, budget).mean(axis=1).var(ddof=1)
    return _on_logs(x, common, confidence, censored=censored, no_high=censored > 0)


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
        return Interval(None, None, None, len(told), censored, confidence)
    x = _logs(a, budget)[told] - _logs(b, budget)[told]
    common = tau_variance
    if a_replicates is not None and b_replicates is not None:
        again = _logs(a_replicates, budget)[:, told] - _logs(b_replicates, budget)[:, told]
        common = again.mean(axis=1).var(ddof=1)
    return _on_logs(x, common, confidence, censored=censored, no_low=under, no_high=over)


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Difference:
    """Two arms' shares in [0, 1], (S,) each, by seed. The limits are Student's on the plain differences.

    If all differences are equal there is no spread to go by: no limits, and p is the sign test's, 1 if they are 0.
    """
    from scipy import stats

    plain = np.asarray(a, float) - np.asarray(b, float)
    n, value = len(plain), float(plain.mean())
    if n < 2:
        return Difference(value, None, None, None, n)
    moved = _arcsine(np.asarray(a, float)) - _arcsine(np.asarray(b, float))
    if np.ptp(moved) < 1e-12:
        return Difference(value, None, None, 1.0 if abs(moved[0]) < 1e-12 else 0.5 ** (n - 1), n)
    half = float(_half(plain.var(ddof=1) / n, n - 1, 0.0, 1, confidence))
    p = float(stats.ttest_1samp(moved, 0.0).pvalue)
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), p, n)


# --- two groups


def welch_ratio(a_networks: Queries, b_networks: Queries, budget: float, confidence: float = 0.95) -> Interval:
    """The ratio of two groups' geometric mean Q50, a over b: independently trained networks, one number each.

    Welch's interval on logarithms; None under two networks in a group. A claim needs NETWORKS_FOR_A_CLAIM in each.
    Censored networks are bounds as in paired_ratio; `number` is the smaller group's.
    """
    x, y = _logs(a_networks, budget), _logs(b_networks, budget)
    a_open, b_open = (int(_censored(group, budget).sum()) for group in (a_networks, b_networks))
    number, censored = min(len(x), len(y)), a_open + b_open
    if number == 0 or (a_open and b_open):
        return Interval(None, None, None, number, censored, confidence)
    middle = x.mean() - y.mean()
    if number < 2:
        return Interval(float(10**middle), None, None, number, censored, confidence)
    half = _half(x.var(ddof=1) / len(x), len(x) - 1, y.var(ddof=1) / len(y), len(y) - 1, confidence)
    low = None if b_open else float(10 ** (middle - half))
    high = None if a_open else float(10 ** (middle + half))
    return Interval(float(10**middle), low, high, number, censored, confidence)


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


def _arcsine(shares: np.ndarray) -> np.ndarray:
    """Defined at 0 and 1, and a share of independent outcomes has about the same variance everywhere (Anscombe 1948)."""
    return np.arcsin(np.sqrt(np.clip(shares, 0, 1)))


def _censored(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    return ~(np.asarray(queries, float) <= budget)  # None becomes NaN, which no number is under


def _logs(queries: Queries | np.ndarray, budget: float) -> np.ndarray:
    """log10, with what is censored counted as the budget."""
    return np.log10(np.where(_censored(queries, budget), budget, np.asarray(queries, float)))


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


def _on_logs(
    x: np.ndarray, common: float, confidence: float, censored: int, no_low: bool = False, no_high: bool = False
) -> Interval:
    middle = float(x.mean())
    if len(x) < 2:
        return Interval(10**middle, None, None, len(x), censored, confidence)
    half = float(_half(x.var(ddof=1) / len(x), len(x) - 1, common, TAU_FREEDOM, confidence))
    low, high = (None if no_low else 10 ** (middle - half)), (None if no_high else 10 ** (middle + half))
    return Interval(10**middle, low, high, len(x), censored, confidence)
