"""Scores on a device against those of numba, and the best of each cell against the path through the computer's memory."""

from typing import Any

import numpy as np
import pytest
import torch

from evofool import scores, scores_torch
from evofool.errors import ScoreError
from evofool.scores_torch import Best, best
from evofool.search.ranking import best_rows

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def batches() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = [rng.normal(0, scale, (40, k)) for k in (2, 3, 10) for scale in (1e-3, 1.0, 30.0, 1e4)]
    made.append(rng.normal(0, 8, (4, 1000)))
    made.append(rng.integers(-3, 4, (60, 5)))  # many ties
    made.append(np.zeros((2, 1000)))
    made += [np.array(rows) for rows in ([[0, 800]], [[800, 0]], [[0, 800, 800]], [[-1e30, 1e30]], [[1e38, -1e38, 0]])]
    return [batch.astype(np.float32) for batch in made]


def by_numpy(logits: np.ndarray, thresholds: np.ndarray, rank: str, claims: np.ndarray | None, keep: int) -> Best:
    """What evaluate.py does with logits in the computer's memory."""
    log_odds, margins = scores.log_odds(logits), scores.margin(logits)
    allowed = ranked = log_odds if rank == "log_odds" else margins
    if claims is not None:
        allowed = np.where(np.arange(logits.shape[1]) == claims[:, None], ranked, -np.inf)
    cells, rows = best_rows(allowed, thresholds, keep, None, 1)
    return Best(cells, rows, *(z[rows, cells] for z in (ranked, log_odds, margins)))


def alike(found: Best, expected: Best) -> None:
    for name in ("cells", "rows"):
        assert getattr(found, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_array_equal(found.margins, expected.margins)
    for name in ("scores", "log_odds"):
        assert getattr(found, name).dtype == np.float64
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("logits", batches(), ids=lambda z: f"{z.shape[0]}x{z.shape[1]}")
def test_scores_are_those_of_numba(logits: np.ndarray, device: str) -> None:
    z = torch.from_numpy(logits).to(device)
    odds, margins = scores_torch.log_odds(z), scores_torch.margin(z)
    assert odds.device.type == margins.device.type == device
    assert odds.dtype == margins.dtype == torch.float64
    np.testing.assert_allclose(odds.cpu().numpy(), scores.log_odds(logits), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(margins.cpu().numpy(), scores.margin(logits))
    np.testing.assert_array_equal(z.cpu().numpy(), logits)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep", [1, 3, 50])
@pytest.mark.parametrize("competition", ["all", "argmax", "per-class"])
@pytest.mark.parametrize("rank", ["log_odds", "margin"])
def test_the_best_of_each_class_are_those_that_numpy_finds(rank: str, competition: str, keep: int, device: str) -> None:
    rng = np.random.default_rng(1)
    winners = 0
    for size, classes in ((1, 2), (30, 3), (64, 10), (40, 1000)):
        logits = rng.normal(0, 6, (size, classes)).astype(np.float32)
        logits[size // 2 :] = logits[: size - size // 2]  # equals: the first have to win
        thresholds = rng.normal(-5, 8, classes)
        thresholds[rng.random(len(thresholds)) < 0.3] = -np.inf
        claims = {"all": None, "argmax": logits.argmax(axis=1), "per-class": rng.integers(0, classes, size)}[competition]
        if claims is not None:
            claims.flags.writeable = False  # as an array that came from another process is
        expected = by_numpy(logits, thresholds, rank, claims, keep)
        arguments: dict[str, Any] = {"batch": 0, "target_name": "net", "rank": rank, "keep": keep}
        z = torch.from_numpy(logits).to(device)
        alike(best(z, thresholds, claims=claims, **arguments), expected)
        if competition == "argmax":
            alike(best(z, thresholds, claims=z.argmax(1), **arguments), expected)
        winners += len(expected.cells)
    assert winners > 30


def test_a_score_at_its_threshold_is_not_above_it_and_an_empty_cell_takes_any() -> None:
    logits = torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    for thresholds, cells, rows in (
        ([1.0, 3.0], [], []),
        ([-np.inf, 3.0], [0], [1]),
        ([1.0, 2.5], [1], [0]),
        ([-np.inf, -np.inf], [0, 1], [1, 0]),
    ):
        found = best(logits, np.array(thresholds), batch=0, target_name="net", rank="margin")
        assert (found.cells.tolist(), found.rows.tolist()) == (cells, rows)


def test_a_class_that_no_row_claims_is_not_told_of() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0], [6.0, 1.0, 0.0]])
    found = best(logits, np.full(3, -np.inf), batch=0, target_name="net", claims=np.array([1, 1]))
    assert found.cells.tolist() == [1]
    assert found.rows.tolist() == [1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_unfinite_logit_is_refused_with_batch_row_and_target(bad: float) -> None:
    logits = torch.zeros(5, 10)
    logits[[2, 3], 7] = bad
    with pytest.raises(ScoreError, match=r"batch 41: my net .* 2 of 5 images \(first: row 18\)"):
        best(logits, np.zeros(10), batch=41, target_name="my net", begin=16)
