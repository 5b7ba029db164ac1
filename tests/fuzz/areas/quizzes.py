"""The file of a quiz: its bytes, any value in its columns, other tables; and CSV files of answers."""

import csv
import io
import sqlite3
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from evofool.quiz.answer_csv import import_answers, read_answers, read_codes, write_answers
from evofool.quiz.materials import trial_id
from evofool.quiz.of_run import names_of
from evofool.quiz.raters import standing
from evofool.quiz.schema import CHOICE, Answer, Code, End
from evofool.quiz.shares import archive_summary
from evofool.quiz.store import FILE, QuizStore
from evofool.quiz.tally import count_answers
from evofool.quiz.verdicts import Verdict, derive
from tests.fuzz.mutations import STRINGS, apply_bytes, as_json, byte_edits, page_edits, sql_values, values
from tests.fuzz.room import Area, Fault, Room
from tests.quiz.samples import DIGITS, made, record, session, take

COLUMNS = {
    "quiz_sessions": ("id", "kind", "rater", "seed", "began", "seen", "run", "page", "protocol", "dpr"),
    "quiz_trials": ("session", "n", "block", "kind", "image", "classes", "options"),
    "quiz_answers": ("session", "n", "answer", "chosen", "rt_ms", "at"),
    "quiz_ends": ("session", "at", "seen"),
    "quiz_codes": ("id", "answer", "classes", "coder", "at"),
    "quiz_images": ("sha256", "png"),
}
STATEMENTS = (
    "DROP TABLE quiz_answers", "DELETE FROM quiz_trials WHERE n > 3", "DELETE FROM quiz_sessions", "PRAGMA user_version = 9",
    "PRAGMA application_id = 1", "CREATE TABLE more (x)", "DELETE FROM quiz_images",
    "DROP TABLE quiz_ends; CREATE VIEW quiz_ends AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT hex(x) session, 0.0 at, 0 seen FROM n WHERE x < 0",
    "CREATE TRIGGER t AFTER INSERT ON quiz_answers BEGIN DELETE FROM quiz_sessions; END",
)  # fmt: skip


@cache
def sample() -> bytes:
    """Five raters who count, and a page."""
    with TemporaryDirectory() as name:
        with QuizStore.open(Path(name), write=True) as store:
            store._db.execute("PRAGMA synchronous = OFF")
            for seed in range(5):
                take(store, record("perfect", seed), made(seed).images)
            store.begin(session(9, "a page", "page"), made(9).trials, made(9).images)
            store.code([Code(answer="a loop", classes=(0, 6), coder="Kim", at=1.0)])
        return (Path(name) / FILE).read_bytes()


@cache
def rows() -> list[list[str]]:
    """The CSV file of one rater's answers to the page, with its header."""
    head = ["participant", "trial", "response", "rt", "seen", "ended"]
    answers = record("perfect", 9).pairs
    return [head] + [
        ["Kim", trial_id(9, t.n), str(t.options.index(a.chosen) if a.chosen >= 0 else 10) if t.block == CHOICE else a.answer,
         "900", "", "2026-01-02T03:04:05Z"]
        for t, a in answers
    ]  # fmt: skip


def enter(case: tuple[Any, ...], room: Room) -> None:
    how, *given = case
    path = room.work / FILE
    path.write_bytes(apply_bytes(sample(), given[0]) if how == "bytes" else sample())
    if how in ("value", "statement"):
        _change(path, how, *given)
    if how == "csv":
        _import(room, *given)
        return
    with QuizStore.open(room.work) as store:
        records, codes = store.records(), store.codes()
        names = names_of(DIGITS.labels, codes)
        answers = count_answers(records, names)
        verdicts = list(derive(answers, names).values())
        for verdict in verdicts:
            _check(verdict)
        archive_summary(verdicts, answers, names)
        for found in records:
            standing(found, names)
            for image in {trial.image for trial in found.trials}:
                store.image(image)
        write_answers(room.work / "out.csv", records, names)
    with QuizStore.open(room.work, write=True) as store:
        store.begin(session(10), made(10).trials, made(10).images)
        store.answer(session(10).id, Answer(n=0, answer="7", rt_ms=900.0, at=1.0))
        store.end(session(10).id, End(at=2.0))


def _check(verdict: Verdict) -> None:
    numbers = verdict.named, verdict.chosen, verdict.offered, verdict.raters
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or verdict.named > verdict.raters:
        raise Fault(f"counts of a verdict are {numbers}")


def _import(room: Room, what: str, change: Any) -> None:
    text = io.StringIO()
    table = [list(row) for row in rows()]
    if what == "cell":
        row, column, value = change
        table[row % len(table)][column % len(table[0])] = value if isinstance(value, str) else as_json(value)
    csv.writer(text).writerows(table)
    content = text.getvalue().encode("utf-8", "surrogatepass")
    file = room.give("answers.csv", apply_bytes(content, change) if what == "bytes" else content)
    with QuizStore.open(room.work, write=True) as store:
        for read in (
            lambda: import_answers(read_answers(file), store, DIGITS, 1.0),
            lambda: read_codes(file, DIGITS, "Kim", 1.0),
        ):
            with suppress(OSError, ValueError):
                read()
        store.records()


def _change(path: Path, how: str, *given: Any) -> None:
    """The triggers, which forbid every change, are there again afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        # This value cannot be in a file.
        with suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
            if how == "statement":
                db.executescript(given[0])
            else:
                (table, column), place, value = given
                where = f"WHERE n = {place}" if place < 60 and "n" in COLUMNS[table] else ""
                if column in ("classes", "options") and not isinstance(value, str | bytes | None):
                    value = as_json(value)
                db.execute(f"UPDATE OR REPLACE {table} SET {column} = ? {where}", (value,))
        for _, sql in triggers:
            with suppress(sqlite3.Error):
                db.execute(sql)


_COLUMNS = st.sampled_from([(table, column) for table, columns in COLUMNS.items() for column in columns])
_LISTS = st.sampled_from([("quiz_trials", "classes"), ("quiz_trials", "options"), ("quiz_codes", "classes")])
_PLACES = st.integers(0, 80)
CASES = st.one_of(
    st.tuples(st.just("bytes"), byte_edits()),
    st.tuples(st.just("bytes"), page_edits()),
    st.tuples(st.just("value"), _COLUMNS, _PLACES, sql_values()),
    st.tuples(st.just("value"), _LISTS, _PLACES, st.lists(st.integers(0, 13), max_size=3)),
    st.tuples(st.just("value"), _LISTS, _PLACES, values()),
    st.tuples(st.just("statement"), st.sampled_from(STATEMENTS)),
    st.tuples(st.just("csv"), st.just("bytes"), byte_edits()),
    st.builds(
        lambda row, column, value: ("csv", "cell", (row, column, value)),
        _PLACES, st.integers(0, 4), st.one_of(st.sampled_from(STRINGS), values()),
    ),
)  # fmt: skip
AREA = Area("quizzes", CASES, enter, 5, prepare=lambda: (sample(), rows()))
