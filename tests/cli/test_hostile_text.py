"""No text of a file, in any column or key that any command reads, reaches a terminal or a CSV with a control character.

A new column of TABLES and a new key of RunMeta are covered as they are. A new command needs a row in COMMANDS.
"""

import io
import json
import re
import shutil
import sqlite3
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from evofool.bench import manifest
from evofool.bench.retraining import retrain_loop
from evofool.cli import app as cli
from evofool.explain import dream_folder
from evofool.fooling_set import index
from evofool.images import save_png
from evofool.run.reader import FILE
from evofool.run.schema import IMAGE_METRICS, TABLES
from evofool.sweep import status
from evofool.text import visible
from tests.bench.samples import result

BAD_IMAGE = "\x1b]0;PWN\x07\u202e.png"
HOSTILE = "\x1b]0;PWN\x07\x9d0;PWN\x9c\r\n\x7f\t\u202e\u2066\u061c\u200b\u2028"

COMMANDS: dict[str, list[str]] = {
    "run": ["{run}", "mnist-cppn --out {run}", "mnist-cppn --out {new} --parents {run} --set stop.evaluations=12"],
    "baseline": ["noise lenet --classes 3 --out {run}"],
    "units": ["lenet fc1:0 --out {run}"],
    "polish": ["{run} --out {new} --classes 3 --parameters pixels --budget 2"],
    "train-decoder": ["{images} --out {new}.safetensors", "{image}"],
    "init": [],  # reads the shipped recipes alone
    "show": [
        f"{{run}}{what}{form}" for what in ("", " --class 3", " --class 3 --list", " --workers") for form in ("", " --json")
    ],
    "gallery": ["{run} --static {new}"],  # as a server: tests/gallery/test_pages.py has hostile labels and names
    "explain": ["{run} --class 3 --parts saliency --out {new}", "{image} --target lenet"],
    "dream": ["{image} --target lenet", "{photo} --target lenet --octaves 1 --iterations 1 --out {dream}"],
    "invert": [
        *("hog {image}", "hog {image} --model {image}", "detector {bad} --scan {nothing}"),
        "fc1 {image} --target lenet --model {image}",
    ],
    "morph": ["chairs 0 1 --model {bad}", "chairs 0 1 --model {image}", "{run} 0 1", "{nothing} 3 4"],
    "lineage": ["{run} --class 3 --image {new}.png", "{run} --class 3 --json"],
    "export": ["{run} {new}", "{run} {new} --format parquet"],
    "merge": ["{run} --out {new}"],
    "verify": ["{run}"],
    "replay": ["{run}"],
    "measure": ["{run} --images {images}", "{run} --through jpeg:75,shift:1"],
    "quiz": ["{run} --html {new}.html --sessions 1", "{run} --html {new}.html --images {images} --sessions 1"],
    "verdicts": ["{run}", "{run} --json", "{run} --add {run}", "{nothing} --import {image}"],
    "bench run": ["bench-digits --out {bench}"],
    "bench show": ["{bench}"],
    "bench compare": ["{result} {other}", "{result} {other} --json"],
    "bench board": ["{result} {other} --out {new}.html --csv {new}.csv", "{result} {other} --json"],
    "bench reject-class": ["lenet {run} --images {images} --out {new}"],
    "bench retrain": ["--out {retrain}"],
    "gate": ["lenet --against {result} --out {new} --images {nothing}"],
    "sweep run": ["mnist-cppn --targets lenet --seeds 0:1 --out {sweep}"],
    "sweep show": ["{sweep}"],
    "transfer": ["{run} --target lenet?labels={labels} --json {new}.json", "{run} {run}"],
    "score-set": ["{run} --sheet {new}.png", "{run} --fools p>=0.5 --out {new}", "{bad} --target lenet"],
    "set build": ["{image}", "set-1 --target {image}=lenet"],
    "set sample": ["{image} --out {image}", "{set} --out {new}"],
    "set diff": ["{set} {set}", "{image} {image} --json"],
    "targets list": [],
    "targets show": ["onnx:{image}"],
    "targets check": ["lenet --no-speed --images {bad}", "onnx:{image}"],
    "targets kinship": ["lenet lenet --images {bad}", "lenet onnx:{image}"],
    "targets serve": ["onnx:{image}"],
}
"""By command, its arguments with each kind of file that it reads."""


