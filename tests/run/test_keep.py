"""Runs whose cells keep more than one genome (search.keep): what their files hold, and what reads them."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import RecipeError, StoreError
from evofool.recipe import Recipe, parse
from evofool.run.lineage import classes_passed, lineage
from evofool.run.merge import merge
from evofool.run.reader import FILE
from evofool.run.replay import replay
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.scores import log_odds
from tests.synthetic import CLASSES, fake, linear

KEEP = 4


def recipe(keep: int = KEEP, seed: int = 3, **search: object) -> Recipe:
    encoding = {"kind": "direct", "crossover": 0.3}
    search = {"seed": seed, "batch": 8, "lag": 2, "keep": keep, **search}
    return parse({"target": "fake", "encoding": encoding, "search": search, "stop": {"evaluations": 640}}, "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keep") / "run"
    with Run.start(recipe(), folder, fake()) as run:
        run.advance()
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def test_the_lists_in_the_file_are_those_of_the_archive(finished: Path, tmp_path: Path) -> None:
    with Run.start(recipe(), tmp_path / "again", fake()) as run:
        run.advance()
        births = run.archive.births
    with StoredRun(finished) as stored:
        for c in range(CLASSES):
            places = stored.class_list(c)
            assert [place.birth for place in places] == births[c].tolist()
            assert [place.place for place in places] == list(range(KEEP))
            (elite,) = stored.store.elites(c)
            assert (places[0].birth, places[0].log_odds) == (elite.birth, elite.search_log_odds)
            genomes = stored.store.genomes(place.birth for place in places)
            for place in places:
                image = stored.encoding.render(stored.unpack([genomes[place.birth]]))
                assert log_odds(linear(image))[0, c] == place.log_odds
        assert len({place.birth for c in range(CLASSES) for place in stored.class_list(c)}) > CLASSES


def test_wins_and_switches_count_elites_alone(finished: Path) -> None:
    with StoredRun(finished) as stored:
        wins, switches = stored.store.counts()
        history, last = stored.store.cell_history(), stored.rows()[-1]
    assert (wins, switches) == (len(history) - CLASSES, sum(change.switched for change in history))
    assert (last["wins"], last["switches"]) == (wins, switches)
    for c in range(CLASSES):
        own = [change.log_odds for change in history if change.cell == c]
        assert own == sorted(own)


def test_a_run_with_lists_passes_and_is_replayed_with_them(finished: Path, tmp_path: Path) -> None:
    with StoredRun(finished) as stored:
        assert stored.store.runners_up()
        assert verify(stored, fake()).faults == ()
    assert replay(finished, tmp_path / "again", fake()).differences == ()


def test_a_replay_names_another_runner_up(folder: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as database:
        database.execute("UPDATE runners_up SET log_odds = log_odds + 1 WHERE birth = (SELECT MAX(birth) FROM runners_up)")
        database.commit()
    assert replay(folder, tmp_path / "again", fake()).differences == ("runners-up of each cell and their scores",)


def test_a_run_keeps_its_number_of_genomes(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"has a run with search\.keep = 4, not 5"):
        Run.resume(folder, recipe(5), fake())


def test_a_file_with_one_genome_a_cell_has_no_table_of_runners_up(tmp_path: Path) -> None:
    with Run.start(recipe(1), tmp_path / "run", fake()) as run:
        run.advance(batches=5)
        assert "runners_up" not in run.store._meta_values(("digests",))["digests"]
    with closing(sqlite3.connect(tmp_path / "run" / FILE)) as database:
        assert database.execute("SELECT * FROM sqlite_master WHERE tbl_name = 'runners_up'").fetchall() == []
    with StoredRun(tmp_path / "run") as stored:
        assert stored.store.runners_up() == []
        assert verify(stored, fake()).faults == ()
        with pytest.raises(StoreError, match=r"keeps one genome a cell, its elite \(search\.keep is 1\)"):
            stored.class_list(0)


def test_a_lineage_tells_runners_up_from_elites(finished: Path) -> None:
    with StoredRun(finished) as stored:
        kinds = set()
        for elite in stored.elites():
            line = lineage(stored, elite.row.birth)
            for ancestor in line:
                assert set(ancestor.held).isdisjoint(ancestor.runner_up)
                assert ancestor.held or ancestor.runner_up
                assert ancestor.held or not ancestor.switched
                kinds.add(bool(ancestor.held))
            assert () not in classes_passed(line)
    assert kinds == {True, False}


def test_runs_with_lists_are_merged_by_their_elites(finished: Path, tmp_path: Path) -> None:
    with Run.start(recipe(1, seed=4), tmp_path / "other", fake()) as run:
        run.advance()
    for sources in ([finished], [finished, tmp_path / "other"], [tmp_path / "other", finished]):
        out = tmp_path / f"merged {len(list(tmp_path.iterdir()))}"
        merge(sources, out)
        with StoredRun(out) as merged, StoredRun(finished) as own:
            assert merged.meta.keep == 1
            assert merged.store.runners_up() == []
            assert verify(merged, fake()).faults == ()
            held = {row.cell: (row.birth, row.log_odds) for row in merged.store.elites()}
            last = {change.cell: (change.birth, change.log_odds) for change in merged.store.cell_history()}
            assert last == held
            assert all(lineage(merged, birth) for birth, _ in held.values())
            if len(sources) == 1:
                assert [row.png for row in merged.store.elites()] == [row.png for row in own.store.elites()]


def test_a_search_can_begin_with_the_elites_of_a_run_with_lists(finished: Path, tmp_path: Path) -> None:
    with Run.start(recipe(parents=str(finished)), tmp_path / "run", fake()) as run:
        assert run.seeds is not None
        assert run.seeds.number <= CLASSES
        run.advance(batches=10)
        best = run.best()
    with StoredRun(finished) as stored:
        assert (best >= [elite.row.log_odds for elite in stored.elites()]).all()


def test_a_free_search_with_lists_is_replayed(tmp_path: Path) -> None:
    with Run.start(recipe(mode="free"), tmp_path / "run", fake()) as run:
        run.advance()
    assert replay(tmp_path / "run", tmp_path / "again", fake()).differences == ()


def test_a_damaged_list_of_a_pending_order_is_named(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as database:
        database.execute("UPDATE pending SET incumbents = zeroblob(?)", (CLASSES * 8,))
        database.commit()
    with Store.open(folder) as store, pytest.raises(StoreError, match="lists of other lengths than its parents and cells"):
        store.pending()


def test_a_margin_orders_the_lists_too(tmp_path: Path) -> None:
    with Run.start(recipe(rank="margin"), tmp_path / "run", fake()) as run:
        run.advance(batches=30)
        births, scores = run.archive.births.copy(), run.archive.scores.copy()
    assert (np.diff(scores, axis=1) <= 0).all()
    with Run.resume(tmp_path / "run", target=fake()) as run:
        assert np.array_equal(run.archive.births, births)
        assert np.array_equal(run.archive.scores, scores)
