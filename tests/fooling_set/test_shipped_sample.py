"""The sample of evofool-set-1 beside this file: what an earlier build wrote still reads, and LeNet answers it the same.

`evofool set sample SET --out tests/fooling_set/sample --classifier lenet --classifier lenet-caffe --classifier undefended-1
--classifier defended-1 --classifier efficientnet-lite0` wrote it.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from evofool.bench.sets.image_set import image_set
from evofool.bench.sets.score_set import score_set
from evofool.fooling_set.diff import diff
from evofool.fooling_set.index import SetIndex
from evofool.fooling_set.rows import COLUMNS, VERDICT_COLUMNS, matrix_columns
from evofool.fooling_set.table import read_table
from evofool.images import decode_png
from evofool.scores import confidence, log_odds
from evofool.targets import target

SAMPLE = Path(__file__).parent / "sample"
pytest.importorskip("pyarrow")


def table() -> list[dict]:
    return read_table(
        SAMPLE, {**COLUMNS, "label": "int64", **matrix_columns(list(SetIndex.read(SAMPLE).classifiers))}, images=True
    )


def test_it_has_one_image_of_each_classifier_and_arm_and_fits_a_repository() -> None:
    index, rows = SetIndex.read(SAMPLE), table()
    assert (index.name, len(index.classifiers), index.sample) == ("evofool-set-1", 17, 1)
    assert len({(row["classifier"], row["arm"]) for row in rows}) == len(rows) == index.images
    assert {row["arm"] for row in rows} == {"direct", "cppn", "canvas", "latent", "apgd", "fourier"}
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*")) <= 2_000_000


def test_its_files_are_as_they_were_written() -> None:
    for path, of in SetIndex.read(SAMPLE).files.items():
        assert hashlib.sha256((SAMPLE / path).read_bytes()).hexdigest() == of["sha256"], path
    assert all(hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["sha256"] for row in table())
    assert diff(SAMPLE, SAMPLE).same


def test_its_folders_have_the_images_of_the_table() -> None:
    rows = table()
    for group in ("digits", "photographs"):
        folder = ImageFolder(str(SAMPLE / "images" / group))
        found = sorted(Path(path).read_bytes() for path, _ in folder.samples)
        assert found == sorted(row["image"]["bytes"] for row in rows if row["group"] == group)


def test_the_bundled_network_still_gives_the_stored_answers() -> None:
    rows = [row for row in table() if row["group"] == "digits"]
    images = np.stack([decode_png(row["image"]["bytes"], row["id"]) for row in rows])
    logits = target("lenet").logits(images)
    odds = np.asarray(log_odds(logits), np.float64)
    predicted = logits.argmax(axis=1)
    assert predicted.tolist() == [row["predicted/lenet"] for row in rows]
    of_class = odds[np.arange(len(rows)), [row["label"] for row in rows]]
    assert of_class == pytest.approx([row["log_odds/lenet"] for row in rows], abs=1e-3)
    of_predicted = confidence(odds[np.arange(len(rows)), predicted])
    assert of_predicted == pytest.approx([row["confidence/lenet"] for row in rows], abs=1e-4)
    own = [row for row in rows if row["classifier"] == "lenet"]
    assert len(own) == 6
    assert [row["log_odds/lenet"] for row in own] == pytest.approx([row["log_odds"] for row in own], abs=1e-3)


def test_it_is_scored_as_a_set_of_images() -> None:
    found = score_set(image_set(SAMPLE, lenet := target("lenet")), lenet)
    rows = [row for row in table() if row["group"] == "digits"]
    assert len(found.images) == len(rows)
    assert [lenet.labels[c] for c in found.images.classes] == [row["label_name"] for row in rows]


def test_nobody_judged_its_images() -> None:
    assert all(row[name] is None for row in table() for name in VERDICT_COLUMNS)