def all_commands(group: typer.Typer = cli.app, path: str = "") -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path}{command.name or command.callback.__name__}"
    for inner in group.registered_groups:
        assert isinstance(inner.typer_instance, typer.Typer)
        yield from all_commands(inner.typer_instance, f"{path}{inner.name} ")


def test_every_command_has_its_rows() -> None:
    assert set(all_commands()) == COMMANDS.keys(), "say in COMMANDS how a new command reads files"


class Stream(io.StringIO):
    """What a command prints to. A terminal, to those who ask, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run a command in an empty folder, and check what it prints; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm-256color")

    def run(*arguments: str, terminal: bool = False) -> int:
        monkeypatch.setattr(sys, "argv", ["evofool", *arguments])
        out, error = Stream(terminal), Stream(terminal)
        status = 0
        with monkeypatch.context() as streams:
            streams.setattr(sys, "stdout", out)
            streams.setattr(sys, "stderr", error)
            try:
                cli.main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
        for stream in (out, error):
            assert_no_controls(stream.getvalue(), terminal, " ".join(arguments))
        assert status != 70, error.getvalue()
        return status

    return run


def assert_no_controls(text: str, terminal: bool, where: str) -> None:
    if terminal:  # what rich itself writes there: colours, moves of the cursor
        text = re.sub(r"\x1b\[\??[0-9;]*[A-Za-z]|\r", "", text)
    bad = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not bad, f"{where} prints {visible(''.join(bad))}: {visible(text)[:2000]}"
    # A value that breaks its line could imitate one of ours.
    assert not re.search(r"^(\r|\t|0;PWN)", text, re.MULTILINE), where


# -- a run with something in every table


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 evaluations, whose file has a row in every table that has text."""
    from evofool.recipe import load
    from evofool.run.run import Run

    folder = tmp_path_factory.mktemp("hostile") / "run"
    changes = ["stop.evaluations=24", "stop.confidence=", "search.batch=12", "search.keep=2", "search.random=0"]
    with Run.start(load("mnist-cppn", changes), folder) as run:
        run.advance(lambda _: False)
    meta: dict[str, Any] = {
        "warnings": ["a warning"],
        "workers": {"time": 0.0, "workers": [worker()]},
        "references": {"key": {"images": "digits", "reference": 9, "held_out": 9}},
    }
    with closing(sqlite3.connect(folder / FILE)) as db, db:
        ((birth, cell, genome),) = db.execute(
            "SELECT e.birth, e.cell, g.genome FROM elites e JOIN genomes g USING (birth) WHERE e.class = 3"
        )
        db.execute("INSERT INTO quarantine VALUES (?, 0, -1, -1, ?, 'a reason')", (10**6, genome))
        db.execute("INSERT INTO methods VALUES (?, 'seed')", (birth,))
        db.executemany("INSERT INTO image_metrics VALUES (?, ?, 1.0, 'key')", [(cell, name) for name in IMAGE_METRICS])
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()])
    return folder


def worker() -> dict[str, Any]:
    return {
        "worker": 0, "state": "working", "images_per_second": 1.0, "busy": 0.5, "in_flight": 1, "restarts": 0, "images": 9,
        "pid": 1, "node": "node", "device": "cpu",
    }  # fmt: skip


Change = tuple[str, str, Callable[[str], str]]
"""Table, column and what becomes of each of the column's texts."""


def changes_of(folder: Path) -> dict[str, Change]:
    """By name, a change for each text column of the schema, and one for each text in its JSON columns."""
    found: dict[str, Change] = {}
    schema = sqlite3.connect(":memory:")
    schema.executescript(TABLES)
    with closing(sqlite3.connect(folder / FILE)) as db:
        for (table,) in schema.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in schema.execute(f"PRAGMA table_info({table})").fetchall():
                if kind != "TEXT":
                    continue
                found[f"{table}.{column}"] = table, column, lambda text: text + HOSTILE
                if (table, column) in JSON_COLUMNS:
                    texts = [text for (text,) in db.execute(f"SELECT {column} FROM {table}")]
                    for text in texts:
                        for path in leaves(json.loads(text)):
                            change = change_of(text, path)
                            found[f"{table}.{column}{keys_of(db, table, column, text)}{path}"] = table, column, change
    return found


