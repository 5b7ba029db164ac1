"""`evofool explain` of elites and pictures, as a user calls it."""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evofool.cli.explain import PARTS as PARTS_OPTION
from evofool.cli.reporting import progress_text
from evofool.explain import parts_occlusion
from evofool.explain.options import PARTS
from evofool.explain.part_result import Progress
from evofool.images import decode_png
from evofool.recipe import load
from evofool.run.run import Run
from evofool.text import escaped
from tests.commands import Call

STUB = """
import numpy as np

class Dark:
    shape, labels = (3, 16, 16), ["<dark>", "light"]
    def __call__(self, images):
        light = images.reshape(len(images), -1).mean(1) / 64
        return np.stack([-light, light], 1)

def make():
    return Dark()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    with Run.start(load("mnist-cppn", ["stop.evaluations=640", "stop.confidence=", "search.batch=16"]), folder) as run:
        run.advance()
    return folder


@pytest.fixture
def mine(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "mine")


def photo(path: Path, size: tuple[int, int] = (60, 40), mode: str = "RGB") -> Path:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], *channels), np.uint8), mode).save(path)
    return path


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"stub_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(STUB)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return f"python:{name}:make"


def test_the_help_names_every_part() -> None:
    assert PARTS_OPTION.help.removesuffix(".").partition(": ")[2].split(", ") == list(PARTS)


# --- elites


def test_an_elite_is_explained_beside_its_run(call: Call, mine: Path) -> None:
    result = call("explain", "mine", "--class", "3", "--parts", "saliency,elements")
    assert result.code == 0, result.err
    assert "Explaining elite of class 3 of mine, birth" in result.out
    assert "elements (1 of 2)" in result.out
    assert f"Page: {Path('mine') / 'explain-3' / 'index.html'}" in result.out
    page = (mine / "explain-3" / "index.html").read_text(encoding="utf-8")
    assert "Why lenet classifies this image as 3" in page
    assert str(mine) not in page
    assert decode_png((mine / "explain-3" / "image.png").read_bytes()).shape == (1, 28, 28)


def test_a_dream_and_inversions_of_named_layers_are_written(call: Call, mine: Path) -> None:
    how = ["--parts", "inversion,dream", "--layers", "conv1", "--dream", "conv2", "--zoom", "2"]
    result = call("explain", "mine", "--class", "1", *how)
    assert result.code == 0, result.err
    names = {path.name for path in (mine / "explain-1").iterdir()}
    assert {"inversion-from-conv1.png", *(f"dream-frame-00{k}.png" for k in range(3))} <= names


def test_the_elite_is_shown_with_the_scores_that_the_run_stored(call: Call, mine: Path) -> None:
    from evofool.run.stored import StoredRun

    assert call("explain", mine / "run.db", "--class", "5", "--parts", "occlusion", "--out", "here").code == 0
    with StoredRun(mine) as stored:
        row = stored.elites(5)[0].row
    page = Path("here/index.html").read_text(encoding="utf-8")
    assert f"log-odds {row.log_odds:.3f} (confidence" in page
    assert f"margin {row.margin:.3f} over" in page


def test_warnings_of_a_run_head_the_page_and_are_in_the_json(call: Call, mine: Path) -> None:
    with sqlite3.connect(mine / "run.db") as db:
        db.execute("UPDATE meta SET value = json_array('its answers are random') WHERE key = 'warnings'")
    result = call("explain", "mine", "--class", "3", "--parts", "occlusion", "--json")
    found = json.loads(result.out)
    assert found["warnings"][0] == "its answers are random"
    assert (found["class"], found["label"], found["failed"]) == (3, "3", {})
    assert [Path(file).is_file() for file in (found["page"], *found["pictures"])] == [True] * 5
    (mask,) = found["masks"]
    assert (mask["part"], len(mask["mean"]["copies"]), found["curves"]) == ("occlusion", 64, {})
    assert escaped(found["answer"]) in Path(found["page"]).read_text(encoding="utf-8")
    assert "Warning: its answers are random." in Path(found["page"]).read_text(encoding="utf-8")


def test_progress_has_a_rate_and_the_time_left() -> None:
    assert progress_text(Progress("occlusion", 96, 225, "patches", 12.0)) == (
        "occlusion: 96 of 225 patches, 12/s, about 11 s left"
    )
    assert progress_text(Progress("occlusion", 225, 225, "patches", 11.25)) == "occlusion: 225 of 225 patches, 11.2/s"
    assert progress_text(Progress("occlusion", 32, 225, "patches")) == "occlusion: 32 of 225 patches"


# --- pictures


def test_a_picture_of_any_kind_becomes_what_the_target_takes_and_it_is_said(call: Call, tmp_path: Path) -> None:
    photo(tmp_path / "shot.png", (60, 40), "RGBA")
    result = call("explain", "shot.png", "--target", "lenet", "--parts", "occlusion")
    assert result.code == 0, result.err
    assert "shot.png: 60x40 RGBA became 28x28 grey (distorted)" in result.out
    assert "Explaining shot.png as " in result.out
    assert Path("shot-explained/index.html").is_file()
    photo(tmp_path / "dot.png", (1, 1), "L")
    result = call("explain", "dot.png", "--target", "lenet", "--parts", "occlusion")
    assert "dot.png: 1x1 grey became 28x28 grey\n" in result.out


def test_short_side_and_centre_are_said_where_the_target_cuts(call: Call, tmp_path: Path, stub: str) -> None:
    photo(tmp_path / "shot.jpg", (60, 40))
    result = call("explain", "shot.jpg", "--target", f"{stub}?resize=18", "--parts", "elements")
    assert "shot.jpg: 60x40 RGB became 16x16 RGB (short side 18, centre)" in result.out


def test_a_picture_of_the_targets_own_size_keeps_its_pixels(call: Call, tmp_path: Path, stub: str) -> None:
    file = photo(tmp_path / "own.png", (16, 16))
    result = call("explain", file, "--target", f"{stub}?resize=18", "--parts", "elements", "--out", "own")
    assert "became" not in result.out
    pixels = decode_png(file.read_bytes())
    np.testing.assert_array_equal(decode_png(Path("own/image.png").read_bytes()), pixels)
    photo(tmp_path / "clear.png", (16, 16), "RGBA")
    result = call("explain", "clear.png", "--target", f"{stub}?resize=18", "--parts", "elements")
    assert "clear.png: 16x16 RGBA became 16x16 RGB, transparency blended with white\n" in result.out
    seen = decode_png(Path("clear-explained/image.png").read_bytes())
    white = Image.new("RGBA", (16, 16), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.open("clear.png")))[..., :3].transpose(2, 0, 1)
    np.testing.assert_array_equal(seen, expected)
    assert "transparency blended with white" in Path("clear-explained/index.html").read_text(encoding="utf-8")


def test_an_opaque_picture_is_not_called_transparent_and_a_transparent_palette_is(
    call: Call, tmp_path: Path, stub: str
) -> None:
    Image.new("RGBA", (16, 16), (9, 8, 7, 255)).save(tmp_path / "opaque.png")
    result = call("explain", "opaque.png", "--target", stub, "--parts", "occlusion")
    assert "opaque.png: 16x16 RGBA became 16x16 RGB\n" in result.out
    Image.new("P", (16, 16), 0).save(tmp_path / "palette.png", transparency=0)
    result = call("explain", "palette.png", "--target", stub, "--parts", "occlusion")
    assert "palette.png: 16x16 palette became 16x16 RGB, transparency blended with white" in result.out
    assert (decode_png(Path("palette-explained/image.png").read_bytes()) == 255).all()


def test_sixteen_bits_become_eight_and_it_is_said(call: Call, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (28, 28)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    result = call("explain", "deep.tif", "--target", "lenet", "--parts", "occlusion")
    assert "deep.tif: 28x28 16-bit grey became 28x28 grey, its 16 bits divided by 257" in result.out
    np.testing.assert_array_equal(decode_png(Path("deep-explained/image.png").read_bytes())[0], np.rint(deep / 257))


def test_the_class_called_is_explained_unless_another_is_named(call: Call, tmp_path: Path, stub: str) -> None:
    Image.new("RGB", (16, 16), "white").save(tmp_path / "white.png")
    assert "as light (class 1)" in call("explain", "white.png", "--target", stub).out
    result = call("explain", "white.png", "--target", stub, "--class", "<dark>", "--out", "dark")
    assert "as <dark> (class 0)" in result.out
    page = Path("dark/index.html").read_text(encoding="utf-8")
    assert "<dark>" not in page
    assert "Evidence for &lt;dark&gt;" in page


def test_a_black_box_says_what_it_lacks_in_one_line_and_shows_the_rest(call: Call, tmp_path: Path, stub: str) -> None:
    photo(tmp_path / "shot.png")
    (tmp_path / "reals").mkdir()
    for i in range(3):
        photo(tmp_path / "reals" / f"{i}.png", (20 + i, 20))
    result = call("explain", "shot.png", "--target", stub, "--real-images", "reals")
    assert result.code == 0, result.err
    line = next(line for line in result.out.splitlines() if "has no gradients" in line)
    assert "evofool baseline square, nes or random" in line
    page = Path("shot-explained/index.html").read_text(encoding="utf-8")
    for heading in ("Occlusion", "Elements", "Nearest real images"):
        assert f"<h2>{heading}</h2>" in page
    assert "<h2>Saliency</h2>" not in page


# --- what fails


def test_a_part_that_fails_leaves_the_page_and_ends_with_2(
    call: Call, tmp_path: Path, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(parts_occlusion, "occlusion_part", fail)
    photo(tmp_path / "shot.png")
    result = call("explain", "shot.png", "--target", stub)
    assert result.code == 2
    assert "some parts failed; the page has the others. occlusion: MemoryError: no room" in result.err
    page = Path("shot-explained/index.html").read_text(encoding="utf-8")
    assert "This part failed: MemoryError: no room" in page
    assert "<h2>Elements</h2>" in page


def test_an_interrupt_says_where_what_was_done_is(
    call: Call, tmp_path: Path, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts_occlusion, "elements_part", stop)
    photo(tmp_path / "shot.png")
    result = call("explain", "shot.png", "--target", stub)
    assert result.code == 130
    assert "interrupted; the finished parts are in shot-explained" in result.out
    assert "Not run yet: elements, rise, sufficient, curves, hog." in Path("shot-explained/index.html").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine"], "--class 3, or a label"),
        (["mine", "--class", "12"], "no class 12; its classes are 0 to 9"),
        (["mine", "--class", "3", "--target", "lenet"], "whose own target is used"),
        (["mine", "--class", "3", "--parts", "saliensy"], 'did you mean "saliency"?'),
        (["mine", "--class", "3", "--against", "3"], "name another class, or leave --against out"),
        (["mine", "--class", "3", "--against", "zebra"], "no class zebra; its classes are 0 to 9"),
        (["mine", "--class", "3", "--parts", "nearest"], "--real-images DIR"),
        (["mine", "--class", "3", "--zoom", "3"], "--dream LAYER"),
        (["mine", "--class", "3", "--dream", "conv3"], "the nearest conv2"),
        (["mine", "--class", "3", "--layers", "conv1,fc3"], "the nearest fc2"),
        (["nowhere.png", "--target", "lenet"], "there is no nowhere.png"),
        ([".", "--class", "3"], "no run"),
        (["shot.png"], "--target lenet"),
        (["shot.png", "--target", "lenet", "--class", "ten"], "no class ten; its classes are 0 to 9"),
        (["text.png", "--target", "lenet"], "text.png cannot be read as a picture"),
        (["deep.tif", "--target", "lenet"], "save it as an 8-bit picture"),
        (["program.png", "--target", "lenet"], "program.png cannot be read as a picture"),
        (["shot.png", "--target", "lenet", "--parts", ""], '--parts "" does not name a part'),
        (["shot.png", "--target", "lenet", "--layers", " ,"], '--layers " ," does not name a layer'),
        (["shot.png", "--target", "lenet", "--dream", ""], "--dream names no layer"),
        (["shot.png", "--target", "lenet", "--real-images", "typo"], "typo is not a folder"),
        (["shot.png", "--target", "lenet", "--out", "text.png"], "text.png is a file, so text.png cannot be a folder"),
        (["shot.png", "--target", "lennet"], "lenet"),
    ],
)
def test_what_cannot_be_ends_in_one_clear_sentence(
    arguments: list[str], message: str, call: Call, mine: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "shot.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(np.full((9, 9), 70000, np.int32)).save(tmp_path / "deep.tif")
    result = call("explain", *arguments)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert "Explaining" not in result.out
    assert not list(tmp_path.rglob("index.html"))
