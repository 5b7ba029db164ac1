"""A built set as a regression test: its images by the classifier that they were made for."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from evofool.bench.sets.image_set import image_set
from evofool.bench.sets.score_set import score_set
from evofool.bench.sets.survivors import Survivors, fooling_rule
from evofool.csv_file import read_csv, write_csv
from evofool.fooling_set.layouts import TABLE
from evofool.targets import target

pytestmark = pytest.mark.slow


def test_images_of_a_built_set_are_tried_by_classifier_and_other_labels_are_left_out(built: Path) -> None:
    rows = pytest.importorskip("pyarrow.parquet").read_table(built / "set" / TABLE).to_pylist()
    lenet = target("lenet")
    images = image_set(built / "set", lenet)
    digits = [row for row in rows if row["label_name"] in lenet.labels]
    assert len(digits) < len(rows), "the set has a classifier with other labels"
    assert list(images.classifiers) == [row["classifier"] for row in digits]
    assert images.classes.tolist() == [int(row["label_name"]) for row in digits]
    assert images.confidences.tolist() == [row["confidence"] for row in digits]
    assert {image.classifier for image in images.missing} == {"colours"}
    assert len(images.missing) == len(rows) - len(digits)
    found = Survivors(score_set(images, lenet), fooling_rule("log_odds>=-99", lenet, False))
    groups = found.groups("classifier")
    assert list(groups) == ["lenet", "other", "colours"], "a label that both have is tried"
    for name, members in groups.items():
        assert [digits[row]["classifier"] for row in members] == [name] * len(members)
    predicted = [row["predicted/lenet"] == int(row["label_name"]) for row in digits]
    assert np.array_equal(found.fools, predicted), "the matrix of the set has what the target predicts"


def test_a_group_s_folder_has_the_confidences_and_classifiers_of_the_metadata_above_it(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet = target("lenet")
    table, group = image_set(built / "set", lenet), built / "set" / "images" / "digits"
    of_group = {name for name in table.classifiers if name != "colours"}
    said = sorted((p, name) for p, name in zip(table.confidences, table.classifiers, strict=True) if name in of_group)
    monkeypatch.chdir(group)
    for path in (group, Path(), _with_its_own(group, tmp_path / "moved")):
        folder = image_set(path, lenet)
        assert sorted(zip(folder.confidences, folder.classifiers, strict=True)) == said
        for name, classifier in zip(folder.names, folder.classifiers, strict=True):
            assert Path(name).name.startswith(classifier), "each image has its own row"
    shutil.copytree(group, tmp_path / "alone" / "digits")
    alone = image_set(tmp_path / "alone" / "digits", lenet)
    assert np.isnan(alone.confidences).all()
    assert set(alone.classifiers) == {""}
    unrelated = [{"file_name": f"digits/{name}", "confidence": "0.5", "classifier": "x"} for name in alone.names]
    write_csv(tmp_path / "alone" / "metadata.csv", list(unrelated[0]), unrelated)
    again = image_set(tmp_path / "alone" / "digits", lenet)
    assert np.isnan(again.confidences).all(), "a metadata.csv above that is of no set says nothing of this folder"
    found = Survivors(score_set(image_set(group, lenet), lenet), fooling_rule("log_odds>=-99", lenet, False))
    assert "when it was made" in found.line(0)


def _with_its_own(group: Path, folder: Path) -> Path:
    """A copy of a group of its own, its metadata beside its folders."""
    shutil.copytree(group, folder)
    rows = [row for row in read_csv(group.parent / "metadata.csv") if row["file_name"].startswith("digits/")]
    write_csv(folder / "metadata.csv", list(rows[0]), [row | {"file_name": row["file_name"][7:]} for row in rows])
    return folder
