"""Limits of means of shares and of medians over few seeds; evofool.bench.statistics makes intervals of them.

The rule for shares: within END_OUTCOMES / n of 0 or 1 a share has a bound only, the limit on the far side of that end, with
one-sided confidence. n, the effective number of outcomes, counts a seed's classes as if they had the correlation
CORRELATION: n = S K / (1 + CORRELATION (K - 1)) of S seeds and K classes. All shares within 0.14 of an end have a bound for
3 seeds of 10 classes; within 0.08 for 5, and within 0.04 for 10. There, seeds differ in few outcomes, so that their spread
is not known, and the limit on the near side would be a guess: at a true share of 0.997, intervals contained it in 74% for
ten seeds of ten classes.
"""

from functools import cache

import numpy as np

# Degrees of freedom of a bootstrap variance of a 5% quantile. Its own spread amounts to 7 (300 images) to 24 (5,000), but it
# is also 17% to 1% too large on average. One number covers both: limits with 20 contained 94 to 96% from 125 images on.
THRESHOLD_FREEDOM = 20
# Of the classes of a seed, where seeds cannot show it because nearly all outcomes are equal. A seed of ten classes then
# counts as 3.6 outcomes. On small digit networks, from the variance between seeds at shares of 0.8 to 0.97, it counts as 11
# (cppn) or 29 (apgd) on average, and as 5 or 12 in the tenth of the cases with the least.
CORRELATION = 0.2
END_OUTCOMES = 1.5
_MOST_SKEW = 0.5  # by how much of its half width a limit is moved outward at most, because of skewness


