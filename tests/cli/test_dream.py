"""`evofool dream` as a user calls it."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from evofool.explain import input_picture
from evofool.explain.dream_folder import DreamFolder
from evofool.images import decode_png
from tests.commands import Call

QUICK = ("--target", "lenet", "--iterations", "2", "--octaves", "2")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(60, 190, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "shot.png")
    return tmp_path / "shot.png"


def pictures(folder: str) -> dict[str, np.ndarray]:
    return {path.stem: decode_png(path.read_bytes()) for path in sorted(Path(folder).glob("*.png"))}


def test_the_whole_photograph_is_changed_at_its_own_size_and_equal_commands_give_equal_bits(call: Call, photo: Path) -> None:
    first = call("dream", "shot.png", *QUICK)
    assert first.code == 0, first.err
    assert "shot.png: 60x40 RGB became 60x40 grey\n" in first.out
    assert "Enhancing conv2 of lenet in shot.png, 60 x 40 pixels\n" in first.out
    assert str(Path("shot-dream-conv2") / "frame-0000.png") in first.out
    assert call("dream", "shot.png", *QUICK, "--layer", "conv2", "--out", "again").code == 0
    assert call("dream", "shot.png", *QUICK, "--seed", "1", "--out", "other").code == 0
    (made,), (again,), (other,) = (pictures(name).values() for name in ("shot-dream-conv2", "again", "other"))
    assert made.shape == (1, 40, 60)
    assert np.array_equal(made, again)
    assert not np.array_equal(made, other)


def test_an_interrupted_zoom_keeps_its_frames_and_the_same_command_continues(
    call: Call, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoom = (*QUICK, "--size", "30", "--zoom", "3", "--gif", "film.gif")
    assert call("dream", "shot.png", *zoom, "--out", "unbroken").code == 0
    whole = Path("film.gif").read_bytes()
    Path("film.gif").unlink()
    add = DreamFolder.add

    def add_and_interrupt(folder: DreamFolder, name: str, image: np.ndarray) -> None:
        add(folder, name, image)
        if name.endswith("1"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(DreamFolder, "add", add_and_interrupt)
    stopped = call("dream", "shot.png", *zoom)
    assert stopped.code == 130
    assert "2 of 4 frames are in shot-dream-conv2; the same command continues\n" in stopped.out
    assert list(pictures("shot-dream-conv2")) == ["frame-0000", "frame-0001"]
    assert not Path("film.gif").exists()
    monkeypatch.setattr(DreamFolder, "add", add)
    rest = call("dream", "shot.png", *zoom)
    assert "4 frames in shot-dream-conv2, 2 of them from before\n" in rest.out
    assert "Animation: film.gif, 4 frames of 30 x 20, 12.5 a second, 0.0 MB\n" in rest.out
    assert Path("film.gif").read_bytes() == whole
    for name, frame in pictures("unbroken").items():
        assert np.array_equal(pictures("shot-dream-conv2")[name], frame)
    assert "4 of them from before" in call("dream", "shot.png", *zoom).out


def test_all_layers_are_on_one_sheet(call: Call, photo: Path) -> None:
    result = call("dream", "shot.png", *QUICK, "--layers", "all", "--size", "20")
    assert result.code == 0, result.err
    found = {path.stem for path in Path("shot-dream-layers").glob("*.png")}
    assert found == {"layers", *(f"layer-{name}" for name in ("conv1", "conv2", "fc1", "fc2"))}
    with Image.open("shot-dream-layers/layers.png") as sheet:
        assert min(sheet.size) > 400
    again = call("dream", "shot.png", *QUICK, "--layers", "fc1,conv1", "--size", "20")
    assert "2 layers in shot-dream-layers, 2 of them from before" in again.out


def test_a_guide_and_a_channel_give_other_pictures(call: Call, photo: Path) -> None:
    for how in ((), ("--channel", "3"), ("--guide", "shot.png")):
        result = call("dream", "shot.png", *QUICK, "--size", "30", *how)
        assert result.code == 0, result.err
    names = ("shot-dream-conv2", "shot-dream-conv2-channel-3", "shot-dream-conv2-guide-shot")
    plain, channel, guided = (pictures(name)["frame-0000"] for name in names)
    assert not np.array_equal(plain, channel)
    assert not np.array_equal(plain, guided)


def test_a_photograph_is_upright_and_at_most_so_large(call: Call, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(photo).save("turned.png", exif=exif)
    result = call("dream", "turned.png", *QUICK, "--out", "upright")
    assert "turned.png: 60x40 RGB became 40x60 grey, turned upright\n" in result.out
    assert pictures("upright")["frame-0000"].shape == (1, 60, 40)
    monkeypatch.setattr(input_picture, "LARGEST_PHOTOGRAPH", 1000)
    result = call("dream", "shot.png", *QUICK, "--out", "small")
    assert "shot.png: 60x40 RGB became 38x25 grey, because 1,000 pixels are the most\n" in result.out
    assert pictures("small")["frame-0000"].shape == (1, 25, 38)
    result = call("dream", "shot.png", *QUICK, "--size", "60", "--out", "large")
    assert result.err == "evofool: shot.png: 60 x 40 pixels are too many; 1,000 are the most\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "there is no nowhere.png: name an image file"),
        (["text.png"], "text.png cannot be read as a picture"),
        (["shot.png", "--layer", "conv3"], "the nearest conv2, conv1. `evofool targets show SPEC --layers` lists them"),
        (
            ["shot.png", "--layers", "conv1,conv3"],
            "the nearest conv2, conv1. `evofool targets show SPEC --layers` lists them",
        ),
        (["shot.png", "--layers", ","], '--layers "," names no layer; --layers all takes all blocks'),
        (["shot.png", "--layers", "all", "--zoom", "2"], "--layers makes one picture of each layer; leave out"),
        (["shot.png", "--channel", "50"], 'layer "conv2" has no channel 50; it has 0 to 49'),
        (["shot.png", "--channel", "1", "--guide", "shot.png"], "--guide and --channel are two aims"),
        (["shot.png", "--guide", "text.png"], "text.png cannot be read as a picture"),
        (["shot.png", "--gif", "film.gif"], "film.gif: an animation needs the frames of a zoom: --zoom 40"),
        (["shot.png", "--zoom", "2", "--gif", "film.avi"], "film.avi: an animation ends in .gif, .png, .apng or .mp4"),
        (["shot.png", "--zoom", "2", "--gif", "no/film.gif"], "film.gif cannot be written: its folder does not exist"),
        (["shot.png", "--out", "text.png"], "text.png is a file and cannot be a folder; name another by --out DIR"),
        (["shot.png", "--out", "text.png/in"], "cannot be written (Not a directory)"),
        (["shot.png", "--out", "."], ". has pictures that are not of a dream; name another folder by --out DIR"),
        (["shot.png", "--out", "made"], "made has pictures of another dream, with iterations 3, not 2; name another"),
        (["other.png", "--out", "made"], "made has pictures of another dream, of another photograph; name another folder"),
        (["shot.png", "--target", "box"], "it has neither gradients nor layers"),
    ],
)
def test_what_cannot_be_ends_in_one_clear_sentence_before_any_work(
    arguments: list[str], message: str, call: Call, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (20, 20)).save(tmp_path / "other.png")
    if "made" in arguments:
        assert (
            call("dream", "shot.png", "--target", "lenet", "--iterations", "3", "--octaves", "2", "--out", "made").code == 0
        )
    if "box" in arguments:
        (tmp_path / "dream_box.py").write_text(BOX)
        monkeypatch.syspath_prepend(str(tmp_path))
        arguments[-1] = "python:dream_box:make"
    before = set(tmp_path.rglob("*"))
    result = call("dream", *QUICK, *arguments)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert {path for path in set(tmp_path.rglob("*")) - before if "__pycache__" not in path.parts} == set()


BOX = """
import numpy as np

class Box:
    shape, labels = (3, 16, 16), ["dark", "light"]
    def __call__(self, images):
        light = images.reshape(len(images), -1).mean(1) / 64
        return np.stack([-light, light], 1)

def make():
    return Box()
"""


def test_the_layers_of_a_target_are_listed(call: Call) -> None:
    lines = call("targets", "show", "lenet", "--layers").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["conv1", "conv2", "fc1", "dropout", "fc2"]
    assert lines[1].split() == ["conv1", "Conv2d", "20", "x", "24", "x", "24"]
    (first, *_) = json.loads(call("targets", "show", "lenet", "--layers", "--json").out)
    assert first == {"layer": "conv1", "type": "Conv2d", "shape": [20, 24, 24]}
