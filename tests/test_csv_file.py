"""A CSV reads back as it was written, but for what a spreadsheet would take for a formula, and for control characters."""

import csv
from pathlib import Path

import pytest

from evofool.csv_file import write_csv


def written(tmp_path: Path, *values: object) -> list[str]:
    columns = [f"column {k}" for k in range(len(values))]
    write_csv(tmp_path / "table.csv", columns, [dict(zip(columns, values, strict=True))])
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        head, row = csv.reader(file)
    assert head == columns
    return row


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_begins_a_formula_gets_an_apostrophe(tmp_path: Path, start: str) -> None:
    (cell,) = written(tmp_path, f"{start}1+1")
    assert cell[0] == "'"
    assert cell.endswith("1+1")
    assert cell.isprintable()


def test_numbers_stay_numbers_and_texts_stay_texts(tmp_path: Path) -> None:
    values = -1, -2.5, 0, 1e-300, None, True, "tiger, shark", 'a "b"', "größe", "a=b", ""
    assert written(tmp_path, *values) == [
        "-1", "-2.5", "0", "1e-300", "", "True", "tiger, shark", 'a "b"', "größe", "a=b", "",
    ]  # fmt: skip


def test_controls_are_escaped_and_heads_are_no_formula(tmp_path: Path) -> None:
    assert written(tmp_path, "a\x1b]0;PWN\x07\n\u202eb\udcff") == [r"a\x1b]0;PWN\x07\n\u202eb\udcff"]
    write_csv(tmp_path / "head.csv", ["=1"], [])
    assert (tmp_path / "head.csv").read_text() == "'=1\n"
