"""`evofool morph` as a user calls it."""

import json
from pathlib import Path

import pytest

from evofool.explain.chairs.generator import ChairGenerator, GeneratorLayout
from evofool.explain.chairs.model_file import save_generator
from tests.commands import Call


@pytest.fixture
def small(tmp_path: Path) -> str:
    save_generator(ChairGenerator(GeneratorLayout(4, 16, 3, 16, (8, 8))), tmp_path / "small.safetensors")
    return "small.safetensors"


def test_two_chairs_give_a_page_and_an_animation(call: Call, small: str) -> None:
    result = call("morph", "chairs", "0", "3", "--model", small)
    assert result.code == 0, result.err
    folder = Path("chairs-0-3")
    assert result.out.splitlines()[1:] == [f"Animation: {folder / 'morph.gif'}", f"Page: {folder / 'index.html'}"]
    assert (folder / "morph.gif").read_bytes().startswith(b"GIF89a")
    again = call("morph", "chairs", "0", "3", "--model", small, "--json", "--out", "here", "--elevation", "1")
    found = json.loads(again.out)
    assert Path(found["page"]).is_file()
    assert 0 < found["fade"] < found["error"], "the generator is not trained"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0", "4", "--model", "small.safetensors"), 'there is no chair "4": they are numbered 0 to 3'),
        (("oak", "1", "--model", "small.safetensors"), 'there is no chair "oak": they are numbered 0 to 3'),
        (("0", "1", "--model", "pickled"), "pickled is a pickle or a zip, which evofool does not unpack"),
        (("0", "1", "--model", "cut"), "cut is not a whole safetensors file"),
        (("0", "1", "--model", "nothing"), "the model nothing cannot be read"),
    ],
)
def test_wrong_input_ends_in_one_sentence(call: Call, small: str, words: tuple[str, ...], message: str) -> None:
    Path("pickled").write_bytes(b"\x80\x04]\x94.")
    Path("cut").write_bytes(Path(small).read_bytes()[:3000])
    result = call("morph", "chairs", *words)
    assert result.code == 2
    assert message in " ".join(result.err.replace("│", " ").split())
    assert not Path("chairs-0-1").exists()


def test_only_chairs_and_runs_are_morphed(call: Call) -> None:
    result = call("morph", "tables", "0", "1")
    message = 'evofool: evofool morphs chairs and the elites of a run, and there is no folder "tables"\n'
    assert (result.code, result.err) == (2, message)
    for words, message in ((("chairs", "--steps"), "--steps is of runs"), ((".", "--azimuth"), "--azimuth is of chairs")):
        result = call("morph", words[0], "0", "1", words[1], "3")
        assert (result.code, message in result.err) == (2, True)


def test_two_elites_give_a_page_and_an_animation_and_other_runs_are_refused(
    call: Call, tmp_path: Path, direct_run: Path
) -> None:
    line = ["run", "mnist-latent", "--out", tmp_path / "run", "--set", "stop.confidence=0.9", "--set", "search.seed=1"]
    assert call(*line).code == 0
    done = call("morph", tmp_path / "run", "3", "7", "--steps", "9")
    assert done.code == 0
    assert "3 becomes" in done.out
    folder = tmp_path / "run" / "morph-3-7"
    assert (folder / "morph.gif").read_bytes().startswith(b"GIF")
    page = (folder / "index.html").read_text()
    assert "The predicted class changes" in page
    assert "At the boundaries" in page
    same = call("morph", tmp_path / "run", "3", "3", "--out", tmp_path / "same", "--json")
    assert same.code == 0
    assert '"boundaries": []' in same.out
    refused = call("morph", direct_run, "3", "7")
    assert (refused.code, "only the codes of a decoder" in " ".join(refused.err.split())) == (2, True)
