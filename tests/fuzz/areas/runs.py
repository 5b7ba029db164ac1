"""Files of runs: damaged bytes and pages, and tables whose columns, rows or definitions are not ours."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from evofool.attacks.run import AttackPlan, run_baseline
from evofool.recipe import load
from evofool.run.merge import merge
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.targets import target
from tests.fuzz.mutations import (
    PLACES,
    STRINGS,
    apply_bytes,
    apply_json,
    as_json,
    byte_edits,
    json_edits,
    page_edits,
    sql_values,
    values,
)
from tests.fuzz.room import Area, Room, attempt

TINY = ("stop.evaluations=96", "stop.confidence=", "search.batch=16", "search.random=32", "save.seconds=0.001")
DIRECT = ("mnist-direct", "niches={descriptor='mirror_symmetry', edges=[0.6, 0.68]}")
# large enough to be stored by their parents
CANVAS = ("mnist-canvas", "encoding.size=64", "encoding.start=waves", "search.keep=2")
SURROGATE = "search.surrogate={targets=['lenet?mean=0.1&std=0.3'], steps=1}"
KINDS = (
    "cppn", "direct", "canvas", "canvases merged", "free", "unfinished", "climbing", "merged", "attack", "everything",
)  # fmt: skip


@cache
def sample(kind: str) -> tuple[bytes, bytes]:
    """run.db of a small run of each kind, and its write-ahead log (empty but for "unfinished")."""
    with TemporaryDirectory() as name:
        folder = Path(name) / kind
        if kind == "direct":
            _search(folder, *DIRECT)
        elif kind == "canvas":
            _search(folder, *CANVAS)
        elif kind == "canvases merged":
            merge([_search(Path(name) / f"source-{seed}", *CANVAS, f"search.seed={seed}") for seed in (1, 2)], folder)
        elif kind == "free":
            _search(folder, "mnist-cppn", "search.mode=free", "search.lag=1")
        elif kind == "unfinished":
            return _unfinished(folder, "mnist-cppn", "search.keep=3")
        elif kind == "climbing":
            return _unfinished(folder, "mnist-canvas", "encoding.start=waves", SURROGATE)
        elif kind == "merged":
            sources = [_search(Path(name) / f"source-{seed}", "mnist-cppn", f"search.seed={seed}") for seed in (1, 2)]
            merge(sources, folder)
        elif kind == "attack":
            run_baseline(AttackPlan("apgd", classes=(2, 3), budget=3), target("lenet"), folder)
        elif kind == "everything":
            return _with_every_table(_search(folder, "mnist-cppn", "search.keep=3"))
        else:
            _search(folder, "mnist-cppn")
        return (folder / FILE).read_bytes(), b""


def _search(folder: Path, recipe: str, *changes: str) -> Path:
    with Run.start(load(recipe, [*TINY, *changes]), folder) as run:
        run.advance()
    return folder


def _unfinished(folder: Path, recipe: str, *changes: str) -> tuple[bytes, bytes]:
    """A run that was killed after some batches, with orders under way and a log that is not folded in."""
    with Run.start(load(recipe, [*TINY, "search.lag=2", *changes]), folder) as run:
        batches = 0

        def stop(_: Run) -> bool:
            nonlocal batches
            batches += 1
            return batches > 3

        run.advance(stop)
        return (folder / FILE).read_bytes(), (folder / f"{FILE}-wal").read_bytes()


def _with_every_table(folder: Path) -> tuple[bytes, bytes]:
    """Rows in the tables that only special runs fill."""
    with closing(sqlite3.connect(folder / FILE)) as db:
        birth, cell, genome = db.execute("SELECT e.birth, cell, genome FROM elites e JOIN genomes USING (birth)").fetchone()
        db.execute("INSERT INTO quarantine VALUES (?, 0, -1, -1, ?, 'it kills')", (10_000, genome))
        db.execute("INSERT INTO methods VALUES (?, 'polish')", (birth,))
        reference = {"images": "digits", "sha256": "0" * 64, "number": 10, "space": "pixels"}
        db.execute("INSERT OR REPLACE INTO meta VALUES ('references', ?)", (json.dumps({"r": reference}),))
        db.execute("INSERT INTO image_metrics VALUES (?, 'total_variation', 0.25, '')", (cell,))
        db.execute("PRAGMA journal_mode = DELETE")
        db.commit()
    return (folder / FILE).read_bytes(), b""


@cache
def columns() -> list[tuple[str, str]]:
    """(table, column) of all tables of a run's file."""
    with TemporaryDirectory() as name:
        path = Path(name) / FILE
        path.write_bytes(sample("everything")[0])
        with closing(sqlite3.connect(path)) as db:
            tables = [table for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
            return [(table, row[1]) for table in tables for row in db.execute(f"PRAGMA table_info({table})")]


READING: dict[str, Callable[[Path, Room], list[str | Path]]] = {
    "show": lambda run, room: ["show", run],
    "show --json": lambda run, room: ["show", run, "--json"],
    "show --workers": lambda run, room: ["show", run, "--workers"],
    "show --class": lambda run, room: [
        "show", run, "--class", "3", "--image", room.work / "x.png", "--graph", room.work / "x.svg",
    ],
    "show --list": lambda run, room: ["show", run, "--class", "3", "--list", "--image", room.work / "x.png"],
    "lineage": lambda run, room: ["lineage", run, "--class", "3"],
    "lineage --json": lambda run, room: ["lineage", run, "--class", "2", "--json"],
    "export": lambda run, room: ["export", run, room.work / "out"],
    "export parquet": lambda run, room: ["export", run, room.work / "out", "--format", "parquet"],
    "verify": lambda run, room: ["verify", run],
    "replay": lambda run, room: ["replay", run],
    "merge": lambda run, room: ["merge", run, room.give("other/run.db", sample("cppn")[0]).parent, "--out", room.work / "m"],
    "score-set": lambda run, room: ["score-set", run, "--target", "lenet"],
    "transfer": lambda run, room: ["transfer", run, "--target", "lenet?scale=1/256"],
    "parents": lambda run, room: [
        "run", "mnist-cppn", "--parents", run, "--out", room.work / "child", "--set", "stop.evaluations=32", "--set",
        "search.batch=16", "--set", "search.random=0", "--set", "stop.confidence=",
    ],
}  # fmt: skip
WRITING: dict[str, Callable[[Path, Room], list[str | Path]]] = {
    "run": lambda run, room: ["run", run, "--set", "stop.evaluations=128", "--set", "stop.confidence="],
    "measure": lambda run, room: ["measure", run, "--images", _pictures(room)],
    "polish": lambda run, room: ["polish", run, "--out", room.work / "polished", "--budget", "2", "--classes", "3"],
}
COMMANDS = READING | WRITING


def _pictures(room: Room) -> Path:
    """Six pictures of each digit."""
    for digit in range(10):
        for k in range(6):
            path = room.folder / "pictures" / str(digit) / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng([digit, k]).integers(0, 256, (28, 28), np.uint8)).save(path)
    return room.folder / "pictures"


