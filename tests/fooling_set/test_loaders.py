"""A set read by the libraries that its layouts and its metadata are for. They are installed in .ci/full."""

from pathlib import Path

import pytest

from tests.fooling_set.test_build import rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # these libraries leave files open, and use what others deprecate
]


def test_mlcroissant_finds_no_error_and_reads_the_records(built: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    data = mlcroissant.Dataset(str(built / "set" / "croissant.json"))
    assert not data.metadata.ctx.issues.errors
    records, table = list(data.records("images")), rows(built)
    assert [record["images/id"].decode() for record in records] == [row["id"] for row in table]
    assert [record["images/predicted/lenet"] for record in records] == [row["predicted/lenet"] for row in table]
    assert records[0]["images/image"].size == (28, 28)


def test_webdataset_reads_the_shards(built: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = str(built / "set" / "webdataset" / "train-000000.tar")
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "cls", "json"))
    assert [(label, row["id"]) for _, label, row in found] == [(row["label"], row["id"]) for row in rows(built)]
    assert found[0][0].size == (28, 28)


def test_datasets_loads_the_folder_offline(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(str(built / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    assert data["id"][:] == [row["id"] for row in rows(built)]
    assert data[0]["image"].size == (28, 28)
