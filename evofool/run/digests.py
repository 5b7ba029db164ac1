"""Digests of the tables of a run's file: verify finds a change of any value by them.

The digest of a table is the sum of the SHA-256 of its rows, so it is kept up to date by what a checkpoint adds and removes,
and the order of rows does not matter. It finds damage. It does not stop a forger, who can compute it too.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from evofool.run.columns import COLUMNS

DIGESTS = "digests"
"""The key of meta that has them, by table, in hexadecimal."""

_MODULUS = 1 << 256
_LEFT_OUT = {("elites", "png")}  # its SHA-256 is in elites.sha256

HASHED: dict[str, tuple[str, ...]] = {
    table: tuple(name for name in columns if (table, name) not in _LEFT_OUT) for table, columns in COLUMNS.items()
}
"""By table the columns that its digest covers, in order."""


class Digests:
    """The digests of a file's tables, as rows come and go."""

    def __init__(self, stored: Mapping[str, str] | None = None) -> None:
        self._sums = {table: int((stored or {}).get(table, "0"), 16) for table in HASHED}

    def add(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """rows: of HASHED[table]."""
        self._sums[table] = (self._sums[table] + sum(_row_digest(table, row) for row in rows)) % _MODULUS

    def remove(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._sums[table] = (self._sums[table] - sum(_row_digest(table, row) for row in rows)) % _MODULUS

    def stored(self) -> dict[str, str]:
        """As meta has them."""
        return {table: f"{total:064x}" for table, total in self._sums.items()}


def _row_digest(table: str, row: tuple[Any, ...]) -> int:
    digest = hashlib.sha256()
    for name, value in zip(HASHED[table], row, strict=True):
        kind = COLUMNS[table][name].kind
        data = value if isinstance(value, bytes) else repr(None if value is None else kind(value)).encode()
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return int.from_bytes(digest.digest())
