"""CSV files, written for spreadsheets too, where no cell is a formula; and read, from whoever wrote them."""

import csv
import io
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from evofool.errors import StoreError
from evofool.text import visible
from evofool.whole_file import whole_file

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula, as OWASP's page on CSV injection lists it."""

_OTHER_MARKS = {";": "semicolons", "\t": "tabs"}  # spreadsheets write them where a comma is the decimal mark

MOST_BYTES = 1 << 26
"""Of a file that is read."""


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows as CSV in UTF-8, with a header; None is an empty cell. StoreError if path cannot be written.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers. Characters that
    are not printable are escaped (evofool.text.visible).
    """
    with whole_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        _write(file, columns, rows)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """What write_csv writes."""
    file = io.StringIO(newline="")
    _write(file, columns, rows)
    return file.getvalue()


def _write(file: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    table = csv.writer(file)
    table.writerow(map(_cell, columns))
    table.writerows([_cell(row[column]) for column in columns] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, in UTF-8: by column, its text; cells that a row lacks are empty.

    Empty rows are left out, and so is the apostrophe that write_csv puts before a formula. StoreError, with the line, for
    a file that cannot be read, is longer than MOST_BYTES, is no such CSV, separates its cells by semicolons or tabs, names a
    column twice, or has a row with more cells than columns.
    """
    try:
        refuse_no_file(path)
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from None
    if len(content) > MOST_BYTES:
        raise StoreError(f"{path} is longer than {MOST_BYTES:,} bytes, the most that is read of a CSV file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is not a CSV file in UTF-8 ({error.reason} at byte {error.start:,})") from None
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, str]] = []
    try:
        columns = next(table, [])
        if other := next((name for mark, name in _OTHER_MARKS.items() if len(columns) == 1 and mark in columns[0]), ""):
            raise StoreError(f"{path}: its only column is {columns[0]!r:.80}; separate cells by commas, not by {other}")
        if twice := next((name for k, name in enumerate(columns) if name in columns[:k]), None):
            raise StoreError(f"{path}: the column {twice!r:.80} stands there twice")
        for cells in table:
            if len(cells) > len(columns):
                raise StoreError(f"{path}, line {table.line_num}: {len(cells)} cells, and the header names {len(columns)}")
            if any(cells):
                rows.append(dict.fromkeys(columns, "") | dict(zip(columns, map(_plain, cells), strict=False)))
    except csv.Error as error:
        raise StoreError(f"{path}, line {table.line_num}: not CSV ({error})") from None
    return rows


def refuse_no_file(path: Path) -> None:
    """StoreError for a folder, a pipe or a device in a file's place; OSError if nothing is there."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise StoreError(f"{path} is not a file (a folder, a pipe or a device)")


def _plain(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    text = str(value)
    return visible(f"'{text}" if text.startswith(_FORMULA) else text)
