"""Dawid & Skene 1979: what images show, estimated together with how each rater errs. A check beside the verdicts, not one.

Raters who take no care get less weight. Several who err alike mislead it. Nothing is tested here, and there are no bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evofool.quiz.names import Names
from evofool.quiz.tally import Answers

LEAST_RATERS, LEAST_IMAGES = 3, 20
_MOST_CLASSES = 10  # a rater's table of confusions has the square of so many entries
_ITERATIONS, _SMALL = 200, 1e-7
# Answers of each kind that are added to each row of a rater's table, and right ones besides. Of eight pairs that were tried
# on six sets of simulated raters of 40 images this one is never worse than the most frequent name.
_PRIOR, _AGREE = 0.5, 4.0


@dataclass(frozen=True)
class Estimate:
    """images: of the answers, by number. shares: float64 (n, K + 1), how probably each shows each class, or none (last).

    accuracy: by rater, the probability of the right name, averaged over what the images show.
    """

    images: tuple[int, ...]
    shares: np.ndarray
    accuracy: np.ndarray


def estimate(answers: Answers, names: Names) -> Estimate | None:
    """By expectation and maximisation, from the share of names each image got; None with too little to go on.

    Of names that mean one class, and of empty ones, which say that there is none. Asks for LEAST_RATERS raters and
    LEAST_IMAGES images that each got two answers or more, and for ten classes or fewer.
    """
    classes = names.nameable
    number = {c: k for k, c in enumerate(classes)}
    if len(classes) > _MOST_CLASSES:
        return None
    given: list[list[tuple[int, int]]] = []  # by image (rater, what it was named)
    images = []
    for i, by_name in enumerate(answers.names):
        read = [(r, number[next(iter(found))] if found else len(classes)) for r, found in by_name.items() if _clear(found)]
        if len(read) >= 2:
            images.append(i)
            given.append(read)
    raters = {r for read in given for r, _ in read}
    if len(images) < LEAST_IMAGES or len(raters) < LEAST_RATERS:
        return None
    counts = np.zeros((len(answers.raters), len(images), len(classes) + 1))
    for n, read in enumerate(given):
        for r, named in read:
            counts[r, n, named] += 1
    return Estimate(tuple(images), *_fitted(counts))


def _clear(found: frozenset[int] | None) -> bool:
    return found is not None and len(found) < 2


def _fitted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The posterior of each image (n, K), and the accuracy of each rater, of counts (raters, n, K)."""
    shares = counts.sum(axis=0) + 1e-3
    shares /= shares.sum(axis=1, keepdims=True)
    prior = _PRIOR + _AGREE * np.eye(counts.shape[2])
    for _ in range(_ITERATIONS):
        confused = np.einsum("nk,rnj->rkj", shares, counts) + prior  # of rater r: shown k, named j
        confused /= confused.sum(axis=2, keepdims=True)
        frequent = shares.mean(axis=0) + 1e-9
        log = np.log(frequent) + np.einsum("rnj,rkj->nk", counts, np.log(confused))
        log -= log.max(axis=1, keepdims=True)
        now = np.exp(log)
        now /= now.sum(axis=1, keepdims=True)
        change, shares = np.abs(now - shares).max(), now
        if change < _SMALL:
            break
    return shares, np.einsum("k,rkk->r", shares.mean(axis=0), confused)


def agreement(found: Estimate, own: Sequence[frozenset[int]], recognised: Sequence[bool], names: Names) -> dict[str, Any]:
    """Plain values: images; shown, those that show one of their classes more probably than not; agree, those of which the
    verdicts say the same; accuracy, of each rater.

    own: the classes of each image of the estimate; recognised: whether a verdict says so.
    """
    number = {c: k for k, c in enumerate(names.nameable)}
    shown = [
        bool(row[[number[c] for c in classes if c in number]].sum() > 0.5)
        for row, classes in zip(found.shares, own, strict=True)
    ]
    agree = sum(one == other for one, other in zip(shown, recognised, strict=True))
    return {"images": len(shown), "shown": sum(shown), "agree": agree, "accuracy": found.accuracy.tolist()}
