"""Exact binomial tests and bounds, shares with their intervals, and sensitivity."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def exceeds(hits: Any, trials: Any, share: Any, level: float) -> np.ndarray:
    """Whether the one-sided Clopper-Pearson lower bound at 1 - level is above a share; arrays that broadcast.

    Decided by the probability of at least so many hits, which is below `level` exactly where the bound is above the share.
    """
    from scipy import special

    k, n = np.asarray(hits), np.asarray(trials)
    with np.errstate(invalid="ignore"):
        tail = special.betainc(np.maximum(k, 1), np.maximum(n - k + 1, 1), share)
    return np.asarray((k > 0) & (tail < level))


def below(hits: Any, trials: Any, share: Any, level: float) -> np.ndarray:
    """Whether the one-sided Clopper-Pearson upper bound at 1 - level is below a share; arrays that broadcast."""
    from scipy import special

    k, n = np.asarray(hits), np.asarray(trials)
    tail = special.betainc(np.maximum(n - k, 1), k + 1, 1 - np.asarray(share))
    return np.asarray((k < n) & (tail < level))


def lower_bound(hits: int, trials: int, level: float) -> float:
    """Of a share, one-sided, at the confidence 1 - level (Clopper & Pearson 1934); 0 without hits."""
    from scipy import special

    return float(special.betaincinv(hits, trials - hits + 1, level)) if hits else 0.0


def upper_bound(hits: int, trials: int, level: float) -> float:
    """As lower_bound; 1 where every trial is a hit, or none was made."""
    from scipy import special

    return float(special.betaincinv(hits + 1, trials - hits, 1 - level)) if hits < trials else 1.0


def wilson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (1927) of a share; 0 to 1 without trials."""
    from scipy import special

    if not trials:
        return 0.0, 1.0
    z2 = float(special.ndtri((1 + confidence) / 2)) ** 2
    share = hits / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * trials)) / trials) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of shares, cut at 0 and 1. values: at least 2."""
    from scipy import special

    n, mean = len(values), float(np.mean(values))
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return max(0.0, mean - half), min(1.0, mean + half)


def above_chance(share: float, chance: float) -> float:
    """The share that remains when guesses are taken off: 0 at chance (below 1), 1 if all are right, below 0 if worse."""
    return (share - chance) / (1 - chance)


def sensitivity(hits: int, of: int, false_alarms: int, others: int) -> float:
    """d' of yes or no: z of the share of hits less z of that of false alarms, both by (k + 0.5) / (n + 1) (Hautus 1995)."""
    from scipy import special

    return float(special.ndtri((hits + 0.5) / (of + 1)) - special.ndtri((false_alarms + 0.5) / (others + 1)))


def sensitivity_of_choice(share: float, options: int) -> float:
    """d' of a choice among m options, of which the share is right (Hacker & Ratcliff 1979): negative below chance.

    Solves share = integral of phi(x - d') Phi(x)^(m - 1). share lies strictly between 0 and 1: pass (k + 0.5) / (n + 1).
    """
    from scipy import optimize, special

    step = 0.01
    x = np.arange(-12, 18, step)
    others = special.ndtr(x) ** (options - 1)

    def excess(d: float) -> float:
        return float((np.exp(-((x - d) ** 2) / 2) * others).sum() * step / math.sqrt(2 * math.pi) - share)

    return float(optimize.brentq(excess, -7.0, 9.0))
