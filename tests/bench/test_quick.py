"""A budget for so many minutes."""

import pytest

from evofool.bench import quick
from evofool.bench.plan import parse
from evofool.errors import RecipeError

LENET = {"images": "digits", "targets": [{"target": "lenet"}], "seeds": 5}


def with_pace(monkeypatch: pytest.MonkeyPatch, seconds: float, classes: int) -> None:
    monkeypatch.setattr(quick, "_pace", lambda spec: (seconds, classes))


def test_more_minutes_and_faster_targets_have_more_queries(monkeypatch, tmp_path):
    def most(minutes: float, seconds: float) -> int:
        with_pace(monkeypatch, seconds, 10)
        return quick.with_budget(parse(LENET, "here"), minutes, tmp_path).budget

    assert most(10, 0.001) > most(1, 0.001) > most(1, 0.01)
    for minutes in (1, 3, 10, 60):
        budget = most(minutes, 0.001)
        assert str(budget).rstrip("0") in ("1", "2", "5")
        # Of what the minutes are for at most; 7.5: what a query of each arm takes, in passes.
        assert budget * 5 * 7.5 * 0.001 <= 60 * minutes


def test_fewer_seeds_where_the_classes_are_many_and_words_where_that_is_not_enough(monkeypatch, tmp_path):
    with_pace(monkeypatch, 0.02, 1000)
    recipe = quick.with_budget(parse(LENET, "here"), 20, tmp_path)
    assert 2 <= recipe.seeds < 5
    assert recipe.budget >= 2000
    with pytest.raises(RecipeError, match=r"1,000 classes need at least 2,000: give --minutes [0-9]+"):
        quick.with_budget(parse(LENET, "here"), 1, tmp_path)


def test_the_pace_is_measured_and_the_classes_are_counted():
    seconds, classes = quick._pace("lenet")
    assert 0 < seconds < 1
    assert classes == 10


@pytest.mark.parametrize("minutes", [0, -1, float("inf"), float("nan")])
def test_minutes_that_are_none_are_refused(minutes, tmp_path):
    with pytest.raises(RecipeError, match="--minutes is a number above 0"):
        quick.with_budget(parse(LENET, "here"), minutes, tmp_path)


def test_what_is_trained_first_names_its_budgets(tmp_path):
    recipe = parse({**LENET, "targets": [{"train": "none"}]}, "here")
    with pytest.raises(RecipeError, match="names its budgets"):
        quick.with_budget(recipe, 10, tmp_path)
