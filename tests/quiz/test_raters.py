"""Whose answers count, and why others do not."""

import pytest
from scipy.stats import binom

from evofool.quiz.names import Names
from evofool.quiz.raters import standing
from evofool.quiz.schema import NAMING, End, Record
from evofool.quiz.simulated import KINDS, Kind
from tests.quiz.samples import ANIMALS, DIGITS, changed, record

PASSES = {"perfect", "sees nothing", "8 for elites"}


@pytest.mark.parametrize("names", [DIGITS, ANIMALS], ids=["digits", "animals"])
@pytest.mark.parametrize("kind", KINDS)
def test_only_those_who_name_real_images_and_not_noise_count(kind: Kind, names: Names) -> None:
    found = standing(record(kind, 3, names, count=12), names)
    assert found.counts == (kind in PASSES), found.why
    assert (found.real, found.noise) == (10, 10)
    if kind == "perfect":
        assert (found.real_named, found.noise_named, found.fast, found.repeats_alike) == (10, 0, 0, found.repeats)


def names_wrong(source: Record, kind: str, count: int, text: str) -> Record:
    """The same with `text` for the first images of this kind."""
    answers, left = list(source.answers), count
    for trial in source.trials:
        if trial.block == NAMING and trial.kind == kind and left:
            answers[trial.n] = answers[trial.n].model_copy(update={"answer": text})
            left -= 1
    return source._replace(answers=tuple(answers))


def test_eight_of_ten_real_images_and_two_of_noise_are_the_limits() -> None:
    good = record("perfect", 1)
    assert standing(names_wrong(good, "real", 2, ""), DIGITS).counts
    assert standing(names_wrong(good, "real", 3, ""), DIGITS).why == "7 of 10 real images were named right"
    assert standing(names_wrong(good, "noise", 2, "4"), DIGITS).counts
    assert standing(names_wrong(good, "noise", 3, "4"), DIGITS).why == "3 of 10 images of noise got a name"
    # The rates that docs/quiz.md states.
    assert binom.sf(7, 10, 0.97) == pytest.approx(0.997, abs=5e-4)
    assert binom.sf(7, 10, 0.5) == pytest.approx(0.055, abs=5e-4)


def test_a_tenth_of_fast_answers_is_too_much() -> None:
    good = record("perfect", 1)
    number = len(good.answers)
    for fast, counts in ((number // 10, True), (number // 10 + 1, False)):
        answers = [a.model_copy(update={"rt_ms": 299.0}) if a.n < fast else a for a in good.answers]
        found = standing(good._replace(answers=tuple(answers)), DIGITS)
        assert found.counts == counts
        assert counts or found.why == f"{fast} of {number} answers came within 300 ms"


def test_who_knew_the_images_or_did_not_finish_does_not_count() -> None:
    good = record("perfect", 1)
    assert standing(good._replace(session=good.session.model_copy(update={"seen": True})), DIGITS).why == (
        "the rater knew the run's images"
    )
    assert standing(good._replace(end=End(at=1.0, seen=True)), DIGITS).why == "the rater knew the run's images"
    part = good._replace(answers=good.answers[:30])
    number = len(good.trials)
    assert standing(part, DIGITS).why == f"not finished: 30 of {number} trials are answered"
    assert standing(good._replace(end=None), DIGITS).why == f"not finished: {number} of {number} trials are answered"


def test_a_real_photograph_counts_as_named_by_the_right_choice_but_needs_some_name() -> None:
    good = record("perfect", 2, ANIMALS, count=12)
    fishes = changed(good, {(NAMING, "real"): "some animal"})
    assert standing(fishes, ANIMALS).counts
    silent = changed(good, {(NAMING, "real"): ""})
    assert standing(silent, ANIMALS).why == "0 of 10 real images got a name"


def test_a_session_waits_for_a_code_only_where_that_decides() -> None:
    good = record("perfect", 2, ANIMALS, count=12)
    texts = changed(good, {(NAMING, "noise"): "a grey thing"})
    assert standing(texts, ANIMALS).why == "10 answers have to be coded first"
    assert standing(texts, Names(ANIMALS.labels, {"grey thing": []})).counts
    assert standing(texts, Names(ANIMALS.labels, {"grey thing": [4]})).why == "10 of 10 images of noise got a name"
