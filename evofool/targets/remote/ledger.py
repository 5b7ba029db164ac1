"""The ledger of a black box: requests, answers, and checks of known images; in memory, or in a run's folder as answers.db.

One SQLite file (WAL, small transactions), shared by all threads and processes of a run. A request is recorded before it is
sent, so a run that is killed has sent at most `parallel` requests less for each of its processes than its ledger says, and
never exceeds its limit.
"""

import json
import math
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evofool.errors import StoreError

FILE = "answers.db"
CACHE_BYTES = 1 << 30
"""The most bytes of answers that are kept, in memory or in the file: 268,000 of 1,000 classes. The oldest go first."""
_APPLICATION_ID = 0x65766F61  # "evoa"
_HOUR = 3600.0
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)  # a message may quote bytes of a damaged file
_VERSION = 2  # of the tables and the response format
_BILL = "requests, answers, free_at, entered_at, reading"
_CHECK = "requests, images, size, share, agreed, newest"  # as Check has them
_SCHEMA = """
-- one row: requests sent, images answered, when the rate allows the next request and when the last one was recorded (UNIX
-- time), the response format (JSON)
CREATE TABLE bill (id INTEGER PRIMARY KEY CHECK (id = 1), requests INTEGER NOT NULL CHECK (requests >= 0),
                   answers INTEGER NOT NULL CHECK (answers >= 0), free_at REAL NOT NULL, entered_at REAL NOT NULL,
                   reading TEXT);
-- image: SHA-256 over shape and pixels; logits: little-endian float32
CREATE TABLE answers (id INTEGER PRIMARY KEY, image BLOB NOT NULL UNIQUE, logits BLOB NOT NULL);
INSERT INTO bill VALUES (1, 0, 0, 0, 0, NULL);
"""
_ANSWER = "image BLOB NOT NULL UNIQUE, logits BLOB NOT NULL"
# Ledgers of earlier versions of evofool do not have these tables.
_CHECK_SCHEMA = f"""
-- known images that are asked again. first: of the target's first images, else of the run
CREATE TABLE IF NOT EXISTS probes (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, png BLOB NOT NULL, {_ANSWER});
-- one row for each time that they were asked again, with the counts by then. newest: the last row of answers. size, share:
-- the largest difference, in log-odds and as a share of the largest logit. agreed: whether it was within the tolerance
CREATE TABLE IF NOT EXISTS checks (id INTEGER PRIMARY KEY, requests INTEGER NOT NULL, images INTEGER NOT NULL,
                                   newest INTEGER NOT NULL, size REAL NOT NULL, share REAL NOT NULL,
                                   agreed INTEGER NOT NULL);
"""


class Probe(NamedTuple):
    """A known image: its key, its PNG, its first answer (K,) float32, and whether it is one of the target's first images."""

    image: bytes
    png: bytes
    logits: np.ndarray
    first: bool


class Check(NamedTuple):
    """A time at which known images were asked again: how much answers differed.

    requests, newest: the number of requests and the last row of answers (Ledger.newest) before they were sent. What other
    requests in flight bring until the answer is there may already be of a changed target.
    """

    requests: int
    images: int
    size: float  # largest difference of log-odds
    share: float  # the same as a share of the largest logit
    agreed: bool
    newest: int