def written(case: tuple[Any, ...], room: Room) -> Path:
    """The folder of the case's run."""
    kind, command, how, *given = case
    data, log = sample(kind)
    reads = command in READING
    if how == "bytes":
        data = apply_bytes(data, given[0])
    elif how == "log":
        log = apply_bytes(log or data[:8_000], given[0])
    path = room.give(f"run/{FILE}", data, fixed=False)
    if how == "tables":
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            steps = count()
            db.set_progress_handler(lambda: next(steps) > 2_000, 1_000)  # a change of an endless view would never end
            for change in given[0]:
                # It cannot be in a file, or an earlier change has left a text that is too deep to be edited.
                with suppress(sqlite3.Error, OverflowError, ValueError, TypeError, RecursionError):
                    _change(db, *change)
    elif log:
        room.give(f"run/{FILE}-wal", log, fixed=False)
    if not reads:
        shutil.move(path.parent, room.work / "run")
        return room.work / "run"
    if not log:  # SQLite folds a log in, and then the file changes
        room.given[path] = path.read_bytes()
    return path.parent


def _change(db: sqlite3.Connection, how: str, *given: Any) -> None:
    db.execute("PRAGMA ignore_check_constraints = ON")
    if how == "set":
        (table, column), place, value = given
        row = _row(db, table, place)
        if isinstance(value, str) and value.startswith("zeros "):
            value = bytes(int(value[6:]))
        db.execute(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE rowid = ?", (value, row))
    elif how == "set all":
        (table, column), value = given
        db.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
    elif how == "delete":
        (table, _), place = given
        db.execute(f"DELETE FROM {table} WHERE rowid = ?", (_row(db, table, place),))
    elif how == "empty":
        db.execute(f"DELETE FROM {given[0][0]}")
    elif how == "double":
        (table, _), place = given
        row = list(_only(db, f"SELECT * FROM {table} WHERE rowid = ?", _row(db, table, place)))
        row[0] = row[0] + 1 if isinstance(row[0], int) else f"{row[0]}2"
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({','.join('?' * len(row))})", row)
    elif how == "json":
        key, edits = given
        (text,) = _only(db, "SELECT value FROM meta WHERE key = ?", key)
        db.execute("UPDATE meta SET value = ? WHERE key = ?", (as_json(apply_json(json.loads(text), edits)), key))
    elif how == "text":
        key, text = given
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))
    elif how == "row json":
        place, edits = given
        row = _row(db, "metrics", place)
        (text,) = _only(db, "SELECT row FROM metrics WHERE rowid = ?", row)
        db.execute("UPDATE metrics SET row = ? WHERE rowid = ?", (as_json(apply_json(json.loads(text), edits)), row))
    elif how == "view":
        (table, _), body = given
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        db.execute(f"ALTER TABLE {table} RENAME TO kept")
        db.execute(f"CREATE VIEW {table} AS {body.format(columns=', '.join(f'x AS {name}' for name in names))}")
    elif how == "virtual":
        ((table, _),) = given
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        db.execute(f"ALTER TABLE {table} RENAME TO kept")
        db.execute(f"CREATE VIRTUAL TABLE {table} USING fts5({', '.join(names)})")
    elif how == "definition":
        (table, column), new = given
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (column, new, table))
    else:
        db.executescript(given[0].format(table=given[1][0], column=given[1][1]))


