"""What an export says of what people see in its images."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evofool.export.export import export
from evofool.run.stored import StoredRun
from tests.quiz.samples import asked, made_up_run

TABLES = {"imagefolder": "elites.csv", "parquet": "data/train-00000-of-00001.parquet"}


def rows(folder: Path, layout: str) -> list[dict[str, str]]:
    path = folder / TABLES[layout]
    if layout == "parquet":
        return [{k: "" if v is None else str(v) for k, v in row.items()} for row in pq.read_table(path).to_pylist()]
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("layout", TABLES)
def test_verdicts_stand_in_the_table_and_the_card_counts_them(tmp_path: Path, layout: str) -> None:
    folder = made_up_run(tmp_path / "run")
    with StoredRun(folder) as run:
        export(run, tmp_path / "before", layout=layout)
        assert all(row["verdict"] == row["verdict_raters"] == "" for row in rows(tmp_path / "before", layout))
        assert "Nobody was asked what they see" in (tmp_path / "before" / "README.md").read_text()

        asked(folder, ["perfect"] * 4)
        export(run, tmp_path / "four", layout=layout)
        assert "so there is no verdict on any" in (tmp_path / "four" / "README.md").read_text().replace("\n", " ")

        asked(folder, ["perfect"], first=5)
        export(run, tmp_path / "five", layout=layout)
    table = rows(tmp_path / "five", layout)
    assert {row["verdict"] for row in table} == {"recognised"}
    for column in ("raters", "named", "chosen", "offered"):
        assert {row[f"verdict_{column}"] for row in table} == {"5"}
    card = (tmp_path / "five" / "README.md").read_text().replace("\n", " ")
    assert "5 raters who passed the checks were asked what they see. 10 of 10 pairs of image and class were seen" in card
