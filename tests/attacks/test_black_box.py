"""The black-box attacks: their queries, their results, and that they use logits only."""

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
ALONE = [noise, square, nes]  # those whose items are independent
SHAPE, CLASSES = (3, 12, 12), 6
WEIGHTS = np.random.default_rng(5).integers(-20, 21, (CLASSES, math.prod(SHAPE)))

Attack = Callable[..., AscentResult]


def whole_number_logits(images: np.ndarray) -> np.ndarray:
    """Logits from whole numbers, scaled by a power of 2, so that they do not depend on the batch size."""
    return ((images.reshape(len(images), -1).astype(np.int64) @ WEIGHTS.T) / 2**14).astype(np.float32)


def black_box(forward: Callable[[np.ndarray], np.ndarray] = whole_number_logits, top_k: int = CLASSES) -> Target:
    box = Target("box", [f"class {c}" for c in range(CLASSES)], SHAPE, forward, {})
    box.top_k = top_k
    return box


def recorded(forward: Callable[[np.ndarray], np.ndarray] = whole_number_logits) -> tuple[Target, list[np.ndarray]]:
    """A black box and the list of images that it received; to be queried with a chunk of 1."""
    seen: list[np.ndarray] = []

    def recording(images: np.ndarray) -> np.ndarray:
        seen.extend(images.copy())
        return forward(images)

    return black_box(recording), seen


def same(a: AscentResult, i: int, b: AscentResult, j: int) -> None:
    assert np.array_equal(a.images[i], b.images[j])
    assert a.scores[i] == b.scores[j]
    assert (a.forwards[i], a.iterations[i]) == (b.forwards[j], b.iterations[j])
    assert rises(a, i) == rises(b, j)


def rises(result: AscentResult, item: int) -> list[tuple[int, float, float]]:
    return [(x.forwards, x.score, x.secondary) for x in result.improvements if x.item == item]


# --- all attacks


@pytest.mark.parametrize("attack", ALL)
def test_every_query_is_counted_once_and_padding_is_not(attack: Attack, lenet: Target) -> None:
    before = lenet.queries
    result = attack(lenet, [3, 8, 1], budget=37, chunk=16)
    assert lenet.queries - before == result.forwards.sum()
    assert result.forwards.tolist() == [1 if attack is noise else 37] * 3
    assert not result.backwards.any()
    assert result.states is None
    assert not result.interrupted
    assert result.notes == []


@pytest.mark.parametrize("attack", ALL)
@pytest.mark.parametrize(("rank", "by"), [("log_odds", log_odds), ("margin", margin)])
def test_score_is_that_of_the_returned_image(attack: Attack, rank: str, by: Callable, lenet: Target) -> None:
    classes = [9, 0, 4, 6]
    result = attack(lenet, classes, budget=40, rank=rank, chunk=16)
    logits = lenet.logits(result.images, 16)
    assert result.images.dtype == np.uint8
    assert np.array_equal(result.scores, by(logits)[range(4), classes])
    last = {found.item: found for found in result.improvements}
    for item, found in last.items():
        assert found.score == result.scores[item]
        assert found.secondary == log_odds(logits)[item, classes[item]]


@pytest.mark.parametrize("attack", ALL)
def test_improvements_rise_in_the_order_of_queries(attack: Attack) -> None:
    result = attack(black_box(), range(CLASSES), budget=60)
    assert [x.forwards for x in result.improvements] == sorted(x.forwards for x in result.improvements)
    for item in range(CLASSES):
        at, scores, _ = zip(*rises(result, item), strict=True)
        assert list(scores) == sorted(set(scores))
        assert at[0] == 1
        assert at[-1] <= result.forwards[item]


@pytest.mark.parametrize("attack", ALONE)
@pytest.mark.parametrize("where", ["box", "lenet"])
def test_other_classes_do_not_change_a_result(attack: Attack, where: str, lenet: Target) -> None:
    queried = lenet if where == "lenet" else black_box()
    alone = attack(queried, [3], budget=45, seed=2, chunk=8)
    among = attack(queried, [5, 1, 3, 0, 4, 2], budget=45, seed=2, chunk=8)
    same(alone, 0, among, 2)


