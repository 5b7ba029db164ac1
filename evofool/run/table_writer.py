"""Adds and removes rows of a run's file, and keeps the digests of its tables up to date."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from evofool.run.columns import COLUMNS
from evofool.run.digests import HASHED, Digests

_KEYS = {"image_metrics": ("cell", "name")}
"""Columns that identify a row; of other tables the first one."""


class TableWriter:
    """Every change of rows within one transaction. digests: those of the file before it."""

    def __init__(self, connection: sqlite3.Connection, digests: Digests) -> None:
        self._db, self.digests = connection, digests

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """rows: all columns, in order."""
        new = [tuple(row) for row in rows]
        if not new:
            return
        self._db.executemany(_statement("INSERT", table), new)
        self.digests.add(table, (_hashed(table, row) for row in new))

    def insert_new(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """The same, without rows whose key is there already. rows are read once, and one at a time."""
        statement = _statement("INSERT OR IGNORE", table)
        for row in rows:
            if self._db.execute(statement, tuple(row)).rowcount == 1:
                self.digests.add(table, [_hashed(table, row)])

    def replace(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """The same, in place of rows with the same keys."""
        keys, names = _KEYS.get(table, tuple(COLUMNS[table])[:1]), tuple(COLUMNS[table])
        where = " AND ".join(f"{key} = ?" for key in keys)
        for row in rows:
            self.delete(table, where, [row[names.index(key)] for key in keys])
            self.insert(table, [row])

    def delete(self, table: str, where: str = "1", values: Sequence[Any] = ()) -> None:
        old = self._db.execute(f"SELECT {', '.join(HASHED[table])} FROM {table} WHERE {where}", tuple(values)).fetchall()
        if old:
            self.digests.remove(table, old)
            self._db.execute(f"DELETE FROM {table} WHERE {where}", tuple(values))


def _statement(how: str, table: str) -> str:
    return f"{how} INTO {table} VALUES ({', '.join('?' * len(COLUMNS[table]))})"


def _hashed(table: str, row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value for name, value in zip(COLUMNS[table], row, strict=True) if name in HASHED[table])
