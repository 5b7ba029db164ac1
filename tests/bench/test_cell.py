"""A cell of a benchmark is run once for a job, and again for another job."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evofool.bench.arms import evolves, search_recipe
from evofool.bench.cell import ASIDE, clear_folder, is_done, read_record, run_cell
from evofool.bench.cell_job import CellJob, JobSurrogate
from evofool.errors import TargetError
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target

ALL = tuple(range(10))


def job(folder: Path, **changes: object) -> CellJob:
    made = replace(CellJob(folder, "lenet", "cppn", 0, 60, ALL), **changes)  # type: ignore[arg-type]
    # Of so few queries some are to be children.
    return replace(made, changes=("search.random=0",)) if evolves(made.arm) and "changes" not in changes else made


def evaluations(folder: Path) -> int:
    with StoredRun(folder) as stored:
        return stored.evaluations


def test_a_job_is_equal_after_conversion_to_a_dict_and_back(tmp_path: Path) -> None:
    sent = job(tmp_path, changes=("search.batch=12",), classes=(3, 4))
    assert CellJob.from_dict(sent.to_dict()) == sent
    assert "surrogates" not in sent.identity, "cells that were made before there were any are still theirs"
    sent = replace(sent, arm="surrogate", surrogates=(JobSurrogate("lenet?mean=0.1", "a"), JobSurrogate("other", "b")))
    assert CellJob.from_dict(json.loads(json.dumps(sent.to_dict()))) == sent
    assert sent.identity["surrogates"] == ["a", "b"]


CLIMBS = ("search.batch=12", "search.random=12", "search.surrogate.after=24", "search.surrogate.steps=2")


def test_a_cell_whose_children_climb_counts_passes_apart_from_queries_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = target("lenet?mean=0.1").fingerprint()

    def climbing(name: str, of: str = fingerprint) -> dict[str, object]:
        surrogates = (JobSurrogate("lenet?mean=0.1", of),)
        return job(tmp_path / name, arm="surrogate", changes=CLIMBS, surrogates=surrogates).to_dict()

    whole = run_cell(climbing("whole"))
    assert whole is not None
    assert (whole["forwards"], whole["backwards"]) == (60, 0)
    with StoredRun(tmp_path / "whole") as stored:
        climbed = stored.meta.surrogates
        assert climbed is not None
        assert climbed.children > 0
        elites = [elite.summary() for elite in stored.elites()]
    assert whole["surrogate_forwards"] == whole["surrogate_backwards"] == climbed.forwards == 2 * climbed.children
    with monkeypatch.context() as patch:
        advance = Run.advance
        patch.setattr(Run, "advance", lambda run, tick: advance(run, tick, batches=3))
        assert run_cell(climbing("cut")) is None
    assert run_cell(climbing("cut")) is not None
    with StoredRun(tmp_path / "cut") as stored:
        assert stored.meta.surrogates == climbed
        assert [elite.summary() for elite in stored.elites()] == elites
    with pytest.raises(TargetError, match=r"the surrogate lenet\?mean=0\.1 has changed since"):
        run_cell(climbing("other", "another"))


def test_a_done_cell_is_not_run_again(tmp_path: Path) -> None:
    first = run_cell(job(tmp_path / "cell").to_dict())
    assert first is not None
    assert run_cell(job(tmp_path / "cell").to_dict(), lambda report: pytest.fail("it was begun again")) == first


def test_a_cell_reports_while_its_images_are_verified(tmp_path: Path) -> None:
    """Otherwise a cell on a worker would be taken to hang."""
    reports: list[int] = []
    run_cell(job(tmp_path / "cell").to_dict(), lambda report: bool(reports.append(report["done"])))  # type: ignore[func-returns-value]
    after_the_search = len(reports) - reports.index(60) - 1
    assert after_the_search >= len(ALL)


@pytest.mark.parametrize(
    "change", [{"queries": 120}, {"rank": "log_odds"}, {"classes": (3, 4)}, {"changes": ("search.lag=1",)}]
)
def test_a_cell_made_for_another_job_is_moved_aside_and_run_again(tmp_path: Path, change: dict[str, object]) -> None:
    folder = tmp_path / "cell"
    run_cell(job(folder).to_dict())
    other = job(folder, **change)
    assert not is_done(other)
    assert run_cell(other.to_dict())
    assert is_done(other)
    assert evaluations(folder) == other.queries
    assert evaluations(tmp_path / ASIDE / "cell-1") == 60
    run_cell(job(folder).to_dict())
    assert evaluations(tmp_path / ASIDE / "cell-2") == other.queries
    assert is_done(job(folder))


def test_an_interrupted_cell_of_another_job_is_not_continued(tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    assert run_cell(job(folder, queries=6_000_000, changes=("save.seconds=0.05",)).to_dict(), lambda report: True) is None
    assert read_record(folder) is None
    assert run_cell(job(folder).to_dict())
    assert evaluations(folder) == 60


def test_a_target_that_is_not_the_job_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="lenet has changed since"):
        run_cell(job(tmp_path / "cell", fingerprint="another").to_dict())
    assert not (tmp_path / "cell").exists()
    assert run_cell(job(tmp_path / "cell", fingerprint=target("lenet").fingerprint()).to_dict())


@pytest.mark.parametrize("arm", ["direct", "cppn", "per-class"])
def test_a_search_is_for_the_classes_of_its_job(tmp_path: Path, arm: str) -> None:
    run_cell(job(tmp_path / "cell", arm=arm, classes=(3, 4)).to_dict())
    with StoredRun(tmp_path / "cell") as stored:
        assert [elite.row.class_id for elite in stored.elites()] == [3, 4]


def test_a_search_never_makes_more_queries_than_its_budget() -> None:
    lenet = target("lenet")
    for arm in ("direct", "cppn"):
        for queries in [*range(1, 130), 9_973]:
            made = search_recipe(job(Path("x"), arm=arm, queries=queries), lenet)
            assert made.stop.evaluations is not None
            assert made.stop.evaluations % made.search.batch == 0
            assert queries - made.search.batch < made.stop.evaluations <= queries


def test_a_cell_of_another_job_is_moved_aside_before_workers_start(tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    run_cell(job(folder).to_dict())
    clear_folder(job(folder))
    assert folder.exists()
    clear_folder(job(folder, queries=120))
    assert not folder.exists()
    assert evaluations(tmp_path / ASIDE / "cell-1") == 60


ROW_TARGET = """
import numpy as np

class ByRow:
    shape, labels = (1, 6, 6), ["ant", "bee", "cat"]
    def __call__(self, images):
        logits = images.reshape(len(images), -1)[:, :3].astype(np.float32) / 64
        return logits + np.arange(len(images), dtype=np.float32)[:, None] * np.float32([0, 1e-5, 2e-5])
"""


@pytest.mark.parametrize("arm", ["direct", "random", "square", "noise"])
def test_a_cell_is_valid_even_if_logits_depend_on_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    (tmp_path / "row_cell_target.py").write_text(ROW_TARGET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "cell"
    done = run_cell(job(folder, target="python:row_cell_target:ByRow", arm=arm, queries=600, classes=(0, 1, 2)).to_dict())
    assert done is not None
    assert done["faults"] == []
    assert done["comparison"].startswith("within ")
    with StoredRun(folder) as stored:
        assert stored.meta.position.dependent
        assert 0 < stored.meta.position.tolerance < 1e-3
    assert read_record(folder) == done