@pytest.mark.parametrize("attack", ALL)
def test_chunk_does_not_change_a_result(attack: Attack) -> None:
    for chunk in (1, 5, 64):
        cut, whole = (attack(black_box(), range(CLASSES), budget=30, chunk=c) for c in (chunk, 16))
        for item in range(CLASSES):
            same(cut, item, whole, item)


@pytest.mark.parametrize("attack", ALL)
def test_seed_determines_the_result(attack: Attack) -> None:
    first, again, other = (attack(black_box(), [0, 2], budget=20, seed=s) for s in (1, 1, 2))
    same(first, 0, again, 0)
    same(first, 1, again, 1)
    assert not np.array_equal(first.images, other.images)
    assert not np.array_equal(first.images[0], first.images[1])


@pytest.mark.parametrize(("attack", "settings"), [(random_search, {}), (nes, {}), (square, {"horizon": 60})])
def test_a_smaller_budget_gives_the_beginning_of_a_larger_one(attack: Attack, settings: dict, lenet: Target) -> None:
    longer = attack(lenet, [2, 7], budget=60, chunk=2, **settings)
    for budget in (1, 2, 14, 33):
        shorter = attack(lenet, [2, 7], budget=budget, chunk=2, **settings)
        for item in range(2):
            assert rises(shorter, item) == [x for x in rises(longer, item) if x[0] <= budget]


@pytest.mark.parametrize("attack", CLIMBERS)
def test_item_ends_when_its_score_reaches_stop_at(attack: Attack) -> None:
    free = attack(black_box(), range(CLASSES), budget=64)
    stop_at = float(np.sort(free.scores)[3])
    result = attack(black_box(), range(CLASSES), budget=64, stop_at=stop_at)
    done = result.scores >= stop_at
    assert done.any()
    assert (result.forwards[done] <= 64).all()
    assert (result.forwards[~done] == 64).all()
    if attack is square:  # a round is one query there
        for item in np.flatnonzero(done):
            assert result.forwards[item] == next(at for at, score, _ in rises(free, item) if score >= stop_at)


@pytest.mark.parametrize("attack", ALL)
def test_tick_counts_the_queries_and_can_stop(attack: Attack) -> None:
    ticks: list[tuple[int, int]] = []
    whole = attack(black_box(), [0, 1], budget=50, tick=lambda done, of: bool(ticks.append((done, of))))
    of = 1 if attack is noise else 50
    assert ticks[-1] == (of, of)
    assert ticks == sorted(set(ticks))
    assert not whole.interrupted

    cut = attack(black_box(), [0, 1], budget=50, tick=lambda done, of: done >= 20)
    if attack is noise:
        assert not cut.interrupted  # there was nothing left to stop
        return
    assert cut.interrupted
    assert 20 <= cut.forwards[0] < 50
    assert np.isfinite(cut.scores).all()
    assert not attack(black_box(), [0, 1], budget=50, tick=lambda done, of: done >= of).interrupted


# --- outputs that are not finite, and targets that return the top k classes only


