"""A connection to an SQLite file that may come from anyone: only tables of ours, and a limit on every query."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

from evofool.errors import StoreError

MOST_BYTES = 1 << 26
"""Of one value, and of one row. The largest are images of images.MOST_VALUES and thresholds of eight million cells."""

_COMPANIONS = ("", "-wal", "-shm", "-journal")
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # ends a journal that names another file, which SQLite would delete
_STEP = 100_000  # instructions of SQLite between two looks at the limit
_LEAST_STEPS, _STEPS_PER_BYTE = 20_000_000, 10  # a whole scan with checks takes about two instructions per byte


def connect(path: Path, write: bool) -> sqlite3.Connection:
    """The open file, on which refuse_special was called before."""
    uri = path.resolve().as_uri() + ("?mode=rw" if write else "?mode=ro")
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    restrict(connection)
    if not write:
        connection.execute("PRAGMA query_only = ON")
        _recover(path, connection)
    return connection


def _recover(path: Path, connection: sqlite3.Connection) -> None:
    """Undo what a writer that was killed has left half done; a connection that only reads cannot. Other faults stay."""
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        if not str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_READONLY"):
            return
        with suppress(sqlite3.Error), closing(connect(path, write=True)) as writer:
            writer.execute("PRAGMA schema_version").fetchone()


def refuse_special(path: Path) -> None:
    """StoreError for a device, a pipe or a folder in the file's place or in that of one of its companions."""
    for suffix in _COMPANIONS:
        _refuse_no_file(path.with_name(path.name + suffix))
    _refuse_super_journal(path.with_name(path.name + "-journal"))


def restrict(connection: sqlite3.Connection) -> None:
    """Nothing in the file is executed, and no value is larger than MOST_BYTES."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def schema_fault(connection: sqlite3.Connection, tables: str, optional: str = "", only: str = "") -> str:
    """The first table, index, view or trigger that is not as evofool makes it; empty if there is none.

    tables: the statements that make what the file has to have; optional: those of what it may have. only: this table.
    """
    found, ours = _schema(connection), _schema_of(tables + optional)
    lacking = ours.keys() - _schema_of(tables).keys() - found.keys()
    for key in [*ours, *found]:
        if key not in lacking and only in ("", key[1]) and found.get(key) != ours.get(key):
            kind, name = key
            what = "is missing" if key not in found else "is not as evofool makes it"
            return f"the {kind} {name!r:.80} {what}"
    return ""


class Limit:
    """Ends queries that take far longer than the size of the file can explain: pages that name one another in a circle."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._left = path, 0.0
        self._active = False
        connection.set_progress_handler(self._look, _STEP)

    @contextmanager
    def one_query(self) -> Iterator[None]:
        """Within, queries together may take as many instructions as a scan of a file of this size."""
        before = self._active, self._left
        self._active, self._left = True, _LEAST_STEPS + _STEPS_PER_BYTE * self.size()
        try:
            yield
        finally:
            self._active, self._left = before

    def size(self) -> int:
        """Bytes of the file and its write-ahead log: no query can yield more values than that."""
        total = 0
        for path in (self._path, self._path.with_name(self._path.name + "-wal")):
            with suppress(OSError):
                total += path.stat().st_size
        return total

    def _look(self) -> bool:
        self._left -= _STEP
        return self._active and self._left < 0


def _refuse_no_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is not a file (a folder, a pipe or a device)")


def _refuse_super_journal(path: Path) -> None:
    if path.exists():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(_SUPER_JOURNAL)))
            if file.read() == _SUPER_JOURNAL:
                raise StoreError(f"{path} names another file, which SQLite would delete; evofool writes no such journal")


_Schema = dict[tuple[str, str], tuple[str, str]]


def _schema(connection: sqlite3.Connection) -> _Schema:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    if len({row[:2] for row in rows}) < len(rows):
        raise ValueError("its schema has a name twice")
    return {(str(kind), str(name)): (str(table), " ".join(str(sql).split())) for kind, name, table, sql in rows}


@cache
def _schema_of(tables: str) -> _Schema:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(tables)
        return _schema(connection)