JSON_COLUMNS = {("meta", "value"), ("metrics", "row")}


def keys_of(db: sqlite3.Connection, table: str, column: str, text: str) -> str:
    return str(db.execute(f"SELECT * FROM {table} WHERE {column} = ?", (text,)).fetchone()[0])


def change_of(text: str, path: tuple[Any, ...]) -> Callable[[str], str]:
    return lambda other: json.dumps(changed(json.loads(text), path)) if other == text else other


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each text of JSON; of lists, only that of the first."""
    if isinstance(data, str):
        yield path
    parts = data.items() if isinstance(data, dict) else list(enumerate(data))[:1] if isinstance(data, list) else ()
    for key, value in parts:
        yield from leaves(value, (*path, key))


def changed(data: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return data + HOSTILE
    copy = data.copy()
    copy[path[0]] = changed(data[path[0]], path[1:])
    return copy


def hostile_copy(source: Path, folder: Path, changes: list[Change]) -> Path:
    shutil.copytree(source, folder)
    with closing(sqlite3.connect(folder / FILE)) as db, db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        for number, (table, column, change) in enumerate(changes):
            db.create_function(f"change{number}", 1, lambda text, change=change: text if text is None else change(text))
            db.execute(f"UPDATE {table} SET {column} = change{number}({column})")
    return folder


def arguments_of(line: str, **paths: Path) -> list[str]:
    return [part.format(**paths) for part in line.split(" ")]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of ten classes."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(10):
        (folder / str(k)).mkdir()
        for n in range(6):
            save_png(rng.integers(0, 256, (1, 28, 28), np.uint8), folder / str(k) / f"{n}.png")
    return folder


@pytest.fixture(scope="module")
def bad_images(images: Path) -> Path:
    """The same, and a file that is no image."""
    folder = images.with_name("bad")
    shutil.copytree(images, folder)
    (folder / "3" / BAD_IMAGE).write_bytes(b"none")
    return folder


def test_a_lone_surrogate_in_a_run_is_named(command: Command, sound: Path, tmp_path: Path) -> None:
    folder = hostile_copy(sound, tmp_path / "run", [("meta", "value", lambda text: text.replace("a warning", "\\udc80"))])
    assert command("show", str(folder)) == 2
    assert command("export", str(folder), "new", "--format", "parquet") == 2


def test_a_text_of_a_run_reaches_no_terminal_raw(command: Command, sound: Path, images: Path, tmp_path: Path) -> None:
    """Each text by itself by some commands, and those that do not damage the file together by all of them."""
    (tmp_path / "labels.txt").write_text("".join(f"{k}\n" for k in "123456789x"))
    paths = {"images": images, "labels": tmp_path / "labels.txt"}
    lines = [(name, line) for name, rows in COMMANDS.items() for line in rows if "{run}" in line]
    harmless: dict[str, Change] = {}
    for number, (name, change) in enumerate(changes_of(sound).items()):
        folder = hostile_copy(sound, tmp_path / f"each-{number}", [change])
        status = command("show", str(folder), terminal=bool(number % 2))
        if status == 0 and command("show", str(folder), "--class", "3") == 0:
            # The first two are no JSON any more, and a digest is read by what writes or verifies.
            if name not in ("meta.value", "metrics.row") and "digests" not in name:
                harmless[name] = change
            continue
        assert status in (0, 2), name
        # All read the file by the same reader, so that two for each fault are enough: over all faults it is every one.
        for other, line in (lines[2 * number % len(lines)], lines[(2 * number + 1) % len(lines)]):
            out = tmp_path / f"out-{number}-{other}"
            command(*other.split(), *arguments_of(line, run=folder, new=out, **paths))
    assert len(harmless) > 20
    sound_target = [change for name, change in harmless.items() if not re.search(r"target|sha256", name)]
    done = set()
    for number, (name, line) in enumerate(lines):
        for terminal, changes in ((True, list(harmless.values())), (False, sound_target)):
            folder = hostile_copy(sound, tmp_path / f"all-{number}-{terminal}", changes)
            out = tmp_path / f"new-{number}-{terminal}"
            arguments = arguments_of(line, run=folder, new=out, **paths)
            if command(*name.split(), *arguments, terminal=terminal) == 0:
                done.add(name)
            for written in (path for path in out.rglob("*") if path.suffix in (".csv", ".md", ".html", ".svg")):
                assert_no_controls(written.read_text(), False, f"{name} in {written.name}")
    assert {"run", "show", "explain", "lineage", "export", "measure", "transfer", "score-set"} <= done


# -- the JSON of benchmarks


def every_text_changed(data: Any, kept: frozenset[str] = frozenset({"schema"})) -> Any:
    if isinstance(data, dict):
        return {key: value if key in kept else every_text_changed(value, kept) for key, value in data.items()}
    if isinstance(data, list):
        return [every_text_changed(value, kept) for value in data]
    return data + HOSTILE if isinstance(data, str) else data


def test_a_text_of_a_result_reaches_no_terminal_raw(command: Command, tmp_path: Path) -> None:
    sound = result("lenet", 0, ["cppn", "random"], points=20)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(result("lenet", 1, ["cppn", "random"], points=20)))
    file = tmp_path / "result.json"
    variants = [changed(sound, path) for path in leaves(sound)] + [every_text_changed(sound)]
    for number, variant in enumerate(variants):
        file.write_text(json.dumps(variant))
        for line in COMMANDS["bench compare"] if variant is variants[-1] else COMMANDS["bench compare"][:1]:
            command("bench", "compare", *arguments_of(line, result=file, other=other), terminal=bool(number % 2))
        for line in COMMANDS["bench board"] if variant is variants[-1] else COMMANDS["bench board"][: number % 3 == 0]:
            new = tmp_path / f"board-{number}"
            command("bench", "board", *arguments_of(line, result=file, other=other, new=new), terminal=bool(number % 2))
    for written in (*tmp_path.glob("board-*.csv"), *tmp_path.glob("board-*.html")):
        assert_no_controls(written.read_text(), False, written.name)
    assert len(list(tmp_path.glob("board-*.html"))) > len(variants) / 4
    for line in COMMANDS["gate"]:
        command("gate", *arguments_of(line, result=file, new=tmp_path / "gate", nothing=tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("name", "file", "record"),
    [
        ("bench run", manifest.MANIFEST, {"schema": manifest.SCHEMA, "version": manifest.VERSION}),
        ("bench show", status.FILE, {"schema": status.SCHEMA, "version": status.VERSION}),
        ("sweep show", status.FILE, {"schema": status.SCHEMA, "version": status.VERSION}),
        ("bench retrain", retrain_loop.FILE, {"schema": retrain_loop.SCHEMA, "version": retrain_loop.VERSION}),
        ("set diff", index.INDEX, {"schema": index.SCHEMA, "version": index.VERSION}),
        ("dream", dream_folder.FILE, {"schema": dream_folder.SCHEMA, "version": dream_folder.VERSION}),
    ],
)
def test_a_text_of_a_folder_reaches_no_terminal_raw(
    command: Command, tmp_path: Path, images: Path, name: str, file: str, record: dict[str, Any]
) -> None:
    variants = [record | {"schema": HOSTILE}, record | {"version": HOSTILE}, record | {HOSTILE: HOSTILE}]
    variants.append(record | {"settings": dict.fromkeys(("layer", "iterations", HOSTILE), HOSTILE)})
    photo, bad = images / "3" / "0.png", images / "3" / BAD_IMAGE
    for number, variant in enumerate(variants):
        folder = tmp_path / f"folder-{number}"
        folder.mkdir()
        (folder / file).write_text(json.dumps(variant))
        for line in COMMANDS[name]:
            paths = {"photo": photo, "image": bad} | dict.fromkeys(("bench", "retrain", "sweep", "dream", "set"), folder)
            assert command(*name.split(), *arguments_of(line, **paths)) == 2


@pytest.mark.parametrize("name", ["bench show", "sweep show"])
@pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
def test_a_text_of_a_list_of_jobs_reaches_no_terminal_raw(command: Command, tmp_path: Path, name: str, state: str) -> None:
    job = status.JobStatus(HOSTILE, HOSTILE, state, node=HOSTILE, reason=HOSTILE)
    record = status.ListStatus("done", HOSTILE, 0.0, HOSTILE, 1, (job,)).as_json()
    record |= {"schema": status.SCHEMA, "version": status.VERSION}
    (tmp_path / status.FILE).write_text(json.dumps(record))
    for terminal in (False, True):
        assert command(*name.split(), str(tmp_path), terminal=terminal) in (0, 2)


# -- what the user names


@pytest.mark.parametrize("name", sorted(set(all_commands()) - {"targets list"}))
@pytest.mark.parametrize("terminal", [False, True])
def test_an_argument_reaches_no_terminal_raw(command: Command, name: str, terminal: bool) -> None:
    """A file whose name somebody else has chosen, as a shell's * gives it."""
    argument = "x\x1b]0;PWN\x07\u202e\x9d"
    assert command(*name.split(), f"--{argument}", terminal=terminal) == 2
    if name not in ("init", "bench retrain"):
        assert command(*name.split(), argument, *(["--out", "new"] if name == "merge" else []), terminal=terminal) == 2


