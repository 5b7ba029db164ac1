"""The command line: its help, and what each command does."""

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

import evofool
from evofool.cli import app as cli
from evofool.images import decode_png
from evofool.recipe import load, shipped_benches, shipped_recipes, shipped_sets
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.targets.networks import LeNet
from evofool.text import to_json
from genomes import CPPN
from genomes.cppn.encoding import from_json
from tests.cli.samples import TINY, damage, one_sentence, settings
from tests.commands import Call

HOME = Path(evofool.__file__).parent.parent


def python(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120, check=False, **more
    )


# --- help


def commands_below(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each command and group, as ("bench", "compare")."""
    for name, command in group.commands.items():
        yield (*path, name)
        if hasattr(command, "commands"):
            yield from commands_below(command, (*path, name))


def test_the_help_groups_the_commands_by_their_job() -> None:
    result = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    found: dict[str, list[str]] = {}
    for line in lines[next(i for i, line in enumerate(lines) if " Launch " in line) :]:
        if panel := re.match(r"^╭─ (\w+) ─", line):
            found[panel[1]] = []
        elif command := re.match(r"^│ (\S+)", line):
            list(found.values())[-1].append(command[1])
    assert found == {panel: list(commands) for panel, commands in cli.PANELS.items()}
    assert "evofool run mnist-cppn" in result.output


@pytest.mark.parametrize("path", sorted(commands_below(typer.main.get_command(cli.app))), ids=" ".join)
def test_the_help_of_a_command_explains_it_and_each_option(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*path, "--help"], env={"COLUMNS": "140"})
    assert result.exit_code == 0
    command: Any = typer.main.get_command(cli.app)
    for name in path:
        command = command.commands[name]
    assert command.help
    assert len(command.help.split()) >= 5
    assert command.help.split()[0] in result.output
    assert not re.search(r"\S\n(?!evofool )\S", command.help), (
        "the terminal wraps a paragraph; lines that were wrapped before are torn"
    )
    for parameter in command.params:
        assert parameter.help, f"{' '.join(path)}: {parameter.name} has no help"
        shown = parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0]
        assert shown.split("|")[0] in result.output


def test_the_default_command_of_bench_says_so() -> None:
    result = CliRunner().invoke(cli.app, ["bench", "--help"], env={"COLUMNS": "100"})
    assert re.search(r"run +Measure how easily classifiers are fooled \(default command\)", result.output)


def test_no_arguments_show_the_help(call: Call) -> None:
    result = call()
    assert "Usage" in result.out + result.err
    assert "Traceback" not in result.err


def test_help_needs_neither_torch_nor_ray_nor_numba() -> None:
    heavy = ("torch", "ray", "numba", "deap", "matplotlib")
    code = f"import evofool.cli.app, sys; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"
    done = python("-X", "importtime", "-m", "evofool", "--help")
    assert done.returncode == 0
    assert "evofool run mnist-cppn" in done.stdout
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "evofool.cli.app" in loaded
    assert not loaded & {"torch", "ray", "numba", "deap"}


@pytest.mark.parametrize("module", ["typer", "evofool.cli.app", "numpy", "torch", "numba.core", "evofool.run.run"])
def test_ctrl_c_during_an_import_ends_in_one_line(module: str, tmp_path: Path) -> None:
    """An import that sends this process what Ctrl-C sends."""
    code = f"""
import importlib.abc, os, signal, sys
class Pressed(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}: signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Pressed())
sys.argv = ["evofool", "run", "mnist-cppn"]
from evofool.__main__ import main
main()
"""
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr.strip() == "Interrupted"


def test_ctrl_c_between_imports_ends_in_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "start", lambda *_: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
    result = call("run", "mnist-cppn")
    signal.signal(signal.SIGINT, before)
    assert result.code == 130
    assert result.err.strip() == "Interrupted"


# --- run


def test_run_starts_a_run_and_leaves_a_sheet_and_a_curve(call: Call, tmp_path: Path) -> None:
    result = call("run", "mnist-cppn", *settings(*TINY, "search.seed=5"))
    assert result.code == 0
    assert result.err == ""
    folder = Path("runs") / "mnist-cppn"
    lines = result.out.splitlines()
    assert lines[0].startswith(f"New run in {folder}: cppn against lenet (10 classes), seed 5, batch ")
    assert "Stopped: stop.evaluations = 640 is reached." in lines
    assert f"Contact sheet: {folder / 'elites.png'}" in lines
    assert {p.name for p in folder.iterdir()} >= {FILE, "elites.png", "curve.png"}
    assert not (folder / f"{FILE}-wal").exists()
    for name in ("elites.png", "curve.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    with Store.open(folder) as store:
        assert len(store.elites()) == 10


def test_run_takes_a_recipe_file_and_a_folder_and_names_the_classes_below_the_target_confidence(
    call: Call, tmp_path: Path
) -> None:
    text = '[encoding]\nkind = "direct"\n[search]\nbatch = 16\n[stop]\nevaluations = 32\nconfidence = 0.9999\n'
    (tmp_path / "own.toml").write_text(text)
    result = call("run", "own.toml", "--out", "deep/down")
    assert result.code == 0
    assert (tmp_path / "deep" / "down" / FILE).is_file()
    assert "Below 0.9999: " in result.out
    assert "Another seed may give better results" in result.out


def test_run_continues_a_finished_run_only_if_its_limit_is_raised(call: Call, mine: Path) -> None:
    result = call("run", "mine")
    assert result.code == 0
    assert "Continuing mine at 640 evaluations" in result.out
    assert "This run has ended: stop.evaluations = 640 is reached. To continue it: --set stop.evaluations=" in result.out
    assert "Stopped" not in result.out
    result = call("run", mine / FILE, *settings("stop.evaluations=800"))
    assert result.code == 0
    assert "Stopped: stop.evaluations = 800 is reached." in result.out
    assert "  stop.evaluations is now 800 (it was 640)" in result.out.splitlines()
    with Store.open(mine) as store:
        assert store.meta().committed == 50


def test_the_same_command_again_continues_the_run(call: Call) -> None:
    command = ("run", "mnist-cppn", *settings(*TINY), "--out", "mine")
    assert "New run in mine" in call(*command).out
    assert "Continuing mine" in call(*command).out


def test_a_run_that_ended_by_its_confidence_names_that_limit(call: Call) -> None:
    command = ("run", "mnist-cppn", *settings(*TINY, "stop.confidence=0.2"), "--out", "mine")
    assert "Stopped: stop.confidence = 0.2 is reached in every class." in call(*command).out
    again = call("run", "mine", *settings("stop.evaluations=20_000")).out
    assert "This run has ended: stop.confidence = 0.2 is reached in every class. " in again
    assert "To continue it: --set stop.confidence=VALUE, or --set stop.confidence= to remove this limit" in again


def test_the_recipe_again_names_the_values_that_it_brings_back(call: Call) -> None:
    call("run", "mnist-cppn", *settings(*TINY, "save.seconds=7"), "--out", "mine")
    again = call("run", "mnist-cppn", *settings(*TINY[1:], TINY[0], "stop.seconds=0.001"), "--out", "mine").out.splitlines()
    assert "  save.seconds is back to 1.0 (the recipe's value; it was 7.0)" in again
    assert "  stop.seconds is now 0.001 (it was none)" in again
    assert not any("stop.evaluations is" in line for line in again)


def test_a_warning_is_printed(call: Call, tmp_path: Path) -> None:
    network = LeNet()
    network.fc2.weight.data.mul_(1e-3)
    save_file(network.state_dict(), tmp_path / "faint.safetensors")
    changes = settings("stop.evaluations=1600", "stop.confidence=", 'target="lenet?weights=faint.safetensors"')
    result = call("run", "mnist-direct", *changes, "--out", "flat")
    assert result.code == 0
    assert "there is hardly any improvement since the first batch" in " ".join((result.out + result.err).split())


# --- show


def test_show_prints_a_row_per_elite(call: Call, mine: Path) -> None:
    result = call("show", "mine")
    assert result.code == 0
    assert result.err == ""
    lines = result.out.splitlines()
    assert lines[0].split()[:3] == ["class", "label", "confidence"]
    with Store.open(mine) as store:
        elites = store.elites()
        wins, switches = store.counts()
    for line, row in zip(lines[1:11], elites, strict=True):
        assert line.split()[:2] == [str(row.class_id), str(row.class_id)]
        assert f"{row.log_odds:.3f}" in line
        assert str(row.birth) in line.split()
    assert "10 elites" in result.out
    assert f"{wins:,} elite replacements, {switches / wins:.1%} of them goal switches" in result.out
    assert "ended: stop.evaluations = 640 is reached" in result.out


def test_show_prints_niches_where_there_are_some(call: Call, direct_run: Path) -> None:
    result = call("show", direct_run)
    assert result.out.splitlines()[0].split()[2] == "niche"


def test_show_as_json_is_exact_and_complete(call: Call, cppn_run: Path) -> None:
    result = call("show", cppn_run, "--json")
    assert result.code == 0
    data = json.loads(result.out)
    assert data["evaluations"] == 640
    assert data["finished"] == "stop.evaluations = 640 is reached"
    assert data["target"]["labels"] == list("0123456789")
    chosen = load("mnist-cppn", [*TINY, "compute.format=float32"])
    assert data["recipe"] == chosen.model_dump(mode="json", exclude_none=True)
    assert data["metrics"][-1]["evaluations"] == 640
    with Store.open(cppn_run) as store:
        rows = store.elites()
    assert len(data["elites"]) == 10
    for elite, row in zip(data["elites"], rows, strict=True):
        for key, value in {
            "class": row.class_id, "label": str(row.class_id), "log_odds": row.log_odds, "margin": row.margin,
            "birth": row.birth, "mother": row.mother, "father": row.father, "batch": row.batch, "niche": 0,
            "verdict": None, "verdict_raters": None, "nearest_real_pixels_percentile": None, "total_variation": None,
            "record_sha256": row.sha256, "bytes_per_pixel": row.bytes_per_pixel,
        }.items():  # fmt: skip
            assert elite[key] == value
        assert elite["confidence"] == pytest.approx(1 / (1 + np.exp(-row.log_odds)))


def test_show_class_prints_one_elite_in_full(call: Call, mine: Path) -> None:
    before = sorted(mine.iterdir())
    result = call("show", "mine", "--class", "3")
    assert result.code == 0
    assert sorted(mine.iterdir()) == before, "a command that reads does not write"
    with Store.open(mine) as store:
        (row,) = store.elites(3)
    for part in (
        "class 3 (3): confidence 0.",
        "runners-up",
        f"birth       {row.birth} in batch {row.batch}",
        "nodes",
        "edges",
    ):
        assert part in result.out


def test_show_writes_the_image_and_the_graph_of_an_elite_to_named_files(call: Call, mine: Path, tmp_path: Path) -> None:
    before = sorted(mine.iterdir())
    result = call("show", "mine", "--class", "3", "--image", "3.png", "--graph", "3.svg")
    assert (result.code, result.err) == (0, "")
    assert sorted(mine.iterdir()) == before
    with Store.open(mine) as store:
        (row,) = store.elites(3)
    assert (tmp_path / "3.png").read_bytes() == row.png
    assert (tmp_path / "3.svg").read_text().lstrip().startswith("<")
    assert result.out.splitlines()[-2:] == ["picture     3.png", "graph       3.svg"]


def test_pixels_have_no_graph(call: Call, direct_run: Path, tmp_path: Path) -> None:
    one_sentence(
        call("show", direct_run, "--class", "3", "--graph", "3.svg"), "a direct image has no graph; leave --graph out"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--graph", "3.svg"], "--graph writes one elite's file; name the elite by --class"),
        (["--image", "3.png"], "--image writes one elite's file; name the elite by --class"),
        (["--class", "3", "--workers"], "give one of them"),
        (["--class", "3", "--image", "nowhere/3.png"], "its folder does not exist"),
        (["--list"], "--list shows the runners-up of a class: name it by --class, and leave --graph out"),
        (["--list", "--class", "3", "--graph", "3.svg"], "leave --graph out"),
    ],
)
def test_options_of_show_that_do_not_go_together(call: Call, mine: Path, options: list[str], message: str) -> None:
    one_sentence(call("show", "mine", *options), message)


def test_show_list_needs_a_run_that_keeps_more_than_elites(call: Call, direct_run: Path) -> None:
    one_sentence(call("show", direct_run, "--class", "3", "--list"), f"{direct_run} keeps one genome a cell, its elite")


def test_show_list_has_the_genomes_that_a_class_keeps(call: Call) -> None:
    line = "run mnist-direct --out listed --set search.keep=3 --set stop.evaluations=200 --set search.batch=20"
    assert call(*line.split()).code == 0
    result = call("show", "listed", "--class", "3", "--list", "--image", "3.png")
    assert (result.code, result.err) == (0, "")
    assert [row.split()[0] for row in result.out.splitlines()[:4]] == ["place", "0", "1", "2"]
    assert "3: 3 genomes of at most 3 a cell" in result.out
    assert Path("3.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads(call("show", "listed", "--class", "3", "--list", "--json").out)
    assert (data["class"], data["label"], data["keep"]) == (3, "3", 3)
    odds = [row["log_odds"] for row in data["list"]]
    assert odds == sorted(odds, reverse=True)
    with Store.open(Path("listed")) as store:
        (elite,) = store.elites(3)
        assert (elite.birth, elite.search_log_odds) == (data["list"][0]["birth"], odds[0])
        for row in data["list"]:
            assert store.ancestry([row["birth"]])[row["birth"]][1:] == (row["mother"], row["father"])
    line = call("lineage", "listed", "--class", "3").out
    assert line.splitlines()[0].startswith("birth ")


def test_a_number_that_is_infinite_is_damage_and_null_in_json(call: Call, mine: Path) -> None:
    database = sqlite3.connect(mine / "run.db")
    database.execute("INSERT INTO image_metrics VALUES (3, 'total_variation', 9e999, '')")
    database.commit()
    database.close()
    for options in ((), ("--class", "3")):
        result = call("show", "mine", *options, "--json")
        assert (result.code, result.out) == (2, "")
        assert "damaged: image_metrics.value is inf in row 0 of cell 3" in result.err
    assert json.loads(to_json({"a": [float("inf"), float("nan"), 1.5]}), parse_constant=pytest.fail) == {
        "a": [None, None, 1.5]
    }


def test_show_class_as_json_holds_a_genome_that_draws_the_picture(call: Call, mine: Path) -> None:
    before = sorted(mine.iterdir())
    data = json.loads(call("show", "mine", "--class", "3", "--json").out)
    assert sorted(mine.iterdir()) == before
    assert data["class"] == 3
    assert len(data["runners_up"]) == 5
    confidences = [data["confidence"], *(r["confidence"] for r in data["runners_up"])]
    assert sum(confidences) <= 1 + 1e-9
    assert confidences[1:] == sorted(confidences[1:], reverse=True)
    encoding, genome = from_json(data["genome"])
    with Store.open(mine) as store:
        (row,) = store.elites(3)
    assert np.array_equal(encoding.render(genome)[0], decode_png(row.png))


# --- export


def test_export_writes_an_image_folder_a_table_and_genomes(call: Call, mine: Path, tmp_path: Path) -> None:
    result = call("export", "mine", "out")
    assert (result.code, result.out.strip()) == (0, "10 elites written to out")
    with open(tmp_path / "out" / "elites.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    with Store.open(mine) as store:
        rows = store.elites()
    pictures = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    assert pictures == sorted(line["file"] for line in table)
    for line, row in zip(table, rows, strict=True):
        path = tmp_path / "out" / line["file"]
        confidence = f"{1 / (1 + np.exp(-row.log_odds)):.6f}"
        assert line["file"] == f"{row.class_id}_{row.class_id}/{row.class_id}_{confidence}_{row.birth}.png"
        assert path.read_bytes() == row.png
        assert float(line["log_odds"]) == row.log_odds
        encoding, genome = from_json(json.loads(path.with_suffix(".json").read_text()))
        assert np.array_equal(encoding.render(genome)[0], decode_png(row.png))


def test_export_redraws_graphs_at_any_size(call: Call, mine: Path, tmp_path: Path) -> None:
    assert call("export", "mine", "out", "--size", "112").code == 0
    pictures = list((tmp_path / "out").rglob("*.png"))
    assert len(pictures) == 10
    assert {decode_png(p.read_bytes()).shape for p in pictures} == {(1, 112, 112)}
    encoding = CPPN()
    with Store.open(mine) as store:
        birth = store.elites()[0].birth
        genome = store.genomes([birth])[birth]
    expected = encoding.render(encoding.unpack([genome]), (112, 112))[0]
    assert any(np.array_equal(decode_png(p.read_bytes()), expected) for p in pictures)


def test_export_of_pixels_has_no_genomes_and_names_the_niche(call: Call, direct_run: Path, tmp_path: Path) -> None:
    assert call("export", direct_run, "out").code == 0
    assert not list((tmp_path / "out").rglob("*.json"))
    assert all(re.search(r"_niche\d\.png$", p.name) for p in (tmp_path / "out").rglob("*.png"))


# --- verify, lineage, init


def test_verify_prints_what_was_checked(call: Call, cppn_run: Path) -> None:
    result = call("verify", cppn_run)
    assert result.code == 0
    assert "10 elites, hashes correct, every image scored again, log-odds bit-identical" in result.out


@pytest.mark.parametrize(
    "statement", ["log_odds = log_odds + 1", "png = (SELECT png FROM elites WHERE class = 5)", "class = 7"]
)
def test_verify_exits_with_1_and_names_the_class_that_was_changed(call: Call, mine: Path, statement: str) -> None:
    damage(mine, f"UPDATE elites SET {statement} WHERE class = 4")
    result = call("verify", "mine")
    assert result.code == 1
    assert result.err.startswith("evofool: mine fails:\n")
    assert f"class {7 if statement == 'class = 7' else 4} " in result.err


def test_lineage_goes_from_a_random_genome_to_the_elite(call: Call, mine: Path) -> None:
    data = json.loads(call("lineage", "mine", "--class", "3", "--json").out)
    line = data["line"]
    with Store.open(mine) as store:
        (row,) = store.elites(3)
    assert (data["class"], data["label"]) == (3, "3")
    assert line[-1]["birth"] == row.birth
    assert line[0]["mother"] == line[0]["father"] == -1
    assert all(child["mother"] == mother["birth"] for mother, child in zip(line, line[1:], strict=False))  # noqa: RUF007
    assert "3" in line[-1]["held"]
    assert all(step["held"] for step in line)
    before = sorted(mine.iterdir())
    result = call("lineage", "mine", "--class", "3")
    assert result.code == 0
    assert f"3: {len(line) - 1} ancestors through first parents" in result.out
    assert "Picture" not in result.out
    result = call("lineage", "mine", "--class", "3", "--image", "line.png")
    assert result.out.endswith("Picture: line.png\n")
    assert Path("line.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(mine.iterdir()) == before, "a command that reads does not write"


def test_init_copies_the_recipes_once_and_they_run(call: Call, tmp_path: Path) -> None:
    result = call("init", "my/recipes")
    assert result.code == 0
    shipped = [*shipped_recipes(), *shipped_benches(), *shipped_sets()]
    for recipe in shipped:
        assert (tmp_path / "my" / "recipes" / recipe.name).read_bytes() == recipe.read_bytes()
    (tmp_path / "my" / "recipes" / "mnist-direct.toml").write_text("mine")
    again = call("init", "my/recipes")
    assert again.code == 0
    assert again.out.count("kept ") == len(shipped)
    assert (tmp_path / "my" / "recipes" / "mnist-direct.toml").read_text() == "mine"
    assert call("run", "my/recipes/mnist-cppn.toml", *settings(*TINY)).code == 0


def test_a_run_can_be_inspected_while_it_is_running(call: Call, tmp_path: Path) -> None:
    with Run.start(load("mnist-cppn", TINY), tmp_path / "mine") as run:
        run.advance(batches=3)
        commands: list[Sequence[str]] = [
            ("show", "mine"), ("show", "mine", "--class", "0"), ("export", "mine", "out"), ("verify", "mine"),
            ("lineage", "mine", "--class", "0"),
        ]  # fmt: skip
        for command in commands:
            result = call(*command)
            assert (result.code, result.err) == (0, "")
        assert "not ended yet" in call("show", "mine").out
        run.advance(batches=3)


def test_a_reader_that_stops_reading_causes_no_error(cppn_run: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "evofool", "show", str(cppn_run), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()
