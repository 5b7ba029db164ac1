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


def test_only_chairs_are_morphed(call: Call) -> None:
    result = call("morph", "tables", "0", "1")
    assert (result.code, result.err) == (2, 'evofool: evofool morphs chairs, not "tables"\n')