def test_a_file_s_name_reaches_no_terminal_raw(command: Command, bad_images: Path, tmp_path: Path) -> None:
    for name, rows in COMMANDS.items():
        for line in rows:
            if "{bad}" in line or "{image}" in line:
                arguments = arguments_of(
                    line, bad=bad_images, image=bad_images / "3" / BAD_IMAGE, nothing=tmp_path / "nothing"
                )
                assert command(*name.split(), *arguments, terminal=True) in (1, 2)
    assert command("score-set", str(bad_images), "--target", "lenet", "--skip-unreadable") == 0
    (tmp_path / "3_\x1b]0;PWN\x07.png").write_bytes((bad_images / "3" / "0.png").read_bytes())
    assert command("score-set", str(tmp_path), "--target", "lenet", "--fools", "p>=0.01", "--out", "page") == 0
    assert_no_controls(Path("page", "index.html").read_text(), False, "the page of survivors")
    assert command("explain", str(tmp_path / "3_\x1b]0;PWN\x07.png"), "--target", "lenet", "--parts", "saliency") == 0
    decoder = str(tmp_path / "one.safetensors")
    assert command("train-decoder", str(bad_images), "--epochs", "1", "--grey", "--out", decoder) == 0


def test_an_option_s_value_reaches_no_terminal_raw(command: Command) -> None:
    for arguments in (
        ["run", "mnist-cppn", "--set", f"search.seed={HOSTILE}"],
        ["run", "mnist-cppn", "--set", f"{HOSTILE}=3"],
        ["run", "mnist-cppn", "--workers", HOSTILE],
        ["targets", "show", f"onnx:{HOSTILE}.onnx"],
        ["targets", "show", f"lenet?{HOSTILE}=3"],
        ["score-set", ".", "--target", "lenet", "--fools", HOSTILE],
    ):
        assert command(*(a.replace("\0", "") for a in arguments)) == 2


def test_a_recipe_s_text_reaches_no_terminal_raw(command: Command, tmp_path: Path) -> None:
    escaped = json.dumps(HOSTILE)
    rest = "\n[encoding]\nkind = 'cppn'\n[stop]\nevaluations = 9\n"
    file = tmp_path / "hostile.toml"
    for text in (f"{escaped} = 1", f"target = {escaped}", f"search.rank = {escaped}", HOSTILE, f"name = '{HOSTILE}'"):
        file.write_text(text + rest)
        assert command("run", str(file)) == 2
        assert command("bench", str(file)) == 2
