"""quiz.db, beside a run's file: sessions, trials and answers, which are only ever appended. Nothing in it is pickled.

Every answer is a transaction that is on the disk before it returns, so whenever the writer dies no answer is lost. It is no
part of run.db, so that answers are taken while that is being written, and outlive it: they belong to pixels. Several
processes may write at once. What simulated raters answer goes into a file of its own, and neither file takes the other's.
"""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from evofool.errors import StoreError
from evofool.images import decode_png, pixel_sha256
from evofool.json_text import json_text, parse_json
from evofool.quiz.materials import trial_id
from evofool.quiz.schema import CHOICE, TABLES, Answer, Code, End, Record, Seen, Session, Trial
from evofool.run.location import local_copy, network_file_system, refuse_network
from evofool.run.meta import fault_of
from evofool.run.sqlite_file import Limit, connect, refuse_special, schema_fault
from evofool.whole_file import whole_file

FILE, SIMULATED_FILE = "quiz.db", "quiz-simulated.db"
VERSION = 2
_APPLICATION_ID = 0x65766F71  # "evoq"
_PATIENCE = 30.0  # seconds
_JSON = {"classes", "options"}  # columns that hold lists
_NOT_WRITTEN = "could not be written; what was answered before is safe"

Row = TypeVar("Row", bound=BaseModel)


