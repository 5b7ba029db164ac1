"""Sets of existing fooling images: they are read exactly, scored once each, and counted as a slow count does."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evofool import scores
from evofool.bench.sets.image_set import image_set
from evofool.bench.sets.score_set import score_set
from evofool.cli.score_set import score_set as command
from evofool.errors import EvofoolError, ImageError, ScoreError, StoreError, TargetError
from evofool.explain.input_picture import read_picture
from evofool.export.export import export
from evofool.images import resized, save_png
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target
from evofool.targets import target as named
from evofool.targets.validation import wilson
from tests.bench.image_sets import LABELS, SHAPE, calibration, guarded_run, network, noise, noise_set, scored
from tests.commands import invoke

ROW_TARGET = """
import numpy as np

class ByRow:
    shape, labels = (1, 6, 5), ["ant", "big bee", "cow", "dog"]
    def __init__(self, step): self.step = np.float32(step)
    def __call__(self, images):
        logits = images.reshape(len(images), -1)[:, :4].astype(np.float32) / 64
        return logits + np.arange(len(images), dtype=np.float32)[:, None] * np.arange(4, dtype=np.float32) * self.step

def even(): return ByRow(0)
def by_row(): return ByRow(1e-4)
"""
# --- targets whose logits depend on an image's place in a chunk


def test_images_near_a_threshold_are_counted_where_logits_depend_on_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "row_target.py").write_text(ROW_TARGET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "row_target", raising=False)
    noise_set(tmp_path / "set")
    for factory, dependent in (("even", False), ("by_row", True)):
        done = invoke(command, "set", "--target", f"python:row_target:{factory}", "--json", "out.json")
        assert done.exit_code == 0, done.output
        position = json.loads((tmp_path / "out.json").read_text())["position"]
        assert (position["chunk"], position["dependent"], position["tolerance"] > 0) == (64, dependent, dependent)
        assert (position["undecided"] > 0) == dependent
        output = " ".join(done.output.split())
        assert ("logits depend on an image's row in a chunk of 64" in output) == dependent
        assert (f"{position['undecided']} of 60 images are nearer to a threshold than that" in output) == dependent


# --- reading


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_the_targets_size_is_read_as_by_explain(tmp_path: Path, mode: str, channels: int) -> None:
    draw = np.random.default_rng(5)
    if mode == "I;16":
        picture = Image.fromarray(draw.integers(0, 65536, (6, 5), np.uint16))
    else:
        depth = {"RGB": 3, "RGBA": 4, "LA": 2}.get(mode, 0)
        base = Image.fromarray(draw.integers(0, 256, (6, 5, depth) if depth else (6, 5), np.uint8))
        picture = base if depth or mode == "L" else base.convert(mode)
    (tmp_path / "set" / "ant").mkdir(parents=True)
    picture.save(tmp_path / "set" / "ant" / "a.png")
    target = network(shape=(channels, 6, 5))
    wanted, _ = read_picture(tmp_path / "set" / "ant" / "a.png", target)
    assert np.array_equal(image_set(tmp_path / "set", target).image(0), wanted)


def test_a_picture_of_another_size_is_scaled_without_cropping(tmp_path: Path) -> None:
    image = noise(1, 6, (3, 30, 9))[0]
    save_png(image, tmp_path / "cow_1.png")
    target = network()
    read = image_set(tmp_path, target).image(0)
    assert read.shape == SHAPE
    assert np.array_equal(read, resized(image, target.shape))


def test_files_may_be_named_by_class(tmp_path: Path) -> None:
    for name, image in zip(("dog_1.png", "bigbee_2.png", "ant.jpg"), noise(3, 7), strict=True):
        Image.fromarray(image[0]).save(tmp_path / name)
    with pytest.raises(ImageError, match="bigbee"):
        image_set(tmp_path, network())
    (tmp_path / "bigbee_2.png").rename(tmp_path / "cow_2.png")
    found = image_set(tmp_path, network())
    assert dict(zip(found.names, found.classes.tolist(), strict=True)) == {"ant.jpg": 0, "cow_2.png": 2, "dog_1.png": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with Run.start(load("mnist-cppn", ["stop.evaluations=320", "stop.confidence=", "search.batch=16"]), folder) as search:
        search.advance()
    return folder


def test_a_run_and_its_exports_are_the_same_set(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with StoredRun(run) as stored:
        export(stored, tmp_path / "files")
        export(stored, tmp_path / "table", layout="parquet")
        elites, target = stored.elites(), stored.target()
    whole = scored(run, target)
    assert whole.log_odds.tolist() == [e.row.log_odds for e in elites], "a run's own target scores as during the run"
    assert whole.margins.tolist() == [e.row.margin for e in elites]
    for path in (run / "run.db", tmp_path / "files", tmp_path / "table"):
        other = scored(path, target)
        assert other.sha256 == whole.sha256
        assert np.allclose(other.logits, whole.logits, atol=1e-3)
    assert [scored(p, target).images.kind for p in (run, tmp_path / "files", tmp_path / "table")] == [
        "run",
        "folder",
        "table",
    ]


def test_elites_get_the_class_of_their_label_and_unknown_labels_are_named(run: Path) -> None:
    lenet = named("lenet")
    turned = Target("turned", lenet.labels[::-1], lenet.shape, lambda images: lenet.logits(images)[:, ::-1], {})
    assert image_set(run, turned).classes.tolist() == list(range(9, -1, -1))
    assert np.allclose(scored(run, turned).margins, scored(run, lenet).margins, atol=1e-3)
    other = Target("other", ["0", "1", *"abcdefgh"], lenet.shape, lenet.logits, {})
    some = image_set(run, other)
    assert some.classes.tolist() == [0, 1]
    assert [image.label for image in some.missing] == [*"23456789"]
    assert some.notes()[0].startswith("8 more images are of 8 classes that the target does not have, and are left out: 2, 3")
    assert scored(run, other).as_json()["set"]["missing"] == dict.fromkeys("23456789", 1)
    none = Target("none", [*"abcdefghij"], lenet.shape, lenet.logits, {})
    with pytest.raises(ImageError, match=r"none of its 10 classes is among the 10 of none: 0, 1, 2, 3, 4 \.\.\."):
        image_set(run, none)


@pytest.fixture(scope="module")
def rejected_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the bundled network behind a detector; its eleventh class is "rejected"."""
    return guarded_run(tmp_path_factory.mktemp("guarded"))


