"""A run's file: what it keeps, what it refuses, and that nothing stored is lost when something goes wrong."""

import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import tokenize
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evofool
import genomes
from evofool.errors import EvofoolError, StoreError
from evofool.recipe import load
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.schema import (
    Checkpoint,
    ImageMetric,
    elite_digest,
)
from evofool.run.store import Store
from tests.made_up import META, checkpoint, everything

HOME = Path(evofool.__file__).parent.parent
NOTHING = Checkpoint({}, [], [], [], [], [])


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that sees the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip


def read(folder: Path) -> dict[str, Any]:
    with Store.open(folder) as store:
        assert store.faults() == []
        return everything(store)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A made-up run of two checkpoints, closed."""
    folder = tmp_path / "runs" / "mine"
    with Store.create(folder, META) as store:
        store.save(checkpoint(0))
        store.save(checkpoint(1))
    return folder


# --- keeping


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a" / "b", META) as store:
        assert store.elites() == []
        assert store.counts() == (0, 0)
        assert store.meta() == META
        saved = [checkpoint(n) for n in range(3)]
        for c in saved:
            store.save(c)
    found = read(tmp_path / "a" / "b")
    last = saved[-1]
    assert found["meta"] == META.updated(**last.state)
    assert found["cell_history"] == [r for c in saved for r in c.cell_history]
    assert found["runners_up"] == sorted((r for c in saved for r in c.runners_up), key=lambda r: (r.birth, r.cell))
    assert found["metrics"] == [tuple(m) for c in saved for m in c.metrics]
    assert found["pending"] == [(p.batch, *(a.tolist() for a in p[1:5]), p.drawn_after) for p in last.pending]
    assert found["quarantine"] == [q for c in saved for q in c.quarantine]
    assert found["commits"] == [commit for c in saved for commit in c.commits]
    assert found["methods"] == {birth: method for c in saved for birth, method in c.methods.items()}
    # By cell, and of a cell in the order in which they were saved.
    assert found["improvements"] == [c.improvements[cell] for cell in range(3) for c in saved]
    assert found["counts"] == (6, 3)
    assert found["genomes"] == {g[0]: g[4] for c in saved for g in c.genomes}
    for row, new, genome in zip(found["elites"], last.elites, last.genomes, strict=True):
        assert (row.cell, row.class_id, row.niche, row.birth) == (new.cell, new.class_id, new.niche, new.birth)
        assert (row.log_odds, row.margin, row.search_log_odds, row.search_margin) == new.scores
        assert row.png == new.png
        assert (row.birth, row.batch, row.mother, row.father, found["genomes"][row.birth], 0) == genome
        assert row.bytes_per_pixel == len(new.png) / 64
        assert row.sha256 == row.digest()
        assert row.image_metrics == ()
        assert row.method == ("apgd" if row.birth == 8 else "evolved")


def test_pending_orders_come_back_to_the_bit_and_are_replaced(run_folder: Path) -> None:
    with Store.open(run_folder) as store:
        for found, expected in zip(store.pending(), checkpoint(1).pending, strict=True):
            assert (found.batch, found.drawn_after) == (expected.batch, expected.drawn_after)
            for a, b in zip(found[1:5], expected[1:5], strict=True):
                assert a.dtype == b.dtype
                assert a.tobytes() == b.tobytes()


def test_elites_and_reigns_can_be_asked_for_one_at_a_time(run_folder: Path) -> None:
    with Store.open(run_folder) as store:
        assert [e.class_id for e in store.elites(2)] == [2]
        assert store.elites(7) == []
        assert store.cell_history(4) == [r for r in checkpoint(1).cell_history if r.birth == 4]
        assert store.cell_history(99) == []
        assert store.runners_up(4) == [r for r in checkpoint(1).runners_up if r.birth == 4]
        assert store.runners_up(99) == []


def test_descent_follows_the_mothers_to_a_first_genome(run_folder: Path) -> None:
    with Store.open(run_folder) as store:
        assert store.descent(5) == [(5, 1, 2, 2), (2, 0, -1, -1)]
        with pytest.raises(StoreError, match="damaged: the genome of birth 77 is missing, or"):
            store.descent(77)
        with pytest.raises(StoreError, match="damaged: the genome of birth 77 is missing"):
            store.genomes([1, 77])


def test_a_descent_that_runs_in_a_circle_is_refused(run_folder: Path) -> None:
    database = sqlite3.connect(run_folder / FILE)
    database.execute("UPDATE genomes SET mother = 5 WHERE birth = 2")
    database.commit()
    database.close()
    with Store.open(run_folder) as store, pytest.raises(StoreError, match="damaged: the genome of birth 2 is missing, or"):
        store.descent(5)


def test_the_digest_changes_with_every_part_of_an_elite(run_folder: Path) -> None:
    with Store.open(run_folder) as store:
        row = store.elites()[1]
    changes: list[dict[str, Any]] = [
        {"class_id": 2}, {"niche": 1}, {"birth": row.birth + 1}, {"log_odds": np.nextafter(row.log_odds, 99).item()},
        {"margin": -row.margin}, {"search_log_odds": row.search_margin}, {"search_margin": 0.0},
        {"png": row.png[:-1] + b"x"}, {"png": row.png + b"x"},
    ]  # fmt: skip
    digests = {replace(row, **change).digest() for change in changes} | {row.digest()}
    assert len(digests) == 1 + len(changes)
    # a number's end and the next one's beginning cannot be mistaken for each other
    assert elite_digest(1, 12, 3, [0.0], b"") != elite_digest(11, 2, 3, [0.0], b"")


# --- measuring

DIGITS = {"images": "digits", "reference": 50, "held_out": 20}
OTHERS = {"images": "others", "reference": 40, "held_out": 30}
FAR = ImageMetric("nearest_real_pixels_percentile", 99.5, "abc")
ROUGH = ImageMetric("total_variation", 0.1 + 0.2, "")


def test_measures_are_kept_until_the_cell_changes_hands(run_folder: Path) -> None:
    with Store.open(run_folder, write=True) as store:
        store.set_image_metrics([(1, ROUGH), (1, FAR), (2, FAR)], {"abc": DIGITS})
        two = checkpoint(2)
        store.save(replace(two, genomes=list(two.genomes)[2:], cell_history=two.cell_history[2:], elites=two.elites[2:]))
        assert [e.image_metrics for e in store.elites(1)] == [(FAR, ROUGH)]
        assert store.meta().references == {"abc": DIGITS}
    assert [e.image_metrics for e in read(run_folder)["elites"]] == [(), (FAR, ROUGH), ()]
    database = sqlite3.connect(run_folder / FILE)
    assert database.execute("SELECT * FROM image_metrics").fetchall() == [(1, *FAR), (1, *ROUGH)]
    database.close()


def test_a_measure_found_again_takes_the_place_of_the_old_one_and_no_other_s(run_folder: Path) -> None:
    with Store.open(run_folder, write=True) as store:
        store.set_image_metrics([(0, FAR), (0, ROUGH), (1, FAR)], {"abc": DIGITS})
        store.set_image_metrics([(0, FAR._replace(value=3.0, reference="def"))], {"def": OTHERS})
        assert [e.image_metrics for e in store.elites()] == [(FAR._replace(value=3.0, reference="def"), ROUGH), (FAR,), ()]
        assert store.meta().references == {"abc": DIGITS, "def": OTHERS}


def test_an_elite_s_hash_does_not_cover_what_is_found_out_later(run_folder: Path) -> None:
    before = [e.digest() for e in read(run_folder)["elites"]]
    with Store.open(run_folder, write=True) as store:
        store.set_image_metrics([(0, ROUGH)])
    assert [e.digest() for e in read(run_folder)["elites"]] == before == [e.sha256 for e in read(run_folder)["elites"]]


def test_measures_are_written_together_or_not_at_all(run_folder: Path) -> None:
    before = read(run_folder)
    with Store.open(run_folder, write=True) as store:
        with pytest.raises(StoreError, match="has no elite in cell 7"):
            store.set_image_metrics([(0, FAR), (7, FAR)], {"abc": {}})
        with pytest.raises(ValueError, match="'beauty' is none of"):
            store.set_image_metrics([(0, ROUGH), (0, ImageMetric("beauty", 1.0, ""))])
        for value in (-0.1, 100.1, float("nan")):
            with pytest.raises(ValueError, match=r"a percentile lies in 0..100"):
                store.set_image_metrics([(0, FAR._replace(value=value))])
        with pytest.raises(ValueError, match="any other metric is finite"):
            store.set_image_metrics([(0, ROUGH._replace(value=float("inf")))])
    assert read(run_folder) == before


def test_an_elite_may_be_saved_with_its_measures(run_folder: Path) -> None:
    two = checkpoint(2)
    with Store.open(run_folder, write=True) as store:
        store.save(replace(two, elites=[replace(two.elites[0], image_metrics=(FAR, ROUGH)), *two.elites[1:]]))
    assert [e.image_metrics for e in read(run_folder)["elites"]] == [(FAR, ROUGH), (), ()]


def test_a_measure_that_is_no_number_is_damage(run_folder: Path) -> None:
    database = sqlite3.connect(run_folder / FILE)
    database.execute("INSERT INTO image_metrics VALUES (0, 'total_variation', 'much', '')")
    database.commit()
    database.close()
    with Store.open(run_folder) as store, pytest.raises(StoreError, match=r"is damaged: image_metrics\.value is 'much'"):
        store.elites()


@pytest.mark.parametrize("value", ["[]", "3", '"abc"', '{"abc": 7}', "null"])
def test_references_of_another_kind_are_damage(run_folder: Path, value: str) -> None:
    database = sqlite3.connect(run_folder / FILE)
    database.execute("UPDATE meta SET value = ? WHERE key = 'references'", (value,))
    database.commit()
    database.close()
    with Store.open(run_folder, write=True) as store:
        for ask in (store.meta, lambda: store.set_image_metrics([(1, FAR)], {"abc": DIGITS})):
            with pytest.raises(StoreError, match=r"is damaged: meta\.references(\.abc)?: .* \(it is"):
                ask()
    database = sqlite3.connect(run_folder / FILE)
    assert database.execute("SELECT * FROM image_metrics").fetchall() == []
    database.close()


# --- refusing


def test_a_folder_that_is_not_there_or_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere"):
        Store.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"is not a run \(it has no run\.db\)"):
        Store.open(tmp_path)
    (tmp_path / FILE).mkdir()
    with pytest.raises(StoreError, match="is not a run"):
        Store.open(tmp_path, write=True)


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_stays(run_folder: Path) -> None:
    before = read(run_folder)
    with pytest.raises(StoreError, match=r"has a run already; resume it .* --out"):
        Store.create(run_folder, META)
    assert read(run_folder) == before


@pytest.mark.parametrize("write", [False, True])
def test_random_bytes_are_no_run_and_stay_as_they_are(tmp_path: Path, write: bool) -> None:
    for size in (0, 1, 100, 20_000):
        noise = np.random.default_rng(size).bytes(size)
        (tmp_path / FILE).write_bytes(noise)
        with pytest.raises(StoreError, match="not a run of"):
            Store.open(tmp_path, write)
        assert (tmp_path / FILE).read_bytes() == noise


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("script", ["CREATE TABLE meta (a)", "CREATE TABLE other (a); PRAGMA application_id = 1702260582"])
def test_somebody_else_s_database_is_no_run_and_stays_as_it_is(tmp_path: Path, script: str, write: bool) -> None:
    database = sqlite3.connect(tmp_path / FILE)
    database.executescript(script)
    database.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StoreError, match="is not a run of evofool"):
        Store.open(tmp_path, write)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("version", ["1", '"2"', "null"])
def test_a_run_of_another_version_is_refused_with_both_versions(run_folder: Path, version: str) -> None:
    database = sqlite3.connect(run_folder / FILE)
    database.execute("UPDATE meta SET value = ? WHERE key = 'version'", (version,))
    database.commit()
    database.close()
    for write in (False, True):
        with pytest.raises(
            StoreError, match=r"is a run of version .*; this evofool reads version 7\. Run its recipe again, or"
        ):
            Store.open(run_folder, write)


def test_a_truncated_file_is_refused_or_its_faults_are_told(run_folder: Path) -> None:
    whole = (run_folder / FILE).read_bytes()
    for length in [1, 16, 99, 100, 511, 1024, *range(4096, len(whole), 4096), *range(5000, len(whole), 7000)]:
        (run_folder / FILE).write_bytes(whole[:length])
        refused = False
        try:
            with Store.open(run_folder) as store:
                refused = bool(store.faults())
                everything(store)
        except StoreError:
            refused = True
        assert refused, f"{length} of {len(whole)} bytes pass"


def test_a_metrics_row_that_is_no_json_is_named_as_damage(run_folder: Path) -> None:
    database = sqlite3.connect(run_folder / FILE)
    database.execute("UPDATE metrics SET row = substr(row, 2) WHERE batch = 1")
    database.commit()
    database.close()
    with Store.open(run_folder) as store, pytest.raises(StoreError, match=FILE):
        store.metrics()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"file.*cannot be made"):
        Store.create(tmp_path / "file", META)
    with pytest.raises(StoreError, match="cannot be made"):
        Store.create(tmp_path / "file" / "below", META)


# --- one writer, many readers


def test_a_second_writer_is_refused_while_readers_work(run_folder: Path) -> None:
    with Store.open(run_folder, write=True) as writer, Store.open(run_folder) as reader:
        for _ in range(2):
            with pytest.raises(
                StoreError, match="in use: another evofool is writing this run; show, export and verify work"
            ):
                Store.open(run_folder, write=True)
        with pytest.raises(StoreError, match="in use"):
            Store.create(run_folder, META)
        before = everything(reader)
        writer.save(checkpoint(2))
        assert everything(reader)["counts"] == (6, 3)
        assert everything(reader) != before
        with pytest.raises(StoreError, match="readonly"):
            reader.save(NOTHING)
    with Store.open(run_folder, write=True) as writer:
        assert writer.counts() == (6, 3)


def test_a_writer_in_another_process_is_refused_and_a_reader_is_not(run_folder: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from evofool.run.store import Store
        from evofool.errors import StoreError
        with Store.open(Path(sys.argv[1])) as store:
            print(len(store.elites()))
        try:
            Store.open(Path(sys.argv[1]), write=True)
        except StoreError as error:
            print(error)
    """
    with Store.open(run_folder, write=True):
        done = python(code, str(run_folder))
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "3"
    assert "in use: another evofool is writing this run" in done.stdout


