"""`pytest --evofool-set DIR --evofool-target SPEC`: fooling images of before as tests of pytest."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evofool.export.parquet import write_elites
from evofool.images import decode_png, save_png
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import target
from evofool.targets.guarded import DetectorRule, guard
from tests.commands import Runs

pytestmark = pytest.mark.slow

LENET = "--evofool-target=lenet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run, `run`, a table of its elites for two classifiers, and digits' labels with other names."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("project")
    with Run.start(
        load("mnist-cppn", ["stop.evaluations=960", "search.batch=32", "stop.confidence="]), folder / "run"
    ) as run:
        run.advance()
    write_elites(folder / "two.parquet", [(folder / "run", {"classifier": name}) for name in ("first", "second")])
    write_elites(folder / "one.parquet", [(folder / "run", {})])
    (folder / "letters.txt").write_text("\n".join("abcdefghij") + "\n")
    (folder / "some.txt").write_text("\n".join("abcdefg789") + "\n")
    (folder / "empty").mkdir()
    for name in ("large", "pages"):
        (folder / name).mkdir()
    save_png(np.zeros((1, 32, 32), np.uint8), folder / "large" / "3_a.png")
    (folder / "pages" / "own.txt").write_text("mine")
    return folder


def test_each_class_is_a_test_that_fails_if_images_still_fool(runs: Runs, folder: Path) -> None:
    code, printed = runs("--evofool-set=run", LENET, "--evofool-set-fools=p>=0.9", "--evofool-set-out=out")
    data = json.loads((folder / "out" / "survivors.json").read_text())
    assert code == 1, printed
    assert data["survivors"] > 0
    left = {row["class"]: row["survivors"] for row in data["per_class"]}
    for label, count in left.items():
        assert f"evofool-set::lenet::{label} {'FAILED' if count else 'PASSED'}" in printed, printed
    for image in data["images"]:
        assert f"  {image['name']}: {image['label']}, confidence " in printed
        assert abs(image["confidence"] - image["confidence_then"]) < 1e-4, "it is the network that they were made for"
    assert "1 of 1 images still fool lenet (p >= 0.9):" in printed
    assert "Traceback" not in printed
    assert "Images that still fool lenet" in (folder / "out" / "index.html").read_text()
    code, printed = runs("--evofool-set=run", LENET, "--evofool-set-fools=p>=0.9", "--evofool-set-known=out/survivors.json")
    assert code == 0, printed
    assert "10 passed" in printed


def test_known_images_do_not_excuse_others(runs: Runs, folder: Path) -> None:
    runs("--evofool-set=run", LENET, "--evofool-set-fools=p>=0.5", "--evofool-set-out=all")
    data = json.loads((folder / "all" / "survivors.json").read_text())
    unknown = data["images"].pop()
    (folder / "known.json").write_text(json.dumps(data))
    (folder / "own.ini").write_text("[pytest]\nevofool_target = lenet\nevofool_set_fools = p>=0.5\n")
    code, printed = runs("-c", "own.ini", "--evofool-set=run", "--evofool-set-known=known.json", "-rP")
    assert code == 1, printed
    assert f"1 failed, {9} passed" in printed
    assert f"evofool-set::lenet::{unknown['label']} FAILED" in printed
    assert "1 are known to fool:" in printed


def test_a_test_for_each_classifier(runs: Runs) -> None:
    code, printed = runs("--evofool-set=two.parquet", LENET, "--evofool-set-by=classifier", "--evofool-set-fools=p>=0.9")
    assert code == 1, printed
    assert "evofool-set::lenet::first FAILED" in printed
    assert "evofool-set::lenet::second FAILED" in printed
    assert "2 failed" in printed
    code, printed = runs("--evofool-set=run", LENET, "--evofool-set-by=classifier", "--collect-only", "-q")
    assert "<_GroupTest lenet>" in printed


def test_classes_that_the_target_does_not_have_are_skipped(runs: Runs) -> None:
    code, printed = runs("--evofool-set=one.parquet", "--evofool-target=lenet?labels=some.txt", "-k", "not 7 and not 8")
    assert code in (0, 1), printed
    assert "7 skipped, 2 deselected" in printed
    assert "has no class 3" in printed
    assert "evofool-set::lenet?labels=some.txt::3 SKIPPED" in printed


def test_a_text_of_a_set_reaches_no_terminal_raw(runs: Runs, folder: Path) -> None:
    arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    table, hostile = parquet.read_table(folder / "one.parquet"), "\x1b]0;PWN\x07"
    images = [image | {"path": image["path"] + hostile} for image in table.column("image").to_pylist()]
    names = [f"{label}{hostile}" if label == "3" else label for label in table.column("label_name").to_pylist()]
    columns = {"image": arrow.array(images, table.schema.field("image").type), "label_name": names}
    parquet.write_table(arrow.table(columns), folder / "hostile.parquet")
    code, printed = runs("--evofool-set=hostile.parquet", LENET, "--evofool-set-fools=p>=0.5", "--color=no")
    assert code == 1, printed
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert r"3\x1b]0;PWN\x07 SKIPPED" in printed
    assert r"1 of 1 images still fool" in printed


def test_real_images_set_the_threshold(runs: Runs, folder: Path) -> None:
    code, printed = runs("--evofool-set=run", LENET, "--evofool-images=digits", "--evofool-set-out=real")
    data = json.loads((folder / "real" / "survivors.json").read_text())
    assert data["rule"] == "tau_5"
    assert (code, f"{data['survivors']} failed" in printed) == (1, True), printed


def test_a_rejected_image_passes(runs: Runs, folder: Path) -> None:
    lenet = target("lenet")
    with StoredRun(folder / "run") as run:
        pixels = np.stack([decode_png(elite.row.png) for elite in run.elites()])
    heights = np.sort(lenet.logits(pixels).max(axis=1))
    middle = -float(heights[4] + heights[5]) / 2 / 2.0
    rule = DetectorRule("max-logit", threshold=middle, median=middle - 2, scale=2.0, temperature=1.0)
    spec = guard(lenet, SimpleNamespace(rule=rule), folder / "guard.safetensors")
    code, printed = runs("--evofool-set=run", f"--evofool-target={spec}", "--evofool-set-out=guarded")
    data = json.loads((folder / "guarded" / "survivors.json").read_text())
    assert (code, data["rule"], data["rejected"], data["survivors"]) == (1, "margin >= 0", 5, 5), printed
    assert "5 failed, 5 passed" in printed


def test_what_is_asked_wrongly_is_a_usage_error_of_one_sentence(runs: Runs) -> None:
    for arguments, message in (
        (["--evofool-set=nowhere", LENET], "there is no nowhere: name a run, an export"),
        (["--evofool-set=run"], "name the classifier that run is tried on: --evofool-target SPEC"),
        (["--evofool-set=empty", LENET], "empty has no pictures"),
        (
            ["--evofool-set=run", "--evofool-target=lenet?labels=letters.txt"],
            "none of its 10 classes is among the 10",
        ),
        (["--evofool-set=run", "--evofool-target=no-such"], "no-such"),
        (["--evofool-set=large", LENET], "another size (32 x 32), and are resized to 28 x 28"),
        (["--evofool-set=run", LENET, "--evofool-set-by=size"], "--evofool-set-by is class or classifier, not 'size'"),
        (["--evofool-set=one.parquet", LENET, "--evofool-set-by=classifier"], "does not say for which classifier"),
        (["--evofool-set=run", LENET, "--evofool-set-fools=tau_5"], "tau_5 is a threshold from real images"),
        (["--evofool-set=run", LENET, "--evofool-set-known=nowhere.json"], "there is no file nowhere.json"),
    ):
        code, printed = runs(*arguments)
        assert code == pytest.ExitCode.USAGE_ERROR, printed
        assert message in printed, printed
        assert "Traceback" not in printed
        assert sum(line.startswith("ERROR") for line in printed.splitlines()) == 1, printed


def test_workers_score_once_and_show_a_usage_error(folder: Path) -> None:
    pytest.importorskip("xdist")
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "1",
        "--dist",
        "loadgroup",
        "-p",
        "no:cacheprovider",
        "-p",
        "evofool.pytest_plugin",
    ]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for path, words in (("nowhere", "there is no nowhere: name a run"), ("run", "10 passed")):
        command = [
            *run,
            "-p",
            "xdist",
            f"--evofool-set={path}",
            LENET,
            "--evofool-set-fools=log_odds>=99",
            "--strict-markers",
        ]
        found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert found.returncode == (path == "nowhere"), found.stdout + found.stderr
        assert words in found.stdout, found.stdout + found.stderr


def test_what_goes_wrong_later_fails_in_a_sentence(runs: Runs, folder: Path) -> None:
    code, printed = runs("--evofool-set=run", LENET, "--evofool-set-out=pages", "-k", "3 or 4")
    assert code == 1
    assert "pages is not empty, and has own.txt" in printed
    assert "Traceback" not in printed
    shutil.copytree(folder / "large", folder / "bad", dirs_exist_ok=True)
    (folder / "bad" / "4_b.png").write_bytes(b"no picture")
    code, printed = runs("--evofool-set=bad", LENET, "--evofool-set-resize")
    assert (code, printed.count("4_b.png cannot be read as a picture") >= 1) == (1, True), printed
    assert "Traceback" not in printed
