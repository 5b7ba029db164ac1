"""A built set as a regression test: its images by the classifier that they were made for."""

from pathlib import Path

import numpy as np
import pytest

from evofool.bench.sets.image_set import image_set
from evofool.bench.sets.score_set import score_set
from evofool.bench.sets.survivors import Survivors, fooling_rule
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