def test_a_reader_sees_whole_checkpoints_only(run_folder: Path) -> None:
    with Store.open(run_folder, write=True) as writer, Store.open(run_folder) as reader:
        with contextlib.suppress(ZeroDivisionError), writer._transaction():
            writer._db.execute("DELETE FROM elites")
            assert len(reader.elites()) == 3
            raise ZeroDivisionError
        assert len(writer.elites()) == len(reader.elites()) == 3


# --- closing and copying


def companions(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.name.startswith(FILE)}


def test_a_closed_run_stands_alone_and_can_be_copied(run_folder: Path, tmp_path: Path) -> None:
    assert companions(run_folder) == {FILE}
    (tmp_path / "copy").mkdir()
    shutil.copy(run_folder / FILE, tmp_path / "copy" / FILE)
    assert read(tmp_path / "copy") == read(run_folder)
    assert companions(tmp_path / "copy") == {FILE}


def test_a_run_closed_under_a_reader_can_be_copied_as_well(run_folder: Path, tmp_path: Path) -> None:
    with Store.open(run_folder) as reader:
        reader.elites()
        with Store.open(run_folder, write=True) as writer:
            writer.save(checkpoint(2))
        (tmp_path / "copy").mkdir()
        shutil.copy(run_folder / FILE, tmp_path / "copy" / FILE)
        assert read(tmp_path / "copy") == everything(reader)
        assert reader.counts() == (6, 3)


