"""Which images of a chunk win places, and which are turned away by a constraint."""

from itertools import pairwise

import numpy as np
import pytest

from evofool.search.archive import TurnedAway, Winners, best_of_cells
from evofool.search.evaluate import BatchEvaluator
from evofool.search.ranking import best_permitted_rows, best_rows
from tests.search.test_evaluate import CLASSES, DIRECT, fake, order_of


def slowly(
    scores: np.ndarray, thresholds: np.ndarray, keep: int, niche: np.ndarray, permitted: np.ndarray
) -> tuple[list[tuple[int, int]], set[tuple[int, int]]]:
    """(cell, row) of the winners in order, and of those that are turned away: one claim after the other."""
    niches = len(thresholds) // scores.shape[1]
    won, away = [], set()
    for cell, threshold in enumerate(thresholds):
        c = cell // niches
        rows = [row for row in range(len(scores)) if niche[row] == cell % niches and scores[row, c] > threshold]
        places = keep
        for row in sorted(rows, key=lambda row: (-scores[row, c], row)):
            if not places:
                break
            if permitted[row, c]:
                won.append((cell, row))
                places -= 1
            else:
                away.add((cell, row))
    return won, away


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("niches", [1, 2])
def test_the_best_that_are_permitted_win_and_the_better_ones_that_are_not_are_turned_away(keep: int, niches: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, 6, (12, 4)).astype(float)  # with ties
        thresholds = rng.choice([-np.inf, 2.0, 9.0], 4 * niches)
        niche, permitted = rng.integers(0, niches, 12), rng.random((12, 4)) < 0.6
        asked: list[tuple[int, int]] = []

        def permits(
            rows: np.ndarray, classes: np.ndarray, asked: list[tuple[int, int]] = asked, permitted: np.ndarray = permitted
        ) -> np.ndarray:
            asked.extend(zip(rows.tolist(), classes.tolist(), strict=True))
            return permitted[rows, classes]

        before = scores.copy()
        claims = scores, thresholds, keep, niche if niches > 1 else None, niches
        cells, rows, away = best_permitted_rows(*claims, permits)
        won, turned_away = slowly(scores, thresholds, keep, niche, permitted)
        assert list(zip(cells.tolist(), rows.tolist(), strict=True)) == won
        assert {*zip(*(part.tolist() for part in away), strict=True)} == turned_away
        assert len(asked) == len({*asked}) == len(won) + len(turned_away), "no image is asked about without need, or twice"
        assert np.array_equal(scores, before)
        everything = best_permitted_rows(*claims, lambda rows, classes: rows >= 0)[:2]
        assert all(map(np.array_equal, everything, best_rows(*claims)))


@pytest.mark.parametrize("keep", [1, 3])
def test_a_batch_has_the_same_winners_and_turns_the_same_away_however_it_is_cut(keep: int) -> None:
    def permits(images: np.ndarray, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return (images[rows, 0, 0, 0] + classes) % 3 > 0

    evaluator = BatchEvaluator(DIRECT, fake(), 8, keep=keep, permits=permits)
    order = order_of(0, 24, np.where(np.arange(CLASSES) % 2, -np.inf, 0.2))
    whole = evaluator(order)
    images = DIRECT.render(evaluator.children(order, 0, 24))
    ranked = BatchEvaluator(DIRECT, fake(), 8, keep=24)(order)  # every claim
    claims = best_of_cells(ranked.cells, ranked.scores, ranked.births[ranked.rows], 24)
    for cell in range(CLASSES):
        mine = claims[ranked.cells[claims] == cell]
        births = ranked.births[ranked.rows[mine]]
        good = permits(images, births, np.full(len(births), cell))
        last = np.flatnonzero(good)[keep - 1] if good.sum() >= keep else len(good)
        assert whole.births[whole.rows[whole.cells == cell]].tolist() == births[good][:keep].tolist()
        away = whole.turned_away.births[whole.turned_away.cells == cell]
        assert sorted(away.tolist()) == sorted(births[: last + 1][~good[: last + 1]].tolist())
    assert len(whole.turned_away.births)
    for cuts in ([0, 3, 24], [0, 8, 11, 12, 24], [0, 16, 24]):
        parts = [evaluator(order.cut(a, b)) for a, b in pairwise(cuts)]
        cut = Winners.merged([*parts, parts[0]], keep)
        assert np.array_equal(cut.births[cut.rows], whole.births[whole.rows])
        assert as_set(cut.turned_away) == as_set(whole.turned_away)


def as_set(away: TurnedAway) -> set[tuple[int, int, float]]:
    found = {*zip(*(part.tolist() for part in away), strict=True)}
    assert len(found) == len(away.births)
    return found
