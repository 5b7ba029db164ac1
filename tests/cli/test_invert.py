"""`evofool invert` as a user calls it."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from evofool.explain.hog_file import save_model
from evofool.explain.upconv.model import learned_inverse, save_inverse
from evofool.explain.upconv.samples import by_pixels
from evofool.explain.upconv.training import TrainingSettings
from evofool.images import decode_png, save_png
from evofool.targets import target
from tests.commands import Call
from tests.explain.hog_samples import picture, small_model

BOX = """
import numpy as np


class Box:
    labels, shape = ["a", "b"], (1, 6, 6)

    def __call__(self, images):
        return np.stack([images.mean((1, 2, 3)), np.zeros(len(images))], 1).astype(np.float32)
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    save_png(np.repeat(picture(50, (64, 80)), 3, 0), tmp_path / "shot.png")
    return tmp_path / "shot.png"


def test_a_page_has_the_inverses_of_an_image_and_how_near_they_come(call: Call, photo: Path) -> None:
    result = call("invert", "hog", "shot.png")
    assert result.code == 0, result.err
    lines = dict(re.findall(r"^(\w+): NCC (-?[\d.]+), sharpness [\d.]+, HOG distance [\d.]+$", result.out, re.MULTILINE))
    assert list(lines) == ["paired", "ridge", "direct"]
    assert float(lines["ridge"]) > 0.4
    page = Path("shot-hog") / "index.html"
    assert f"Page: {page}\n" in result.out
    text = page.read_text()
    assert "What HOG leaves of shot.png" in text
    assert {path.name for path in Path("shot-hog").glob("*.png")} == {
        *("image.png", "hog.png", "inverse-paired.png", "inverse-ridge.png", "inverse-direct.png")
    }
    assert decode_png((Path("shot-hog") / "inverse-paired.png").read_bytes()).shape == (1, 64, 80)


