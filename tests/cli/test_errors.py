"""The command line: one clear sentence for each error, whatever is missing, wrong or damaged."""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from evofool.recipe import load
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.store import Store
from genomes import GenomeError
from tests.cli.samples import TINY, damage, one_sentence, settings
from tests.commands import Call


def dump(folder: Path) -> list[str]:
    """The whole content of a run's file."""
    database = sqlite3.connect(folder / FILE)
    lines = list(database.iterdump())
    database.close()
    return lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnist-cpn"], 'Did you mean "mnist-cppn"'),
        (["run", "nowhere.toml"], r"there is no recipe nowhere\.toml"),
        (["run", "x" * 300], "no recipe"),
        (["run", "."], r"folder without a run \(it has no run\.db\)"),
        (["run", "empty.toml"], r'empty\.toml: "encoding" is missing'),
        (["run", "cut.toml"], r"cut\.toml: not TOML"),
        (["run", "binary.toml"], r"binary\.toml: not TOML"),
        (
            ["run", "mnist-cppn", "--set", "search.sed=3"],
            r'--set search\.sed=3: unknown key "search\.sed"; did you mean "search',
        ),
        (["run", "mnist-cppn", "--set", "search.seed=x"], r"--set search\.seed=x: search\.seed: "),
        (["run", "mnist-cppn", "--set", "search.batch=0"], r"--set search\.batch=0: search\.batch: "),
        (["run", "mnist-cppn", "--set", "search.seed"], "has to be KEY=VALUE"),
        (["run", "mnist-cppn", "--set", "encoding.color=rgb"], "3 channels, the target takes 1"),
        (["run", "mnist-cppn", "--set", "encoding.initial_weight=99.0"], "initial_weight"),
        (["run", "mnist-cppn", "--set", "target=lenets"], 'did you mean "lenet"'),
        (["run", "mnist-cppn", "--set", "target=lenet?weights=nowhere"], r"there is no weights file .*nowhere"),
        (
            ["run", "mnist-cppn", "--set", "target=lenet?weights=cut.toml"],
            r"cut\.toml has more than weights, or is not a file of torch",
        ),
        (["run", "mnist-cppn", "--out", "empty.toml"], "empty.toml"),
        (["run", "mnist-cppn", "--out", "empty.toml/below"], "empty.toml"),
        (["show", "nowhere"], "there is no folder .*nowhere"),
        (["show", "."], "is not a run"),
        (["show", "empty.toml"], "empty.toml"),
        (["export", "nowhere", "out"], "there is no folder .*nowhere"),
        (["verify", "nowhere"], "there is no folder .*nowhere"),
        (["lineage", "nowhere", "--class", "3"], "there is no folder .*nowhere"),
        (["init", "empty.toml"], "empty.toml"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)
def test_what_is_not_there_or_cannot_be_is_reported_in_one_sentence(
    call: Call, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "cut.toml").write_text("[encoding")
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00\xfe" * 50)
    one_sentence(call(*arguments), message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "mine", "--class", "11"], "no class 11; its classes are 0 to 9"),
        (["show", "mine", "--class", "zero"], "no class zero; its classes are 0 to 9"),
        (["lineage", "mine", "--class", "10"], "no class 10; its classes are 0 to 9, by number or by label$"),
        (["run", "mine", "--out", "other"], "is continued in its folder; --out is for new runs"),
        (["run", "mine", "--set", "search.seed=99"], r"search\.seed = 0, not 99"),
        (["run", "mine", "--set", "search.sed=99"], r'unknown key "search\.sed"'),
        (["run", "mine", "--set", "stop.evaluations="], "give at least one of"),
        (
            ["run", "mnist-direct", "--out", "mine"],
            r"has a run with .*; .* continue it by evofool run mine, or start another with",
        ),
        (["export", "mine", "file"], "file is a file"),
        (["export", "mine", "file/below"], "cannot be written"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)