@pytest.mark.parametrize("scored_by", ["guarded", "base"])
@pytest.mark.parametrize("kind", ["run", "table", "folder"])
def test_images_that_were_evolved_to_be_rejected_are_left_out(
    rejected_run: Path, tmp_path: Path, kind: str, scored_by: str
) -> None:
    with StoredRun(rejected_run) as stored:
        assert [elite.label for elite in stored.elites()] == [*"0123456789", "rejected"]
        target = stored.target() if scored_by == "guarded" else named("lenet")
        if kind != "run":
            export(stored, tmp_path / "set", layout="parquet" if kind == "table" else "imagefolder")
    if (kind, scored_by) == ("folder", "base"):
        shutil.rmtree(tmp_path / "set" / "10_rejected")  # in another folder it would be a class
    found = image_set(rejected_run if kind == "run" else tmp_path / "set", target)
    assert found.kind == kind
    assert found.classes.tolist() == list(range(10))
    assert found.left_out == (0 if (kind, scored_by) == ("folder", "base") else 1)
    data = score_set(found, target).as_json()
    assert (data["set"]["images"], data["set"]["left_out"]) == (10, found.left_out)
    assert data["scores"]["called"]["classes"]["of"] == 10


def test_rejection_classes_are_reported_and_a_set_of_nothing_else_is_refused(rejected_run: Path, tmp_path: Path) -> None:
    result = invoke(command, rejected_run)
    assert result.exit_code == 0, result.exception
    assert "10 images of 10 of 10 classes" in result.output
    assert "1 more are of a rejection class and are left out" in result.output
    save_png(noise(1, 1, (1, 28, 28))[0], tmp_path / "nothing_1.png")
    with_nothing = Target(
        "taught", [*"0123456789", "nothing"], (1, 28, 28), lambda x: np.zeros((len(x), 11), np.float32), {}
    )
    with pytest.raises(ImageError, match="all its images are of a rejection class"):
        image_set(tmp_path, with_nothing)


def test_a_path_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no .*nowhere"):
        image_set(tmp_path / "nowhere", network())
    with pytest.raises(ImageError, match="has no pictures"):
        image_set(tmp_path, network())


# --- scoring