def test_the_figures_as_json_and_a_model_of_one_s_own(call: Call, photo: Path) -> None:
    save_model(small_model(), Path("own.safetensors"))
    result = call("invert", "hog", "shot.png", "--model", "own.safetensors", "--method", "elda,ridge", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert list(found["methods"]) == ["elda", "ridge"]
    assert found["methods"]["ridge"].keys() == {"ncc", "sharpness", "hog_distance"}
    assert Path(found["page"]).is_file()


def test_the_highest_windows_of_a_detector_are_inverted(call: Call, tmp_path: Path) -> None:
    y, x = np.mgrid[:80, :80] - 39.5
    ring = np.abs(np.hypot(y, x) - 28) < 6
    for seed in range(16):
        save_png(np.where(ring, 255, picture(seed, (80, 80))).astype(np.uint8), Path("rings") / f"{seed}.png")
        save_png(picture(100 + seed, (96, 96)), Path("others") / f"{seed}.png")
    result = call("invert", "detector", "rings", "--scan", "others", "--top", "2")
    assert result.code == 0, result.err
    assert re.search(
        r"^The median score of 4 held-out pictures is \d\.\d\d; 0 windows of 8 held-out photographs score as high$",
        result.out,
        re.MULTILINE,
    )
    assert f"Page: {Path('rings-detector') / 'index.html'}" in result.out.replace(f"{tmp_path}/", "")
    text = (Path("rings-detector") / "index.html").read_text()
    assert "What a detector of rings sees in other photographs" in text
    assert re.search(
        r"The median score of 4 held-out pictures of rings is \d\.\d\d\. In 8 photographs without them, 0 windows score as "
        r"high\.",
        text,
    )
    assert len(re.findall(r"<h2>\d\. Score", text)) == 2
    again = call("invert", "detector", "rings", "--scan", "others", "--top", "1", "--json", "--seed", str(2**70))
    assert again.code == 0, again.err
    worst = json.loads(again.out)["highest"]
    assert [one["fires"] for one in worst] == [False]
    assert Path(worst[0]["file"]).parent.name == "others"


def test_a_layer_is_inverted_by_a_decoder_that_is_learned_once(
    call: Call, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", "cache")
    for seed in range(20):
        save_png(picture(seed, (28, 28)), Path("train") / f"{seed}.png")
    layer = ("invert", "conv2", "shot.png", "--target", "lenet")
    none = call(*layer[:2], "train/0.png", "--target", "lenet", "--model", "no.safetensors")
    assert (none.code, none.err.count("\n")) == (2, 1)
    result = call(*layer, "--train", "train", "--epochs", "2", "--perturb", "--towards", "train/3.png")
    assert result.code == 0, result.err
    assert re.search(r"^On 2 held-out pictures: image error [\d.]+, ridge regression [\d.]+, mean picture", result.out, re.M)
    assert re.findall(r"^(\w+): image error [\d.]+, feature error [\d.]+, \d, [\d.,]+ ms$", result.out, re.M) == [
        *("decoder", "search")
    ]
    assert "shot.png: 80x64 RGB became 28x28 grey" in result.out
    page = Path("shot-conv2") / "index.html"
    assert f"Page: {page}\n" in result.out
    assert "What conv2 of lenet keeps of shot.png" in page.read_text()
    assert len(list(page.parent.glob("*.png"))) == 3 + 3 + 7
    kept = next(Path("cache").iterdir())
    again = call(*layer, "--json", "--no-search", "--model", str(kept))
    assert again.code == 0, again.err
    found = json.loads(again.out)
    assert list(found["inverses"]) == ["decoder"]
    assert found["decoder"]["held_out"].keys() == {"pictures", "error", "ridge", "mean"}
    # The decoder that was learned last is used where neither option is given.
    last = call("invert", "conv2", "train/3.png", "--target", "lenet", "--json", "--no-search")
    assert json.loads(last.out)["decoder"] == found["decoder"]
    refused = call("invert", "conv1", "shot.png", "--target", "lenet", "--model", str(kept))
    assert "inverts the layer conv2, not conv1; name that layer, or learn" in refused.err


def test_a_picture_that_the_decoder_was_learned_from_by_its_pixels_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", "cache")
    network, images = target("lenet"), np.stack([picture(k, (28, 28)) for k in range(21)])
    known = by_pixels(images[:20])
    model, _ = learned_inverse(network, "conv2", known, TrainingSettings(epochs=1))
    save_inverse(model, tmp_path / "m.safetensors")
    seen = next(image for digest, image in known.items() if model.learned_from(digest))
    for image, named in ((seen, True), (images[20], False)):
        save_png(image, Path("digit.png"))
        command = ("invert", "conv2", "digit.png", "--target", "lenet", "--model", "m.safetensors", "--no-search")
        result = call(*command)
        assert result.code == 0, result.err
        assert ("digit.png is one of the pictures that the decoder was learned from" in result.out) == named


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["hug", "shot.png"],
            'evofool inverts hog, detector and layers, not "hug"; a layer needs its network: --target SPEC',
        ),
        (["fc1", "no.png", "--target", "lenet"], "there is no no.png: name an image file"),
        (["fc1", "shot.png", "--target", "lenet", "--towards", "no.png"], "there is no no.png: name an image file"),
        (["fc9", "shot.png", "--target", "lenet"], 'lenet: no layer "fc9"; there are'),
        (
            ["fc1", "shot.png", "--target", "lenet", "--train", "few"],
            "few has 3 different pictures; a decoder is",
        ),
        (
            ["fc1", "shot.png", "--target", "lenet", "--train", "no"],
            "no is not a folder; name one with at least 16",
        ),
        (["fc1", "shot.png", "--target", "lenet", "--model", "bad.pickle"], "is a pickle or a zip, which evofool does not"),
        (["fc1", "shot.png", "--target", "lenet", "--model", "cut.safetensors"], "is not a whole safetensors file"),
        (["fc1", "shot.png", "--target", "lenet", "--model", "hog.safetensors"], "is not a decoder: its format is"),
        (["fc1", "shot.png", "--target", "lenet", "--epochs", "2"], "--epochs and --feature-loss are of a decoder that is"),
        (["fc1", "shot.png", "--target", "lenet", "--train", "few", "--feature-loss", "inf"], "is a finite weight, not inf"),
        (["fc1", "shot.png", "--target", "lenet", "--top", "12"], "--top is of a detector"),
        (["hog", "shot.png", "--top", "3"], "--top is of a detector"),
        (["fc1", "shot.png", "--target", "lenet", "--method", "ridge"], "--method and --size are of HOG"),
        (["fc1", "shot.png", "--target", "python:box_to_invert:Box"], "it has neither gradients nor layers"),
        (["hog", "shot.png", "--target", "lenet"], "--target is of a layer: evofool invert LAYER IMAGE --target SPEC"),
        (["hog", "no.png"], "there is no no.png: name an image file"),
        (["hog", "few"], "there is no few: name an image file"),
        (["hog", "shot.png", "--method", "best"], '"best" is not a method; they are paired, ridge, elda, direct'),
        (["hog", "shot.png", "--method", ""], '"" is not a method'),
        (
            ["hog", "shot.png", "--method", "elda"],
            "no windows of photographs, which elda averages; learn one by --train DIR",
        ),
        (["hog", "shot.png", "--train", "few"], "few has 3 photographs of at least 40 x 40 pixels"),
        (["hog", "shot.png", "--train", "few", "--model", "few"], "give one of them"),
        (["hog", "shot.png", "--model", "bad.pickle"], "is a pickle or a zip, which evofool does not unpack"),
        (["hog", "shot.png", "--model", "cut.safetensors"], "is not a whole safetensors file"),
        (["hog", "shot.png", "--scan", "few"], "--scan is of a detector"),
        (["hog", "cut.safetensors"], "cut.safetensors cannot be read as a picture"),
        (["detector", "few"], "--scan PHOTOGRAPHS"),
        (["detector", "no", "--scan", "few"], "no is not a folder of pictures"),
        (
            ["detector", "few", "--scan", "few"],
            "few: 3 pictures of the thing are too few; a detector needs at least 10, of which",
        ),
        (
            ["detector", "ten", "--scan", "few"],
            "few: 3 photographs without it are too few; a detector needs at least 15, of",
        ),
        (["detector", "ten", "--scan", "narrow"], "narrow: no photograph without it has a short side of 64 pixels or more"),
        (["hog", "line.png"], "1 x 20000 pixels and would have 56 x 1120000"),
        (["detector", "few", "--scan", "few", "--size", "100"], "--method and --size are of HOG"),
    ],
)
def test_wrong_input_is_one_sentence(
    call: Call, photo: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOFOOL_CACHE", "cache")
    for seed in range(3):
        save_png(picture(seed), Path("few") / f"{seed}.png")
    for seed in range(15):
        save_png(picture(seed, (60, 60)), Path("narrow") / f"{seed}.png")
    for seed in range(10):
        save_png(picture(seed, (60, 60)), Path("ten") / f"{seed}.png")
    save_png(np.zeros((1, 20_000, 1), np.uint8), Path("line.png"))
    save_model(small_model(), Path("cut.safetensors"))
    save_model(small_model(), Path("hog.safetensors"))
    Path("cut.safetensors").write_bytes(Path("cut.safetensors").read_bytes()[:5000])
    Path("bad.pickle").write_bytes(pickle.dumps([1]))
    Path("box_to_invert.py").write_text(BOX)
    monkeypatch.syspath_prepend(Path.cwd())
    result = call("invert", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