def test_closing_lets_the_next_writer_in_even_after_an_error(run_folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), Store.open(run_folder, write=True):
            raise ZeroDivisionError
    database = sqlite3.connect(run_folder / FILE)
    database.execute("DELETE FROM meta WHERE key = 'version'")
    database.commit()
    database.close()
    for _ in range(2):
        with pytest.raises(StoreError, match="version None"):
            Store.open(run_folder, write=True)


def test_what_was_saved_survives_a_process_that_never_closes(run_folder: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from evofool.run.schema import Checkpoint
        from evofool.run.store import Store
        store = Store.open(Path(sys.argv[1]), write=True)
        store.save(Checkpoint({"committed": 77}, [(100, 9, -1, -1, b"g", 0)], [], [], [], []))
        store._db.execute("BEGIN IMMEDIATE")
        store._db.execute("DELETE FROM genomes")
        os.kill(os.getpid(), 9)
    """
    before = read(run_folder)
    assert python(code, str(run_folder)).returncode == -9
    assert companions(run_folder) > {FILE}
    after = read(run_folder)
    assert after["meta"] == before["meta"].updated(committed=77)
    assert after["elites"] == before["elites"]
    with Store.open(run_folder, write=True) as store:
        assert store.genomes([100]) == {100: b"g"}
        store.save(checkpoint(2))
    assert companions(run_folder) == {FILE}


# --- saving goes wrong


def broken_checkpoints() -> list[tuple[str, Checkpoint, type[Exception]]]:
    good = checkpoint(2)
    return [
        ("state", replace(good, state={**good.state, "recipe": {"bad": object()}}), TypeError),
        ("a key of state", replace(good, state={**good.state, "bad": 1}), ValueError),
        ("a value of state", replace(good, state={**good.state, "committed": -1}), ValueError),
        ("metrics", replace(good, metrics=[*good.metrics, (9, 0.0, {"x": object()})]), TypeError),
        ("pending", replace(good, pending=[*good.pending, good.pending[0]]), StoreError),
        ("genomes", replace(good, genomes=[*good.genomes, ("word", 0, 0, 0, b"", 0)]), StoreError),  # type: ignore[list-item]
        (
            "elites",
            replace(good, elites=[*good.elites, replace(good.elites[0], cell=9, scores=(float("nan"), 0.0, 0.0, 0.0))]),
            StoreError,
        ),
    ]


@pytest.mark.parametrize(("what", "broken", "error"), broken_checkpoints(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_checkpoint_that_fails_anywhere_leaves_nothing(
    run_folder: Path, what: str, broken: Checkpoint, error: type[Exception]
) -> None:
    before = read(run_folder)
    with Store.open(run_folder, write=True) as store:
        with pytest.raises(error):
            store.save(broken)
        assert everything(store) == before
        store.save(checkpoint(2))
        assert everything(store)["counts"] == (6, 3)


def test_a_file_that_may_not_grow_refuses_the_checkpoint_and_keeps_what_it_has(run_folder: Path) -> None:
    before = read(run_folder)
    with Store.open(run_folder, write=True) as store:
        store._db.execute("PRAGMA max_page_count = 1")  # SQLite: not below what the file has now
        big = replace(checkpoint(2), genomes=[*checkpoint(2).genomes, (1000, 2, -1, -1, bytes(500_000), 0)])
        with pytest.raises(StoreError, match=r"run\.db could not be written; what was saved before is safe.*full") as caught:
            store.save(big)
        assert isinstance(caught.value, EvofoolError)
        assert everything(store) == before
        store._db.execute("PRAGMA max_page_count = 1000000")
        store.save(big)
        assert store.counts() == (6, 3)
    assert read(run_folder)["counts"] == (6, 3)


# A whole run on a disk that fills up. The limit on file sizes stands for the disk: it also stops root.

LIMITED = """
    import resource, sys
    from evofool.cli.app import main
    limit = int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    main()
"""
CHANGES = ("stop.evaluations=400", "stop.confidence=", "save.seconds=0", "search.batch=20")


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of 200 evaluations, and what came of going on with it to 400 on a disk with no room."""
    folder = tmp_path_factory.mktemp("full") / "run"
    with Run.start(load("mnist-direct", CHANGES), folder) as run:
        run.advance(batches=10)
    before = read(folder)
    limit = (folder / FILE).stat().st_size // 2
    done = python(LIMITED, str(limit), "run", str(folder))
    return {"folder": folder, "before": before, "done": done, "after": read(folder)}


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_one_sentence(full_disk: dict[str, Any]) -> None:
    done = full_disk["done"]
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("evofool: ")
    assert "run.db" in done.stderr
    assert "Done" not in done.stdout


def test_a_full_disk_s_sentence_says_that_what_was_saved_is_safe(run_folder: Path) -> None:
    """Even where folding in the log, when the file is closed, fails as well."""
    code = """
        import resource, sys
        from dataclasses import replace
        from pathlib import Path
        from evofool.run.schema import Checkpoint
        from evofool.run.store import Store
        nothing = Checkpoint({}, [], [], [], [], [])
        folder = Path(sys.argv[1])
        try:
            with Store.open(folder, write=True) as store:
                store.save(replace(nothing, genomes=[(1000, 9, -1, -1, bytes(200_000), 0)]))
                size = (folder / "run.db").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
                store.save(replace(nothing, genomes=[(1001, 9, -1, -1, bytes(900_000), 0)]))
        except OSError as error:
            print(error)
    """
    before = read(run_folder)
    assert "what was saved before is safe" in python(code, str(run_folder)).stdout
    with Store.open(run_folder, write=True) as store:
        assert store.genomes([1000]) == {1000: bytes(200_000)}
    # The first of the two checkpoints had no orders under way, and took those of the run away.
    assert read(run_folder) == before | {"pending": []}


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_saved(full_disk: dict[str, Any]) -> None:
    before, after = full_disk["before"], full_disk["after"]
    assert after["meta"].committed >= before["meta"].committed == 10
    assert after["cell_history"][: len(before["cell_history"])] == before["cell_history"]
    assert after["metrics"][: len(before["metrics"])] == before["metrics"]
    assert len(after["elites"]) == 10


@pytest.mark.slow
def test_a_run_that_met_a_full_disk_goes_on_once_there_is_room(full_disk: dict[str, Any], tmp_path: Path) -> None:
    with Run.resume(full_disk["folder"]) as run:
        assert run.advance() == "stop.evaluations = 400 is reached"
    with Run.start(load("mnist-direct", CHANGES), tmp_path / "unbroken") as run:
        run.advance()
    resumed, unbroken = read(full_disk["folder"]), read(tmp_path / "unbroken")
    for what in ("elites", "cell_history", "pending", "counts", "genomes"):
        assert resumed[what] == unbroken[what]


def test_a_run_that_could_not_be_made_on_a_full_disk_can_be_made_later(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        from evofool.run.meta import RunMeta
        from evofool.run.store import Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        try:
            Store.create(Path(sys.argv[1]), RunMeta.model_validate_json(sys.argv[2]))
        except OSError as error:
            print(error)
    """
    folder = tmp_path / "run"
    assert str(folder / FILE) in python(code, str(folder), META.model_dump_json()).stdout
    with Store.create(folder, META) as store:
        store.save(checkpoint(0))


# --- no pickle


def test_nothing_in_either_package_reads_or_writes_pickles() -> None:
    for package in (evofool, genomes):
        sources = sorted(Path(package.__file__).parent.rglob("*.py"))
        assert len(sources) > 5
        for path in sources:
            tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
            code = "".join(t.string + " " for t in tokens if t.type in (tokenize.NAME, tokenize.OP))
            for word in (
                "pickle",
                "cPickle",
                "dill",
                "joblib",
                "shelve",
                "marshal",
                "allow_pickle",
                "torch . save",
            ):
                assert f" {word} " not in f" {code}", f"{path} uses {word}"
            loads = code.count("torch . load (")
            assert loads == code.count("weights_only = True"), path
            assert not loads or path.name == "weights.py"
