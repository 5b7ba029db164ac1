"""Which classes a typed name means."""

import pytest

from evofool.errors import TargetError
from evofool.quiz.names import NOTHING, Names, normal
from evofool.targets.labels import imagenet_labels
from tests.quiz.samples import ANIMALS, DIGITS


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("7", {7}), (" 7 ", {7}), ("seven", {7}), ("", set()), ("N", set()), ("nothing", set()), ("no idea", set()),
        ("?", set()), ("seven or one", {7}), ("1/7", {1}), ("a loop", None), ("10", None), ("not a 3", None),
    ],
)  # fmt: skip
def test_digits_are_named_by_their_key_or_word(answer: str, named: set[int] | None) -> None:
    assert DIGITS.by_key
    assert DIGITS.classes(answer) == (None if named is None else frozenset(named))


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("Tench", {0}), ("the tenches", {0}), ("a golden tench", {0}), ("shark", {1, 2}), ("sharks!", {1, 2}),
        ("white shark", {2}), ("tiger", {3}), ("tigers", {3}), ("tiger shark", {1}), ("cat", {4}), ("foxes", {6}),
        ("turtle or tortoise", {5}), ("big cat", None), ("not a tiger", None), ("fish", None), ("house", None),
    ],
)  # fmt: skip
def test_a_text_names_a_label_its_end_or_what_it_ends_with(answer: str, named: set[int] | None) -> None:
    assert not ANIMALS.by_key
    assert ANIMALS.classes(answer) == (None if named is None else frozenset(named))


def test_commas_in_a_label_separate_synonyms_and_brackets_are_left_out() -> None:
    names = Names(["tench, Tinca tinca", "crane (bird)", "crane (machine)", "knife"])
    assert names.classes("tinca tinca") == {0}
    assert names.classes("cranes") == {1, 2}
    assert names.classes("crane bird") == {1}
    assert names.classes("Knives") == {3}


def test_a_rejection_class_is_never_named() -> None:
    assert len(ANIMALS.labels) - 1 not in ANIMALS.nameable
    with pytest.raises(TargetError, match="none of the labels is of a class that an image can show"):
        Names(["nothing"])


def test_a_code_says_what_a_text_means_that_no_rule_matches_and_no_more() -> None:
    names = Names(ANIMALS.labels, {"Some big cats": [3, 4, 12], "tench": [1]})
    assert names.classes("big cat") == {3, 4}
    assert names.classes("tench") == {0}
    assert Names(ANIMALS.labels, {"blob": []}).classes("a blob") == NOTHING


def test_both_numbers_of_a_word_are_one_name() -> None:
    pairs = "potato potatoes, knife knives, glove gloves, fox foxes, berry berries, cookie cookies, bus buses, mouse mice, "
    pairs += "shoe shoes, church churches, glass glasses, house houses, dish dishes, axe axes, vase vases, cup cups"
    for pair in pairs.split(", "):
        one, many = pair.split()
        assert normal(one) == normal(many), pair


def test_every_label_of_imagenet_names_itself() -> None:
    labels = imagenet_labels()
    names = Names(labels)
    missed = [label for c, label in enumerate(labels) if c not in (names.classes(label.upper()) or ())]
    assert missed == []
