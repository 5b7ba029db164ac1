"""The differences of two versions of a set."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evofool.cli.app import app
from evofool.errors import StoreError
from evofool.fooling_set.build import build_set
from evofool.fooling_set.diff import diff
from evofool.fooling_set.layouts import TABLE
from tests.fooling_set.sets import TINY, tiny

pytestmark = pytest.mark.slow


def rewritten(built: Path, folder: Path, change) -> Path:
    """A copy of a set with another table."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    copy = shutil.copytree(built / "set", folder)
    rows = parquet.read_table(copy / TABLE).to_pylist()
    parquet.write_table(arrow.Table.from_pylist(change(rows)), copy / TABLE)
    return copy


def test_a_set_does_not_differ_from_itself(built: Path) -> None:
    found = diff(built, built / "set")
    assert found.same
    assert found.unchanged == 15
    assert CliRunner().invoke(app, ["set", "diff", str(built), str(built)]).exit_code == 0


def test_a_version_without_a_classifier_and_an_arm(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built, tmp_path / "second")
    group = {**TINY["groups"][0], "arms": ["cppn", "latent"], "targets": [{"target": "lenet"}]}
    build_set(tiny(version="1.1.0", groups=[group, TINY["groups"][1]]), folder)
    found = diff(built, folder)
    assert found.versions == ("1.0.0", "1.1.0")
    assert (found.removed_classifiers, found.added_classifiers, found.changed_classifiers) == (("other",), (), ())
    gone = [f"other/{arm}-0/{c}" for arm in ("cppn", "latent", "noise") for c in (1, 3)]
    assert set(found.removed) == {*gone, "lenet/noise-0/1", "lenet/noise-0/3"}
    assert not found.added
    assert not found.changed
    assert found.unchanged == 7
    assert all(of.images == 7 and not of.predicted and not of.log_odds for of in found.answers.values())
    back = diff(folder, built)
    assert (back.added, back.added_classifiers) == (found.removed, ("other",))
    result = CliRunner().invoke(app, ["set", "diff", str(built), str(folder)])
    assert result.exit_code == 1
    assert "1 classifiers removed: other" in result.output
    assert "8 images removed: lenet/noise-0/1" in result.output


def test_changed_images_and_answers_are_counted(built: Path, tmp_path: Path) -> None:
    def change(rows: list[dict]) -> list[dict]:
        rows[0]["sha256"] = "0" * 64
        rows[1]["log_odds/other"] += 0.25
        rows[2]["predicted/lenet"] += 1
        return rows

    other = rewritten(built, tmp_path / "other", change)
    found = diff(built, other)
    assert found.changed == ("lenet/cppn-0/1",)
    assert (found.answers["other"].log_odds, found.answers["other"].largest) == (1, pytest.approx(0.25))
    assert (found.answers["lenet"].predicted, found.answers["lenet"].log_odds) == (1, 0)
    assert found.answers["colours"].images == 14
    result = CliRunner().invoke(app, ["set", "diff", str(built), str(other), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)["same"] is False


def test_what_is_no_set_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"has no set of fooling images \(there is no set.json\)"):
        diff(built, tmp_path)
    twice = rewritten(built, tmp_path / "twice", lambda rows: [*rows, rows[0]])
    with pytest.raises(StoreError, match="has an id twice"):
        diff(built, twice)
    other = rewritten(built, tmp_path / "words", lambda rows: [{**row, "log_odds/lenet": "a"} for row in rows])
    with pytest.raises(StoreError, match="cannot be read as the table of a set"):
        diff(built, other)
    less = rewritten(built, tmp_path / "less", lambda rows: [{"id": row["id"], "sha256": ""} for row in rows])
    with pytest.raises(StoreError, match="cannot be read as the table of a set"):
        diff(less, built)
    (twice / TABLE).write_bytes(b"nothing")
    with pytest.raises(StoreError, match="cannot be read as the table of a set"):
        diff(built, twice)
    (twice / "set.json").write_text(json.dumps({"schema": "evofool.set", "version": 1, "set": {"name": "a"}}))
    with pytest.raises(StoreError, match="is damaged"):
        diff(built, twice)
