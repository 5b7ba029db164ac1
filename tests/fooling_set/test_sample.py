"""A sample of a set is a set."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evofool.cli.app import app
from evofool.errors import RecipeError, StoreError
from evofool.fooling_set.diff import diff
from evofool.fooling_set.index import SetIndex
from evofool.fooling_set.sample import sample
from tests.fooling_set.sets import content
from tests.fooling_set.test_build import rows

pytestmark = pytest.mark.slow


def test_a_sample_has_some_images_of_each_classifier_and_arm(built: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["set", "sample", str(built), "--out", str(tmp_path / "one" / "set"), "--images", "1"])
    assert result.exit_code == 0, result.output
    assert "7 images written" in result.output
    whole = {row["id"]: row for row in rows(built)}
    taken = rows(tmp_path / "one")
    digits = [f"{name}/{arm}-0/3" for name in ("lenet", "other") for arm in ("cppn", "latent", "noise")]
    assert [row["id"] for row in taken] == [*digits, "colours/noise-0/1"]
    assert all(row == whole[row["id"]] for row in taken)
    found = diff(built, tmp_path / "one")
    assert (len(found.removed), found.unchanged, found.added, found.changed) == (8, 7, (), ())
    assert "at most 1 images of each classifier and arm" in (tmp_path / "one" / "set" / "README.md").read_text()
    whole_files, files = content(built / "set"), content(tmp_path / "one" / "set")
    folders = [path for path in files if path.startswith(("images/digits", "images/colours", "decoders"))]
    assert len(folders) > 8
    assert all(files[path] == whole_files[path] for path in folders)


def test_a_sample_of_everything_has_the_same_data(built: Path, tmp_path: Path) -> None:
    index = sample(built, tmp_path / "all", 100)
    assert index.files == SetIndex.read(built).files


def test_a_sample_may_have_images_of_some_classifiers_only(built: Path, tmp_path: Path) -> None:
    arguments = ["set", "sample", str(built), "--out", str(tmp_path / "some" / "set"), "--classifier"]
    result = CliRunner().invoke(app, [*arguments, "other", "--images", "2"])
    assert result.exit_code == 0, result.output
    taken = rows(tmp_path / "some")
    assert [row["id"] for row in taken] == [f"other/{arm}-0/{c}" for arm in ("cppn", "latent", "noise") for c in (1, 3)]
    assert all(row["predicted/lenet"] is not None for row in taken)
    assert SetIndex.read(tmp_path / "some").counts["lenet"] == {}
    with pytest.raises(RecipeError, match="has no classifier lenett; it has lenet, other, colours"):
        sample(built, tmp_path / "none", 1, ["lenett"])


def test_a_set_that_lacks_a_decoder_is_refused(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built / "set", tmp_path / "set")
    shutil.rmtree(folder / "decoders")
    with pytest.raises(StoreError, match="is damaged: image lenet/latent-0/1"):
        sample(folder, tmp_path / "new", 5)
    assert not (tmp_path / "new").exists()
