"""The black-box rivals: what they ask, what they keep, and that they see nothing but answers."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from evofool.ascend.draws import Draws
from evofool.ascend.loop import AscentResult
from evofool.attacks.black_box.nes import nes
from evofool.attacks.black_box.random_search import noise, random_search
from evofool.attacks.black_box.square import side_of_square, square
from evofool.errors import RecipeError, TargetError
from evofool.scores import log_odds, margin
from evofool.targets import Target

CLIMBERS = [random_search, square, nes]
ALL = [noise, *CLIMBERS]
ALONE = [noise, square, nes]  # those whose items share nothing
SHAPE, CLASSES = (3, 12, 12), 6
WEIGHTS = np.random.default_rng(5).integers(-20, 21, (CLASSES, math.prod(SHAPE)))

Rival = Callable[..., AscentResult]


def linear(images: np.ndarray) -> np.ndarray:
    """Whole numbers, so that no batch size moves a bit; scaled by a power of 2."""
    return ((images.reshape(len(images), -1).astype(np.int64) @ WEIGHTS.T) / 2**14).astype(np.float32)


def black_box(forward: Callable[[np.ndarray], np.ndarray] = linear, top_k: int = CLASSES) -> Target:
    box = Target("box", [f"class {c}" for c in range(CLASSES)], SHAPE, forward, {})
    box.top_k = top_k
    return box


def recorded(forward: Callable[[np.ndarray], np.ndarray] = linear) -> tuple[Target, list[np.ndarray]]:
    """A black box, and the list of images it was shown; to be asked with a chunk of 1."""
    seen: list[np.ndarray] = []

    def listening(images: np.ndarray) -> np.ndarray:
        seen.extend(images.copy())
        return forward(images)

    return black_box(listening), seen


def same(a: AscentResult, i: int, b: AscentResult, j: int) -> None:
    assert np.array_equal(a.images[i], b.images[j])
    assert a.scores[i] == b.scores[j]
    assert (a.forwards[i], a.iterations[i]) == (b.forwards[j], b.iterations[j])
    assert rises(a, i) == rises(b, j)


def rises(climbs: AscentResult, item: int) -> list[tuple[int, float, float]]:
    return [(x.forwards, x.score, x.beside) for x in climbs.improvements if x.item == item]


# --- what all of them hold


@pytest.mark.parametrize("rival", ALL)
def test_every_query_is_counted_once_and_padding_is_not(rival: Rival, lenet: Target) -> None:
    before = lenet.queries
    climbs = rival(lenet, [3, 8, 1], queries=37, chunk=16)
    assert lenet.queries - before == climbs.forwards.sum()
    assert climbs.forwards.tolist() == [1 if rival is noise else 37] * 3
    assert not climbs.backwards.any()
    assert climbs.states is None
    assert not climbs.interrupted
    assert climbs.notes == []


@pytest.mark.parametrize("rival", ALL)
@pytest.mark.parametrize(("rank", "by"), [("log_odds", log_odds), ("margin", margin)])
def test_stored_score_is_that_of_the_stored_image(rival: Rival, rank: str, by: Callable, lenet: Target) -> None:
    classes = [9, 0, 4, 6]
    climbs = rival(lenet, classes, queries=40, rank=rank, chunk=16)
    logits = lenet.logits(climbs.images, 16)
    assert climbs.images.dtype == np.uint8
    assert np.array_equal(climbs.scores, by(logits)[range(4), classes])
    last = {found.item: found for found in climbs.improvements}
    for item, found in last.items():
        assert found.score == climbs.scores[item]
        assert found.beside == log_odds(logits)[item, classes[item]]


@pytest.mark.parametrize("rival", ALL)
def test_improvements_rise_in_the_order_of_queries(rival: Rival) -> None:
    climbs = rival(black_box(), range(CLASSES), queries=60)
    assert [x.forwards for x in climbs.improvements] == sorted(x.forwards for x in climbs.improvements)
    for item in range(CLASSES):
        at, scores, _ = zip(*rises(climbs, item), strict=True)
        assert list(scores) == sorted(set(scores))
        assert at[0] == 1
        assert at[-1] <= climbs.forwards[item]


@pytest.mark.parametrize("rival", ALONE)
@pytest.mark.parametrize("where", ["box", "lenet"])
def test_companions_change_nothing(rival: Rival, where: str, lenet: Target) -> None:
    asked = lenet if where == "lenet" else black_box()
    alone = rival(asked, [3], queries=45, seed=2, chunk=8)
    among = rival(asked, [5, 1, 3, 0, 4, 2], queries=45, seed=2, chunk=8)
    same(alone, 0, among, 2)


@pytest.mark.parametrize("rival", ALL)
def test_chunk_changes_nothing_where_it_moves_no_bit(rival: Rival) -> None:
    for chunk in (1, 5, 64):
        cut, whole = (rival(black_box(), range(CLASSES), queries=30, chunk=c) for c in (chunk, 16))
        for item in range(CLASSES):
            same(cut, item, whole, item)


@pytest.mark.parametrize("rival", ALL)
def test_seed_decides(rival: Rival) -> None:
    first, again, other = (rival(black_box(), [0, 2], queries=20, seed=s) for s in (1, 1, 2))
    same(first, 0, again, 0)
    same(first, 1, again, 1)
    assert not np.array_equal(first.images, other.images)
    assert not np.array_equal(first.images[0], first.images[1])


@pytest.mark.parametrize(("rival", "settings"), [(random_search, {}), (nes, {}), (square, {"horizon": 60})])
def test_shorter_climb_is_the_beginning_of_a_longer_one(rival: Rival, settings: dict, lenet: Target) -> None:
    longer = rival(lenet, [2, 7], queries=60, chunk=2, **settings)
    for queries in (1, 2, 14, 33):
        shorter = rival(lenet, [2, 7], queries=queries, chunk=2, **settings)
        for item in range(2):
            assert rises(shorter, item) == [x for x in rises(longer, item) if x[0] <= queries]


@pytest.mark.parametrize("rival", CLIMBERS)
def test_item_ends_where_it_has_enough(rival: Rival) -> None:
    free = rival(black_box(), range(CLASSES), queries=64)
    stop_at = float(np.sort(free.scores)[3])
    climbs = rival(black_box(), range(CLASSES), queries=64, stop_at=stop_at)
    done = climbs.scores >= stop_at
    assert done.any()
    assert (climbs.forwards[done] <= 64).all()
    assert (climbs.forwards[~done] == 64).all()
    if rival is square:  # a round is one query there
        for item in np.flatnonzero(done):
            assert climbs.forwards[item] == next(at for at, score, _ in rises(free, item) if score >= stop_at)


@pytest.mark.parametrize("rival", ALL)
def test_tick_counts_the_queries_and_can_stop(rival: Rival) -> None:
    ticks: list[tuple[int, int]] = []
    whole = rival(black_box(), [0, 1], queries=50, tick=lambda done, of: bool(ticks.append((done, of))))
    of = 1 if rival is noise else 50
    assert ticks[-1] == (of, of)
    assert ticks == sorted(set(ticks))
    assert not whole.interrupted

    cut = rival(black_box(), [0, 1], queries=50, tick=lambda done, of: done >= 20)
    if rival is noise:
        assert not cut.interrupted  # there was nothing left to stop
        return
    assert cut.interrupted
    assert 20 <= cut.forwards[0] < 50
    assert np.isfinite(cut.scores).all()
    assert not rival(black_box(), [0, 1], queries=50, tick=lambda done, of: done >= of).interrupted


# --- answers that are wrong or do not tell all


def spoiling(image: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    def forward(images: np.ndarray) -> np.ndarray:
        logits = linear(images)
        logits[(images == image).all((1, 2, 3))] = np.nan
        return logits

    return forward


@pytest.mark.parametrize("rival", ALONE)
def test_nan_at_once_ends_its_item_and_no_other(rival: Rival) -> None:
    # The mean of nes is grey for all at first, so there an item's second image is taken.
    box, seen = recorded()
    rival(box, [3], queries=2, chunk=1)
    bad = seen[1] if rival is nes else seen[0]
    fine = rival(black_box(), [2, 3, 5], queries=30)
    climbs = rival(black_box(spoiling(bad)), [2, 3, 5], queries=30)
    same(fine, 0, climbs, 0)
    same(fine, 2, climbs, 2)
    assert climbs.iterations[1] == 1
    ((item, words),) = climbs.notes
    assert item == 1
    assert "NaN or infinite" in words
    if rival is not nes:
        assert "nothing of it is kept" in words
        assert climbs.scores[1] == -np.inf
        assert not climbs.images[1].any()


@pytest.mark.parametrize("rival", CLIMBERS)
def test_nan_on_the_way_keeps_the_best_before_it(rival: Rival) -> None:
    alone = rival(black_box(), [3], queries=60)
    climbs = rival(black_box(spoiling(alone.images[0])), [3], queries=60)
    assert "its best is kept" in climbs.notes[0][1]
    assert rises(climbs, 0)[: len(rises(alone, 0)) - 1] == rises(alone, 0)[:-1]
    assert np.isfinite(climbs.scores[0])
    assert log_odds(linear(climbs.images))[0, 3] == climbs.scores[0]
    assert not np.array_equal(climbs.images[0], alone.images[0])
    assert climbs.forwards[0] <= 60


@pytest.mark.parametrize("rival", ALL)
def test_class_that_an_answer_does_not_tell_of_scores_nothing(rival: Rival) -> None:
    climbs = rival(black_box(top_k=2), range(CLASSES), queries=80)
    logits = linear(climbs.images)
    noted = {item for item, _ in climbs.notes}
    assert len(noted) < CLASSES
    for item in range(CLASSES):
        if item in noted:
            assert climbs.scores[item] == -np.inf
            assert not climbs.images[item].any()
        else:
            assert item in np.argsort(logits[item])[-2:]
            assert climbs.scores[item] == log_odds(logits)[item, item]


def test_square_walks_on_while_it_is_told_nothing() -> None:
    def never_last(images: np.ndarray) -> np.ndarray:
        logits = linear(images)
        logits[:, -1] = logits.min(axis=1) - 1
        return logits

    box, seen = recorded(never_last)
    box.top_k = 2
    climbs = square(box, [CLASSES - 1], queries=20, chunk=1)
    assert "none of 20 answers told of it" in climbs.notes[0][1]
    for before, after in pairwise(seen):
        assert len(one_square(before, after)) == 1


@pytest.mark.parametrize("rival", ALL)
def test_black_box_is_enough_and_wrong_settings_are_named(rival: Rival) -> None:
    box = black_box()
    assert box.network is None
    assert np.isfinite(rival(box, [1], queries=9).scores).all()
    with pytest.raises(TargetError, match="box: there is no class 6; they are 0 to 5"):
        rival(box, [0, 6], queries=5)
    with pytest.raises(RecipeError, match='rank "loss" is none of log_odds, margin'):
        rival(box, [0], queries=5, rank="loss")
    with pytest.raises(RecipeError, match="at least 1, not 0 and 16"):
        rival(box, [0], queries=0)


@pytest.mark.parametrize(
    ("rival", "settings", "words"),
    [
        (noise, {"kind": "pink"}, 'kind "pink" is none of uniform, smooth'),
        (square, {"p_init": 0.0}, "p_init is a share"),
        (square, {"horizon": 4}, "horizon, 4 queries, has to reach"),
        (nes, {"momentum": 1.0}, "momentum on"),
        (nes, {"pairs": 0}, "above 0"),
    ],
)
def test_own_settings_that_cannot_be_are_named(rival: Rival, settings: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        rival(black_box(), [0], queries=5, **settings)


# --- one by one


@pytest.mark.parametrize("kind", ["uniform", "smooth"])
def test_noise_is_one_query_for_a_class(kind: str) -> None:
    box = black_box()
    climbs = noise(box, [4, 1], queries=100, kind=kind)
    assert box.queries == 2
    assert [x.forwards for x in climbs.improvements] == [1, 1]
    steps = np.abs(np.diff(climbs.images.astype(int), axis=-1)).mean()
    assert steps > 70 if kind == "uniform" else steps < 50


def test_random_search_is_what_a_slow_one_is() -> None:
    classes = [4, 0, 3]
    best, image = np.full(3, -np.inf), np.zeros((3, *SHAPE), np.uint8)
    for step in range(40):
        for c in classes:
            drawn = Draws(7, [c], step).integers(0, 256, *SHAPE).numpy().astype(np.uint8)
            scores = log_odds(linear(drawn))[0, classes]
            for k in range(3):
                if scores[k] > best[k]:
                    best[k], image[k] = scores[k], drawn[0]
    climbs = random_search(black_box(), classes, queries=40, seed=7)
    assert np.array_equal(climbs.scores, best)
    assert np.array_equal(climbs.images, image)


def test_random_search_gains_by_companions() -> None:
    alone = random_search(black_box(), [3], queries=40)
    among = random_search(black_box(), range(CLASSES), queries=40)
    assert among.scores[3] >= alone.scores[0]


def one_square(before: np.ndarray, after: np.ndarray) -> set[tuple[int, ...]]:
    """The colours that `after` has where it differs from `before`."""
    where = (before != after).any(axis=0)
    return {tuple(colour) for colour in after[:, where].T.tolist()}


def test_square_repaints_one_square_of_the_best_in_one_colour() -> None:
    box, seen = recorded()
    climbs = square(box, [2], queries=120, chunk=1)
    odds = log_odds(linear(np.stack(seen)))[:, 2]
    best = seen[0]
    assert set(np.unique(best)) == {0, 255}
    assert (best == best[:, :1]).all()  # vertical stripes
    top = odds[0]
    for query in range(1, 120):
        where = np.argwhere((seen[query] != best).any(axis=0))
        side = side_of_square(0.8, query - 1, 120, 12, 12)
        assert (np.ptp(where, axis=0) < side).all()
        assert len(one_square(best, seen[query])) == 1  # something changed, and to one colour
        assert set(np.unique(seen[query])) <= {0, 255}
        if odds[query] > top:
            best, top = seen[query], odds[query]
    assert climbs.scores[0] == top
    assert np.array_equal(climbs.images[0], best)


def test_squares_shrink_as_the_paper_says() -> None:
    at = (0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 9999)
    halved = (0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9)
    for done, times in zip(at, halved, strict=True):
        assert side_of_square(0.8, done, 10_000, 224, 224) == round(math.sqrt(0.8 / 2**times * 224 * 224))
        assert side_of_square(0.8, done * 3, 30_000, 224, 224) == side_of_square(0.8, done, 10_000, 224, 224)
    assert side_of_square(1.0, 0, 100, 28, 28) == 27
    assert side_of_square(0.01, 99, 100, 28, 28) == 1
    assert side_of_square(0.8, 0, 100, 1, 1) == 1


def test_nes_asks_for_its_mean_and_for_pairs_around_it() -> None:
    box, seen = recorded()
    nes(box, [2], queries=2 * 13, chunk=1, sigma=0.05, rate=0.1)
    assert (seen[0] == 128).all()
    for one, other in zip(seen[1:13:2], seen[2:13:2], strict=True):
        assert np.abs(one.astype(int) + other - 255).max() <= 1
        assert not np.array_equal(one, other)
    assert not np.array_equal(seen[13], seen[0])  # the mean has moved


def test_nes_goes_where_the_ranks_of_its_pairs_point() -> None:
    box, seen = recorded()
    settings = {"cells": 12, "pairs": 4, "sigma": 0.05, "rate": 0.1, "momentum": 0.0}
    nes(box, [2], queries=10, chunk=1, **settings)
    odds = log_odds(linear(np.stack(seen[1:9])))[:, 2]
    ranks = np.argsort(np.argsort(odds))
    aside = Draws(0, [2], 1).normal(4, *SHAPE)[0].numpy()
    step = sum((ranks[2 * k + 1] - ranks[2 * k]) * aside[k] for k in range(4))
    mean = 0.5 + 0.1 * step / np.sqrt((step**2).mean())
    assert np.abs(seen[9] - np.clip(mean, 0, 1) * 255).max() <= 0.51


def test_nes_stays_where_all_scores_are_equal() -> None:
    box, seen = recorded(lambda images: np.zeros((len(images), CLASSES), np.float32))
    nes(box, [2], queries=40, chunk=1)
    assert all((seen[at] == 128).all() for at in (0, 13, 26, 39))


@pytest.mark.slow
def test_square_and_nes_beat_random_search_on_most_digits(lenet: Target) -> None:
    blind, by_squares, by_steps = (f(lenet, range(10), queries=150, chunk=20).scores for f in CLIMBERS)
    assert (by_squares > blind).sum() >= 8
    assert (by_steps > blind).sum() >= 8
    assert np.median(noise(lenet, range(10)).scores) < np.median(blind)
