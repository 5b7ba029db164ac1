"""Digests of the tables of a run's file: verify finds a change of any value by them.

The digest of a table is the sum of the SHA-256 of its rows, so it is kept up to date by what a checkpoint adds and removes.
It finds damage. It does not stop a forger, who can compute it too.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from evofool.run.columns import COLUMNS
from evofool.run.schema import OPTIONAL_TABLES

DIGESTS = "digests"
"""The key of meta that has them, by table, in hexadecimal."""

HASHED: dict[str, tuple[str, ...]] = {
    table: tuple(name for name in columns if (table, name) != ("elites", "png")) for table, columns in COLUMNS.items()
}
"""By table the columns that its digest covers, in order: all but the PNG, whose SHA-256 is in elites.sha256."""

_MODULUS = 1 << 256


class Digests:
    """The digests of a file's tables, as rows come and go. Rows are of HASHED[table]."""

    def __init__(self, stored: object = None) -> None:
        """stored: as meta has them, of a file that exists; ValueError if they cannot be."""
        self._sums = dict.fromkeys(HASHED, 0)
        if stored is None:
            return
        if not isinstance(stored, Mapping) or {*stored, *OPTIONAL_TABLES} != set(HASHED):
            raise ValueError(f"meta.{DIGESTS} has other tables than the file")
        for table, text in stored.items():
            if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
                raise ValueError(f"meta.{DIGESTS}.{table} is {text!r:.80}, not a SHA-256")
            self._sums[table] = int(text, 16)

    def add(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._sums[table] = (self._sums[table] + sum(_of_row(table, row) for row in rows)) % _MODULUS

    def remove(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._sums[table] = (self._sums[table] - sum(_of_row(table, row) for row in rows)) % _MODULUS

    def stored(self) -> dict[str, str]:
        """As meta has them: without optional tables that are empty or missing."""
        return {table: f"{total:064x}" for table, total in self._sums.items() if total or table not in OPTIONAL_TABLES}


def _of_row(table: str, row: tuple[Any, ...]) -> int:
    parts = []
    for name, value in zip(HASHED[table], row, strict=True):
        if isinstance(value, bytes):
            data = value
        else:  # a value to be written may be a whole number where SQLite makes a fraction of it, or True where it makes 1
            # ... and it stores -0.0 as 0.0.
            whole = float(value) + 0.0 if COLUMNS[table][name].kind is float and isinstance(value, (int, float)) else value
            data = repr(int(whole) if isinstance(whole, bool) else whole).encode(errors="surrogatepass")
        parts += [b"%d:" % len(data), data]
    return int.from_bytes(hashlib.sha256(b"".join(parts)).digest())
