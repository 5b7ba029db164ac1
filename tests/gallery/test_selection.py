"""Images that are chosen in a grid and downloaded as one ZIP."""

import csv
import io
import json
import re
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from evofool.export.selection import selection_zip
from evofool.gallery.security import Tokens
from evofool.images import decode_png
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import Elite, StoredRun
from evofool.targets import Target, target
from tests.gallery.server import client
from tests.gallery.test_pages import HOSTILE, runs_of


def test_a_selection_has_images_genomes_and_tables(gallery: TestClient, root: Path) -> None:
    answer = gallery.get(f"{runs_of(gallery)['digits']}/selection.zip?cells=2-3&cell=7")
    assert answer.headers["content-disposition"] == 'attachment; filename="digits-selection.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive, StoredRun(root / "digits") as run:
        assert archive.testzip() is None
        elites = [elite for elite in run.elites() if elite.row.cell in (2, 3, 7)]
        manifest = json.loads(archive.read("manifest.json"))
        assert (manifest["target"], manifest["target_fingerprint"]) == ("lenet", run.meta.target.fingerprint)
        assert (manifest["run"], manifest["evaluations"]) == ("digits", 120)
        rows = list(csv.DictReader(io.StringIO(archive.read("elites.csv").decode())))
        assert len(rows) == len(manifest["elites"]) == len(elites) == 3
        for elite, listed, row in zip(elites, manifest["elites"], rows, strict=True):
            assert (decode_png(archive.read(listed["file"])) == elite.image).all()
            assert json.loads(archive.read(listed["genome"])) == json.loads(json.dumps(run.genome_json(elite)))
            assert listed["class"] == int(row["class"]) == elite.row.class_id
            assert listed["confidence"] == float(row["confidence"]) == elite.confidence
            assert row["file"] == listed["file"]
            assert row["target_fingerprint"] == run.meta.target.fingerprint
        assert len(archive.namelist()) == 2 * 3 + 2


def test_equal_selections_are_equal_bytes(gallery: TestClient) -> None:
    address = f"{runs_of(gallery)['digits']}/selection.zip"
    assert gallery.get(f"{address}?cells=0-9").content == gallery.get(f"{address}?cells=5-9,0-4,3").content


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "Choose images"),
        ("cells=", 400, "Choose images"),
        ("cells=3-1", 400, "list of cells"),
        ("cells=x", 400, "list of cells"),
        ("cell=-1", 400, "list of cells"),
        ("cell=" + "9" * 5000, 400, "list of cells"),
        ("cells=0-999999999", 400, "at most 100,000"),
        ("cells=0-90000,100000-190000,200000-290000", 400, "at most 100,000"),
        ("cells=0-60000,0-60000", 400, "at most 100,000"),
        ("cells=" + ",".join(["0-99999"] * 8000), 400, "at most 100,000"),
        ("cells=8-12", 404, "no image in the cells 10, 11, 12"),
        ("cells=3,100-200", 404, "and 96 more"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused_in_words(
    gallery: TestClient, query: str, status: int, words: str
) -> None:
    answer = gallery.get(f"{runs_of(gallery)['digits']}/selection.zip?{query}")
    assert (answer.status_code, words in answer.text) == (status, True), answer.text


def test_hostile_labels_and_names_make_harmless_files(tmp_path: Path, tokens: Tokens) -> None:
    (tmp_path / "labels.txt").write_text("\n".join([*HOSTILE, "=1+1", "a\\b", *"789"]), encoding="utf-8")
    spec = f"lenet?labels={tmp_path / 'labels.txt'}"
    name = 'x"; filename=evil.exe'
    with Run.start(
        load("mnist-cppn", ["stop.evaluations=48", f"target={spec}"]), tmp_path / "runs" / name, target(spec)
    ) as run:
        run.advance()
    with client(tmp_path / "runs", tokens) as found:
        address = re.findall(r"/run/[0-9a-z-]+", found.get("/").text)[0]
        answer = found.get(f"{address}/selection.zip?cells=0-9")
        assert answer.headers["content-disposition"] == 'attachment; filename="x_filename_evil_exe-selection.zip"'
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        for each in archive.namelist():
            assert re.fullmatch(r"[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+\.(png|json)|elites\.csv|manifest\.json", each), each
        assert "'=1+1" in archive.read("elites.csv").decode()
        assert str(tmp_path) not in archive.read("manifest.json").decode()


def test_verdicts_in_a_selection_are_of_its_own_images(
    tmp_path: Path, lenet: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the run saves a checkpoint just before the export begins to read, and before and after it reads images."""
    from evofool.export import selection

    saved, judged, elites, snapshot = list[int](), dict[int, int](), StoredRun.elites, StoredRun.snapshot
    recipe = load("mnist-cppn", ["stop.evaluations=240", "save.seconds=0"])

    def births(run: StoredRun) -> dict[int, int]:
        return {elite.row.cell: elite.row.birth for elite in elites(run)}

    with Run.start(recipe, tmp_path / "live", lenet) as run:
        run.advance(batches=2)

        def snapshot_of_later(stored: StoredRun) -> AbstractContextManager[None]:
            run.advance(batches=4)
            return snapshot(stored)

        def saving(stored: StoredRun, class_id: int | None = None) -> list[Elite]:
            run.advance(batches=4)
            found = elites(stored, class_id)
            run.advance(batches=4)
            saved.append(len(found))
            return found

        def people(stored: StoredRun, _known: Any) -> dict[int, Any]:
            judged.update(births(stored))
            return {}

        monkeypatch.setattr(StoredRun, "snapshot", snapshot_of_later)
        monkeypatch.setattr(StoredRun, "elites", saving)
        monkeypatch.setattr(selection, "people_say", people)
        with StoredRun(tmp_path / "live") as stored:
            made = selection_zip(stored, range(10))
            assert births(stored) != judged, "the run has gone on"
    assert saved == [10]
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        rows = json.loads(archive.read("manifest.json"))["elites"]
    assert {row["class"]: row["birth"] for row in rows} == judged


def test_only_a_grid_of_now_can_be_chosen_from(gallery: TestClient) -> None:
    address = runs_of(gallery)["digits"]
    assert gallery.get(address).text.count('class="pick"') == 10
    assert 'class="pick"' not in gallery.get(f"{address}?at=60").text