class Ledger:
    """Requests sent, images answered, and the answers. May be used by several threads and processes at once."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.path: Path | None = None
        self._cache_bytes = cache_bytes
        self._lock = threading.RLock()
        self._db: sqlite3.Connection
        self._use(_connected(":memory:"))
        with self._transaction():
            _create(self._db)

    def store_in(self, folder: Path) -> None:
        """Continue in folder/answers.db, to which the counts and answers so far are added. Both are created if needed.

        StoreError for a folder that cannot be created, and for a file that is damaged, not a ledger, or that has another
        classifier's answers; then nothing changes.
        """
        path = folder / FILE
        with self._lock:
            if self.path == path:
                return
            if self.path is not None:
                raise StoreError(f"{path}: the answers are stored in {self.path} already")
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

    def response_format(self, new: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The response format of the answers in the ledger. `new` is stored if there is none yet; else the first is kept.

        StoreError if `new` is about another classifier, or about other answers of it.
        """
        with self._transaction():
            stored = self._stored_format(self._db)
            if new is None or stored is not None:
                return self._require_same(stored, new)
            self._db.execute("UPDATE bill SET reading = ?", (json.dumps(dict(new)),))
            return dict(new)

    def spend(self, limit: int | None, gap: float, now: float) -> float | None:
        """Record one request, durably; returns when it may be sent (UNIX time), or None if `limit` is reached.

        gap is the minimum number of seconds between two requests, over all threads and processes.
        """
        with self._transaction():
            requests, _, free_at, entered_at, _ = _bill(self._db)
            if limit is not None and requests >= limit:
                return None
            # Other threads' times may be slightly ahead. If they are far ahead, the clock was set back.
            set_back = now < entered_at - _HOUR
            at = now if set_back or not gap else max(now, free_at)
            self._db.execute("UPDATE bill SET requests = requests + 1, free_at = ?, entered_at = ?", (at + gap, now))
            return at

    def refund(self) -> None:
        """Remove a request that was recorded and then not sent."""
        with self._transaction():
            self._db.execute("UPDATE bill SET requests = requests - 1")

    def known(self, images: Iterable[bytes], classes: int) -> dict[bytes, np.ndarray]:
        """The float32 logits (K,) of the images that were answered before, by key."""
        found: dict[bytes, np.ndarray] = {}
        wanted = list(images)
        with self._transaction():
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                for image, logits in self._db.execute(f"SELECT image, logits FROM answers WHERE image IN ({marks})", part):
                    if not isinstance(logits, bytes) or len(logits) != 4 * classes:
                        size = f"{len(logits)} bytes" if isinstance(logits, bytes) else f"type {type(logits).__name__}"
                        raise sqlite3.DatabaseError(f"an answer of {size} for {classes} classes")
                    found[image] = np.frombuffer(logits, "<f4").astype(np.float32)
        return found

    def keep(self, answers: Mapping[bytes, np.ndarray]) -> None:
        """Store answers; an image that another thread has stored meanwhile is not counted again."""
        with self._transaction():
            new = self._insert((image, row.astype("<f4").tobytes()) for image, row in answers.items())
            self._db.execute("UPDATE bill SET answers = answers + ?", (new,))

    def count_repeated(self, images: int) -> None:
        """Count answers to images that were answered before."""
        with self._transaction():
            self._db.execute("UPDATE bill SET answers = answers + ?", (images,))

    # -- known images that are asked again (evofool.targets.remote.drift)

    def probes(self) -> list[Probe]:
        """The known images, oldest first."""
        with self._transaction():
            rows = self._db.execute("SELECT image, png, logits, first FROM probes ORDER BY id").fetchall()
            for image, png, logits, first in rows:
                if (
                    not all(isinstance(blob, bytes) for blob in (image, png, logits))
                    or len(logits) % 4
                    or first not in (0, 1)
                ):
                    raise sqlite3.DatabaseError("a known image is damaged")
        return [Probe(row[0], row[1], np.frombuffer(row[2], "<f4").astype(np.float32), bool(row[3])) for row in rows]

    def keep_probes(self, probes: Iterable[Probe], most: int) -> None:
        """Add known images; of those that are not first images the newest `most` are kept."""
        with self._transaction():
            for probe in probes:
                self._insert_probe(probe.first, probe.png, probe.image, probe.logits.astype("<f4").tobytes())
            self._db.execute(
                "DELETE FROM probes WHERE NOT first AND id NOT IN "
                "(SELECT id FROM probes WHERE NOT first ORDER BY id DESC LIMIT ?)",
                (most,),
            )

    def drop_probe(self, image: bytes) -> None:
        """Remove a known image."""
        with self._transaction():
            self._db.execute("DELETE FROM probes WHERE image = ?", (image,))

    def newest(self) -> int:
        """The last row of answers, to be read before a check asks; 0 if there is none."""
        with self._transaction():
            return self._newest()

    def add_check(self, check: Check) -> None:
        """Record a check. After one that did not agree, the answers since the last that did are dropped."""
        with self._transaction():
            last = self._db.execute("SELECT agreed FROM checks ORDER BY id DESC LIMIT 1").fetchone()
            if not check.agreed or (last and not last[0]):  # a request that was in progress may have been answered later
                agreed = self._db.execute("SELECT newest FROM checks WHERE agreed ORDER BY id DESC LIMIT 1").fetchone()
                self._db.execute("DELETE FROM answers WHERE id > ?", agreed or (0,))
            # Rows that another process's check has dropped meanwhile are given to later answers.
            check = check._replace(newest=min(check.newest, self._newest()))
            self._db.execute(f"INSERT INTO checks ({_CHECK}) VALUES (?, ?, ?, ?, ?, ?)", (*check,))

    def checks(self) -> list[Check]:
        """All checks, oldest first."""
        with self._transaction():
            rows = self._db.execute(f"SELECT {_CHECK} FROM checks ORDER BY id").fetchall()
            for requests, images, *sizes, agreed, newest in rows:
                whole = all(type(n) is int and n >= 0 for n in (requests, images, agreed, newest))
                if not whole or not all(isinstance(size, float) and math.isfinite(size) for size in sizes):
                    raise sqlite3.DatabaseError("a check of known images is damaged")
        return [Check(*row)._replace(agreed=bool(row[4])) for row in rows]

    @property
    def requests(self) -> int:
        with self._transaction():
            return _bill(self._db)[0]

    @property
    def answers(self) -> int:
        with self._transaction():
            return _bill(self._db)[1]

    def _newest(self) -> int:
        newest: int = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM answers").fetchone()[0]
        return newest

    def _insert(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Store these; returns how many were new."""
        new = size = 0
        for image, logits in rows:
            new += self._db.execute("INSERT OR IGNORE INTO answers (image, logits) VALUES (?, ?)", (image, logits)).rowcount
            size = len(logits)
        if size:
            most = max(1, self._cache_bytes // size)
            self._db.execute("DELETE FROM answers WHERE id <= (SELECT MAX(id) FROM answers) - ?", (most,))
        return new

    def _insert_probe(self, *row: object) -> None:
        self._db.execute("INSERT OR IGNORE INTO probes (first, png, image, logits) VALUES (?, ?, ?, ?)", row)

    def _add(self, other: sqlite3.Connection) -> None:
        """Add the counts and answers of another connection's ledger."""
        self._require_same(self._stored_format(self._db), self._stored_format(other))
        requests, answers, *times, response_format = _bill(other)
        rows = other.execute("SELECT image, logits FROM answers ORDER BY id").fetchall()
        if not self._db.execute("SELECT 1 FROM probes").fetchone():
            self._add_checks(other)
        # Images that both have sent, such as the probe's noise, count once.
        answers -= len(rows) - self._insert(rows)
        self._db.execute(
            "UPDATE bill SET requests = requests + ?, answers = answers + ?, free_at = MAX(free_at, ?), "
            "entered_at = MAX(entered_at, ?), reading = COALESCE(reading, ?)",
            (requests, answers, *times, response_format),
        )

    def _add_checks(self, other: sqlite3.Connection) -> None:
        """Take over the known images and checks of another connection's ledger, before its answers."""
        for row in other.execute("SELECT first, png, image, logits FROM probes ORDER BY id").fetchall():
            self._insert_probe(*row)
        requests, newest = self._db.execute(
            "SELECT requests, (SELECT COALESCE(MAX(id), 0) FROM answers) FROM bill"
        ).fetchone()
        for row in other.execute(f"SELECT {_CHECK} FROM checks ORDER BY id").fetchall():
            # An answer's row there, and here once the answers are added.
            before = other.execute("SELECT COUNT(*) FROM answers WHERE id <= ?", (row[5],)).fetchone()[0]
            self._db.execute(
                f"INSERT INTO checks ({_CHECK}) VALUES (?, ?, ?, ?, ?, ?)", (row[0] + requests, *row[1:5], newest + before)
            )

    def _require_same(self, stored: dict[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any] | None:
        for key in ("classifier", "kind", "top_k"):
            if stored is not None and new is not None and stored[key] != new[key]:
                raise StoreError(
                    f"{self.path} has the answers of another target: {key} is {str(stored[key])[:16]} there and "
                    f"{str(new[key])[:16]} here; use another folder"
                )
        return stored

    @staticmethod
    def _stored_format(db: sqlite3.Connection) -> dict[str, Any] | None:
        text = _bill(db)[4]
        if text is None:
            return None
        try:
            stored = json.loads(text)
            if not (type(stored["top_k"]) is int and type(stored["decimals"]) in (int, type(None))):
                raise ValueError
            return {**stored, "kind": str(stored["kind"]), "classifier": str(stored["classifier"])}
        except (ValueError, TypeError, KeyError, RecursionError):
            raise sqlite3.DatabaseError(f"the response format is damaged: {text!r:.100}") from None

    def _use(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        weakref.finalize(self, connection.close)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction, exclusive of other threads and processes; errors of SQLite become a StoreError."""
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
            except _SQLITE_ERRORS as error:
                raise StoreError(
                    f"{self.path}: the ledger of requests and answers cannot be used ({error}); its contents are "
                    "safe, but nothing more is sent"
                ) from None


def _connected(path: Path | str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)


def _opened(path: Path) -> sqlite3.Connection:
    """The connection to a ledger; a new or empty file becomes one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = _connected(path)
    except (OSError, *_SQLITE_ERRORS) as error:
        raise StoreError(f"{path}: the ledger of requests and answers cannot be opened ({error})") from None
    try:
        db.execute("BEGIN IMMEDIATE")
        with closing(db.cursor()) as cursor:
            if not cursor.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                _create(db)
            elif cursor.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise sqlite3.DatabaseError("it is another database")
            elif (version := cursor.execute("PRAGMA user_version").fetchone()[0]) != _VERSION:
                raise sqlite3.DatabaseError(f"its format has version {version}; this evofool supports version {_VERSION}")
            elif strange := _tables(db) - _own_tables():
                raise sqlite3.DatabaseError(f"it has a {min(strange)[0]} that no ledger has, {min(strange)[1]}")
            _bill(db)
            _create_checks(db)
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
        # Each request is on disk before it is sent, so that none is lost in a power cut.
        db.execute("PRAGMA synchronous = FULL")
    except (*_SQLITE_ERRORS, TypeError) as error:
        db.close()
        raise StoreError(
            f"{path} is not a ledger of requests and answers, or is damaged ({error}); move it away only if its answers "
            "may be paid for again"
        ) from None
    return db


def _bill(db: sqlite3.Connection) -> tuple[int, int, float, float, str | None]:
    """The one row of bill; DatabaseError if a value in it has another type, since SQLite stores any value in any column."""
    rows = db.execute(f"SELECT {_BILL} FROM bill LIMIT 2").fetchall()
    if len(rows) != 1:
        raise sqlite3.DatabaseError(f"it has {'no bill' if not rows else 'several bills'}")
    (requests, answers, free_at, entered_at, reading) = rows[0]
    counts = all(type(n) is int and n >= 0 for n in (requests, answers))
    times = all(isinstance(t, float) and math.isfinite(t) for t in (free_at, entered_at))
    if not counts or not times or not isinstance(reading, str | None):
        raise sqlite3.DatabaseError(f"the bill is damaged: {rows[0]!r:.200}")
    return requests, answers, free_at, entered_at, reading


def _tables(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """(type, name, statement) of everything in a database's schema. A view or a trigger would be executed."""
    return set(db.execute("SELECT type, name, COALESCE(sql, '') FROM sqlite_master"))


@cache
def _own_tables() -> set[tuple[str, str, str]]:
    with closing(_connected(":memory:")) as db:
        _create(db)
        return _tables(db)


def _create(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";\n"):
        db.execute(statement)
    _create_checks(db)
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {_VERSION}")


def _create_checks(db: sqlite3.Connection) -> None:
    for statement in _CHECK_SCHEMA.split(";\n"):
        db.execute(statement)
