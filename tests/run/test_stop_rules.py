"""The rules that stop a run."""

from pathlib import Path

import numpy as np

from evofool.run.run import Run
from tests.run.cases import parity, recipe, unbroken
from tests.stored import content
from tests.synthetic import fake


def test_a_run_stops_at_its_number_of_evaluations(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"evaluations": 41}), tmp_path, fake()) as run:
        assert run.advance() == "stop.evaluations = 41 is reached"
        assert run.strategy.evaluations == 48
        assert run.strategy.evaluations == 48
        assert run.answers == run.target.queries >= 48, "validation is counted too"


def test_a_run_stops_when_its_seconds_are_over(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"seconds": 0.05}), tmp_path, fake()) as run:
        assert run.advance() == "stop.seconds = 0.05 is reached"
        assert run.seconds >= 0.05


def test_a_run_stops_when_every_class_is_at_its_confidence(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"confidence": 0.9, "evaluations": 100_000}), tmp_path, fake()) as run:
        assert run.advance() == "stop.confidence = 0.9 is reached in every class"
        assert (run.progress().confidences >= 0.9).all()
        last = [r for r in run.store.cell_history() if r.batch == run.strategy.committed - 1]
        assert last, "the batch before was not enough"


def test_a_run_stops_when_nothing_has_changed_for_a_number_of_batches(tmp_path: Path) -> None:
    with Run.start(recipe(stop={"no_progress": 7}), tmp_path, fake(lambda x: parity(x, 1.0))) as run:
        assert run.advance() == "stop.no_progress = 7 is reached: no elite was replaced in the last batches"
        assert run.strategy.committed == 8
    with Run.start(recipe(stop={"no_progress": 3}), tmp_path / "climbs", fake()) as run:
        run.advance()
        changed = {r.batch for r in run.store.cell_history()}
        assert run.strategy.committed - 1 - max(changed) == 3
        quiet = np.diff([*sorted(changed)])
        assert quiet.max() <= 3


def test_the_first_stop_rule_that_holds_ends_a_run(tmp_path: Path) -> None:
    stop = {"evaluations": 80, "confidence": 0.999999, "no_progress": 10_000, "seconds": 3600}
    with Run.start(recipe(stop=stop), tmp_path, fake()) as run:
        assert run.advance() == "stop.evaluations = 80 is reached"


def test_a_run_that_has_ended_stays_so_until_its_limit_is_moved(tmp_path: Path) -> None:
    what = recipe(stop={"evaluations": 160})
    with Run.start(what, tmp_path / "run", fake()) as run:
        run.advance()
        assert run.advance() == "stop.evaluations = 160 is reached"
        assert run.strategy.evaluations == 160
    ended = content(tmp_path / "run")
    with Run.resume(tmp_path / "run", target=fake()) as run:
        assert run.finished == "stop.evaluations = 160 is reached"
        assert run.advance() == "stop.evaluations = 160 is reached"
    assert content(tmp_path / "run") == ended
    further = what.changed(["stop.evaluations=480", "save.seconds=0", "name=other"], "test")
    with Run.resume(tmp_path / "run", further, fake()) as run:
        assert run.advance() == "stop.evaluations = 480 is reached"
    whole, parts = unbroken(tmp_path / "whole", recipe()), content(tmp_path / "run")
    for what_is_the_same in ("elites", "cell_history", "pending", "counts", "genomes"):
        assert parts[what_is_the_same] == whole[what_is_the_same]
    assert parts["meta"]["recipe"]["stop"] == {"evaluations": 480}


def test_tick_interrupts_a_run_after_its_batch_and_everything_is_saved(tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path, fake()) as run:
        assert run.advance(lambda run: run.strategy.committed == 13, every=0.0) is None
        assert run.progress().saved == run.strategy.evaluations == 13 * 8
        assert run.finished is None
    stored = content(tmp_path)
    assert stored["meta"]["committed"] == 13
    assert stored["meta"]["finished"] is None
