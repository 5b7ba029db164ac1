"""What a black box was asked, what it answered and what that cost: in memory, or in a run's folder as answers.db.

One SQLite file, WAL, small transactions, shared by every thread and process of a run. A request is entered before it is
sent, so a run that is killed has at most paid for one request less than its ledger says, and never passes a cap.
"""

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evofool.errors import StoreError

FILE = "answers.db"
CACHE_BYTES = 1 << 30
"""The most bytes of answers that are kept, in memory or in the file; 268,000 of 1,000 classes. The oldest go first."""
_APPLICATION_ID = 0x65766F61  # "evoa"
_HOUR = 3600.0
_BILL = "requests, answers, free_at, entered_at, reading"
_SCHEMA = """
-- one row: requests sent, images answered, when the rate allows the next request and when the last one was entered (UNIX
-- time), how answers are read (JSON)
CREATE TABLE bill (id INTEGER PRIMARY KEY CHECK (id = 1), requests INTEGER NOT NULL CHECK (requests >= 0),
                   answers INTEGER NOT NULL CHECK (answers >= 0), free_at REAL NOT NULL, entered_at REAL NOT NULL,
                   reading TEXT);
-- image: SHA-256 over shape and pixels; logits: little-endian float32
CREATE TABLE answers (id INTEGER PRIMARY KEY, image BLOB NOT NULL UNIQUE, logits BLOB NOT NULL);
INSERT INTO bill VALUES (1, 0, 0, 0, 0, NULL);
"""