def nan_for(image: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    def forward(images: np.ndarray) -> np.ndarray:
        logits = whole_number_logits(images)
        logits[(images == image).all((1, 2, 3))] = np.nan
        return logits

    return forward


@pytest.mark.parametrize("attack", ALONE)
def test_nan_ends_its_item_only(attack: Attack) -> None:
    # The mean of nes is grey for all at first, so there an item's second image is taken.
    box, seen = recorded()
    attack(box, [3], budget=2, chunk=1)
    bad = seen[1] if attack is nes else seen[0]
    fine = attack(black_box(), [2, 3, 5], budget=30)
    result = attack(black_box(nan_for(bad)), [2, 3, 5], budget=30)
    same(fine, 0, result, 0)
    same(fine, 2, result, 2)
    assert result.iterations[1] == 1
    ((item, note),) = result.notes
    assert item == 1
    assert "NaN or infinite" in note
    if attack is not nes:
        assert "nothing of it is kept" in note
        assert result.scores[1] == -np.inf
        assert not result.images[1].any()


@pytest.mark.parametrize("attack", CLIMBERS)
def test_the_best_image_before_nan_is_kept(attack: Attack) -> None:
    alone = attack(black_box(), [3], budget=60)
    result = attack(black_box(nan_for(alone.images[0])), [3], budget=60)
    assert "its best before that is kept" in result.notes[0][1]
    assert rises(result, 0)[: len(rises(alone, 0)) - 1] == rises(alone, 0)[:-1]
    assert np.isfinite(result.scores[0])
    assert log_odds(whole_number_logits(result.images))[0, 3] == result.scores[0]
    assert not np.array_equal(result.images[0], alone.images[0])
    assert result.forwards[0] <= 60


@pytest.mark.parametrize("attack", ALL)
def test_a_class_outside_the_top_k_has_no_score(attack: Attack) -> None:
    result = attack(black_box(top_k=2), range(CLASSES), budget=80)
    logits = whole_number_logits(result.images)
    noted = {item for item, _ in result.notes}
    assert len(noted) < CLASSES
    for item in range(CLASSES):
        if item in noted:
            assert result.scores[item] == -np.inf
            assert not result.images[item].any()
        else:
            assert item in np.argsort(logits[item])[-2:]
            assert result.scores[item] == log_odds(logits)[item, item]


def test_square_keeps_every_change_while_the_class_is_not_returned() -> None:
    def never_last(images: np.ndarray) -> np.ndarray:
        logits = whole_number_logits(images)
        logits[:, -1] = logits.min(axis=1) - 1
        return logits

    box, seen = recorded(never_last)
    box.top_k = 2
    result = square(box, [CLASSES - 1], budget=20, chunk=1)
    assert "none of 20 outputs contained the class" in result.notes[0][1]
    for before, after in pairwise(seen):
        assert len(one_square(before, after)) == 1


@pytest.mark.parametrize("attack", ALL)
def test_errors_name_invalid_options(attack: Attack) -> None:
    box = black_box()
    assert box.network is None
    assert np.isfinite(attack(box, [1], budget=9).scores).all()
    with pytest.raises(TargetError, match="box: no class 6; it has 0 to 5"):
        attack(box, [0, 6], budget=5)
    with pytest.raises(RecipeError, match='no rank "loss"; there are log_odds, margin'):
        attack(box, [0], budget=5, rank="loss")
    with pytest.raises(RecipeError, match="at least 1, not 0 and 16"):
        attack(box, [0], budget=0)


@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        (noise, {"kind": "pink"}, 'no kind "pink"; there are uniform, smooth'),
        (square, {"p_init": 0.0}, "p_init, a share"),
        (square, {"horizon": 4}, "horizon has to be 0 or at least the budget of 5 queries, not 4"),
        (nes, {"momentum": 1.0}, "momentum in"),
        (nes, {"pairs": 0}, "above 0"),
    ],
)
def test_errors_name_invalid_settings(attack: Attack, settings: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        attack(black_box(), [0], budget=5, **settings)


# --- single attacks


@pytest.mark.parametrize("kind", ["uniform", "smooth"])
def test_noise_makes_one_query_per_class(kind: str) -> None:
    box = black_box()
    result = noise(box, [4, 1], budget=100, kind=kind)
    assert box.queries == 2
    assert [x.forwards for x in result.improvements] == [1, 1]
    steps = np.abs(np.diff(result.images.astype(int), axis=-1)).mean()
    assert steps > 70 if kind == "uniform" else steps < 50


def test_random_search_equals_a_plain_loop() -> None:
    classes = [4, 0, 3]
    best, image = np.full(3, -np.inf), np.zeros((3, *SHAPE), np.uint8)
    for step in range(40):
        for c in classes:
            drawn = Draws(7, [c], step).integers(0, 256, *SHAPE).numpy().astype(np.uint8)
            scores = log_odds(whole_number_logits(drawn))[0, classes]
            for k in range(3):
                if scores[k] > best[k]:
                    best[k], image[k] = scores[k], drawn[0]
    result = random_search(black_box(), classes, budget=40, seed=7)
    assert np.array_equal(result.scores, best)
    assert np.array_equal(result.images, image)


def test_random_search_gains_from_more_classes() -> None:
    alone = random_search(black_box(), [3], budget=40)
    among = random_search(black_box(), range(CLASSES), budget=40)
    assert among.scores[3] >= alone.scores[0]


def one_square(before: np.ndarray, after: np.ndarray) -> set[tuple[int, ...]]:
    """The colours that `after` has where it differs from `before`."""
    where = (before != after).any(axis=0)
    return {tuple(colour) for colour in after[:, where].T.tolist()}


def test_square_changes_one_square_of_the_best_image_to_one_colour() -> None:
    box, seen = recorded()
    result = square(box, [2], budget=120, chunk=1)
    odds = log_odds(whole_number_logits(np.stack(seen)))[:, 2]
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
    assert result.scores[0] == top
    assert np.array_equal(result.images[0], best)


def test_squares_shrink_on_the_schedule_of_the_paper() -> None:
    at = (0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 9999)
    halved = (0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9)
    for done, times in zip(at, halved, strict=True):
        assert side_of_square(0.8, done, 10_000, 224, 224) == round(math.sqrt(0.8 / 2**times * 224 * 224))
        assert side_of_square(0.8, done * 3, 30_000, 224, 224) == side_of_square(0.8, done, 10_000, 224, 224)
    assert side_of_square(1.0, 0, 100, 28, 28) == 27
    assert side_of_square(0.01, 99, 100, 28, 28) == 1
    assert side_of_square(0.8, 0, 100, 1, 1) == 1


def test_nes_queries_its_mean_and_pairs_around_it() -> None:
    box, seen = recorded()
    nes(box, [2], budget=2 * 13, chunk=1, sigma=0.05, rate=0.1)
    assert (seen[0] == 128).all()
    for one, other in zip(seen[1:13:2], seen[2:13:2], strict=True):
        assert np.abs(one.astype(int) + other - 255).max() <= 1
        assert not np.array_equal(one, other)
    assert not np.array_equal(seen[13], seen[0])  # the mean has moved


def test_nes_moves_along_its_rank_weighted_directions() -> None:
    box, seen = recorded()
    settings = {"cells": 12, "pairs": 4, "sigma": 0.05, "rate": 0.1, "momentum": 0.0}
    nes(box, [2], budget=10, chunk=1, **settings)
    odds = log_odds(whole_number_logits(np.stack(seen[1:9])))[:, 2]
    ranks = np.argsort(np.argsort(odds))
    directions = Draws(0, [2], 1).normal(4, *SHAPE)[0].numpy()
    step = sum((ranks[2 * k + 1] - ranks[2 * k]) * directions[k] for k in range(4))
    mean = 0.5 + 0.1 * step / np.sqrt((step**2).mean())
    assert np.abs(seen[9] - np.clip(mean, 0, 1) * 255).max() <= 0.51


def test_nes_does_not_move_if_all_scores_are_equal() -> None:
    box, seen = recorded(lambda images: np.zeros((len(images), CLASSES), np.float32))
    nes(box, [2], budget=40, chunk=1)
    assert all((seen[at] == 128).all() for at in (0, 13, 26, 39))


@pytest.mark.slow
def test_square_and_nes_beat_random_search_on_most_digits(lenet: Target) -> None:
    at_random, by_squares, by_steps = (f(lenet, range(10), budget=150, chunk=20).scores for f in CLIMBERS)
    assert (by_squares > at_random).sum() >= 8
    assert (by_steps > at_random).sum() >= 8
    assert np.median(noise(lenet, range(10)).scores) < np.median(at_random)
