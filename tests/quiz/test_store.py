"""quiz.db keeps every answer, changes none, and is read as a file that may come from anyone."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from evofool.errors import StoreError
from evofool.quiz.materials import trial_id
from evofool.quiz.raters import standing
from evofool.quiz.schema import Answer, Code, End, Seen
from evofool.quiz.store import FILE, SIMULATED_FILE, QuizStore, trial_ids
from evofool.run.lock import lock_run
from tests.quiz.samples import DIGITS, made, record, session, take


def test_a_session_reads_back_as_it_was_answered(tmp_path: Path) -> None:
    asked = record("perfect", 1)
    with QuizStore.open(tmp_path, write=True) as store:
        take(store, asked, made(1).images)
        store.code(
            [Code(answer="blob", classes=(), coder="Kim", at=5.0), Code(answer="x", classes=(1, 2), coder="Kim", at=6.0)]
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "quiz.lock"], "closed, it stands alone"
    with QuizStore.open(tmp_path) as store:
        assert store.records() == [asked]
        assert store.record(asked.session.id) == asked
        with pytest.raises(StoreError, match="has no session"):
            store.record("f" * 32)
        assert [code.classes for code in store.codes()] == [(), (1, 2)]
        assert {image: store.image(image) for image in made(1).images} == made(1).images
        assert trial_ids(asked) == {trial_id(1, trial.n): trial.n for trial in asked.trials}


def test_an_answer_is_taken_once_in_order_and_only_from_the_options(tmp_path: Path) -> None:
    asked, first = record("perfect", 1), Answer(n=0, answer="7", rt_ms=900, at=1.0)
    with QuizStore.open(tmp_path, write=True) as store:
        store.begin(asked.session, asked.trials, made(1).images)
        with pytest.raises(StoreError, match=r"trial 1 of session .* is not the next one, which is 0"):
            store.answer(asked.session.id, first.model_copy(update={"n": 1}))
        with pytest.raises(StoreError, match="trial 0 asks for a name, not for a choice"):
            store.answer(asked.session.id, first.model_copy(update={"chosen": 3}))
        store.answer(asked.session.id, first)
        with pytest.raises(StoreError, match=r"trial 0 of session .* was answered already"):
            store.answer(asked.session.id, first)
        for answer in asked.answers[1:-1]:
            store.answer(asked.session.id, answer)
        last = asked.answers[-1]
        with pytest.raises(StoreError, match="is a choice among 10 options, and 11 is none of them"):
            store.answer(asked.session.id, last.model_copy(update={"chosen": 11}))
        store.answer(asked.session.id, last)
        with pytest.raises(StoreError, match=r"has .* trials, which are all answered"):
            store.answer(asked.session.id, last.model_copy(update={"n": last.n + 1}))
        store.end(asked.session.id, End(at=9.0))
        with pytest.raises(StoreError, match="has ended; its trials take no more answers"):
            store.answer(asked.session.id, last)
        with pytest.raises(StoreError, match="could not be written"):
            store.end(asked.session.id, End(at=9.0))
        with pytest.raises(StoreError, match="has no session"):
            store.answer("f" * 32, first)
        with pytest.raises(StoreError, match=r"has the session .* already"):
            store.begin(asked.session, asked.trials, made(1).images)
        assert store.records()[0].answers[0] == first


TABLE_NAMES = ["quiz_sessions", "quiz_trials", "quiz_answers", "quiz_ends", "quiz_seen", "quiz_codes", "quiz_images"]


@pytest.mark.parametrize("table", TABLE_NAMES)
def test_rows_are_only_appended(tmp_path: Path, table: str) -> None:
    with QuizStore.open(tmp_path, write=True) as store:
        take(store, record("perfect", 1), made(1).images)
        store.mark_seen(record("perfect", 1).session.id, 3.0)
        store.code([Code(answer="blob", classes=(), coder="Kim", at=5.0)])
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as db:
        before = db.execute(f"SELECT * FROM {table}").fetchall()
        columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
        last = columns[-1]
        for statement in (
            f"UPDATE {table} SET {last} = 8",
            f"DELETE FROM {table}",
            f"REPLACE INTO {table} SELECT * FROM {table}",
            f"INSERT OR REPLACE INTO {table} SELECT {', '.join(columns[:-1])}, 8 FROM {table}",
            f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 ON CONFLICT DO UPDATE SET {last} = 8",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="rows are only appended"):
                db.execute(statement)
        assert db.execute(f"SELECT * FROM {table}").fetchall() == before
        # No other key, by which a row could be replaced.
        if table != "quiz_codes":  # its id is the rowid
            with pytest.raises(sqlite3.OperationalError, match="no such column: rowid"):
                db.execute(f"SELECT rowid FROM {table}")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from evofool.quiz.store import QuizStore
    from tests.quiz.samples import made, record

    asked, store = record("perfect", 1), QuizStore.open(Path(sys.argv[1]), write=True)
    store.begin(asked.session, asked.trials, made(1).images)
    for answer in asked.answers[:20]:
        store.answer(asked.session.id, answer)
    store._db.execute("BEGIN IMMEDIATE")
    store._db.execute("INSERT INTO quiz_ends VALUES (?, 1.0, 0)", (asked.session.id,))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_no_answer_is_lost_when_the_writer_is_killed_and_the_session_goes_on(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    assert subprocess.run(command, env=environment, cwd=root).returncode == -signal.SIGKILL
    asked = record("perfect", 1)
    with QuizStore.open(tmp_path) as store:
        assert store.records() == [asked._replace(answers=asked.answers[:20], end=None)]
    with QuizStore.open(tmp_path, write=True) as store:
        for answer in asked.answers[20:]:
            store.answer(asked.session.id, answer)
        store.end(asked.session.id, End(at=1001.0))
        assert store.records() == [asked]


def test_answers_are_taken_while_the_run_is_being_written_and_by_two_at_once(tmp_path: Path) -> None:
    lock = lock_run(tmp_path)
    one, two = record("perfect", 1), record("sees nothing", 2)
    with QuizStore.open(tmp_path, write=True) as a, QuizStore.open(tmp_path, write=True) as b:
        a.begin(one.session, one.trials, made(1).images)
        b.begin(two.session, two.trials, made(2).images)
        for first, second in zip(one.answers, two.answers, strict=False):
            a.answer(one.session.id, first)
            b.answer(two.session.id, second)
    lock.release()
    with QuizStore.open(tmp_path) as store:
        number = min(len(one.answers), len(two.answers))
        assert [found.answers for found in store.records()] == [one.answers[:number], two.answers[:number]]


def test_simulated_raters_have_a_file_of_their_own(tmp_path: Path) -> None:
    asked = record("perfect", 1)
    robot = asked._replace(session=session(1, kind="simulated"))
    with QuizStore.open(tmp_path, write=True) as people, QuizStore.open(tmp_path, write=True, simulated=True) as robots:
        with pytest.raises(StoreError, match="takes no session of a simulated rater; this one is of kind 'simulated'"):
            people.add(robot, made(1).images)
        with pytest.raises(StoreError, match="takes only sessions of simulated raters; this one is of kind 'person'"):
            robots.add(asked, made(1).images)
        robots.add(robot, made(1).images)
        assert people.records() == []
    # Renamed, it is still none of people.
    (tmp_path / SIMULATED_FILE).replace(tmp_path / FILE)
    with QuizStore.open(tmp_path) as store, pytest.raises(StoreError, match="'simulated', which is kept in another file"):
        store.records()


def test_sessions_of_another_file_are_added_once(tmp_path: Path) -> None:
    one, two = record("perfect", 1), record("sees nothing", 2)
    for folder, asked, seed in ((tmp_path / "a", one, 1), (tmp_path / "b", two, 2)):
        folder.mkdir()
        with QuizStore.open(folder, write=True) as store:
            take(store, asked, made(seed).images)
            store.code([Code(answer="blob", classes=(seed,), coder="Kim", at=1.0)])
    with QuizStore.open(tmp_path / "a", write=True) as a, QuizStore.open(tmp_path / "b") as b:
        assert a.add_all(b) == 1
        assert a.add_all(b) == 0
        assert a.records() == [one, two]
        assert [code.classes for code in a.codes()] == [(1,), (2,)]


def test_a_session_that_was_marked_as_seen_stays_so_wherever_it_is_copied(tmp_path: Path) -> None:
    asked = record("perfect", 1)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    with QuizStore.open(tmp_path / "a", write=True) as a, QuizStore.open(tmp_path / "b", write=True) as b:
        take(a, asked, made(1).images)
        assert b.add_all(a) == 1
        assert standing(b.records()[0], DIGITS).counts
        a.mark_seen(asked.session.id, 3.0)
        a.mark_seen(asked.session.id, 9.0)
        assert a.records() == [asked._replace(marked=Seen(at=3.0))]
        assert standing(a.records()[0], DIGITS).why == "the rater knew the run's images"
        assert b.add_all(a) == 0
        assert b.records() == a.records()
        with pytest.raises(StoreError, match="has no session"):
            a.mark_seen("f" * 32, 1.0)
        with QuizStore.open(tmp_path / "c", write=True) as c:
            c.add_all(b)
            assert c.records() == a.records()


def test_what_is_no_quiz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"has no answers yet \(it has no quiz.db\)"):
        QuizStore.open(tmp_path)
    (tmp_path / FILE).write_bytes(b"SQLite format 3\0 but damaged" * 99)
    with pytest.raises(StoreError, match="is not a quiz of evofool, or is damaged"):
        QuizStore.open(tmp_path)
    (tmp_path / FILE).unlink()
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute("CREATE TABLE quiz_answers (a)")
    for write in (False, True):
        with pytest.raises(StoreError, match="is not a quiz of evofool"):
            QuizStore.open(tmp_path, write=write)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(StoreError, match=r"quiz.db is not a file"):
        QuizStore.open(tmp_path, write=True)


def opened_for_damage(folder: Path) -> sqlite3.Connection:
    """The file without its triggers, so that rows can be changed."""
    db = sqlite3.connect(folder / FILE)
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")
    return db


DAMAGE = {
    "a NaN": ("UPDATE quiz_answers SET rt_ms = 9e999 WHERE n = 0", "quiz_answers: rt_ms"),
    "a text": ("UPDATE quiz_trials SET image = 'x' WHERE n = 0", "quiz_trials: image"),
    "a kind": ("UPDATE quiz_sessions SET kind = 'robot'", "quiz_sessions: kind"),
    "a gap": ("DELETE FROM quiz_answers WHERE n = 3", "lacks a row of quiz_answers"),
    "a mark of no session": ("INSERT INTO quiz_seen VALUES ('x', 1.0)", "the session 'x' is missing"),
    "no session": ("DELETE FROM quiz_sessions", "the session .* is missing"),
    "deep JSON": (
        "UPDATE quiz_trials SET options = replace(hex(zeroblob(9)), '0', '[')",
        "quiz_trials: options",
    ),
    "an option": ("UPDATE quiz_trials SET options = '[77]' WHERE block = 2", "is a choice among 1 options"),
    "a protocol": ("UPDATE quiz_sessions SET protocol = 2", "quiz_sessions: protocol"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    statement, message = DAMAGE[damage]
    with QuizStore.open(tmp_path, write=True) as store:
        take(store, record("perfect", 1), made(1).images)
        triggers = store._db.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid").fetchall()
    with closing(opened_for_damage(tmp_path)) as db, db:
        db.execute(statement)
        for (sql,) in triggers:
            db.execute(sql)
    with QuizStore.open(tmp_path) as store, pytest.raises(StoreError, match=message):
        store.records()


def test_an_image_is_the_one_that_its_hash_says(tmp_path: Path) -> None:
    found = made(1)
    first, second, *_ = found.images
    with QuizStore.open(tmp_path, write=True) as store:
        store.begin(session(1), found.trials, {**found.images, first: found.images[second]})
        assert store.image(second) == found.images[second]
        with pytest.raises(StoreError, match=r"is damaged \(image \w+ has other pixels than its SHA-256"):
            store.image(first)
        with pytest.raises(StoreError, match=r"has no image 'fff"):
            store.image("f" * 64)


CHANGES: dict[str, Callable[[sqlite3.Connection], object]] = {
    "a view": lambda db: db.execute("CREATE VIEW v AS SELECT 1"),
    "no trigger": lambda db: db.execute("DROP TRIGGER quiz_answers_UPDATE"),
    "a column": lambda db: db.execute("ALTER TABLE quiz_ends ADD COLUMN a"),
    "another version": lambda db: db.execute("PRAGMA user_version = 9"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_schema_is_refused(tmp_path: Path, change: str) -> None:
    QuizStore.open(tmp_path, write=True).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        CHANGES[change](db)
    with pytest.raises(StoreError, match=r"quiz.db is (damaged: the \w+ |a quiz of version 9)"):
        QuizStore.open(tmp_path)


def test_what_a_killed_writer_left_half_done_is_undone_also_by_a_reader(tmp_path: Path) -> None:
    with QuizStore.open(tmp_path, write=True) as store:
        take(store, record("perfect", 1), made(1).images)
    script = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA journal_mode = DELETE')\n"
        "db.execute('PRAGMA cache_size = 1')\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('CREATE TABLE large (x)')\n"
        "db.executemany('INSERT INTO large VALUES (zeroblob(9000))', [()] * 99)\n"
        "os._exit(9)\n"
    )
    file = tmp_path / FILE
    before = file.read_bytes()
    assert subprocess.run([sys.executable, "-c", script, str(file)], check=False).returncode == 9
    assert file.with_name(f"{FILE}-journal").exists()
    assert file.read_bytes() != before, "it was written in part"
    with QuizStore.open(tmp_path) as store:
        (found,) = store.records()
    assert found.answers == record("perfect", 1).answers
