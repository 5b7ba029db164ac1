"""The ratio of a target's queries now to those before, from the logarithms of each class and seed.

A search that did not reach a class within the budget is censored. A ratio r is tested as follows. The queries now are
divided by r. Both sides are cut at the number of queries up to which both are known: the budget, or the budget / r if r is
above 1. If r is the true ratio, both sides then have the same distribution, whatever was censored, and the differences of
their logarithms are symmetric about 0. If the true ratio is lower they are lower, and if it is higher, higher. The limits of
the ratio are the nearest ones that such tests reject.

The differences are averaged over seeds. The fifth of the classes with the lowest average and the fifth with the highest are
left out, and the others are averaged: networks that are trained alike differ most in single classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evofool.bench.interval import Sign

TRIMMED = 0.2  # of the classes, rounded down, at either end
POWER = 0.9  # of a test that is planned
MOST = 1000  # seeds or trainings that a plan goes up to

_STEPS = 200  # ratios that are tried before bisection
_HALVINGS = 30
_ROUNDING = 1e-9  # of a mean of logarithms


@dataclass(frozen=True)
class LogPairs:
    """Queries until each class was accepted, paired by seed and class; NaN where it was not within the budget.

    now: (S, K) of S seeds and K classes; before: (N, S, K) of N earlier networks. classes_apart: whether each class was
    attacked by itself, so that its queries are independent of those of other classes.
    """

    now: np.ndarray
    before: np.ndarray
    budget: float
    classes_apart: bool

    def logs(self, log_r: float) -> tuple[np.ndarray, np.ndarray]:
        """log10 of the queries now over 10 ** log_r, (S, K), and of those before, (N, S, K), cut where both are known."""
        known = math.log10(self.budget) - max(0.0, log_r)
        return np.fmin(np.log10(self.now) - log_r, known), np.fmin(np.log10(self.before), known)


@dataclass(frozen=True)
class Shift:
    """How far log10 of the ratio is above the one that is tested, with its standard error and degrees of freedom."""

    value: float
    error: float
    freedom: float

    def half(self, confidence: float) -> float:
        """How far the value may be off by chance, with a one-sided confidence."""
        return self.error * _student(confidence, self.freedom)


def between_networks(pairs: LogPairs, log_r: float) -> Shift:
    """For these very networks: seeds, of which there are at least 2, are the sample."""
    now, before = pairs.logs(log_r)
    return middle(now - before.mean(axis=0), pairs.classes_apart)


def between_trainings(pairs: LogPairs, log_r: float) -> Shift:
    """For networks that are trained like the N >= 2 earlier ones, and one more training: trainings are the sample."""
    now, before = pairs.logs(log_r)
    each, n = _levels(np.concatenate([now[None], before])), len(before)
    return Shift(float(each[0] - each[1:].mean()), float(each[1:].std(ddof=1)) * math.sqrt(1 + 1 / n), n - 1)


def middle(values: np.ndarray, classes_apart: bool) -> Shift:
    """The middle of (S, K) values; S is at least 2, and seeds are the sample, while classes are fixed.

    Where classes were attacked apart they are blocks: the variances between seeds of those that are not trimmed add up, with
    Satterthwaite's degrees of freedom. Otherwise the seeds' means over these classes are the sample.
    """
    seeds = len(values)
    kept = values[:, _kept(values.mean(axis=0))]
    value = float(kept.mean())
    if not classes_apart:
        return Shift(value, float(kept.mean(axis=1).std(ddof=1)) / math.sqrt(seeds), seeds - 1)
    variances = kept.var(axis=0, ddof=1)
    total, squares = float(variances.sum()), float((variances**2).sum())
    freedom = (seeds - 1) * (total**2 / squares if squares > 0 else kept.shape[1])
    return Shift(value, math.sqrt(total / seeds) / kept.shape[1], freedom)


def shown_below(pairs: LogPairs, ratio: float, confidence: float) -> bool:
    """Whether it is shown, for these very networks, that the target takes less than `ratio` times the queries of before."""
    shift = between_networks(pairs, math.log10(ratio))
    return shift.value + shift.half(confidence) < -_ROUNDING


def shown_beyond_trainings(pairs: LogPairs, confidence: float) -> bool:
    """Whether it is shown that the target takes fewer queries than one more training like the N >= 2 earlier networks."""
    shift = between_trainings(pairs, 0.0)
    return shift.value + shift.half(confidence) < -_ROUNDING


def shown_above(pairs: LogPairs, ratio: float, confidence: float) -> bool:
    """Whether it is shown that the target takes more than `ratio` times the queries of before.

    With several earlier networks, in spite of the differences between trainings.
    """
    return _lowest(pairs, math.log10(ratio), confidence, len(pairs.before) > 1) > _ROUNDING


def retrained_low(pairs: LogPairs, confidence: float) -> float:
    """The ratio down to which one more training like the N >= 2 earlier networks comes, with this confidence."""
    return 10 ** -between_trainings(pairs, 0.0).half(confidence)


def estimate(pairs: LogPairs) -> tuple[float | None, Sign]:
    """The ratio, and how the true one relates to it.

    ">=" or "<=": a bound, since the classes in the middle are not accepted now, or were not before. (None, "unknown"):
    neither now nor before.
    """

    def value(log_r: float) -> float:
        return between_networks(pairs, log_r).value

    most = _most(pairs)
    below = _edge(lambda x: value(x) > _ROUNDING, most, -most)
    above = _edge(lambda x: value(x) < -_ROUNDING, -most, most)
    if below is None or above is None:
        known = below if above is None else above
        return (None, "unknown") if known is None else (10**known, ">=" if above is None else "<=")
    return 10 ** ((below + above) / 2), "="


def limits(pairs: LogPairs, margin: float, confidence: float, with_trainings: bool) -> tuple[float | None, float | None]:
    """The lower and the upper limit of the ratio, each of which alone holds with the confidence; None: unlimited.

    They are the first ratios that a test rejects, outwards from the estimate and from `margin` unless that is rejected. So a
    limit is beyond the margin exactly where the test of the margin decides that. with_trainings: with the differences
    between N >= 2 trainings, otherwise for these very networks.
    """

    def too_low(x: float) -> bool:
        return _lowest(pairs, x, confidence, with_trainings) > _ROUNDING

    def too_high(x: float) -> bool:
        return _highest(pairs, x, confidence, with_trainings) < -_ROUNDING

    value, _ = estimate(pairs)
    start, tested, most = math.log10(value) if value is not None else 0.0, math.log10(margin), _most(pairs)
    low = _edge(too_low, start if too_low(tested) else min(start, tested), -most)
    high = _edge(too_high, start if too_high(tested) else max(start, tested), most)
    return None if low is None else 10**low, None if high is None else 10**high


def detectable(pairs: LogPairs, ratio: float, confidence: float) -> float:
    """The ratio, of a target that became easier, that is shown to be below `ratio` in POWER of all cases.

    With several earlier networks, and to be beyond the differences between trainings.
    """
    found = ratio * _detected(between_networks(pairs, math.log10(ratio)), confidence)
    return found if len(pairs.before) == 1 else min(found, _detected(between_trainings(pairs, 0.0), confidence))


def needed_seeds(before: np.ndarray, budget: float, classes_apart: bool, ratio: float, confidence: float) -> int | None:
    """The seeds with which `shown_above` holds in POWER of all cases if the target is as hard to fool as before.

    before: (S, K) of one earlier network, S at least 2. The target now is taken to have the same spread over seeds, of
    which pairing removes nothing. None: more than MOST.
    """
    known = np.fmin(np.log10(before), math.log10(budget))
    now = middle(known, classes_apart)
    one, freedom = now.error * math.sqrt(2 * len(known)), now.freedom / (len(known) - 1)
    plans = (Shift(0.0, one / math.sqrt(n), freedom * (n - 1)) for n in range(2, MOST + 1))
    return next((n for n, plan in enumerate(plans, 2) if _detected(plan, confidence) >= ratio), None)


def needed_trainings(before: np.ndarray, budget: float, ratio: float, confidence: float) -> int | None:
    """The earlier networks with which `shown_above` holds in POWER of all cases if the target is one more such training.

    before: (N, S, K), N at least 2. None: more than MOST, or no number is enough.
    """
    spread = float(_levels(np.fmin(np.log10(before), math.log10(budget))).std(ddof=1))
    plans = (Shift(0.0, spread * math.sqrt(1 + 1 / n), n - 1) for n in range(2, MOST + 1))
    return next((n for n, plan in enumerate(plans, 2) if _detected(plan, confidence) >= ratio), None)


def _detected(shift: Shift, confidence: float) -> float:
    """The ratio that a test of the ratio 1 rejects in POWER of all cases."""
    return 10 ** -(shift.half(confidence) + shift.half(POWER))


def _lowest(pairs: LogPairs, log_r: float, confidence: float, with_trainings: bool) -> float:
    shifts = [between_networks(pairs, log_r), *([between_trainings(pairs, log_r)] if with_trainings else ())]
    return min(shift.value - shift.half(confidence) for shift in shifts)


def _highest(pairs: LogPairs, log_r: float, confidence: float, with_trainings: bool) -> float:
    shifts = [between_networks(pairs, log_r), *([between_trainings(pairs, log_r)] if with_trainings else ())]
    return max(shift.value + shift.half(confidence) for shift in shifts)


def _levels(logs: np.ndarray) -> np.ndarray:
    """(M,): how far each of M networks, (M, S, K), is above the mean of all, in the middle of its classes."""
    means = logs.mean(axis=1)
    return np.array([apart[_kept(apart)].mean() for apart in means - means.mean(axis=0)])


def _kept(values: np.ndarray) -> np.ndarray:
    """The indices of (K,) values that are not trimmed."""
    cut = int(TRIMMED * len(values))
    return np.argsort(values, kind="stable")[cut : len(values) - cut]


def _student(confidence: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, confidence))


def _most(pairs: LogPairs) -> float:
    """log10 above that of any ratio of two numbers from 1 to the budget."""
    return math.log10(pairs.budget) + 1e-3


def _edge(holds: Callable[[float], bool], start: float, end: float) -> float | None:
    """The first x from start to end at which it holds, to a precision of bisection; None if it never does."""
    before = start
    for x in np.linspace(start, end, _STEPS).tolist():
        if holds(x):
            if x == start:
                return start
            for _ in range(_HALVINGS):
                half = (before + x) / 2
                before, x = (before, half) if holds(half) else (half, x)
            return float(x)
        before = x
    return None
