"""Models that invert HOG as files: the shipped one, the cache, and files that are not such models."""

import json
import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from evofool.errors import ImageError, StoreError
from evofool.explain import hog_file
from evofool.explain.hog_file import SHIPPED, learned_model, load_model, save_model, shipped_model
from evofool.explain.hog_inversion import invert_windows, likeness
from evofool.explain.hog_model import LearningSettings, sampled_windows
from evofool.images import save_png
from tests.explain.hog_samples import picture, small_model

QUICK = LearningSettings(windows=60, atoms=8, rank=8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_model(small_model(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_model_is_read_as_it_was_written_but_for_half_precision(file: Path, tmp_path: Path) -> None:
    read = load_model(file)
    for field in fields(read):
        ours, found = getattr(small_model(), field.name), getattr(read, field.name)
        if isinstance(ours, np.ndarray):
            assert found.dtype == ours.dtype
            np.testing.assert_allclose(found, ours, rtol=1e-3, atol=1e-6)
        else:
            assert found == ours
    save_model(read, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_the_shipped_model_is_small_and_inverts_what_it_has_not_seen() -> None:
    assert SHIPPED.stat().st_size < 2_000_000
    windows, patches = sampled_windows([picture(seed) for seed in range(6)], 12, 0)
    for method in ("paired", "ridge"):
        assert likeness(invert_windows(windows, method, shipped_model()), patches).ncc.mean() > 0.5
    with pytest.raises(ImageError, match=r"no exemplars, which elda averages: learn one by --train DIR"):
        invert_windows(windows, "elda", shipped_model())


def test_the_same_photographs_are_learned_from_once_under_any_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", str(tmp_path / "cache"))
    for seed in range(8):
        save_png(picture(seed), tmp_path / "one" / f"{seed}.png")
        save_png(picture(seed), tmp_path / "two" / "deep" / f"{9 - seed}.png")
    lines: list[str] = []
    first, path = learned_model(tmp_path / "one", QUICK, on_progress=lines.append)
    assert path.parent == tmp_path / "cache"
    assert lines[0] == "60 windows of 8 photographs"
    lines.clear()
    again, same = learned_model(tmp_path / "two", QUICK, on_progress=lines.append)
    assert (lines, same) == ([], path)
    np.testing.assert_array_equal(first.atoms_grey, again.atoms_grey)
    _, other = learned_model(tmp_path / "two", replace(QUICK, seed=1))
    assert other != path


def test_a_large_folder_is_learned_from_at_so_many_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hog_file, "MOST_PHOTOGRAPHS", 9)
    for seed in range(17):
        save_png(picture(seed), tmp_path / "many" / f"{seed:02}.png")
        if seed % 2 == 0:
            save_png(picture(seed), tmp_path / "nine" / f"{seed:02}.png")
    model, path = learned_model(tmp_path / "many", QUICK)
    assert model.photographs == 9
    assert learned_model(tmp_path / "nine", QUICK)[1] == path


def test_a_folder_of_few_photographs_is_refused(tmp_path: Path) -> None:
    for seed in range(3):
        save_png(picture(seed), tmp_path / f"{seed}.png")
    with pytest.raises(ImageError, match=r"has 3 photographs of at least 40 x 40 pixels; .* at least 8"):
        learned_model(tmp_path)
    with pytest.raises(ImageError, match=r"no is not a folder; name one with at least 8 photographs"):
        learned_model(tmp_path / "no")
    for seed in range(10):
        save_png(picture(seed, (30, 90)), tmp_path / f"small-{seed}.png")
    with pytest.raises(ImageError, match=r"has 3 photographs of at least 40 x 40 pixels"):
        learned_model(tmp_path)


def test_photographs_that_show_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", str(tmp_path / "cache"))
    for k in range(9):
        save_png(np.full((1, 64, 64), 20 * k, np.uint8), tmp_path / f"{k}.png")
    with pytest.raises(ImageError, match=r"have 0 windows that show something; .* at least 256"):
        learned_model(tmp_path)
    assert not (tmp_path / "cache").exists()


def changed(file: Path, **metadata: str) -> None:
    with safe_open(file, "np") as opened:
        before = opened.metadata()
    save_file(load_file(file), file, before | metadata)


def test_files_that_are_no_models_are_refused_in_one_sentence(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()

    def refused(path: Path, message: str) -> None:
        with pytest.raises(StoreError, match=message) as raised:
            load_model(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)

    file.write_bytes(whole[: len(whole) // 2])
    refused(file, r"is not a whole safetensors file .*; learn another one by --train DIR")
    file.write_bytes(whole)
    changed(file, cell="6")
    refused(file, r"is for HOG with cell 6, not 8; learn another one by --train DIR")
    file.write_bytes(whole)
    changed(file, format="other 1")
    refused(file, r'not a model that inverts HOG: its format is "other 1", not "evofool.hog-inverse 1"')
    file.write_bytes(whole)
    changed(file, penalty="much")
    refused(file, r"is damaged: its metadata has no valid")
    for penalty in ("0.0", "-1", "inf", "nan"):
        file.write_bytes(whole)
        changed(file, penalty=penalty)
        refused(file, r"is damaged: its penalty is .*, not a number above 0")
    file.write_bytes(whole)
    tensors = load_file(file)
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    for name, value, message in (
        ("mean", np.full(775, np.nan, np.float32), "mean has NaN or infinity"),
        ("atoms_hog", np.zeros((24, 12), np.float16), "atoms_hog is 24 x 12, not n x 775"),
        ("whitening", np.zeros((1, 775), np.float32), "whitening has 1 rows, not 775"),
        ("atoms_grey", np.zeros((23, 1600), np.float16), "atoms_hog and atoms_grey have 24 and 23"),
        ("patches", np.zeros((1, 1600), np.int8), "exemplars and patches have 400 and 1"),
    ):
        save_file(tensors | {name: value}, file, metadata)
        refused(file, message)
    none = {"atoms_hog": np.zeros((0, 775), np.float16), "atoms_grey": np.zeros((0, 1600), np.float16)}
    save_file(tensors | none, file, metadata)
    refused(file, "is damaged: it has no atoms")
    save_file({name: tensor for name, tensor in tensors.items() if name != "mean"}, file, metadata)
    refused(file, "is damaged: it has no mean")
    bad = tmp_path / "model.pickle"
    bad.write_bytes(pickle.dumps(["anything"]))
    refused(bad, r"is a pickle or a zip, which evofool does not unpack; a model is safetensors")
    bad.write_bytes(json.dumps({}).encode())
    refused(bad, "is not a whole safetensors file")
    refused(tmp_path / "missing", r"cannot be read \(No such file or directory\)")
    refused(tmp_path, r"cannot be read \(it is a folder, a pipe or a device\)")


def test_a_damaged_file_of_the_cache_is_learned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", str(tmp_path / "cache"))
    for seed in range(8):
        save_png(picture(seed), tmp_path / "photographs" / f"{seed}.png")
    _, path = learned_model(tmp_path / "photographs", QUICK)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    _, again = learned_model(tmp_path / "photographs", QUICK)
    assert again == path
    assert path.read_bytes() == whole