def share_limits(
    shares: np.ndarray, common: np.ndarray | float, classes: int | None, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper limits of the mean over seeds of shares, (Q,) float64 each; NaN where there is a bound only.

    shares is (S, Q) in [0, 1], S at least 2; common: (Q,), the variance of their mean from the thresholds. classes: the
    number of outcomes in a seed's share; None: not known, then all limits are two-sided.
    """
    value, seeds = shares.mean(axis=0), len(shares)
    low, high = _two_sided(shares, common, classes, confidence)
    if classes is None:
        return low, high
    most = seeds * classes / (1 + CORRELATION * (classes - 1))
    near_0, near_1 = value * most < END_OUTCOMES, (1 - value) * most < END_OUTCOMES
    near_0 &= value <= 0.5  # of few outcomes both are near
    near_1 &= ~near_0
    low = np.where(near_1, _lower_bound(shares, common, most, confidence), np.where(near_0, np.nan, low))
    high = np.where(near_0, 1 - _lower_bound(1 - shares, common, most, confidence), np.where(near_1, np.nan, high))
    return low, high


def _two_sided(
    shares: np.ndarray, common: np.ndarray | float, classes: int | None, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's limits with the number of outcomes that would give the mean its variance, and with Student's t.

    Half an outcome, over all seeds, counts as unknown. On the side of the longer tail the limit is moved outward.
    """
    seeds, value = len(shares), shares.mean(axis=0)
    outcomes = np.inf if classes is None else float(seeds * classes)
    mean = value if classes is None else (value * outcomes + 0.5) / (outcomes + 1)
    between = shares.var(axis=0, ddof=1) / seeds + (0.5 / outcomes) ** 2
    most = np.maximum(mean * (1 - mean), between + common)  # the variance of one outcome; there is at least one outcome
    some = most > 0
    most = np.where(some, most, 1.0)
    spread = between * seeds / most
    half = half_over(between, _freedom(mean, spread, seeds, 0.0 if classes is None else 1 / classes), common, confidence)
    # The part of the variance that comes from correlation; the rest, of many outcomes, is hardly skewed.
    part = 1.0 if classes is None else 1 - 1 / (1 + CORRELATION * (classes - 1))
    longer = _longer_tails(shares, mean, spread, part, confidence)
    limits = []
    for side, sign in enumerate((-1, 1)):
        x = np.where(some, (half * longer[side]) ** 2 / most, 0.0)
        limit = (mean + x / 2 + sign * np.sqrt(x * (mean * (1 - mean) + x / 4))) / (1 + x)
        limits.append(np.clip(limit, 0, value) if sign < 0 else np.clip(limit, value, 1))
    return limits[0], limits[1]


def _lower_bound(shares: np.ndarray, common: np.ndarray | float, most: float, confidence: float) -> np.ndarray:
    """Clopper & Pearson's one-sided lower limit, of an effective number of outcomes (Korn & Graubard 1998), at most `most`.

    This number is that which gives the mean its variance, times the squared ratio of the normal and Student's quantiles.
    """
    from scipy import special

    seeds, mean = len(shares), shares.mean(axis=0)
    between = shares.var(axis=0, ddof=1) / seeds
    variance = between + common
    known = (variance > 0) & (mean < 1)
    total = np.where(known, variance, 1.0)
    freedom = total**2 / np.where(known, between**2 / (seeds - 1) + np.square(common) / THRESHOLD_FREEDOM, 1.0)
    ratio = special.ndtri(confidence) / special.stdtrit(np.maximum(freedom, seeds - 1), confidence)
    number = np.clip(np.where(known, mean * (1 - mean) / total * ratio**2, most), 1, most)
    hits = np.maximum(mean * number, 1e-9)
    return np.minimum(special.betaincinv(hits, number - hits + 1, 1 - confidence), mean)


def _freedom(mean: np.ndarray, spread: np.ndarray, seeds: int, single: float) -> np.ndarray:
    """Degrees of freedom of a variance over seeds of shares: fewer than S - 1 where shares are skewed.

    spread is the seeds' variance over mean (1 - mean); independent outcomes give `single`, 1 / classes. A larger spread
    means that the classes of a seed are correlated; then a rare bad seed is easily missed, and the variance is estimated
    too low. The variance of the estimate (relative: 2 / (S - 1) + excess kurtosis / S) is that of the Beta distribution
    with this spread.
    """
    correlation = np.clip((spread - single) / max(1 - single, 1e-9), 1e-9, 0.95)
    part = (1 - single) * correlation / (single + (1 - single) * correlation)
    n, a, b = _beta(mean, correlation)
    excess = 6 * ((a - b) ** 2 * (n + 1) - a * b * (n + 2)) / (a * b * (n + 2) * (n + 3))
    return 2 / (2 / (seeds - 1) + np.maximum(excess, 0) * part**2 / seeds)


def _longer_tails(
    shares: np.ndarray, mean: np.ndarray, spread: np.ndarray, part: float, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """By which factors the lower and the upper half widths grow: Student's limit is too near on the side of the longer tail.

    The correction is Johnson's (1978), for the skewness of the seeds or of the Beta distribution with this mean and
    spread, whichever is greater on a side. No limit is moved inward, since the skewness of few seeds is poorly known.
    """
    from scipy import special

    seeds = len(shares)
    apart = shares - shares.mean(axis=0)
    second = (apart**2).mean(axis=0)
    flat = second < 1e-20
    skew = (apart**3).mean(axis=0) / np.where(flat, 1.0, second) ** 1.5 * np.sqrt(seeds * (seeds - 1)) / max(seeds - 2, 1)
    n, a, b = _beta(mean, np.clip(spread, 1e-9, 0.95))
    expected = 2 * (b - a) * np.sqrt(n + 1) / ((n + 2) * np.sqrt(a * b))
    t = special.stdtrit(seeds - 1, (1 + confidence) / 2)
    per_skew = part * (1 + 2 * t**2) / (6 * np.sqrt(seeds) * t)
    lower, upper = (
        1 + np.minimum(_MOST_SKEW, per_skew * np.maximum(0, np.maximum(sign * np.where(flat, 0, skew), sign * expected)))
        for sign in (-1, 1)
    )
    return lower, upper


def _beta(mean: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, a, b), n = a + b: the Beta distribution with this mean, and with a variance of `spread` times mean (1 - mean)."""
    n = 1 / spread - 1
    return n, np.maximum(mean, 1e-12) * n, np.maximum(1 - mean, 1e-12) * n


# --- means, and medians over seeds that are only bounds


def half_over(
    seeds: np.ndarray | float, freedom: np.ndarray | float, tau: np.ndarray | float, confidence: float
) -> np.ndarray:
    """half_width of the variance over seeds and that of the thresholds; never less than without the thresholds' variance.

    This is needed because Satterthwaite's degrees of freedom rise with any addition to a variance of few seeds.
    """
    alone = half_width(seeds, freedom, 0.0, THRESHOLD_FREEDOM, confidence)
    return np.maximum(alone, half_width(seeds, freedom, tau, THRESHOLD_FREEDOM, confidence))


def half_width(
    one: np.ndarray | float, freedom: np.ndarray | float, two: np.ndarray | float, two_freedom: float, confidence: float
) -> np.ndarray:
    """Half the width of Student's interval for the sum of two variances of means (Welch 1947, Satterthwaite 1946)."""
    from scipy import special

    one, two = np.asarray(one, float), np.asarray(two, float)
    below = one**2 / freedom + two**2 / two_freedom
    known = below > 0
    total = np.where(known, (one + two) ** 2 / np.where(known, below, 1.0), 1.0)
    return np.asarray(special.stdtrit(total, (1 + confidence) / 2) * np.sqrt(one + two))


@cache
def ranks(n: int, confidence: float) -> tuple[int, float]:
    """(k, attained): the k-th lowest and k-th highest of n values enclose the median of any distribution.

    The narrowest pair that attains the confidence; (0, 0.0) if none does, below six values for 95%. For a median with
    censored values these are the limits of Brookmeyer & Crowley (1982), if all censoring is at the budget.
    """
    from scipy import stats

    attained = 1 - 2 * stats.binom.cdf(np.arange((n + 1) // 2), n, 0.5)
    k = int((attained >= confidence).sum())
    return k, float(attained[k - 1]) if k else 0.0


@cache
def low_rank(n: int, confidence: float) -> int:
    """k: the k-th lowest of n values is at most the median, with one-sided confidence; 0 below five values for 95%."""
    from scipy import stats

    return int((stats.binom.cdf(np.arange(n), n, 0.5) <= 1 - confidence).sum())


def censored_low(least: np.ndarray, opened: np.ndarray, rounding: float, common: float, confidence: float) -> float:
    """A one-sided lower limit of the median of n values; -inf if there is none.

    least: (n,), the values, or lower bounds of those that are `opened`, (n,) bool. rounding: the least variance of a value;
    common: that of the thresholds.

    Student's limit of the values that are not opened. As a rule they are the lower ones, so that it is rather too low, and
    how far away the budget is does not matter. It is the lower one of two if a bound is below their mean, or if there are
    fewer than two of them but the bounds differ: the other is that of all values and bounds. From five values on the limit
    is at most the order statistic.
    """
    known, bounds = least[~opened], least[opened]
    samples = [known] if len(known) > 1 else []
    if len(bounds) > 1 and np.ptp(bounds) > 0 and (not samples or bounds.min() < known.mean()):
        samples.append(least)
    lows = []
    for x in samples:
        between = max(float(x.var(ddof=1)), rounding) / len(x)
        lows.append(float(x.mean() - half_over(between, len(x) - 1, common, 2 * confidence - 1)))
    if k := low_rank(len(least), confidence):
        lows.append(outward(float(np.median(least)), float(np.sort(least)[k - 1]), common, confidence, -1))
    return min(lows, default=-np.inf)


def outward(middle: float, limit: float, variance: float, confidence: float, side: int) -> float:
    """A limit of a median, below it (side -1) or above (1), moved outward for the variance of the thresholds.

    Squares of distances are added, as Zou & Donner (2008) do.
    """
    tau = float(half_width(0.0, 1.0, variance, THRESHOLD_FREEDOM, confidence))
    return middle + side * float(np.hypot(limit - middle, tau))
