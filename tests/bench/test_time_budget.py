"""Budgets for a number of minutes."""

from pathlib import Path

import pytest
from PIL import Image

from evofool.bench import time_budget
from evofool.bench.manifest import Manifest
from evofool.bench.plan import parse
from evofool.cli.bench import recipe_of
from evofool.errors import RecipeError
from evofool.targets import target

LENET = {"images": "digits", "targets": [{"target": "lenet"}]}


def with_pace(monkeypatch: pytest.MonkeyPatch, seconds: float, classes: int) -> None:
    monkeypatch.setattr(time_budget, "_pace", lambda spec, images: (seconds, classes))


def test_more_minutes_and_faster_targets_have_more_queries(monkeypatch, tmp_path):
    def most(minutes: float, seconds: float) -> int:
        with_pace(monkeypatch, seconds, 10)
        return time_budget.with_budget(parse(LENET, "here"), minutes, tmp_path)[0].budget

    assert most(10, 0.001) > most(1, 0.001) > most(1, 0.01)
    for minutes in (1, 3, 10, 60):
        budget = most(minutes, 0.001)
        assert str(budget).rstrip("0") in ("1", "15", "2", "3", "4", "5", "6", "8")
        # The upper limit of the minutes; 8.7: the passes of one query of every arm.
        assert budget * 5 * 8.7 * 0.001 <= 60 * minutes


def test_an_arm_that_climbs_surrogates_leaves_time_for_fewer_queries(monkeypatch, tmp_path):
    def most(*surrogates: str) -> int:
        with_pace(monkeypatch, 0.001, 10)
        arms = ["cppn", "surrogate"] if surrogates else ["cppn"]
        recipe = parse({**LENET, "arms": arms, "surrogates": surrogates}, "here")
        return time_budget.with_budget(recipe, 10, tmp_path)[0].budget

    assert most() > most("a") > most("a", "b", "c", "d")


def _opening_text(recipe: dict[str, object], minutes: int, folder: Path) -> str:
    try:
        return time_budget.with_budget(parse(recipe, "here"), minutes, folder)[1]
    except RecipeError as error:
        return str(error)


def test_many_classes_get_fewer_seeds_and_a_note_if_that_is_not_enough(monkeypatch, tmp_path):
    with_pace(monkeypatch, 0.02, 1000)
    all_of_them = {**LENET, "classes": 1000}
    recipe, note = time_budget.with_budget(parse(all_of_them, "here"), 30, tmp_path)
    assert recipe.seeds == 2
    assert recipe.budget >= 2000
    assert "2 seeds instead of 5" in note
    tight = {**all_of_them, "seeds": 2, "arms": parse(LENET, "here").arms}
    needed = next(n for n in range(1, 60) if not _opening_text(tight, n, tmp_path))
    assert f"about {needed} minutes here" in _opening_text(tight, needed - 1, tmp_path)
    with pytest.raises(
        RecipeError, match=r"1 minutes are not enough: 1,000 classes need at least 2,000 .* give --minutes [0-9]+"
    ):
        time_budget.with_budget(parse(all_of_them, "here"), 1, tmp_path)
    with pytest.raises(RecipeError, match=r" 5 seeds.*fewer --arms, --seeds or --classes"):
        time_budget.with_budget(parse({**all_of_them, "seeds": 5}, "here"), 20, tmp_path)


def test_of_many_classes_so_many_are_scored_that_each_gets_enough_queries(monkeypatch, tmp_path):
    def found(seconds: float, known: int, **changes: object) -> tuple[int | None, float, str]:
        with_pace(monkeypatch, seconds, known)
        recipe, note = time_budget.with_budget(parse({**LENET, **changes}, "here"), 10, tmp_path)
        return recipe.classes, recipe.budget, note

    few, budget, note = found(0.0005, 1000)
    assert (few, note) == (100, "100 of 1,000 classes are scored, evenly spaced; --classes N scores another number")
    assert budget >= 100 * 100
    assert found(0.005, 1000)[0] == 50
    assert found(0.0005, 100)[::2] == (None, "")
    assert found(0.001, 1000, classes=30)[::2] == (30, "")


