"""What would take tomllib minutes, or too deep, is refused in one sentence; all else is as tomllib reads it."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evofool.bench import plan
from evofool.errors import RecipeError
from evofool.recipe import load, shipped_benches, shipped_recipes, shipped_sets
from evofool.toml_file import MAX_BITS, MAX_BYTES, MAX_DEPTH, read_toml, value_of

NESTED = f"arrays or tables are nested more than {MAX_DEPTH} deep"
PARTS = f"a key has more than {MAX_DEPTH} parts"

REFUSED = {
    "brackets": ("a = " + "[" * 2000, NESTED),
    "header": ("[" * 2000, NESTED),
    "inline tables": ("a = " + "{b=" * 2000, NESTED),
    "dotted": (".".join(["a"] * 20_000) + " = 1", PARTS),
    "quoted": (" . ".join(["'a'", '"b"'] * 10_000) + " = 1", PARTS),
    "dotted header": (f"[{'.'.join(['a'] * 20_000)}]", PARTS),
    "dotted inline": (f"a = {{{'.'.join(['b'] * 20_000)} = 1}}", PARTS),
    "after five quotes": ('a = ["""x"""", ' + "[" * 2000, NESTED),
    "after an unclosed string": ('a = "x\nb = ' + "[" * 2000, NESTED),
    "after an escape": ('a = "\\\\"\nb = ' + "[" * 2000, NESTED),
    "long": ("#" * MAX_BYTES * 2, f"not a recipe: it is longer than {MAX_BYTES:,} bytes"),
    "many digits": ("a = " + "9" * 9000, "not TOML"),
    "a large number": ("a = 0x" + "f" * 9000, f"a whole number of more than {MAX_BITS} bits"),
    "NUL": ("a = 1\0", "not TOML"),
    "escape sequence": ("a = 1 \x1b]0;PWN\x07", "not TOML"),
}


@pytest.mark.parametrize("read", [load, plan.load])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_much_is_refused_in_a_sentence(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    text, message = REFUSED[name]
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as refused:
        read(path)
    shown = str(refused.value)
    assert shown.startswith(f"{path}: {message}")
    assert len(shown) < len(str(path)) + 300
    assert shown.isprintable()


@pytest.mark.parametrize("read", [load, plan.load])
def test_a_recipe_that_is_no_file_is_named(read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "null.toml").symlink_to("/dev/zero")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe4'")
    for name, message in (
        ("folder", "is a folder, not a TOML file"),
        ("pipe", "is a device or a pipe, not a TOML file"),
        ("null", "is a device or a pipe, not a TOML file"),
        ("latin", "not TOML .*can't decode byte 0xe4 in position 5"),
    ):
        with pytest.raises(RecipeError, match=rf"{name}\.toml:? {message}"):
            read(tmp_path / f"{name}.toml")
    for odd in ("a\0b.toml", "a\0b", "x" * 5000, "x" * 5000 + ".toml"):
        with pytest.raises(RecipeError, match=r"^.{,450}$"):
            read(Path(odd))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a." * 20_000 + "b=1", "its key has 20,001 parts"),
        ("a=" + "[" * 2000, NESTED),
        ("a={" + "b." * 20_000 + "b=1}", PARTS),
        ("search.seed=0x" + "f" * 9000, f"a whole number of more than {MAX_BITS} bits"),
        ("search.seed=" + "x" * 9000, r"search\.seed: .*integer \(it is 'x+ \.\.\.\)"),
        ("x" * 9000, "has to be KEY=VALUE"),
    ],
)
def test_a_change_that_is_too_much_is_refused_in_a_sentence(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"^--set .{{,80}}: {message}") as refused:
        load("mnist-cppn", [change])
    assert len(str(refused.value)) < 400


def test_of_many_faults_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "many.toml"
    path.write_text("".join(f"key{n} = 1\n" for n in range(5000)))
    for read in (load, plan.load):
        with pytest.raises(RecipeError, match=r"; and 4,992 more$"):
            read(path)


def test_depth_and_parts_up_to_the_limit_are_read(tmp_path: Path) -> None:
    text = f"a = {'[' * MAX_DEPTH}{']' * MAX_DEPTH}\n{'.'.join(['k'] * MAX_DEPTH)} = 1.5\nb = [{'1.5, ' * 100}]\n"
    text += "s = '[[[[[[[[[[[[[[[[[[[[[[[' # {{{{{{{{{{{{{{{{{{{{{\n"
    (tmp_path / "deep.toml").write_text(text)
    assert read_toml(tmp_path / "deep.toml") == tomllib.loads(text)


@pytest.mark.parametrize("path", [*shipped_recipes(), *shipped_benches(), *shipped_sets()], ids=lambda path: path.stem)
def test_shipped_recipes_are_read_as_tomllib_reads_them(path: Path) -> None:
    assert read_toml(path) == tomllib.loads(path.read_text())


@given(st.lists(st.sampled_from(['"', "'", '"""', "'''", "\\", "[", "]", "{", "}", ".", "a", "=", "#", "\n", " ", ","])))
@example(["a", "=", '"""', '"', '"""', "[", "]"])
@settings(max_examples=200, deadline=None)
def test_values_are_tomllib_s_or_the_text(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        found = tomllib.loads(f"v = {text}")
    except tomllib.TOMLDecodeError:
        found = {}
    try:
        value = value_of(text, "here")
    except RecipeError:
        assert max(text.count("["), text.count("{"), text.count(".")) >= MAX_DEPTH / 2
    else:
        assert value == (found["v"] if found.keys() == {"v"} else text.strip())
