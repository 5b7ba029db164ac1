"""Logits to log-odds, margins and confidences, against slow sums in long double."""

import math

import numpy as np
import pytest

from evofool.errors import EvofoolError, ScoreError
from evofool.scores import confidence, log_odds, margin, needed_log_odds, refuse_unfinite


def slow_log_odds(logits: np.ndarray) -> np.ndarray:
    """z_c - logsumexp of the others, one class at a time, in long double."""
    z = logits.astype(np.longdouble)
    out = np.empty(z.shape, np.longdouble)
    for row, values in enumerate(z):
        for c in range(len(values)):
            others = np.delete(values, c)
            top = others.max()
            out[row, c] = values[c] - (top + np.log(np.exp(others - top).sum()))
    return out


def slow_margin(logits: np.ndarray) -> np.ndarray:
    out = np.empty(logits.shape)
    for row, values in enumerate(logits.astype(np.float64)):
        for c in range(len(values)):
            out[row, c] = values[c] - np.delete(values, c).max()
    return out


def batches() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = [rng.normal(0, scale, (40, k)) for k in (2, 3, 10) for scale in (1e-3, 1.0, 30.0, 1e4)]
    made.append(rng.normal(0, 8, (4, 1000)))
    made.append(rng.integers(-3, 4, (60, 5)))  # many ties
    made.append(np.zeros((2, 1000)))
    made += [np.array(rows) for rows in ([[0, 800]], [[800, 0]], [[0, 800, 800]], [[-1e30, 1e30]], [[1e38, -1e38, 0]])]
    return [batch.astype(np.float32) for batch in made]


@pytest.mark.parametrize("logits", batches(), ids=lambda z: f"{z.shape[0]}x{z.shape[1]}")
def test_log_odds_are_those_of_a_slow_long_double_sum(logits: np.ndarray) -> None:
    expected = slow_log_odds(logits)
    found = log_odds(logits)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= 1e-14 + 4e-16 * np.abs(expected).max()


@pytest.mark.parametrize("logits", batches(), ids=lambda z: f"{z.shape[0]}x{z.shape[1]}")
def test_margins_are_exactly_the_gap_to_the_best_other_class(logits: np.ndarray) -> None:
    found = margin(logits)
    assert found.dtype == np.float64
    assert np.array_equal(found, slow_margin(logits))


def test_logits_of_0_and_800_are_as_far_apart_as_they_look() -> None:
    for score in (log_odds, margin):
        assert score(np.array([[0, 800]], np.float32)).tolist() == [[-800.0, 800.0]]


def test_a_class_tied_with_one_other_has_even_odds_and_no_margin() -> None:
    assert log_odds(np.full((1, 2), 7, np.float32)).tolist() == [[0.0, 0.0]]
    assert margin(np.full((1, 5), 7, np.float32)).tolist() == [[0.0] * 5]
    assert log_odds(np.full((1, 1000), -3, np.float32))[0] == pytest.approx([-math.log(999)] * 1000, abs=1e-14)


def test_log_odds_of_two_classes_are_their_difference_and_so_is_the_margin() -> None:
    z = np.random.default_rng(1).normal(0, 20, (50, 2)).astype(np.float32)
    gap = z[:, 0].astype(np.float64) - z[:, 1]
    assert log_odds(z) == pytest.approx(np.stack([gap, -gap], axis=1), abs=1e-13)
    assert np.array_equal(margin(z), np.stack([gap, -gap], axis=1))


def test_log_odds_go_on_growing_where_a_float32_softmax_is_1() -> None:
    z = np.zeros((60, 10), np.float32)
    z[:, 3] = np.linspace(17, 120, 60)
    softmax = np.exp(z - z.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    saturated = softmax[:, 3] == np.float32(1)
    assert saturated.sum() > 50
    assert (np.diff(log_odds(z)[saturated, 3]) > 0).all()


def test_only_the_called_class_has_a_positive_margin_and_only_one_can_have_positive_log_odds() -> None:
    z = np.random.default_rng(2).normal(0, 5, (200, 7)).astype(np.float32)
    called = np.arange(7) == z.argmax(axis=1)[:, None]
    assert np.array_equal(margin(z) > 0, called)
    assert not (log_odds(z) > 0)[~called].any()


def test_adding_a_number_to_all_logits_changes_neither_score() -> None:
    z = np.random.default_rng(3).integers(-40, 40, (20, 6)).astype(np.float32)
    for score in (log_odds, margin):
        assert np.array_equal(score(z), score(z + np.float32(64)))


def test_no_row_of_a_batch_looks_at_another() -> None:
    z = np.random.default_rng(4).normal(0, 5, (30, 10)).astype(np.float32)
    for score in (log_odds, margin):
        assert np.array_equal(score(z), np.concatenate([score(z[i : i + 1]) for i in range(len(z))]))


def test_confidence_is_the_softmax_and_its_inverse_is_needed_log_odds() -> None:
    z = np.random.default_rng(5).normal(0, 3, (20, 10)).astype(np.float32)
    softmax = np.exp(z.astype(np.float64))
    softmax /= softmax.sum(axis=1, keepdims=True)
    assert np.asarray(confidence(log_odds(z))) == pytest.approx(softmax, rel=1e-12)
    for p in (1e-300, 1e-9, 0.1, 0.5, 0.9, 0.99, 0.9999, 1 - 1e-9):
        assert confidence(needed_log_odds(p)) == pytest.approx(p, rel=1e-12)
    for x in (-700.0, -3.0, 0.0, 3.0, 20.0):
        assert needed_log_odds(float(confidence(x))) == pytest.approx(x, abs=1e-6)


def test_confidence_never_overflows_and_of_a_number_is_a_number() -> None:
    assert np.asarray(confidence(np.array([-np.inf, -1e308, 0.0, 1e308, np.inf]))).tolist() == [0, 0, 0.5, 1, 1]
    assert type(confidence(2.0)) is float
    p = np.asarray(confidence(np.linspace(-800, 800, 5001)))
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [[0], [4], [2, 3]])
def test_an_unfinite_logit_is_refused_with_batch_row_and_who_answered(bad: float, rows: list[int]) -> None:
    z = np.zeros((5, 10), np.float32)
    z[rows, 7] = bad
    with pytest.raises(ScoreError, match=rf"batch 41: my net .* {len(rows)} of 5 images \(first: row {rows[0]}\)") as caught:
        refuse_unfinite(z, 41, "my net")
    assert isinstance(caught.value, EvofoolError)
    assert isinstance(caught.value, ArithmeticError)


def test_finite_logits_pass_however_large() -> None:
    refuse_unfinite(np.array([[3e38, -3e38]], np.float32), 0, "my net")
