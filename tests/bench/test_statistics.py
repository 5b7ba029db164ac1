"""The intervals of a bench, compared with scipy, with slow versions, and by their properties."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import optimize, stats

from evofool.bench.statistics import (
    Difference,
    Interval,
    band,
    fooled_difference,
    mann_whitney,
    median_interval,
    networks_interval,
    paired_difference,
    paired_ratio,
    q50,
    quantiles,
    queries_interval,
    share_interval,
    shares,
    welch_ratio,
)


def random_queries(rng: np.random.Generator, classes: int, budget: int) -> np.ndarray:
    at = rng.integers(1, budget + 1, classes).astype(float)
    return np.where(rng.random(classes) < 0.4, np.nan, at)


BEYOND = Interval(None, None, None, bound=">=")


def exact(*values: float) -> list[Interval]:
    return [Interval(value, None, None) for value in values]


def three(found: Interval) -> list[float]:
    """Value and limits, NaN for None."""
    return np.array([found.value, found.low, found.high], float).tolist()


# --- quantiles


def test_quantiles_equal_numpys() -> None:
    values = np.random.default_rng(0).normal(size=37)
    assert quantiles(values) == {str(q): np.percentile(values, q) for q in (5, 25, 50, 75, 95)}
    assert quantiles(np.array([0.0, 1.0, 10.0]), at=(5, 50)) == {"5": pytest.approx(0.1), "50": 1.0}
    assert quantiles(np.zeros(0)) == {}


def test_infinite_values_count_as_the_extremes_of_0_and_the_finite_values() -> None:
    values = np.array([2.0, -np.inf, 3.0, np.inf])
    assert quantiles(values) == quantiles(np.array([2.0, 0.0, 3.0, 3.0]))
    assert quantiles(-values) == quantiles(np.array([-2.0, 0.0, -3.0, -3.0]))
    assert quantiles(np.full(3, -np.inf)) == dict.fromkeys(("5", "25", "50", "75", "95"), 0.0)


# --- half of the classes


@pytest.mark.parametrize("budget", [10, 29, 100])
def test_q50_is_the_kaplan_meier_median(budget: int) -> None:
    rng = np.random.default_rng([6, budget])
    for _ in range(100):
        at = random_queries(rng, int(rng.integers(1, 12)), budget)
        inside = at[~np.isnan(at)]
        censored = stats.CensoredData(uncensored=inside, right=[budget] * int(np.isnan(at).sum()))
        survive = stats.ecdf(censored).sf
        reached = survive.quantiles[(survive.probabilities <= 0.5 + 1e-9) & np.isin(survive.quantiles, inside)]
        assert q50(at) == pytest.approx(reached[0] if len(reached) else math.nan, nan_ok=True)


def test_q50_is_where_the_shares_reach_one_half() -> None:
    rng = np.random.default_rng(7)
    for _ in range(100):
        at, grid = random_queries(rng, int(rng.integers(1, 12)), 30), range(1, 31)
        found = shares(at, np.array(grid))
        assert found.tolist() == [sum(q <= g for q in at) / len(at) for g in grid]
        half = next((g for g, s in zip(grid, found, strict=True) if s >= 0.5), math.nan)
        assert q50(at) == pytest.approx(half, nan_ok=True)


def test_shares_and_q50_work_on_stacked_arrays() -> None:
    rng = np.random.default_rng(5)
    at, grid = np.stack([random_queries(rng, 7, 30) for _ in range(6)]).reshape(2, 3, 7), np.array([3, 10, 30])
    for i in range(2):
        for j in range(3):
            assert (shares(at, grid)[i, j] == shares(at[i, j], grid)).all()
            np.testing.assert_equal(q50(at)[i, j], q50(at[i, j]))


# --- shares


def test_limits_solve_the_equation_of_students_t_and_the_variance_of_a_share() -> None:
    shares = np.array([0.35, 0.5, 0.62, 0.48, 0.6])  # few differences: S - 1 degrees of freedom
    m, variance = shares.mean(), shares.var(ddof=1) / 5
    t = stats.t.ppf(0.975, 4)
    n = m * (1 - m) / shares.var(ddof=1) - 1
    skews = stats.skew(shares, bias=False), float(stats.beta(m * n, (1 - m) * n).stats("s"))
    # Johnson's correction, outward alone
    lower, upper = (t + (1 + 2 * t**2) / (6 * math.sqrt(5)) * max(0, *(side * skew for skew in skews)) for side in (-1, 1))

    def meets(p: float, far: float) -> float:
        return abs(m - p) - far * math.sqrt(variance * p * (1 - p) / (m * (1 - m)))

    found = share_interval(shares)
    assert found.value == pytest.approx(m)
    assert lower > t == upper
    assert found.low == pytest.approx(optimize.brentq(meets, 1e-9, m, args=(lower,)), abs=1e-6)
    assert found.high == pytest.approx(optimize.brentq(meets, m, 1 - 1e-9, args=(upper,)), abs=1e-6)


def test_a_band_is_the_interval_of_each_point() -> None:
    rng = np.random.default_rng(8)
    shares, again = rng.integers(0, 11, (5, 20)) / 10, rng.integers(0, 11, (30, 5, 20)) / 10
    value, low, high = band(shares, again, 10)
    for q in range(20):
        interval = share_interval(shares[:, q], again[:, :, q], 10)
        assert three(interval) == pytest.approx([value[q], low[q], high[q]], nan_ok=True)
        assert interval.bound == ("<=" if math.isnan(low[q]) else ">=" if math.isnan(high[q]) else "=")


def test_limits_enclose_the_value_within_0_to_1_and_mirror() -> None:
    rng = np.random.default_rng(9)
    for classes in (1, 2, 10, 1000, None):
        for seeds in (2, 5, 10):
            k = classes or 100
            shares = rng.integers(0, k + 1, (seeds, 200)) / k
            shares[:, :50] = np.round(shares[:, :50])  # the corners
            again = np.clip(shares + rng.normal(0, 0.1, (40, 1, 1)), 0, 1)
            value, low, high = band(shares, again, classes)
            assert not (np.isnan(low) & np.isnan(high)).any()
            no_low = np.isnan(low)
            low, high = np.where(no_low, 0, low), np.where(np.isnan(high), 1, high)
            assert ((low >= 0) & (low <= value) & (value <= high) & (high <= 1)).all()
            _, mirrored_low, mirrored_high = band(1 - shares, 1 - again, classes)
            # A mean of 0.5 that is near both ends counts as near 0.
            apart = no_low == np.isnan(mirrored_high)
            assert (apart | (value == 0.5)).all()
            value, low, high = value[apart], low[apart], high[apart]
            mirrored_low, mirrored_high = np.nan_to_num(mirrored_low, nan=0), np.nan_to_num(mirrored_high, nan=1)
            mirrored_low, mirrored_high = mirrored_low[apart], mirrored_high[apart]
            np.testing.assert_allclose(1 - mirrored_high, low, atol=1e-9)
            np.testing.assert_allclose(1 - mirrored_low, high, atol=1e-9)


def test_the_uncertainty_of_the_threshold_does_not_shrink_with_more_seeds() -> None:
    again = np.clip(0.5 + np.random.default_rng(10).normal(0, 0.05, (200, 1)), 0, 1)
    few, many = (share_interval([0.49, 0.51] * n, np.repeat(again, 2 * n, axis=1), 100) for n in (3, 300))
    assert few.low is not None
    assert many.low is not None
    assert few.low < many.low < 0.5 - 1.9 * 0.05
    alone = share_interval([0.49, 0.51] * 300, None, 100).low
    assert alone is not None
    assert alone > 0.499


def test_seeds_that_are_all_at_1_give_a_bound_of_their_effective_outcomes() -> None:
    """No miss among n outcomes rejects a share p if p ** n is below 0.05; a seed of K classes has K / (1 + (K - 1) / 5)."""
    for seeds in (2, 3, 5, 10):
        for classes in (10, 100, 1000):
            found = share_interval([1.0] * seeds, None, classes)
            n = seeds * classes / (1 + (classes - 1) / 5)
            assert found == Interval(1.0, pytest.approx(0.05 ** (1 / n)), None, seeds, bound=">=")
            mirrored = share_interval([0.0] * seeds, None, classes)
            assert mirrored == Interval(0.0, None, pytest.approx(1 - 0.05 ** (1 / n)), seeds, bound="<=")
    assert share_interval([1.0] * 3, None, 10).low == pytest.approx(0.756, abs=1e-3)
    assert share_interval([1.0] * 5).low == 1


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_a_share_has_a_bound_only_where_few_outcomes_differ_from_an_end(seeds: int) -> None:
    n = seeds * 100 / (1 + 99 / 5)
    for value in np.arange(101) / 100:
        found = share_interval([value] * seeds, None, 100)
        assert found.bound == ("<=" if value * n < 1.5 else ">=" if (1 - value) * n < 1.5 else "="), value
        assert (found.low is None, found.high is None) == (found.bound == "<=", found.bound == ">=")


def test_seeds_that_differ_lower_a_bound_and_so_do_thresholds() -> None:
    alike, apart = (share_interval(seeds, None, 100).low or 0 for seeds in ([0.96] * 5, [1.0, 1.0, 1.0, 1.0, 0.8]))
    assert 0.85 > alike > apart + 0.01
    again = np.clip(0.96 + np.random.default_rng(15).normal(0, 0.05, (200, 1)), 0, 1)
    assert (share_interval([0.96] * 5, np.repeat(again, 5, axis=1), 100).low or 0) < alike - 0.01


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_bounds_hold_where_nearly_all_classes_are_fooled(seeds: int) -> None:
    """At 0.997 two-sided intervals of ten classes contained the truth in 74% for 10 seeds."""
    shares = np.random.default_rng([16, seeds]).binomial(10, 0.997, (seeds, 1000)) / 10
    _, low, high = band(shares, None, 10)
    assert (low <= 0.997).mean() > 0.99
    assert (np.isnan(high) | (high >= 0.997)).mean() > 0.98


def test_one_seed_has_no_limits() -> None:
    assert share_interval([0.3]) == Interval(0.3, None, None, 1)
    assert np.isnan(band(np.full((1, 3), 0.5))[1]).all()
    assert three(queries_interval([100], 1000)) == pytest.approx([100, math.nan, math.nan], nan_ok=True)


@pytest.mark.parametrize(("classes", "common"), [(10, 0.3), (200, 0.3), (200, 1.5)])
def test_limits_cover_the_truth_at_the_stated_rate(classes: int, common: float) -> None:
    """Roughly; tests/perf/coverage.py measures it precisely."""
    rng = np.random.default_rng([11, classes, int(10 * common)])
    luck = common * rng.standard_normal((5, 1000))
    shares = rng.binomial(classes, 1 / (1 + np.exp(-luck))) / classes
    _, low, high = band(shares, None, classes)
    assert 0.92 <= ((low <= 0.5) & (high >= 0.5)).mean() <= 0.98


# --- queries


def test_the_interval_of_queries_is_students_on_logarithms() -> None:
    q = [120, 300, 210, 95, 400]
    x = np.log10(q)
    low, high = stats.t.interval(0.95, 4, x.mean(), x.std(ddof=1) / math.sqrt(5))
    found = queries_interval(q, 1000)
    assert three(found) == pytest.approx([stats.gmean(q), 10**low, 10**high])
    assert (found.number, found.censored) == (5, 0)
    ten = queries_interval([10 * n for n in q], 10_000)
    assert three(ten) == pytest.approx([10 * v for v in three(found)])
    again = 10 ** (x + np.random.default_rng(12).normal(0, 0.1, (100, 1)))
    wider = queries_interval(q, 1e6, again)
    assert (wider.low or 0) < 10**low < 10**high < (wider.high or 0)


def test_censored_seeds_give_a_lower_bound_and_the_median_of_the_seeds() -> None:
    cut = queries_interval([100, 200, None], 1000)
    assert cut == queries_interval([100, 200, math.nan], 1000)
    assert (cut.value, cut.high, cut.censored, cut.bound) == (pytest.approx(200), None, 1, ">=")
    assert cut.low is not None
    assert cut.low < 100
    assert queries_interval([100, 200, 5000], 1000) == cut, "beyond the budget is censored too"
    most = queries_interval([100, None, None], 1000)
    assert (most.value, most.low, most.bound) == (None, None, ">="), "the median seed is above the budget"
    half = queries_interval([100, None], 1000)
    assert half.value == pytest.approx(math.sqrt(100 * 1000)), "in the middle, a censored seed counts as the budget"
    assert half.low is None
    assert queries_interval([100, 200, None], 1e6).low == cut.low, "how far away the budget is does not matter"


def test_order_statistics_give_two_limits_if_few_of_many_seeds_are_censored() -> None:
    for seeds, censored, rank in ((9, 1, 2), (10, 1, 2), (12, 2, 3)):
        q = [100.0 + 10 * k for k in range(seeds - censored)]
        found = queries_interval([*q, *[None] * censored], 1000)
        attained = 1 - 2 * stats.binom.cdf(rank - 1, seeds, 0.5)
        assert attained >= 0.95
        assert (found.bound, found.censored) == ("=", censored)
        assert found.value == pytest.approx(10 ** np.median(np.log10([*q, *[1000] * censored])))
        assert (found.low, found.high) == pytest.approx((q[rank - 1], q[seeds - rank]))
        again = np.repeat(10 ** np.random.default_rng(17).normal(2, 0.1, (100, 1)), seeds, axis=1)
        wider = queries_interval([*q, *[None] * censored], 1000, again)
        assert (wider.low or 0) < q[rank - 1] < q[seeds - rank] < (wider.high or 0)
    assert queries_interval([*range(100, 107), None], 1000).high is None, "eight seeds are too few"


def test_a_lower_limit_is_students_of_the_other_seeds_but_not_above_the_order_statistic() -> None:
    found = queries_interval([200, 300, 400, None], 1000)
    x = np.log10([200, 300, 400])
    assert found.low == pytest.approx(10 ** (x.mean() - stats.t.ppf(0.95, 2) * x.std(ddof=1) / math.sqrt(3)))
    found = queries_interval([300, *[None] * 5], 1000)
    assert (found.value, found.low) == (None, pytest.approx(300)), "the lowest of six"
    found = queries_interval([300, 301, 302, 303, *[None] * 2], 1000)
    assert 299.9 < (found.low or 0) <= 300


def test_equal_numbers_of_queries_are_known_up_to_rounding() -> None:
    found = queries_interval([20, 20], 1000)
    assert (found.low or 0) < 19 < 21 < (found.high or 0)
    ratio = paired_ratio([20, 20], [10, 10], 1000)
    assert (ratio.low or 0) < 1.9 < 2.1 < (ratio.high or 0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_limits_of_queries_hold_where_seeds_never_succeed_or_the_budget_is_near(seeds: int) -> None:
    """tests/perf/coverage.py has more."""
    rng, stuck = np.random.default_rng([18, seeds]), 0.15
    logs = np.where(rng.random((600, seeds)) < stuck, np.inf, 3 + 0.2 * rng.standard_normal((600, seeds)))
    median = 3 + 0.2 * stats.norm.ppf(0.5 / (1 - stuck))
    for budget in (1e9, 10**3.1):
        found = [queries_interval(10**row, budget) for row in logs]
        held = [(i.low or 0) <= 10**median <= (i.high or math.inf) for i in found]
        assert np.mean(held) > 0.91


def test_if_all_seeds_are_censored_the_budget_is_a_bound_from_five_seeds_on() -> None:
    four, five = (queries_interval([None] * seeds, 1000) for seeds in (4, 5))
    assert four == Interval(None, None, None, 4, 4, bound=">=")
    assert five == Interval(None, 1000, None, 5, 5, bound=">=")
    for budget in range(1, 1000):  # for one in twenty NumPy and math differ in the last bit of the logarithm
        assert queries_interval([None] * 5, budget) == Interval(None, budget, None, 5, 5, bound=">=")
        assert queries_interval([None, None, budget / 2], budget).value is None


def test_a_group_of_uncensored_networks_is_treated_like_seeds() -> None:
    q = [120, 300, 210, 95, 400]
    assert networks_interval(exact(*q), 1000) == queries_interval(q, 1000)
    assert networks_interval([BEYOND] * 5, 1000) == queries_interval([None] * 5, 1000)
    assert networks_interval([*exact(100, 200), BEYOND], 1000) == queries_interval([100, 200, None], 1000)


def test_a_censored_network_makes_its_group_a_bound_and_is_counted() -> None:
    bound = Interval(300, 200, None, 5, 2, bound=">=")
    whole, cut = networks_interval(exact(100, 200, 300), 1000), networks_interval([*exact(100, 200), bound], 1000)
    assert cut.value == pytest.approx(200), "the median"
    assert (cut.low or 0) < (whole.value or 0)
    assert (cut.high, cut.censored, cut.bound) == (None, 1, ">=")
    every = networks_interval([bound] * 5, 1000)
    assert every.value == pytest.approx(300), "a bound below the budget is not thrown away"
    assert (every.censored, every.bound) == (5, ">=")


# --- two arms


def test_the_interval_of_a_ratio_is_students_of_paired_logarithms() -> None:
    a, b = [100, 250, 320, 90], [50, 300, 100, 60]
    x = np.log10(a) - np.log10(b)
    low, high = stats.t.interval(0.95, 3, x.mean(), x.std(ddof=1) / 2)
    ratio, inverse = paired_ratio(a, b, 1000), paired_ratio(b, a, 1000)
    assert three(ratio) == pytest.approx([10**v for v in (x.mean(), low, high)])
    assert three(inverse) == pytest.approx([10**-v for v in (x.mean(), high, low)])


def test_thresholds_that_move_both_arms_equally_do_not_widen_a_ratio() -> None:
    a, b = np.array([100, 250, 320, 90]), np.array([50, 300, 100, 60])
    moved = 10 ** np.random.default_rng(13).normal(0, 0.2, (100, 1))
    alone = paired_ratio(a.tolist(), b.tolist(), 1e6)
    alike = paired_ratio(a.tolist(), b.tolist(), 1e6, a * moved, b * moved)
    apart = paired_ratio(a.tolist(), b.tolist(), 1e6, a * moved, b / moved)
    assert alone.low == pytest.approx(alike.low)
    assert (apart.low or 0) < (alike.low or 0)


def test_a_censored_ratio_keeps_the_known_limit() -> None:
    above = paired_ratio([None, 400, 300], [100, 200, 200], 1000)
    assert above.value == pytest.approx(2), "the median of 10, 2 and 1.5"
    assert above.low is not None
    assert (above.high, above.number, above.censored, above.bound) == (None, 3, 1, ">=")
    below = paired_ratio([100, 200, 200], [None, 400, 300], 1000)
    assert three(below) == pytest.approx([1 / v for v in np.array(three(above))[[0, 2, 1]]], nan_ok=True)
    assert (below.low, below.bound) == (None, "<=")
    assert paired_ratio([None, 400], [100, None], 1000) == Interval(None, None, None, 2, 2, bound="unknown")


def test_a_pair_censored_on_both_sides_is_left_out_and_counted() -> None:
    whole = paired_ratio([100, 250, 320], [50, 300, 100], 1000)
    more = paired_ratio([100, None, 250, 320], [50, None, 300, 100], 1000)
    assert more == Interval(whole.value, whole.low, whole.high, 3, 1)
    assert paired_ratio([None, None], [None, None], 1000) == Interval(None, None, None, 0, 2, bound="unknown")


def test_beyond_the_budget_is_censored_in_a_ratio() -> None:
    assert paired_ratio([5000, 400, 300], [100, 200, 200], 1000) == paired_ratio([None, 400, 300], [100, 200, 200], 1000)


def test_the_interval_of_a_difference_of_shares_is_students() -> None:
    a, b = [0.5, 0.6, 0.9, 1.0], [0.4, 0.45, 0.5, 0.8]
    found = paired_difference(a, b)
    d = np.subtract(a, b)
    low, high = stats.t.interval(0.95, 3, d.mean(), d.std(ddof=1) / 2)
    assert (found.value, found.low, found.high, found.pairs) == pytest.approx((d.mean(), low, high, 4))
    turned = paired_difference(b, a)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -high, -low))


def test_independent_thresholds_widen_a_difference_by_welchs_rule() -> None:
    a, b = [0.5, 0.6, 0.9, 1.0], [0.4, 0.45, 0.5, 0.8]
    found = paired_difference(a, b, threshold_variance=0.02)
    variance = np.subtract(a, b).var(ddof=1) / 4
    freedom = (variance + 0.02) ** 2 / (variance**2 / 3 + 0.02**2 / 20)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance + 0.02)
    assert half > stats.t.ppf(0.975, 3) * np.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_independent_thresholds_never_narrow_an_interval(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    for _ in range(200):
        a, b = rng.uniform(0.2, 0.4, seeds), rng.uniform(0.5, 0.7, seeds)
        alone = paired_difference(a.tolist(), b.tolist())
        wider = paired_difference(a.tolist(), b.tolist(), threshold_variance=10 ** rng.uniform(-6, -2))
        assert wider.low <= alone.low
        assert wider.high >= alone.high


def test_equal_differences_have_no_limits() -> None:
    for a, b, apart in (([1.0] * 5, [1.0] * 5, 0.0), ([1.0] * 5, [0.9] * 5, 0.1), ([1.0], [0.5], 0.5)):
        found = paired_difference(a, b, threshold_variance=0.01)
        assert (found.value, found.low, found.high) == (pytest.approx(apart), None, None)


def hits(*by_seed: Sequence[int]) -> np.ndarray:
    """(S, 10) bool: in each seed, these of ten classes are fooled."""
    return np.array([[k in fooled for k in range(10)] for fooled in by_seed])


def test_the_difference_of_fooled_classes_is_newcombes_for_the_assumed_number_of_outcomes() -> None:
    a, b = hits(*[range(10)] * 5), hits(*[range(9)] * 5)
    few, many = fooled_difference(a[:2], b[:2]), fooled_difference(a, b)
    assert few.value == many.value == pytest.approx(0.1)
    wide, narrow, mirrored = ((each.low or 0, each.high or 0) for each in (few, many, fooled_difference(b, a)))
    assert wide[0] < narrow[0] < 0 < 0.1 < narrow[1] < wide[1]
    assert mirrored == pytest.approx((-narrow[1], -narrow[0]))
    assert fooled_difference(a[:1], b[:1]) == Difference(pytest.approx(0.1), None, None, 1)
    other = fooled_difference(a, b, threshold_variance=0.01)
    assert (other.low or 0) < narrow[0]


def test_two_seeds_show_the_difference_between_nearly_all_classes_and_few() -> None:
    nine = hits(range(9), range(9))
    assert (fooled_difference(nine, hits((), (2, 9))).low or 0) > 0
    assert (fooled_difference(hits(range(10), range(10)), hits((3,), (3, 7))).low or 0) > 0
    assert (fooled_difference(nine, hits((1, 2, 3, 4), (3, 7, 8, 9))).low or 0) < 0


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("easy", [False, True])
def test_equal_arms_are_seldom_shown_to_differ(seeds: int, easy: bool) -> None:
    """Classes of a seed share its luck, at a correlation of 0.4; each arm has its own. easy: some classes are, for both."""
    rng = np.random.default_rng(seeds)
    if easy:
        levels = stats.norm.ppf((np.arange(10) + 0.5) / 10)
        draws = levels + rng.normal(0, 0.4**0.5, (800, 2, seeds, 1)) + rng.normal(0, 0.6**0.5, (800, 2, seeds, 10)) > 0
    else:
        draws = rng.random((800, 2, seeds, 10)) < rng.beta(0.75, 0.75, (800, 2, seeds, 1))
    found = [fooled_difference(*pair) for pair in draws]
    assert np.mean([(each.low or 0) > 0 or (each.high or 0) < 0 for each in found]) <= (0.04 if easy else 0.08)


# --- two groups


def test_the_interval_of_a_ratio_of_networks_is_welchs() -> None:
    a, b = [1000, 2500, 1800, 900, 4000], [300, 700, 250, 410, 380, 500]
    test = stats.ttest_ind(np.log10(a), np.log10(b), equal_var=False).confidence_interval(0.95)
    found = welch_ratio(exact(*a), exact(*b), 10_000)
    assert three(found) == pytest.approx([stats.gmean(a) / stats.gmean(b), 10**test.low, 10**test.high])
    assert found.number == 5
    assert (found.censored, found.bound) == (0, "=")
    assert welch_ratio(exact(100), exact(*b), 10_000).low is None


def test_a_ratio_with_a_censored_network_keeps_the_known_limit() -> None:
    a, b = exact(1000, 2500, 1800, 900), exact(300, 700, 250, 410)
    over, under = welch_ratio([*a, BEYOND], b, 10_000), welch_ratio(a, [*b, Interval(500, None, None, bound=">=")], 10_000)
    assert over.value == pytest.approx(1800 / stats.gmean([300, 700, 250, 410]))
    assert (over.high, over.censored, over.bound) == (None, 1, ">=")
    assert over.low is not None
    assert (under.low, under.censored, under.bound) == (None, 1, "<=")
    assert under.high is not None
    assert welch_ratio([*a, BEYOND], [*b, BEYOND], 10_000) == Interval(None, None, None, 5, 2, bound="unknown")


def test_where_a_network_is_above_the_budget_does_not_matter_to_a_ratio() -> None:
    """The budget is no number of queries: a censored network enters no variance, and two of them give no limit."""
    b = exact(300, 700, 250, 410)
    few = welch_ratio([BEYOND, BEYOND], b, 10_000)
    assert (few.low, few.high, few.bound) == (None, None, ">=")
    assert few.value == pytest.approx(10_000 / stats.gmean([300, 700, 250, 410]))
    five = welch_ratio([BEYOND] * 5, b, 10_000)
    assert 1 < (five.low or 0) < (five.value or 0)
    known = exact(1000, 1200, 900, 1100)
    near, far = (welch_ratio([*known, BEYOND], b, budget) for budget in (10_000, 1_000_000))
    assert near.low == pytest.approx(far.low)


@pytest.mark.parametrize(("networks", "within"), [(3, 0.6), (5, 0.4), (5, 0.8), (10, 0.9)])
def test_the_bound_of_a_ratio_holds_where_networks_are_censored(networks: int, within: float) -> None:
    """within: the share of a's networks that the budget is enough for. The true ratio of medians is 10."""
    rng, budget = np.random.default_rng(networks), float(10 ** (3 + 0.3 * stats.norm.ppf(within)))
    held = []
    for _ in range(300):
        a, b = 10 ** rng.normal(3, 0.3, networks), 10 ** rng.normal(2, 0.3, networks)
        of_a = [BEYOND if q > budget else Interval(q, None, None) for q in a]
        found = welch_ratio(of_a, exact(*b), budget)
        held.append((found.low or 0) <= 10 <= (found.high or math.inf))
    assert np.mean(held) >= 0.93


def test_u_counts_the_pairs_in_which_a_is_greater() -> None:
    a, b = [3.0, 5.0, 9.0, 12.0], [1.0, 2.0, 4.0, 7.0, 8.0]
    u, p = mann_whitney(a, b)
    assert u == sum(x > y for x in a for y in b)
    assert p == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)


def test_the_interval_of_a_median_has_the_stated_confidence() -> None:
    ten = median_interval(range(1, 11))
    assert (ten.value, ten.low, ten.high) == (5.5, 2, 9)
    assert ten.confidence == pytest.approx(1 - 2 * (1 + 10) / 2**10)
    assert median_interval(range(6)).confidence == pytest.approx(1 - 2 / 2**6)
    five = median_interval([3, 1, 2, 5, 4])
    assert (five.low, five.high) == (1, 5)
    assert five.confidence == pytest.approx(0.9375), "95% needs six values"
    assert median_interval([7]) == Interval(7, None, None, 1, confidence=0.0)
    draws = np.random.default_rng(14).exponential(size=(4000, 10))
    found = [median_interval(row) for row in draws]
    inside = np.mean([(i.low or 0) <= math.log(2) <= (i.high or 0) for i in found])
    assert inside == pytest.approx(ten.confidence, abs=0.01)