class Ledger:
    """Requests sent, images answered, and the answers. Safe to use from several threads and processes at once."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.path: Path | None = None
        self._cache_bytes = cache_bytes
        self._lock = threading.RLock()
        self._db: sqlite3.Connection
        self._use(_connected(":memory:"))
        with self._transaction():
            _create(self._db)

    def store_in(self, folder: Path) -> None:
        """Go on in folder/answers.db; what was counted here is added to what it holds. Both are made if they are not there.

        StoreError for a folder that cannot be made, and for a file that is damaged, not ours, or that holds another
        classifier's answers; then nothing changes.
        """
        path = folder / FILE
        with self._lock:
            if self.path == path:
                return
            if self.path is not None:
                raise StoreError(f"{path}: these answers are kept in {self.path} already")
            memory = self._db
            self.path, self._db = path, _opened(path)
            try:
                with self._transaction():
                    self._add(memory)
            except BaseException:
                self._db.close()
                self.path, self._db = None, memory
                raise
            self._use(self._db)
            memory.close()

    def reading(self, mine: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """How the answers in here were read. What was settled first holds: `mine` is taken if there is nothing yet.

        StoreError if `mine` is about another classifier, or about other answers of it.
        """
        with self._transaction():
            held = self._reading(self._db)
            if mine is None or held is not None:
                return self._same(held, mine)
            self._db.execute("UPDATE bill SET reading = ?", (json.dumps(dict(mine)),))
            return dict(mine)

    def spend(self, cap: int | None, gap: float, now: float) -> float | None:
        """Enter one request, durably; returns when it may be sent (UNIX time), or None if the cap is reached.

        gap is the least number of seconds between two requests, over every thread and process.
        """
        with self._transaction():
            requests, free_at, entered_at = self._db.execute("SELECT requests, free_at, entered_at FROM bill").fetchone()
            if cap is not None and requests >= cap:
                return None
            # The others' clock is a little ahead at times; where it is by more, ours was set back, and what it says counts.
            set_back = now < entered_at - _HOUR
            at = now if set_back or not gap else max(now, free_at)
            self._db.execute("UPDATE bill SET requests = requests + 1, free_at = ?, entered_at = ?", (at + gap, now))
            return at

    def refund(self) -> None:
        """Take back a request that was entered and then, after all, not sent."""
        with self._transaction():
            self._db.execute("UPDATE bill SET requests = requests - 1")

    def known(self, images: Iterable[bytes], classes: int) -> dict[bytes, np.ndarray]:
        """The float32 logits (K,) of those of the images (their keys) that were answered before."""
        found: dict[bytes, np.ndarray] = {}
        wanted = list(images)
        with self._transaction():
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                for image, logits in self._db.execute(f"SELECT image, logits FROM answers WHERE image IN ({marks})", part):
                    if len(logits) != 4 * classes:
                        raise sqlite3.DatabaseError(f"an answer of {len(logits)} bytes for {classes} classes")
                    found[image] = np.frombuffer(logits, "<f4").astype(np.float32)
        return found

    def keep(self, answers: Mapping[bytes, np.ndarray]) -> None:
        """Keep what was answered; an image that another thread has kept meanwhile is not counted again."""
        with self._transaction():
            new = self._insert((image, row.astype("<f4").tobytes()) for image, row in answers.items())
            self._db.execute("UPDATE bill SET answers = answers + ?", (new,))

    @property
    def requests(self) -> int:
        return self._count("requests")

    @property
    def answers(self) -> int:
        return self._count("answers")

    def _count(self, column: str) -> int:
        with self._transaction():
            return int(self._db.execute(f"SELECT {column} FROM bill").fetchone()[0])

    def _insert(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Keep these; returns how many were new."""
        new = size = 0
        for image, logits in rows:
            new += self._db.execute("INSERT OR IGNORE INTO answers (image, logits) VALUES (?, ?)", (image, logits)).rowcount
            size = len(logits)
        if size:
            most = max(1, self._cache_bytes // size)
            self._db.execute("DELETE FROM answers WHERE id <= (SELECT MAX(id) FROM answers) - ?", (most,))
        return new

    def _add(self, other: sqlite3.Connection) -> None:
        """Add what another connection's ledger holds."""
        self._same(self._reading(self._db), self._reading(other))
        requests, answers, *times, reading = other.execute(f"SELECT {_BILL} FROM bill").fetchone()
        rows = other.execute("SELECT image, logits FROM answers ORDER BY id").fetchall()
        # What both have asked, noise for instance, counts once.
        answers -= len(rows) - self._insert(rows)
        self._db.execute(
            "UPDATE bill SET requests = requests + ?, answers = answers + ?, free_at = MAX(free_at, ?), "
            "entered_at = MAX(entered_at, ?), reading = COALESCE(reading, ?)",
            (requests, answers, *times, reading),
        )

    def _same(self, held: dict[str, Any] | None, mine: Mapping[str, Any] | None) -> dict[str, Any] | None:
        for key in ("classifier", "kind", "top_k"):
            if held is not None and mine is not None and held[key] != mine[key]:
                raise StoreError(
                    f"{self.path} holds the answers of another target: {key} {str(held[key])[:16]} there, "
                    f"{str(mine[key])[:16]} here; take another folder"
                )
        return held

    @staticmethod
    def _reading(db: sqlite3.Connection) -> dict[str, Any] | None:
        text = db.execute("SELECT reading FROM bill").fetchone()[0]
        if text is None:
            return None
        try:
            reading = json.loads(text)
            if not (type(reading["top_k"]) is int and type(reading["decimals"]) in (int, type(None))):
                raise ValueError
            return {**reading, "kind": str(reading["kind"]), "classifier": str(reading["classifier"])}
        except (ValueError, TypeError, KeyError):
            raise sqlite3.DatabaseError(f"how answers are read is damaged: {text!r:.100}") from None

    def _use(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        weakref.finalize(self, connection.close)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing, against every other thread and process; what SQLite says becomes a StoreError."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:  # a full disk may have rolled it back already
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(
                    f"{self.path}: the ledger of requests and answers cannot be used ({error}); what it held before is "
                    "safe, but nothing more is asked"
                ) from None


def _connected(path: Path | str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)


def _opened(path: Path) -> sqlite3.Connection:
    """The file as a ledger; a new or empty file is made one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = _connected(path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: the ledger of requests and answers cannot be opened ({error})") from None
    try:
        db.execute("BEGIN IMMEDIATE")
        with closing(db.cursor()) as cursor:
            if not cursor.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                _create(db)
            elif cursor.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise sqlite3.DatabaseError("it is some other database")
            cursor.execute(f"SELECT {_BILL} FROM bill WHERE id = 1").fetchone()[0]
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
        # Each request is on the disk before it is sent: a power cut, too, hides none.
        db.execute("PRAGMA synchronous = FULL")
    except (sqlite3.Error, TypeError) as error:
        db.close()
        raise StoreError(
            f"{path} is no ledger of requests and answers, or is damaged ({error}); move it away only if its answers may "
            "be paid for again"
        ) from None
    return db


def _create(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";\n"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
