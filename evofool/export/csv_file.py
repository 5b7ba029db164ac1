"""CSV files, for spreadsheets too: no cell of them is a formula."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evofool.text import visible
from evofool.whole_file import whole_file

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula, as OWASP's page on CSV injection lists it."""


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows as CSV in UTF-8, with a header; None is an empty cell. StoreError if path cannot be written.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers. Characters that
    are not printable are escaped (evofool.text.visible).
    """
    with whole_file(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(map(_cell, columns))
        table.writerows([_cell(row[column]) for column in columns] for row in rows)


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    text = str(value)
    return visible(f"'{text}" if text.startswith(_FORMULA) else text)
