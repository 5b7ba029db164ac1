"""A CSV reads back as it was written, but for what a spreadsheet would take for a formula, and for control characters."""

import csv
from pathlib import Path

import pytest

from evofool.csv_file import read_csv, write_csv
from evofool.errors import StoreError


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


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    rows = [{"a": "tiger, shark", "b": "=1+1", "c": 'a "b"'}, {"a": "größe", "b": None, "c": 2.5}]
    write_csv(tmp_path / "table.csv", ["a", "b", "c"], rows)
    assert read_csv(tmp_path / "table.csv") == [
        {"a": "tiger, shark", "b": "=1+1", "c": 'a "b"'},
        {"a": "größe", "b": "", "c": "2.5"},
    ]


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    (tmp_path / "excel.csv").write_bytes('\ufeffa,b\r\n1\r\n\r\n,\r\n"x\ny",2\r\n'.encode())
    assert read_csv(tmp_path / "excel.csv") == [{"a": "1", "b": ""}, {"a": "x\ny", "b": "2"}]
    (tmp_path / "empty.csv").write_text("")
    assert read_csv(tmp_path / "empty.csv") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,a\n1,2\n", "the column 'a' stands there twice"),
        (b"a,b\n1,2\n1,2,3\n", "line 3: 3 cells, and the header names 2"),
        (b'a\n"x\n', "line 2: not CSV"),
        (b"a\n\xff\n", "is not a CSV file in UTF-8"),
        (b"a\n" + b"x" * 200_000, "line 2: not CSV"),
    ],
)
def test_what_is_no_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(StoreError, match=message):
        read_csv(tmp_path / "bad.csv")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none.csv cannot be read \(No such file"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(StoreError, match="is not a file"):
        read_csv(tmp_path)