def test_shares_equal_a_slow_count(tmp_path: Path) -> None:
    target = network()
    real = calibration(target)
    found = scored(noise_set(tmp_path, 200), target, real)
    hits: dict[str, list[bool]] = {"called": [], "tau5": [], "tau50": []}
    for k in range(len(found.rows)):
        z, c = target.logits(found.images.image(k)[None])[0].astype(np.float64), found.classes[k]
        gap = z[c] - max(z[j] for j in range(4) if j != c)
        hits["called"].append(gap > 0)
        hits["tau5"].append(gap > 0 and gap >= real.tau5[c])
        hits["tau50"].append(gap > 0 and gap >= real.tau50[c])
        assert found.p[k] == pytest.approx(np.exp(z[c]) / np.exp(z).sum())
        calibrated = np.exp(z / real.scale / real.temperature - (z / real.scale / real.temperature).max())
        assert found.calibrated_confidence is not None
        assert found.calibrated_confidence[k] == pytest.approx(calibrated[c] / calibrated.sum())
    assert 0 < sum(hits["tau50"]) < sum(hits["tau5"]) < sum(hits["called"]) < 200
    for name, flags in hits.items():
        shares, per_class = (
            found.totals[name],
            [any(f for f, c in zip(flags, found.classes, strict=True) if c == k) for k in range(4)],
        )
        assert (shares.images.count, shares.images.of) == (sum(flags), 200)
        assert (shares.images.low, shares.images.high) == wilson(sum(flags), 200)
        assert (shares.classes.count, shares.classes.of) == (sum(per_class), 4)
    assert found.sure[0.9].images.count == int((found.p >= 0.9).sum())


def test_each_image_is_scored_once(tmp_path: Path) -> None:
    target = network()
    images = image_set(noise_set(tmp_path), target)
    seen: list[bytes] = []
    forward = target._forward
    target._forward = lambda batch: seen.extend(image.tobytes() for image in batch) or forward(batch)  # type: ignore
    found = score_set(images, target)
    assert found.queries == 60
    assert all(seen.count(images.image(number).tobytes()) == 1 for number in range(60))


def test_the_best_image_of_a_class_has_its_highest_margin(tmp_path: Path) -> None:
    found = scored(noise_set(tmp_path), network())
    assert found.classes[found.best].tolist() == [0, 1, 2, 3]
    for row in found.best:
        assert found.margins[row] == found.margins[found.classes == found.classes[row]].max()


def test_dividing_logits_by_4_changes_only_raw_parts(tmp_path: Path) -> None:
    folder, results = noise_set(tmp_path), []
    for gain in (1.0, 0.25):
        target = network(gain)
        data = scored(folder, target, calibration(target)).as_json()
        assert data.pop("raw") is not None
        data["target"].pop("fingerprint")
        for image in data["images"]:
            image.pop("raw")
        results.append(json.dumps(data, allow_nan=False))
    assert results[0] == results[1]


def test_classes_without_real_images_have_no_threshold(tmp_path: Path) -> None:
    target = network()
    found = scored(noise_set(tmp_path), target, calibration(target, classes=(0, 1, 2)))
    dogs = int((found.classes == 3).sum())
    assert (found.totals["called"].images.of, found.totals["tau5"].images.of) == (60, 60 - dogs)
    assert found.totals["tau5"].classes.of == 3
    data = found.as_json()
    assert data["per_class"][3]["accepted_tau5"] is None
    assert data["per_class"][3]["called"] is not None
    assert {image["accepted_tau5"] for image in data["images"] if image["class"] == 3} == {None}


def test_without_real_images_nothing_is_accepted(tmp_path: Path) -> None:
    data = scored(noise_set(tmp_path), network()).as_json()
    assert data["schema"] == "evofool.score-set"
    assert data["real"] is None
    assert set(data["scores"]) == {"called"}
    assert "accepted" not in json.dumps(data, allow_nan=False)


