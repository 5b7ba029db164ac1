"""The ratio of queries, paired by class and seed, against slow versions and on simulated queries whose ratio is known."""

import math

import numpy as np
import pytest
from scipy import stats

from evofool.bench.gate.log_ratio import (
    POWER,
    LogPairs,
    Shift,
    between_trainings,
    estimate,
    limits,
    middle,
    needed_seeds,
    needed_trainings,
    retrained_low,
    shown_above,
    shown_below,
    shown_beyond_trainings,
)

CLASSES = 10


def simulated(
    rng: np.random.Generator,
    ratio: float,
    *,
    seeds: int = 3,
    trainings: int = 1,
    budget: float = math.inf,
    spread: float = 0.1,
    training: float = 0.0,
    shared: float = 0.0,
) -> LogPairs:
    """Queries whose true ratio is known. Their logarithms are a class's own, a training's and a seed's (shared: one of all
    classes), the last in this class with `spread`.
    """
    own = 2 + 0.3 * rng.standard_normal(CLASSES)
    noise = spread * rng.standard_normal((trainings + 1, seeds, CLASSES))
    noise += shared * rng.standard_normal((trainings + 1, seeds, 1))
    noise += training * rng.standard_normal((trainings + 1, 1, 1))
    queries = 10 ** (own + noise)
    queries[0] *= ratio
    queries = np.where(queries <= budget, queries, np.nan)
    return LogPairs(queries[0], queries[1:], budget if math.isfinite(budget) else 1e6, shared == 0)


def test_without_censoring_it_is_the_t_interval_of_the_mean_log() -> None:
    pairs = simulated(np.random.default_rng(0), 0.6, seeds=4, shared=0.05)
    apart = np.log10(pairs.now) - np.log10(pairs.before[0])
    d = apart[:, sorted(range(CLASSES), key=lambda c: apart[:, c].mean())[2:-2]].mean(axis=1)
    interval = stats.t.interval(0.9, 3, d.mean(), stats.sem(d))
    value, bound = estimate(pairs)
    assert bound == "="
    assert value == pytest.approx(10 ** d.mean())
    assert limits(pairs, 0.75, 0.95, False) == pytest.approx([10**each for each in interval])


def test_classes_that_were_attacked_apart_are_blocks() -> None:
    """With equal variances in all classes they have the degrees of freedom of all classes together."""
    values = np.tile(np.array([[0.0], [0.1], [0.2]]), (1, CLASSES))
    kept = 0.6 * CLASSES
    assert middle(values, True) == Shift(
        pytest.approx(0.1), pytest.approx(0.1 / math.sqrt(3 * kept)), pytest.approx(2 * kept)
    )
    assert middle(values, False) == Shift(*map(pytest.approx, (0.1, 0.1 / math.sqrt(3), 2)))
    alone = np.where(np.arange(CLASSES) == 4, values, 0.1)
    assert middle(alone, True).freedom == pytest.approx(2), "one class varies, so it has that class's degrees of freedom"
    assert middle(values * 0, True) == Shift(0.0, 0.0, 2 * kept)


def test_classes_at_either_end_do_not_count() -> None:
    values = np.arange(10.0) + np.zeros((3, 1))
    values[:, 9], values[:, 0] = 1e6, -1e3
    assert middle(values, True).value == pytest.approx(4.5)
    assert middle(values[:, :4], True).value == pytest.approx(values[0, :4].mean()), "of four classes none is left out"


@pytest.mark.parametrize("budget", [math.inf, 200, 100, 60])
@pytest.mark.parametrize("shared", [0.0, 0.1])
def test_a_true_ratio_at_the_margin_is_seldom_shown_to_be_below_or_above_it_whatever_is_censored(budget, shared) -> None:
    rng = np.random.default_rng(1)
    drawn = [simulated(rng, 0.75, budget=budget, shared=shared) for _ in range(600)]
    for shown in (shown_below, shown_above):
        share = np.mean([shown(pairs, 0.75, 0.95) for pairs in drawn])
        assert share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(drawn))
    assert np.mean([shown_below(simulated(rng, 0.4, budget=budget), 0.75, 0.95) for _ in range(100)]) > 0.8