def _only(db: sqlite3.Connection, query: str, value: Any) -> tuple[Any, ...]:
    """The row of a query; sqlite3.DataError if there is none."""
    row: tuple[Any, ...] | None = db.execute(query, (value,)).fetchone()
    if row is None:
        raise sqlite3.DataError("no such row")
    return row


def _row(db: sqlite3.Connection, table: str, place: int) -> int | None:
    rows = [row for (row,) in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
    return rows[place * len(rows) // PLACES] if rows else None


def enter(case: tuple[Any, ...], room: Room) -> None:
    run = written(case, room)
    room.call(*COMMANDS[case[1]](run, room))


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {columns} FROM n"
_BODIES = (
    ENDLESS,
    f"{ENDLESS} WHERE x < 0",
    "SELECT {columns} FROM (SELECT zeroblob(900000000) AS x)",
    "SELECT * FROM kept",
)
_STATEMENTS = (
    "DROP TABLE {table}", "ALTER TABLE {table} DROP COLUMN {column}", "ALTER TABLE {table} ADD COLUMN more",
    "ALTER TABLE {table} RENAME COLUMN {column} TO other", "CREATE TABLE more (x)", "PRAGMA user_version = 7",
    "PRAGMA application_id = 3", "DROP INDEX cell_history_by_birth",
    "CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM elites; END",
    "CREATE TRIGGER t BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'x' || char(27) || ']0;PWN' || char(7)); END",
    "CREATE INDEX i ON {table} (abs({column}))", "CREATE INDEX i ON {table} ({column}) WHERE {column} IS NOT NULL",
    "CREATE TABLE copy AS SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE copy RENAME TO {table}",
)  # fmt: skip
_KEYS = (
    "recipe", "target", "recipe", "target", "machine", "workers", "seeds", "attack", "merged", "position", "references",
    "finished", "warnings", "committed", "shown", "seconds", "answers", "id", "version", "format",
)  # fmt: skip
_PLACE = st.integers(0, PLACES - 1)
_COLUMN = st.deferred(lambda: st.sampled_from(columns()))
_VALUE = st.one_of(sql_values(), st.just("zeros 200000000"), st.just("zeros 70000"), st.sampled_from(STRINGS))
_CHANGE = st.one_of(
    st.tuples(st.just("set"), _COLUMN, _PLACE, _VALUE),
    st.tuples(st.just("set"), _COLUMN, _PLACE, _VALUE),
    st.tuples(st.just("set"), _COLUMN, _PLACE, sql_values()),
    st.tuples(st.just("set all"), _COLUMN, sql_values()),
    st.tuples(st.just("delete"), _COLUMN, _PLACE),
    st.tuples(st.just("empty"), _COLUMN),
    st.tuples(st.just("double"), _COLUMN, _PLACE),
    st.tuples(st.just("json"), st.sampled_from(_KEYS), json_edits()),
    st.tuples(st.just("json"), st.sampled_from(_KEYS), json_edits()),
    st.tuples(st.just("json"), st.sampled_from(_KEYS), json_edits()),
    st.tuples(st.just("text"), st.sampled_from(_KEYS), st.one_of(st.sampled_from(STRINGS), values().map(as_json))),
    st.tuples(st.just("row json"), _PLACE, json_edits()),
    st.tuples(st.just("view"), _COLUMN, st.sampled_from(_BODIES)),
    st.tuples(st.just("virtual"), _COLUMN),
    st.tuples(st.just("definition"), _COLUMN, st.sampled_from(["x", "", "CHECK", "\x1b[2J"])),
    st.tuples(st.just("statement"), st.sampled_from(_STATEMENTS), _COLUMN),
)
_QUICK = (
    "show",
    "show --json",
    "show --class",
    "show --list",
    "show --workers",
    "lineage",
    "lineage --json",
    "export",
    "verify",
)
_NAMES = st.sampled_from([*COMMANDS, *_QUICK, *_QUICK, *_QUICK])
BYTES = st.one_of(
    st.tuples(st.sampled_from(KINDS), _NAMES, st.just("bytes"), byte_edits()),
    st.tuples(st.sampled_from(KINDS), _NAMES, st.just("bytes"), page_edits()),
    st.tuples(st.just("unfinished"), _NAMES, st.just("log"), byte_edits()),
    st.tuples(st.sampled_from(KINDS), _NAMES, st.just("log"), st.one_of(byte_edits(), page_edits())),
)
TABLES = st.tuples(st.sampled_from(KINDS), _NAMES, st.just("tables"), st.lists(_CHANGE, min_size=1, max_size=3))


def prepare() -> None:
    import matplotlib.pyplot  # noqa: F401 - it writes to the user's folder when it is imported first

    for kind in KINDS:
        sample(kind)
    columns()


def warm() -> None:
    """Every command, so that all kernels are compiled."""
    for command in COMMANDS:
        attempt(BYTES_AREA, ("cppn", command, "none"))


def line(case: tuple[Any, ...], room: Room) -> list[str | Path]:
    return COMMANDS[case[1]](written(case, room), room)


BYTES_AREA = Area("run bytes", BYTES, enter, 3, prepare, warm, line)
TABLES_AREA = Area("run tables", TABLES, enter, 6, prepare, warm, line)
