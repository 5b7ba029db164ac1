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
from evofool.cli import app as cli
from evofool.images import save_png
from evofool.run.reader import FILE
from evofool.run.schema import IMAGE_METRICS, TABLES
from evofool.text import visible
from tests.bench.samples import result

HOSTILE = "\x1b]0;PWN\x07\x9d0;PWN\x9c\r\n\x7f\t\u202e\u2066\u061c\u200b\u2028"

COMMANDS: dict[str, list[str]] = {
    "run": ["{run}", "mnist-cppn --out {run}", "mnist-cppn --out {new} --parents {run} --set stop.evaluations=12"],
    "baseline": ["noise lenet --classes 3 --out {run}"],
    "units": ["lenet fc1:0 --out {run}"],
    "polish": ["{run} --out {new} --classes 3 --parameters pixels --budget 2"],
    "init": [],  # reads the shipped recipes alone
    "show": ["{run}", "{run} --json", "{run} --class 3", "{run} --class 3 --json", "{run} --workers", "{run} --workers --json"],
    "explain": ["{run} --class 3 --parts saliency --out {new}"],
    "lineage": ["{run} --class 3 --image {new}.png", "{run} --class 3 --json"],
    "export": ["{run} {new}", "{run} {new} --format parquet"],
    "merge": ["{run} --out {new}"],
    "verify": ["{run}"],
    "replay": ["{run}"],
    "measure": ["{run} --images {images}"],
    "bench run": ["bench-digits --out {bench}"],
    "bench show": ["{bench}"],
    "bench compare": ["{result} {other}", "{result} {other} --json"],
    "bench retrain": ["--out {retrain}"],
    "gate": ["lenet --against {result} --out {new} --images {nothing}"],
    "sweep": ["mnist-cppn --targets lenet --seeds 0:1 --out {sweep}"],
    "transfer": ["{run} --target zero.onnx", "{run} {run}"],
    "score-set": ["{run} --sheet {new}.png", "{images} --target lenet"],
    "targets list": [],
    "targets show": ["onnx:{images}/3/\x1b]0;PWN\x07\u202e.png"],
    "targets check": ["onnx:{images}/3/\x1b]0;PWN\x07\u202e.png --images {images}"],
    "targets serve": ["onnx:{images}/3/\x1b]0;PWN\x07\u202e.png"],
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
    assert set(all_commands()) <= COMMANDS.keys(), "say in COMMANDS how the new command reads files"


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
    changes = ["stop.evaluations=24", "stop.confidence=", "search.batch=12"]
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
        db.execute("UPDATE elites SET verdict_by = 'a person'")
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
    for key, value in data.items() if isinstance(data, dict) else list(enumerate(data))[:1] if isinstance(data, list) else ():
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
    """Images of ten classes; one is no image, and has a name that not every terminal should see."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(10):
        (folder / str(k)).mkdir()
        for n in range(6):
            save_png(rng.integers(0, 256, (1, 28, 28), np.uint8), folder / str(k) / f"{n}.png")
    (folder / "3" / "\x1b]0;PWN\x07\u202e.png").write_bytes(b"none")
    return folder


def test_a_lone_surrogate_in_a_run_is_named(command: Command, sound: Path, tmp_path: Path) -> None:
    folder = hostile_copy(sound, tmp_path / "run", [("meta", "value", lambda text: text.replace("a warning", "\\udc80"))])
    assert command("show", str(folder)) == 2
    assert command("export", str(folder), "new", "--format", "parquet") == 2


def test_a_text_of_a_run_reaches_no_terminal_raw(command: Command, sound: Path, images: Path, tmp_path: Path) -> None:
    """Each text by itself by some commands, and those that do not damage the file together by all of them."""
    lines = [(name, line) for name, rows in COMMANDS.items() for line in rows if "{run}" in line]
    harmless: list[Change] = []
    for number, (name, change) in enumerate(changes_of(sound).items()):
        folder = hostile_copy(sound, tmp_path / f"each-{number}", [change])
        status = command("show", str(folder), terminal=bool(number % 2))
        if status == 0 and command("show", str(folder), "--class", "3") == 0:
            harmless += [] if name in ("meta.value", "metrics.row") else [change]  # these are no JSON any more
            continue
        assert status in (0, 1, 2), name
        # All read the file by the same reader, so that two for each fault are enough: over all faults it is every one.
        for other, line in (lines[2 * number % len(lines)], lines[(2 * number + 1) % len(lines)]):
            out = tmp_path / f"out-{number}-{other.replace(' ', '-')}"
            command(*other.split(), *arguments_of(line, run=folder, new=out, images=images))
    assert len(harmless) > 20
    for number, (name, line) in enumerate(lines):
        for terminal in (False, True):
            folder = hostile_copy(sound, tmp_path / f"all-{number}-{terminal}", harmless)
            out = tmp_path / f"new-{number}-{terminal}"
            command(*name.split(), *arguments_of(line, run=folder, new=out, images=images), terminal=terminal)
            for written in (*out.rglob("*.csv"), *out.rglob("*.md"), *out.rglob("*.html"), *out.rglob("*.svg")):
                assert_no_controls(written.read_text(), False, f"{name} in {written.name}")