@pytest.mark.parametrize("budget", [math.inf, 300, 100, 40])
def test_limits_agree_with_the_tests_that_decide(budget) -> None:
    rng = np.random.default_rng(2)
    for ratio in (0.4, 0.6, 0.8, 1.0, 1.5):
        for _ in range(3):
            pairs = simulated(rng, ratio, budget=budget, trainings=2)
            low, high = limits(pairs, 0.75, 0.95, False)
            assert shown_below(pairs, 0.75, 0.95) == (high is not None and high < 0.75)
            low, high = limits(pairs, 0.75, 0.95, True)
            assert shown_above(pairs, 0.75, 0.95) == (low is not None and low > 0.75)


def test_one_side_that_is_censored_gives_a_bound_and_both_give_nothing() -> None:
    some, none = np.full((3, 4), 300.0), np.full((3, 4), np.nan)
    assert estimate(LogPairs(some, none[None], 1000, True)) == (pytest.approx(0.3, rel=1e-3), "<=")
    assert limits(LogPairs(some, none[None], 1000, True), 0.75, 0.95, False) == (None, pytest.approx(0.3, rel=1e-3))
    assert estimate(LogPairs(none, some[None], 1000, True)) == (pytest.approx(1 / 0.3, rel=1e-3), ">=")
    assert limits(LogPairs(none, some[None], 1000, True), 0.75, 0.95, False) == (pytest.approx(1 / 0.3, rel=1e-3), None)
    assert estimate(LogPairs(none, none[None], 1000, True)) == (None, "unknown")
    assert not shown_below(LogPairs(none, none[None], 1000, True), 0.75, 0.95)


def test_equal_queries_have_the_ratio_1_and_no_width() -> None:
    queries = np.array([[100.0, 250, np.nan], [120, 200, 900], [90, 330, 700]])
    pairs = LogPairs(queries, queries[None], 1000, True)
    assert estimate(pairs)[0] == pytest.approx(1)
    assert limits(pairs, 0.75, 0.95, False) == pytest.approx((1, 1))


def test_one_more_training_is_beyond_the_others_as_often_as_stated_and_not_more() -> None:
    """The prediction interval of a normal sample, however few trainings there are."""
    rng = np.random.default_rng(3)
    for trainings in (2, 3, 5):
        drawn = [simulated(rng, 1.0, trainings=trainings, training=0.2) for _ in range(600)]
        share = np.mean([shown_beyond_trainings(pairs, 0.95) for pairs in drawn])
        assert abs(share - 0.05) < 3 * math.sqrt(0.05 * 0.95 / len(drawn)), trainings
    pairs = drawn[0]
    slow = between_trainings(pairs, 0.0).error * stats.t.ppf(0.95, 4)
    assert retrained_low(pairs, 0.95) == pytest.approx(10**-slow)


def test_as_many_seeds_as_are_asked_for_show_that_an_equal_target_did_not_become_easier() -> None:
    rng = np.random.default_rng(4)
    for shared in (0.0, 0.1):
        wide = simulated(rng, 1.0, seeds=400, spread=0.3, shared=shared)
        need = needed_seeds(wide.before[0], 1e6, shared == 0, 0.75, 0.95)
        assert need is not None
        shown = [shown_above(simulated(rng, 1, seeds=need, spread=0.3, shared=shared), 0.75, 0.95) for _ in range(300)]
        assert abs(np.mean(shown) - POWER) < 0.08, need
    constant = np.full((2, CLASSES), 50.0)
    assert needed_seeds(constant, 1000, True, 0.75, 0.95) == 2
    wild = 10 ** (3 * rng.standard_normal((3, CLASSES)))
    assert needed_seeds(wild, 1e9, False, 0.999, 0.95) is None


def test_trainings_that_differ_a_lot_are_never_enough() -> None:
    rng = np.random.default_rng(5)
    alike = simulated(rng, 1.0, trainings=6, training=0.0).before
    assert needed_trainings(alike, 1e6, 0.75, 0.95) in (2, 3, 4)
    assert needed_trainings(simulated(rng, 1.0, trainings=6, training=0.3).before, 1e6, 0.75, 0.95) is None
