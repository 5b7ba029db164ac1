"""The estimate of Dawid & Skene: what images show, and who errs."""

from dataclasses import replace

import numpy as np

from evofool.quiz.dawid_skene import LEAST_IMAGES, agreement, estimate
from evofool.quiz.names import Names
from evofool.quiz.tally import Answers

NAMES = Names("0123456789")


def answers(truth: np.ndarray, accuracy: list[float], seed: int = 0) -> Answers:
    """Of raters who name what an image shows so often, and else any class."""
    draw = np.random.default_rng(seed)
    named = []
    for shown in truth:
        by_rater = {}
        for r, right in enumerate(accuracy):
            said = shown if draw.random() < right else draw.integers(10)
            by_rater[r] = frozenset({int(said)} if said < 10 else ())
        named.append(by_rater)
    raters = tuple(f"rater {r}" for r in range(len(accuracy)))
    images = tuple(str(n) for n in range(len(truth)))
    own = tuple(frozenset({int(shown) % 10}) for shown in truth)
    choices = tuple({} for _ in truth)
    return Answers(raters, images, own, tuple(named), choices, (), (), ())


def test_it_finds_what_images_show_and_whom_to_trust_better_than_the_most_frequent_name() -> None:
    better, trusted = [], []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        truth = np.where(draw.random(40) < 0.5, 10, draw.integers(0, 10, 40))  # 10: nothing
        given = answers(truth, [0.5, 0.2, 0.9, 0.2, 0.6], seed)
        found = estimate(given, NAMES)
        assert found is not None
        assert np.allclose(found.shares.sum(axis=1), 1)
        votes = [np.bincount([next(iter(v), 10) for v in by.values()], minlength=11) for by in given.names]
        ties = [np.flatnonzero(v == v.max()) for v in votes]
        by_votes = np.mean([(t in best) / len(best) for best, t in zip(ties, truth, strict=True)])
        better.append((found.shares.argmax(axis=1) == truth).mean() - by_votes)
        trusted.append(found.accuracy.argmax())
    assert np.mean(better) > 0.03
    assert trusted == [2] * 8


def test_too_little_to_go_on_gives_none() -> None:
    truth = np.arange(LEAST_IMAGES) % 10
    assert estimate(answers(truth, [0.9] * 3), NAMES) is not None
    assert estimate(answers(truth, [0.9] * 2), NAMES) is None
    assert estimate(answers(truth[1:], [0.9] * 3), NAMES) is None
    given = answers(truth, [0.9] * 3)
    uncoded = replace(given, names=tuple(dict.fromkeys(by) for by in given.names))
    assert estimate(uncoded, NAMES) is None
    assert estimate(given, Names([f"class {c}" for c in range(11)])) is None


def test_agreement_counts_images_of_which_both_say_the_same() -> None:
    truth = np.arange(40) % 10
    found = estimate(answers(truth, [0.95] * 5), NAMES)
    assert found is not None
    own = [frozenset({int(t)}) for t in truth[:30]] + [frozenset({int(t + 1) % 10}) for t in truth[30:]]
    counts = agreement(found, own, [True] * 20 + [False] * 20, NAMES)
    assert {key: counts[key] for key in ("images", "shown", "agree")} == {"images": 40, "shown": 30, "agree": 30}
    assert len(counts["accuracy"]) == 5