def test_short_time_costs_seeds_and_arms_outside_the_suite_before_queries(monkeypatch, tmp_path):
    def found(minutes: float, **changes: object) -> tuple[int, tuple[str, ...], float, str]:
        with_pace(monkeypatch, 0.02, 1000)
        recipe, note = time_budget.with_budget(parse({**LENET, **changes}, "here"), minutes, tmp_path)
        return recipe.seeds, recipe.arms, recipe.budget / (recipe.classes or 1000), note

    seeds, arms, queries, note = found(20)
    assert (seeds, arms) == (2, ("canvas", "square", "apgd", "noise"))
    assert queries >= 30
    assert "cppn, per-class: left out for want of time; --arms names them; 2 seeds instead of 5" in note
    assert [found(minutes)[0] for minutes in (20, 60, 75, 120)] == [2, 3, 3, 5]
    assert [len(found(minutes)[1]) for minutes in (20, 60, 75, 120)] == [4, 4, 6, 6]
    assert found(20, seeds=4)[0] == 4
    assert found(20, arms=["cppn", "apgd"])[1] == ("cppn", "apgd")
    assert "cppn" in found(20, detectors={"names": ["msp"], "arm": "cppn"})[1]


def test_the_pace_is_measured_and_the_classes_with_images_are_counted(tmp_path):
    seconds, classes = time_budget._pace(target("lenet"), "digits")
    assert 0 < seconds < 1
    assert classes == 10
    for digit in range(3):
        (tmp_path / str(digit)).mkdir()
        Image.new("L", (28, 28)).save(tmp_path / str(digit) / "0.png")
    assert time_budget._pace(target("lenet"), str(tmp_path))[1] == 3


def test_a_folder_with_cells_keeps_its_budgets_and_gives_a_note(monkeypatch, tmp_path):
    with_pace(monkeypatch, 0.001, 10)
    Manifest(parse({**LENET, "budgets": [7, 70], "seeds": 3, "arms": ["cppn"]}, "here"), tmp_path)
    recipe, note = time_budget.with_budget(parse(LENET, "here"), 2, tmp_path)
    assert recipe.budget != 70, "no cell depends on them yet"
    assert note == ""
    (tmp_path / "cells" / "lenet" / "cppn-0").mkdir(parents=True)
    (tmp_path / "cells" / "lenet" / "cppn-0" / "run.db").touch()
    recipe, note = time_budget.with_budget(parse(LENET, "here"), 1, tmp_path)
    assert (recipe.budgets, recipe.seeds, recipe.arms) == ((7, 70), 3, ("cppn",))
    assert "was started with budgets of 7, 70 queries, which stay" in note
    recipe = recipe_of(None, ["lenet"], {"images": "digits", "seeds": 10}, [])
    recipe, _ = time_budget.with_budget(recipe, 1, tmp_path)
    assert (recipe.budgets, recipe.seeds) == ((7, 70), 10)


def test_values_that_a_bench_file_leaves_open_stay_open_beside_options(tmp_path):
    (tmp_path / "mine.toml").write_text('images = "digits"\n[[targets]]\ntarget = "lenet"\n')
    recipe = recipe_of(str(tmp_path / "mine.toml"), [], {"arms": ["cppn"]}, [])
    assert recipe.arms == ("cppn",)
    assert recipe.name == "mine"
    assert "seeds" not in recipe.model_fields_set


@pytest.mark.parametrize("minutes", [0, -1, float("inf"), float("nan")])
def test_invalid_minutes_are_refused(minutes, tmp_path):
    with pytest.raises(RecipeError, match="--minutes has to be above 0"):
        time_budget.with_budget(parse(LENET, "here"), minutes, tmp_path)


def test_a_benchmark_that_trains_networks_needs_budgets(tmp_path):
    recipe = parse({**LENET, "targets": [{"train": "none"}]}, "here")
    with pytest.raises(RecipeError, match="needs budgets"):
        time_budget.with_budget(recipe, 10, tmp_path)


def test_every_further_loss_costs_a_backward_pass():
    recipe = {**LENET, "arms": ["apgd", "cppn"]}
    plain = parse({**recipe, "arm": {"apgd": {"set": ["losses=margin"]}}}, "here")
    costs = [time_budget._cost(each, "apgd") for each in (plain, parse(recipe, "here"))]
    assert costs == [4.0, 6.0]
    assert time_budget._cost(plain, "cppn") == 1.2
