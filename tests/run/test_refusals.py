"""What cannot be started or resumed is refused, and the reason is named."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.errors import RecipeError, StoreError, TargetError
from evofool.recipe import load, parse
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target
from tests.run.cases import HOME, recipe
from tests.stored import content
from tests.synthetic import CLASSES, SIDE, fake, linear


def test_a_target_that_fails_its_validation_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="different images are identical"):
        Run.start(recipe(), tmp_path / "run", fake(lambda x: np.ones((len(x), CLASSES), np.float32)))
    assert not (tmp_path / "run").exists()


def test_a_target_may_be_named_in_other_words_if_it_is_the_same(tmp_path: Path) -> None:
    weights = tmp_path / "a.safetensors"
    shutil.copyfile(HOME / "evofool" / "targets" / "weights" / "lenet.safetensors", weights)
    what = load("mnist-direct", ["stop.evaluations=40", "stop.confidence=", f"target=lenet?weights={weights}"])
    with Run.start(what, tmp_path / "run") as run:
        run.advance(batches=2)
    weights.rename(tmp_path / "b.safetensors")
    with pytest.raises(TargetError, match=r"there is no weights file .*a\.safetensors"):
        Run.resume(tmp_path / "run")
    moved = what.changed([f"target=lenet?weights={tmp_path / 'b.safetensors'}"], "test")
    with Run.resume(tmp_path / "run", moved) as run:
        assert run.advance() == "stop.evaluations = 40 is reached"
    with StoredRun(tmp_path / "run") as stored:
        assert stored.recipe.target == f"lenet?weights={tmp_path / 'b.safetensors'}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("search.seed=4", r"search\.seed = 3, not 4"),
        ("search.batch=9", r"search\.batch = 8, not 9"),
        ("search.competition=per-class", r"search\.competition = 'all', not 'per-class'"),
        ("encoding.eta=3.0", r"encoding\.eta = "),
        ("compute.format=bfloat16", r"compute\.format = 'float32', not 'bfloat16'"),
        ("compute.threads=2", r"compute\.threads = 1, not 2"),
        ("niches={descriptor='mirror_symmetry', edges=[0.5]}", r"niches.* = None, not "),
    ],
)
def test_a_run_keeps_its_recipe_and_the_changed_key_is_named(tmp_path: Path, change: str, message: str) -> None:
    what = recipe()
    with Run.start(what, tmp_path, fake()) as run:
        run.advance(batches=2)
    before = content(tmp_path)
    with pytest.raises(RecipeError, match=message) as caught:
        Run.resume(tmp_path, what.changed([change], "test"), fake())
    assert "only stop.*, save.*, search.lag, compute.streams, compute.workers, compute.ray.* and compute.recheck*" in str(
        caught.value
    )
    assert "--out" in str(caught.value)
    assert content(tmp_path) == before
    Run.resume(tmp_path, target=fake()).__exit__()


def test_a_run_goes_on_with_its_own_target_only(tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path, fake(weights_sha256="a")) as run:
        run.advance(batches=2)
    others = [
        fake(weights_sha256="b"),
        fake(),
        Target("fake", list("abcde"), (1, SIDE, SIDE), linear, {"weights_sha256": "a"}),
    ]
    for other in others:
        with pytest.raises(TargetError, match=r"the target fake is not the one that this run began with"):
            Run.resume(tmp_path, target=other)
    elsewhere = fake(weights_sha256="a", backend="torch 99", device="cuda")
    with Run.resume(tmp_path, target=elsewhere) as run:
        run.advance(batches=2)


def test_a_run_cannot_be_started_where_there_is_one_or_opened_twice(tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path, fake()) as run:
        with pytest.raises(StoreError, match="in use"):
            Run.resume(tmp_path, target=fake())
        run.advance(batches=2)
        with StoredRun(tmp_path) as stored:
            assert len(stored.elites()) == CLASSES
    with pytest.raises(StoreError, match="has a run already"):
        Run.start(recipe(), tmp_path, fake())


def test_arguments_of_the_wrong_type_are_named(tmp_path: Path) -> None:
    name: Any = "mnist-cppn"
    nowhere: Any = None
    recipe, folder = load(name), tmp_path / "run"
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: Run.start(name, folder), "recipe is 'mnist-cppn' (str); it has to be a Recipe"),
        (lambda: Run.start(recipe, nowhere), "folder is None (NoneType); it has to be a path"),
        (lambda: Run.start(recipe, folder, name), "target is 'mnist-cppn' (str); it has to be a Target"),
    ]
    for call, message in wrong:
        with pytest.raises(RecipeError, match=re.escape(message)):
            call()
    assert not folder.exists()


def test_a_recipe_that_does_not_fit_its_target_leaves_no_folder(tmp_path: Path) -> None:
    colour = parse({"encoding": {"kind": "cppn", "color": "rgb"}, "stop": {"evaluations": 1}}, "test")
    with pytest.raises(RecipeError, match=r'encoding\.color "rgb" has 3 channels, the target takes 1'):
        Run.start(colour, tmp_path / "run", fake())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("search", [{}, {"competition": "per-class"}])
def test_only_the_classes_that_are_searched_for_are_filled_and_counted(tmp_path: Path, search: dict[str, Any]) -> None:
    what = recipe(search=search | {"classes": [CLASSES - 1, 0]}, stop={"confidence": 0.5, "evaluations": 8_000})
    with Run.start(what, tmp_path, fake()) as run:
        assert run.recipe.search.classes == (0, CLASSES - 1)
        assert run.advance() == "stop.confidence = 0.5 is reached in every class"
        assert len(run.progress().confidences) == 2
        assert run.logbook[-1]["min"] >= 0.5
    with StoredRun(tmp_path) as stored:
        assert [e.row.class_id for e in stored.elites()] == [0, CLASSES - 1] == stored.classes


@pytest.mark.parametrize(
    ("classes", "message"), [([1, 1], "names a class twice"), ([], "at least 1 item"), ([0, CLASSES], "not ")]
)
def test_classes_that_there_are_not_are_refused(tmp_path: Path, classes: list[int], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"search\.classes: .*{message}"):
        Run.start(recipe(search={"classes": classes}), tmp_path / "run", fake())
    assert not (tmp_path / "run").exists()


def test_a_damaged_genome_is_named_on_resuming(tmp_path: Path) -> None:
    with Run.start(recipe("cppn"), tmp_path, fake()) as run:
        run.advance(batches=20)
        run.store._db.execute("UPDATE genomes SET genome = substr(genome, 2)")
    with pytest.raises(StoreError, match=f"{FILE} is damaged: a packed CPPN"):
        Run.resume(tmp_path, target=fake())