def test_an_unreadable_picture_is_named_or_left_out(tmp_path: Path) -> None:
    folder = noise_set(tmp_path)
    (folder / "cow" / "00.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"cow/00\.png cannot be read"):
        scored(folder, network())
    found = scored(folder, network(), skip_unreadable=True)
    assert [name for name, _ in found.skipped] == ["cow/00.png"]
    assert len(found.rows) == 60
    assert found.sha256 != scored(noise_set(tmp_path / "other", 59), network()).sha256
    names = [found.images.names[row] for row in found.rows]
    assert "cow/00.png" not in names
    assert found.as_json()["set"]["skipped"][0]["name"] == "cow/00.png"


def test_a_set_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cow_1.png").write_bytes(b"")
    with pytest.raises(ImageError, match="none of its 1 images can be read"):
        scored(tmp_path, network(), skip_unreadable=True)


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = Target("broken", LABELS, SHAPE, lambda images: np.full((len(images), 4), np.nan, np.float32), {})
    with pytest.raises(ScoreError, match="broken answered NaN"):
        scored(noise_set(tmp_path), broken)


def test_equal_logits_predict_no_class(tmp_path: Path) -> None:
    even = Target("even", LABELS, SHAPE, lambda images: np.zeros((len(images), 4), np.float32), {})
    assert scored(noise_set(tmp_path), even).totals["called"].images.count == 0
    assert scores.margin(np.zeros((1, 4), np.float32)).tolist() == [[0.0] * 4]


# --- the command


def test_the_command_scores_a_run_with_its_own_target(run: Path, tmp_path: Path) -> None:
    result = invoke(command, run, "--json", tmp_path / "all.json", "--sheet", tmp_path / "best.png")
    assert result.exit_code == 0, result.exception
    data = json.loads((tmp_path / "all.json").read_text())
    assert f"{data['scores']['called']['images']['count']} of 10" in result.output
    assert "Without --images there are no thresholds: only predictions and confidences are shown." in result.output
    assert "Queries: 10 for the images of the set" in result.output
    with Image.open(tmp_path / "best.png") as sheet:
        assert sheet.format == "PNG"


def test_the_command_takes_thresholds_from_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = network()
    for k, (image, c) in enumerate(zip(noise(300, 11), target.logits(noise(300, 11)).argmax(axis=1), strict=True)):
        (tmp_path / "real" / f"{c}_x").mkdir(parents=True, exist_ok=True)
        save_png(image, tmp_path / "real" / f"{c}_x" / f"{k}.png")
    monkeypatch.setattr(sys.modules["evofool.targets"], "target", lambda spec: target)
    folder, file = noise_set(tmp_path / "set"), tmp_path / "all.json"
    result = invoke(command, folder, "--target", "network", "--images", tmp_path / "real", "--json", file)
    assert result.exit_code == 0, result.exception
    assert "accepted at tau_5 " in result.output
    assert "Queries: 60 for the images of the set, 300 for real images" in result.output
    real = json.loads(file.read_text())["real"]
    assert (real["source"], real["number"], real["queries"]) == ("real", 300, 300)


def test_json_has_no_folders_of_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "my own" / "set"
    (noise_set(folder) / "cow" / "00.png").write_bytes(b"no picture")
    data = scored(folder, network(), skip_unreadable=True).as_json()
    assert data["set"]["source"] == "set"
    assert data["set"]["skipped"] == [
        {"name": "cow/00.png", "reason": "cow/00.png cannot be read as a picture (cannot identify image file)"}
    ]
    assert "my own" not in json.dumps(data)


def test_a_picture_that_cannot_be_read_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (noise_set(tmp_path / "set", 10) / "cow" / "00.png").write_bytes(b"no picture")
    monkeypatch.setattr(sys.modules["evofool.targets"], "target", lambda spec: network())
    result = invoke(command, tmp_path / "set", "--target", "network", "--skip-unreadable")
    (line,) = [line for line in result.output.splitlines() if "00.png" in line]
    assert line == f"  {tmp_path / 'set' / 'cow' / '00.png'} cannot be read as a picture (cannot identify image file)"


def test_of_many_classes_only_both_ends_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"thing{c}" for c in range(40)]
    many = Target("many", labels, SHAPE, lambda x: x.reshape(len(x), -1)[:, :1] * np.ones((1, 40), np.float32), {})
    many._forward = lambda x: np.random.default_rng(int(x.sum())).normal(size=(len(x), 40)).astype(np.float32)
    for c, image in enumerate(noise(40, 9)):
        save_png(image, tmp_path / f"thing{c}_a.png")
    monkeypatch.setattr(sys.modules["evofool.targets"], "target", lambda spec: many)
    result = invoke(command, tmp_path, "--target", "many")
    assert result.exit_code == 0, result.exception
    assert "the 5 classes with the largest and the 5 with the smallest margins" in result.output
    assert result.output.count("_a.png") == 10


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (lambda at: [at / "nowhere"], ImageError, "there is no"),
        (lambda at: [Path(__file__)], ImageError, "is no folder, no run and no .parquet file: name a run"),
        (lambda at: [at / "set"], TargetError, "name one: --target lenet"),
        (lambda at: [at / "set", "--target", "lenet"], ImageError, "not among the target's 10"),
        (
            lambda at: [at / "set", "--target", "lenet", "--json", at / "no" / "a.json"],
            StoreError,
            "its folder does not exist",
        ),
        (lambda at: [at / "set", "--target", "lenet", "--sheet", at], StoreError, "it is a folder"),
        pytest.param(
            lambda at: [at / "set", "--target", "lenet", "--json", "/proc/x.json"],
            StoreError,
            "/proc/x.json cannot be written: its folder is not writable",
            marks=pytest.mark.skipif(
                not Path("/proc/self").exists(), reason="only Linux has a folder where no file can be created"
            ),
        ),
    ],
)
def test_bad_input_is_refused_with_a_message(
    tmp_path: Path, arguments: Callable[[Path], list[str | Path]], kind: type[EvofoolError], message: str
) -> None:
    noise_set(tmp_path / "set", 8)
    result = invoke(command, *arguments(tmp_path))
    assert isinstance(result.exception, kind), result.exception
    assert message in str(result.exception)