def answers_state(folder: Path) -> tuple[Any, ...]:
    """Something that differs once answers about the run in folder were written: size and time of the quiz's file and log."""
    found = []
    for path in (folder / FILE, folder / f"{FILE}-wal"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((path.name, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def copy_answers(folders: Iterable[Path], out: Path) -> int:
    """Store what people said about these runs beside the run in out too; returns how many sessions that were not there."""
    added = 0
    for folder in folders:
        if QuizStore.exists(folder):
            with QuizStore.open(folder) as source, QuizStore.open(out, write=True) as store:
                added += store.add_all(source)
    return added


class QuizStore:
    """A quiz's open file."""

    def __init__(self, path: Path, connection: sqlite3.Connection, write: bool) -> None:
        self.path = path
        self.simulated = path.name == SIMULATED_FILE
        self._db, self._write = connection, write
        self._limit = Limit(path, connection)
        self._copy: tempfile.TemporaryDirectory[str] | None = None  # that is read in place of the file

    @classmethod
    def exists(cls, folder: Path, simulated: bool = False) -> bool:
        """Whether anything was ever asked about the run in folder."""
        return (folder / (SIMULATED_FILE if simulated else FILE)).exists()

    @classmethod
    def open(cls, folder: Path, write: bool = False, simulated: bool = False) -> "QuizStore":
        """The quiz of the run in folder; with write it is made if it is not there. Else StoreError if nothing was asked yet.

        On a network file system, where locks do not work, a copy is read, and nothing is written: StoreError.
        """
        path = folder / (SIMULATED_FILE if simulated else FILE)
        if write:
            refuse_network(folder)
        elif not cls.exists(folder, simulated):
            raise StoreError(f"{folder} has no answers yet (it has no {path.name})")
        copy = None
        try:
            refuse_special(path)
            if write:
                _make(path)
            elif network_file_system(folder):
                copy = local_copy(path)
            store = cls(path, connect(Path(copy.name) / path.name if copy else path, write or copy is not None), write)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{path} cannot be opened ({error})") from None
        store._copy = copy
        try:
            store._refuse_foreign()
            if write:
                with store._guard("cannot be written"):
                    store._db.execute("PRAGMA journal_mode = WAL")
                    # FULL: an answer that is committed is on the disk. NORMAL, which a run has, could lose the last ones.
                    store._db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            store._db.close()
            raise
        return store

    def _refuse_foreign(self) -> None:
        with self._guard("is not a quiz of evofool, or is damaged"):
            if self._db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise StoreError(f"{self.path} is not a quiz of evofool")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                raise StoreError(f"{self.path} is a quiz of version {version}; this evofool reads version {VERSION}")
            if fault := schema_fault(self._db, TABLES):
                raise StoreError(f"{self.path} is damaged: {fault}")

    def close(self) -> None:
        """Fold the write-ahead log into the file, if nobody else has it open; afterwards it stands alone."""
        try:
            if self._write:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("PRAGMA busy_timeout = 0")
                    self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    self._db.execute("PRAGMA journal_mode = DELETE")
        finally:
            self._db.close()
            if self._copy:
                self._copy.cleanup()

    def __enter__(self) -> "QuizStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing

    def begin(self, session: Session, trials: Sequence[Trial], images: Mapping[str, bytes]) -> None:
        """Store a session with all its trials, and the PNGs of their images, by pixel_sha256. StoreError if it is there."""
        self._refuse_mixed(session)
        if [trial.n for trial in trials] != list(range(len(trials))) or {trial.image for trial in trials} - images.keys():
            raise ValueError("trials are numbered from 0, and each has an image")
        with self._transaction():
            self._insert_session(session, trials, images)

    def answer(self, session: str, answer: Answer) -> None:
        """Store the next answer of a session. When this returns it is on the disk.

        StoreError if the session is unknown or has ended, if the answer is not that of the next trial (each is answered
        once, in order), or if its choice is none of the trial's options.
        """
        with self._transaction():
            trial = self._trial_to_answer(session, answer.n)
            refuse_answer(trial, answer, str(self.path))
            self._insert("quiz_answers", [(session, *answer.model_dump().values())])

    def end(self, session: str, end: End) -> None:
        """Store that a session ended, whether or not all of it was answered. StoreError if it is unknown or had ended."""
        with self._transaction():
            self._refuse_unknown(session)
            self._insert("quiz_ends", [(session, end.at, end.seen)])

    def mark_seen(self, session: str, at: float) -> None:
        """Store that a session does not count, since its rater knows the images. A second mark changes nothing."""
        with self._transaction():
            self._refuse_unknown(session)
            self._mark(session, Seen(at=at))

    def add(self, record: Record, images: Mapping[str, bytes]) -> None:
        """Store a whole session, as from another file. StoreError if it is there already."""
        self._refuse_mixed(record.session)
        for trial, answer in record.pairs:
            refuse_answer(trial, answer, str(self.path))
        with self._transaction():
            self._insert_session(record.session, record.trials, images)
            session = record.session.id
            self._insert("quiz_answers", [(session, *answer.model_dump().values()) for answer in record.answers])
            if record.end is not None:
                self._insert("quiz_ends", [(session, record.end.at, record.end.seen)])
            if record.marked is not None:
                self._mark(session, record.marked)

    def add_all(self, other: "QuizStore") -> int:
        """Store the sessions of another file that are not here yet, with its codes of texts; returns how many sessions.

        So that what people said of images goes along with a merged or copied run.
        """
        here = {record.session.id for record in self.records()}
        records = other.records()
        new = [record for record in records if record.session.id not in here]
        for record in records:
            if record.marked is not None and record.session.id in here:
                self.mark_seen(record.session.id, record.marked.at)
        for record in new:
            self.add(record, {image: other.image(image) for image in {trial.image for trial in record.trials}})
        known = {tuple(code.model_dump().values()) for code in self.codes()}
        self.code(code for code in other.codes() if tuple(code.model_dump().values()) not in known)
        return len(new)

    def code(self, codes: Iterable[Code]) -> None:
        """Store which classes texts name; of two codes of a text the later one counts."""
        with self._transaction():
            first = self._db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM quiz_codes").fetchone()[0]
            rows = enumerate(codes, start=first)
            self._insert("quiz_codes", [(k, c.answer, json_text(list(c.classes)), c.coder, c.at) for k, c in rows])

    # --- reading

    def records(self) -> list[Record]:
        """All sessions, in the order in which they began; StoreError for a damaged file."""
        return self._records()

    def record(self, session: str) -> Record:
        """One session; StoreError if it is unknown."""
        found = self._records(session)
        if not found:
            raise StoreError(f"{self.path} has no session {session!r:.40}")
        return found[0]

    def codes(self) -> list[Code]:
        """In the order in which they were stored."""
        with self._guard("is damaged"):
            return self._rows("quiz_codes", Code, "ORDER BY id")

    def image(self, sha256: str) -> bytes:
        """The PNG of an image; StoreError if it is unknown, or is another one than its SHA-256 says."""
        with self._guard("is damaged"):
            row = self._db.execute("SELECT png FROM quiz_images WHERE sha256 = ?", (sha256,)).fetchone()
            if row is None:
                raise StoreError(f"{self.path} has no image {sha256!r:.80}")
            png: bytes = row[0]
            if pixel_sha256(decode_png(png, f"image {sha256:.16}")) != sha256:
                raise ValueError(f"image {sha256:.16} has other pixels than its SHA-256")
            return png

    # --- helpers

    def _records(self, session: str | None = None) -> list[Record]:
        with self._snapshot(), self._guard("is damaged"):
            trials = self._by_session("quiz_trials", Trial, session)
            answers = self._by_session("quiz_answers", Answer, session)
            ends = self._by_session("quiz_ends", End, session)
            marks = self._by_session("quiz_seen", Seen, session)
            where, values = ("", ()) if session is None else ("WHERE id = ?", (session,))
            found = []
            for row in self._rows("quiz_sessions", Session, f"{where} ORDER BY began, id", values):
                end = next(iter(ends.pop(row.id, [])), None)
                mark = next(iter(marks.pop(row.id, [])), None)
                record = Record(row, tuple(trials.pop(row.id, [])), tuple(answers.pop(row.id, [])), end, mark)
                self._check(record)
                found.append(record)
            if lost := [*trials, *answers, *ends, *marks]:
                raise ValueError(f"the session {lost[0]!r:.40} is missing")
            return found

    def _insert_session(self, session: Session, trials: Sequence[Trial], images: Mapping[str, bytes]) -> None:
        if self._db.execute("SELECT 1 FROM quiz_sessions WHERE id = ?", (session.id,)).fetchone():
            raise StoreError(f"{self.path} has the session {session.id} of {session.rater!r} already")
        self._insert("quiz_sessions", [tuple(session.model_dump().values())])
        rows = []
        for trial in trials:
            values = trial.model_dump()
            rows.append((session.id, *(json_text(list(v)) if k in _JSON else v for k, v in values.items())))
        self._insert("quiz_trials", rows)
        for image in {trial.image for trial in trials}:
            if not self._db.execute("SELECT 1 FROM quiz_images WHERE sha256 = ?", (image,)).fetchone():
                self._insert("quiz_images", [(image, images[image])])

    def _mark(self, session: str, seen: Seen) -> None:
        if not self._db.execute("SELECT 1 FROM quiz_seen WHERE session = ?", (session,)).fetchone():
            self._insert("quiz_seen", [(session, seen.at)])

    def _trial_to_answer(self, session: str, n: int) -> Trial:
        self._refuse_unknown(session)
        if self._db.execute("SELECT 1 FROM quiz_ends WHERE session = ?", (session,)).fetchone():
            raise StoreError(f"{self.path}: the session {session} has ended; its trials take no more answers")
        count = self._db.execute("SELECT COUNT(*) FROM quiz_answers WHERE session = ?", (session,)).fetchone()[0]
        if n != count:
            what = "was answered already" if n < count else f"is not the next one, which is {count}"
            raise StoreError(f"{self.path}: trial {n} of session {session} {what}")
        trials = self._rows("quiz_trials", Trial, "WHERE session = ? AND n = ?", (session, n))
        if not trials:
            raise StoreError(f"{self.path}: session {session} has {n} trials, which are all answered")
        return trials[0]

    def _refuse_unknown(self, session: str) -> None:
        if not self._db.execute("SELECT 1 FROM quiz_sessions WHERE id = ?", (session,)).fetchone():
            raise StoreError(f"{self.path} has no session {session!r:.40}")

    def _refuse_mixed(self, session: Session) -> None:
        if (session.kind == "simulated") != self.simulated:
            kept = "only sessions of simulated raters" if self.simulated else "no session of a simulated rater"
            raise StoreError(f"{self.path} takes {kept}; this one is of kind {session.kind!r}")

    def _check(self, record: Record) -> None:
        """ValueError for a session whose rows do not fit together."""
        session = record.session
        if (session.kind == "simulated") != self.simulated:
            raise ValueError(f"session {session.id} is of kind {session.kind!r}, which is kept in another file")
        for what, rows in (("quiz_trials", record.trials), ("quiz_answers", record.answers)):
            if [row.n for row in rows] != list(range(len(rows))):
                raise ValueError(f"session {session.id} lacks a row of {what}")
        if len(record.answers) > len(record.trials):
            raise ValueError(f"session {session.id} has more answers than trials")
        for trial, answer in record.pairs:
            refuse_answer(trial, answer, f"session {session.id}")

    def _by_session(self, table: str, kind: type[Row], session: str | None) -> dict[str, list[Row]]:
        where, values = ("", ()) if session is None else ("WHERE session = ?", (session,))
        order = "ORDER BY session" + (", n" if "n" in kind.model_fields else "")
        columns = ", ".join(("session", *kind.model_fields))
        found: dict[str, list[Row]] = {}
        with self._limit.one_query():
            for name, *row in self._db.execute(f"SELECT {columns} FROM {table} {where} {order}", values):
                found.setdefault(name, []).append(_parsed(table, kind, row))
        return found

    def _rows(self, table: str, kind: type[Row], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        with self._limit.one_query():
            rows = self._db.execute(f"SELECT {', '.join(kind.model_fields)} FROM {table} {where}", tuple(values))
            return [_parsed(table, kind, row) for row in rows]

    def _insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            self._db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", tuple(row))

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """A context in which all that is read is of one moment."""
        with self._guard("cannot be read"):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if not self._write:
            raise StoreError(f"{self.path} is open for reading only")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"{self.path} {_NOT_WRITTEN} (SQLite: {error})") from None
            raise

    @contextlib.contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"{self.path} {what} ({error})") from None


def _make(path: Path) -> None:
    """The file with its tables, whole or not at all, unless it is there. One process at a time makes it."""
    if path.exists():
        return
    with FileLock(path.with_suffix(".lock"), timeout=_PATIENCE):
        if path.exists():
            return
        with whole_file(path) as draft, contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
            mark = f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            db.executescript(f"BEGIN; {TABLES} {mark} COMMIT")


def refuse_answer(trial: Trial, answer: Answer, where: str) -> None:
    """StoreError, naming `where`, for a choice that is none of the options, or a text where a choice was asked for."""
    chosen, text = answer.chosen, answer.answer
    if trial.block == CHOICE and (text or (chosen >= 0 and chosen not in trial.options)):
        what = f"{len(trial.options)} options"
        raise StoreError(f"{where}: trial {trial.n} is a choice among {what}, and {text or chosen!r:.80} is none of them")
    if trial.block != CHOICE and chosen >= 0:
        raise StoreError(f"{where}: trial {trial.n} asks for a name, not for a choice")


def trial_ids(record: Record) -> dict[str, int]:
    """By the id that the rater's page gets, the number of the trial."""
    return {trial_id(record.session.seed, trial.n): trial.n for trial in record.trials}


def _parsed(table: str, kind: type[Row], values: Sequence[Any]) -> Row:
    found = dict(zip(kind.model_fields, values, strict=True))
    for name in _JSON & found.keys():
        try:
            found[name] = parse_json(found[name])
        except ValueError as error:
            raise ValueError(f"{table}: {name}: {error}") from None
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise ValueError(f"{table}: {fault_of(error)}") from None