def test_what_a_run_cannot_do_is_reported_in_one_sentence_and_the_run_is_not_changed(
    call: Call, mine: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("x")
    before = dump(mine)
    one_sentence(call(*arguments), message)
    assert dump(mine) == before


def test_pixels_cannot_be_redrawn_at_another_size(call: Call, direct_run: Path) -> None:
    one_sentence(call("export", direct_run, "out", "--size", "56"), "--size is for CPPN, canvas and latent runs")


def test_a_second_process_on_the_same_run_is_refused(call: Call, mine: Path) -> None:
    with Store.open(mine, write=True):
        one_sentence(call("run", "mine", *settings("stop.evaluations=700")), "mine is in use: another evofool is writing")


def test_a_run_without_a_checkpoint_is_reported(call: Call, tmp_path: Path) -> None:
    with Run.start(load("mnist-cppn", TINY), tmp_path / "mine"):
        for command in (
            ["show", "mine"],
            ["export", "mine", "out"],
            ["verify", "mine"],
            ["lineage", "mine", "--class", "3"],
        ):
            one_sentence(call(*command), "mine has saved nothing yet|no elite of class 3 yet")


EVERY_COMMAND = [
    ["show", "mine"], ["show", "mine", "--json"], ["show", "mine", "--class", "3"], ["export", "mine", "out"],
    ["export", "mine", "out", "--size", "56"], ["verify", "mine"], ["lineage", "mine", "--class", "3"],
    ["run", "mine", "--set", "stop.evaluations=700"],
]  # fmt: skip


@pytest.mark.parametrize("kind", ["random bytes", "nothing", "somebody else's", "another version", "truncated", "no recipe"])
def test_a_file_that_is_no_run_is_reported_by_every_command(call: Call, mine: Path, kind: str) -> None:
    path = mine / FILE
    if kind == "random bytes":
        path.write_bytes(np.random.default_rng(0).bytes(30_000))
    elif kind == "nothing":
        path.write_bytes(b"")
    elif kind == "somebody else's":
        path.unlink()
        damage(mine, "CREATE TABLE meta (key TEXT, value TEXT)")
    elif kind == "another version":
        damage(mine, "UPDATE meta SET value = '1' WHERE key = 'version'")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        damage(mine, "DELETE FROM meta WHERE key = 'recipe'")
    before = path.read_bytes()
    for command in EVERY_COMMAND:
        one_sentence(call(*command), FILE)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE genomes SET genome = substr(genome, 2)",
        "UPDATE metrics SET row = substr(row, 2)",
        "UPDATE elites SET png = substr(png, 9)",
        "UPDATE elites SET class = class + 128",
        "UPDATE meta SET value = '3' WHERE key = 'target'",
        "UPDATE meta SET value = '{}' WHERE key = 'recipe'",
        "UPDATE meta SET value = 'x' WHERE key = 'recipe'",
        "DELETE FROM genomes",
    ],
)
def test_damage_inside_a_run_never_ends_in_a_traceback(call: Call, mine: Path, tmp_path: Path, statement: str) -> None:
    damage(mine, statement)
    faults = 0
    for number, command in enumerate(EVERY_COMMAND):
        copied = shutil.copytree(mine, tmp_path / str(number))
        result = call(*(str(copied) if part == "mine" else part for part in command))
        if result.code:
            faults += 1
            assert result.err.startswith("evofool: ")
    assert faults


# --- a stored target that is code


@pytest.mark.parametrize(
    "spec", ["python:evil:factory", " python:evil:factory", "\tpython:evil:factory", "\u00a0python:evil:factory"]
)
@pytest.mark.parametrize("command", ["verify mine", "show mine --class 3", "run mine", "run mine/run.db"])
def test_code_that_a_run_names_is_not_imported_unless_it_is_trusted(
    call: Call, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, command: str
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\ndef factory():\n    raise OSError('no')\n")
    database = sqlite3.connect(mine / FILE)
    recipe = json.loads(database.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()[0])
    recipe["target"] = spec
    database.execute("UPDATE meta SET value = ? WHERE key = 'recipe'", (json.dumps(recipe),))
    database.commit()
    database.close()
    result = call(*command.split())
    assert "--trust" in result.out + result.err
    assert not (tmp_path / "ran").exists()
    call(*command.split(), "--trust")
    assert (tmp_path / "ran").exists()


def test_a_decoder_that_cannot_be_written_is_one_sentence(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*_: object) -> bytes:
        raise GenomeError("the decoder's stem.weight has NaN, infinity or a value beyond float16: train it again")

    monkeypatch.setattr("evofool.generators.learn.learn", learn)
    result = call("train-decoder", "digits", "--out", "d.safetensors")
    assert result.code == 2
    assert "d.safetensors is not written: the decoder's stem.weight has NaN" in result.err
    assert "bug" not in result.err
    assert not Path("d.safetensors").exists()
