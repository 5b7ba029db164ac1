"""A run's file that somebody else made: whatever is in it, reading it ends soon, and in one sentence of ours."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.errors import EvofoolError, StoreError
from evofool.recipe import load
from evofool.run.columns import COLUMNS
from evofool.run.meta import RunMeta
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.schema import Checkpoint, GenomeId, ImageMetric, ImprovementRow, Pending, QuarantineRow
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from genomes import Key
from tests.commands import Call
from tests.made_up import META, checkpoint, everything

NOTHING = Checkpoint({}, [], [], [], [], [])

COMMANDS = {
    "show": ("show", "run"),
    "show-json": ("show", "run", "--json"),
    "show-one": ("show", "run", "--class", "1"),
    "show-workers": ("show", "run", "--workers"),
    "lineage": ("lineage", "run", "--class", "1"),
    "export": ("export", "run", "out"),
    "verify": ("verify", "run"),
    "merge": ("merge", "run", "--out", "out"),
    "replay": ("replay", "run"),
    "measure": ("measure", "run", "--images", "digits"),
    "polish": ("polish", "run", "--out", "out"),
    "run": ("run", "run"),
    "parents": ("run", "mnist-cppn", "--parents", "run", "--out", "out"),
    "score-set": ("score-set", "run", "--target", "lenet"),
}
"""Every command that reads a run."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of the bundled network."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    changes = ["stop.evaluations=64", "stop.confidence=", "search.batch=16", "search.random=0"]
    with Run.start(load("mnist-cppn", changes), folder) as run:
        run.advance()
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(sound, tmp_path / "run")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A made-up run, all of whose tables have rows."""
    with Store.create(tmp_path / "run", META, decoder=b"a decoder") as store:
        store.save(checkpoint(0))
        store.set_image_metrics([(0, ImageMetric("total_variation", 0.5, ""))])
    with closing(sqlite3.connect(tmp_path / "run" / FILE)) as database:
        database.execute("INSERT INTO origins VALUES (0, 'other', 7)")
        database.commit()
    return tmp_path / "run"


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return COMMANDS[request.param]


def change(folder: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    with closing(sqlite3.connect(folder / FILE)) as database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            database.execute(statement, values)
        database.commit()


def change_meta(folder: Path, path: str, value: object) -> None:
    """Set meta.KEY.KEY..., which exists, to a JSON text or a value."""
    key, *rest = path.split(".")
    with closing(sqlite3.connect(folder / FILE)) as database:
        ((text,),) = database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall() or [("null",)]
        at = data = {"": json.loads(text)}
        for part in ["", *rest[:-1]] if rest else []:
            at = at[part]
        at[rest[-1] if rest else ""] = value
        database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(data[""])))
        database.commit()


# --- meta

POSITION = {"chunk": 16, "dependent": False, "tolerance": 0.0}
SOURCE = {
    "id": "a", "recipe": {}, "machine": {}, "position": POSITION, "device": "cpu", "backend": None, "evaluations": 1,
    "seconds": 1.0, "answers": 1,
}  # fmt: skip
WORKER = {
    "worker": 0, "state": "working", "node": "n", "pid": 1, "device": "cpu", "images": 1, "images_per_second": 1.0,
    "busy": 1.0, "in_flight": 1, "restarts": 0,
}  # fmt: skip
REFERENCE = {"images": "digits", "reference": 1, "held_out": 1}
PLAN = {"method": "apgd"}

WRONG_META: list[tuple[str, object, str]] = [
    ("target.labels", 0, r"target\.labels: .*\(it is 0\)"),
    ("target.labels", None, r"target\.labels"),
    ("target.labels", [], r"target\.labels"),
    ("target.labels", ["a", 1], r"target\.labels\.1"),
    ("target.labels", ["a", "a"], r"target\.labels: two classes have the same label"),
    ("target.labels", ["a", "\x1b]0;x\x07"], r"target\.labels: .*cannot be printed"),
    ("target.shape", "abc", r"target\.shape"),
    ("target.shape", [1, 28.0, 28], r"target\.shape\.1"),
    ("target.shape", [1, True, 28], r"target\.shape\.1"),
    ("target.shape", [1, 28], r"target\.shape"),
    ("target.shape", [1, -28, 28], r"target\.shape: the shape of an image"),
    ("target.shape", [2, 28, 28], r"target\.shape: the shape of an image"),
    ("target.shape", [1, 100_000, 100_000], r"target\.shape: .* has 10,000,000,000 values; 16,777,216 are the most"),
    ("target.shape", [1, 1 << 200, 1], r"target\.shape"),
    ("target.details", [], r"target\.details"),
    ("target.details", {"preprocessing": 3}, r"target\.details\.preprocessing"),
    ("target.details", {"preprocessing": {"resize": "x"}}, r"target\.details\.preprocessing\.resize"),
    ("target.details", {"notes": 3}, r"target\.details\.notes"),
    ("target", {}, r"target\.name is missing"),
    ("target", [], "target"),
    ("machine", {"several kinds": 3}, "machine"),
    ("machine", [], "machine"),
    ("recipe", [], "recipe"),
    ("recipe.niches", 3, "recipe"),
    ("recipe.search.keep", "8", "recipe: search.keep is no number of genomes"),
    ("recipe.search.keep", 0, "recipe: search.keep is no number of genomes"),
    ("recipe.search.keep", 1 << 40, "recipe: search.keep is no number of genomes"),
    ("recipe.niches", {"edges": 7}, "recipe"),
    ("position.chunk", 0, r"position\.chunk"),
    ("position.dependent", "yes", r"position\.dependent"),
    ("position.tolerance", -1.0, r"position\.tolerance"),
    ("speed", {}, r"speed\.number_format is missing"),
    ("speed", [], "speed"),
    ("committed", -1, "committed"),
    ("committed", 1.0, "committed"),
    ("committed", True, "committed"),
    ("committed", 1 << 60, "committed"),
    ("shown", "4", "shown"),
    ("shown_changes", None, "shown_changes"),
    ("seconds", "1", "seconds"),
    ("seconds", -1, "seconds"),
    ("answers", 1.5, "answers"),
    ("finished", 1, "finished"),
    ("warnings", "abc", "warnings"),
    ("warnings", [1], r"warnings\.0"),
    ("workers", {"time": 1.0, "workers": [{}]}, r"workers\.workers\.0\.worker is missing"),
    ("workers", {"time": 1.0, "workers": [{**WORKER, "busy": "very"}]}, r"workers\.workers\.0\.busy"),
    ("workers", {"time": "now", "workers": []}, r"workers\.time"),
    ("seeds", {"run": "a", "number": 0}, r"seeds\.number"),
    ("references", {"a": {}}, r"references\.images is missing"),
    ("references", {"a": {**REFERENCE, "reference": "many"}}, r"references\.reference"),
    ("merged", [], "merged"),
    ("merged", [{**SOURCE, "evaluations": -1}], r"merged\.0\.evaluations"),
    ("merged", [{**SOURCE, "position": None}], r"merged\.0\.position"),
    ("merged", "abc", "merged"),
    ("attack", {"plan": {}}, r"attack\.plan\.method is missing"),
    ("attack", {"plan": {"method": 3}}, r"attack\.plan\.method"),
    ("attack", {"plan": {**PLAN, "classes": 7}}, r"attack\.plan\.classes"),
    ("attack", {"plan": {**PLAN, "classes": [10]}}, "attack: plan.classes: the target has no such class"),
    ("attack", {"plan": {**PLAN, "settings": []}}, r"attack\.plan\.settings"),
    ("attack", {"plan": PLAN, "done": -1}, r"attack\.done"),
    ("attack", {"plan": PLAN, "notes": [3]}, r"attack\.notes"),
    ("id", 3, "id"),
    ("surplus", 3, r"surplus: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG_META)
def test_a_wrong_value_in_meta_is_named(folder: Path, path: str, value: object, words: str) -> None:
    change_meta(folder, path, value)
    with pytest.raises(StoreError, match=rf"run\.db is damaged: meta\.{words}"):
        StoredRun(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "more than 32 inside one another"),
        ('{"a":' * 40 + "1" + "}" * 40, "more than 32 inside one another"),
        ('{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        ('{"a": NaN}', "NaN is not a number of JSON"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "1e999 is too large"),
        ("9" * 5000, "5,000 digits is too large"),
        ("{", "meta.machine"),
        ("", "meta.machine"),
        (b"{}", r"meta\.value is b'\{\}'"),
        (3, "meta.value is '3'|meta.machine"),
        ('"' + "a" * (1 << 22) + '"', "4,194,304 are the most that is read"),
    ],
)  # fmt: skip
def test_a_json_text_that_is_none_or_an_attack_is_refused(folder: Path, text: object, words: str) -> None:
    change(folder, "UPDATE meta SET value = ? WHERE key = 'machine'", values=(text,))
    with pytest.raises(StoreError, match=words):
        StoredRun(folder)


def test_every_command_refuses_wrong_metadata(call: Call, folder: Path, command: tuple[str, ...]) -> None:
    change_meta(folder, "target.shape", "abc")
    said = call(*command)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("evofool: ")
    assert "damaged: meta.target.shape: " in said.err
    assert said.err.count("\n") == 1


# --- rows

UNREAD = {("cell_history", "id")}
"""Columns whose values no command uses; they only order the rows."""
ROW_KEYS = {"image_metrics": "cell", "runners_up": "birth * 1000 + cell"}
"""What identifies a row of a table that has no rowid."""
KEYS = {("elites", "cell"), ("genomes", "birth"), ("quarantine", "birth"), ("origins", "birth"), ("methods", "birth")}
KEYS |= {("metrics", "batch"), ("pending", "batch"), ("commits", "position")}


def wrong_values() -> Iterator[tuple[str, str, object]]:
    """(table, column, a value that SQLite takes there and that cannot be)."""
    for table, columns in COLUMNS.items():
        for name, column in columns.items():
            if table == "meta" or (table, name) in UNREAD:
                continue
            if (table, name) in KEYS:  # SQLite takes whole numbers only
                yield table, name, -7
                continue
            if column.kind in (int, float):
                yield from (
                    (table, name, value) for value in ("text", b"blob", 1 << 60 if column.kind is int else float("inf"))
                )
            else:
                yield table, name, b"blob" if column.kind is str else "text"
            if column.choices:
                yield table, name, "other"
            if column.kind is int:
                yield table, name, -7
                yield table, name, 0.5


@pytest.mark.parametrize(("table", "name", "value"), list(wrong_values()))
def test_a_wrong_value_in_any_column_is_named(full: Path, table: str, name: str, value: object) -> None:
    key = ROW_KEYS.get(table, "rowid")
    change(full, f'UPDATE {table} SET "{name}" = ? WHERE {key} = (SELECT MIN({key}) FROM {table})', values=(value,))
    with Store.open(full) as store:
        store.meta()
        with pytest.raises(StoreError, match=rf"run\.db is damaged: ({table}\.{name} is |.* birth 0, is missing)"):
            everything(store)


def test_sound_rows_are_read(full: Path) -> None:
    with Store.open(full) as store:
        assert everything(store)["origins"] == {0: ("other", 7)}


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE elites SET class = 2 WHERE cell = 1", r"cell 1 is that of class 1 \(b\), and its row says class 2 \(c\)"),
        ("UPDATE elites SET class = 3 WHERE cell = 1", r"elites\.class is 3"),
        ("UPDATE elites SET niche = 1 WHERE cell = 1", r"elites\.niche is 1"),
        ("UPDATE elites SET cell = 3 WHERE cell = 1", r"elites\.cell is 3"),
        ("UPDATE cell_history SET cell = 3 WHERE cell = 1", r"cell_history\.cell is 3"),
        ("UPDATE improvements SET cell = 3 WHERE cell = 1", r"improvements\.cell is 3"),
        ("UPDATE pending SET thresholds = zeroblob(16)", "lists of other lengths"),
        ("UPDATE pending SET thresholds = zeroblob(17)", "buffer size must be a multiple"),
        ("UPDATE pending SET mothers = zeroblob(8)", "lists of other lengths"),
        ("UPDATE pending SET fathers = x'" + "ff" * 7 + "80" + "00" * 24 + "'", "has invalid births"),
        ("UPDATE pending SET thresholds = x'" + "ff" * 24 + "'", "thresholds that are no numbers"),
        ("UPDATE metrics SET row = '[]'", r"metrics\.row of batch 0 is \[\], not an object"),
        ("UPDATE metrics SET row = '{\"median\": NaN}'", "NaN is not a number"),
        ("UPDATE image_metrics SET name = 'nearest_real_hog_percentile', value = 101", r"101\.0 .* lies in 0\.\.100"),
        (
            "UPDATE elites SET png = zeroblob(3000000) WHERE cell = 2",
            r"class 2: its PNG has 3,000,000 bytes; .* at most 1,152",
        ),
        ("UPDATE genomes SET father = 9 WHERE birth = 2", "the genome of birth 2 is missing, or has parents"),
    ],
)
def test_rows_that_contradict_the_run_are_told(full: Path, statement: str, words: str) -> None:
    change(full, statement)
    with Store.open(full) as store, pytest.raises(StoreError, match=words):
        everything(store), store.ancestry([2])


def test_a_table_of_elites_reads_no_png(call: Call, folder: Path) -> None:
    change(folder, "UPDATE elites SET png = zeroblob(3000000)")
    assert call("show", "run").code == 0
    said = call("verify", "run")
    assert said.code == 1
    assert "its PNG has 3,000,000 bytes" in said.err


# --- the schema

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
SCHEMAS = {
    "endless view of elites": ("DROP TABLE elites", f"CREATE VIEW elites AS {ENDLESS} i AS cell FROM n"),
    "endless view of meta": ("DROP TABLE meta", f"CREATE VIEW meta AS {ENDLESS} i AS key, i AS value FROM n"),
    "endless view beside": (f"CREATE VIEW more AS {ENDLESS} i FROM n",),
    "virtual table": ("DROP TABLE metrics", "CREATE VIRTUAL TABLE metrics USING fts5(batch, seconds, row)"),
    "trigger": ("CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM elites; END",),
    "generated column": ("ALTER TABLE commits ADD COLUMN x AS (abs(-9223372036854775808))",),
    "index on an expression": ("CREATE INDEX i ON commits (abs(batch))",),
    "another table": ("CREATE TABLE more (x)",),
    "another column": ("ALTER TABLE commits ADD COLUMN x",),
    "a column less": ("ALTER TABLE commits DROP COLUMN drawn_after",),
    "a table less": ("DROP TABLE commits",),
    "an index less": ("DROP INDEX cell_history_by_birth",),
    "no constraint": ("DROP TABLE methods", "CREATE TABLE methods (birth INTEGER, method TEXT)"),
}


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_that_is_not_ours_is_refused(full: Path, name: str, write: bool) -> None:
    change(full, *SCHEMAS[name])
    with pytest.raises(StoreError, match=r"is not as evofool makes it|is missing|is not a run of evofool"):
        Store.open(full, write)


def test_a_schema_in_the_write_ahead_log_is_refused(full: Path) -> None:
    with closing(sqlite3.connect(full / FILE)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE VIEW more AS SELECT 1")
        database.commit()
        copied = shutil.copytree(full, full.with_name("copied"))
    assert (copied / f"{FILE}-wal").stat().st_size
    with pytest.raises(StoreError, match="the view 'more' is not as evofool makes it"):
        Store.open(copied)


@pytest.mark.parametrize(
    ("table", "words"),
    [("commits", "commits has more rows than fit into the file"), ("improvements", "a query does not end")],
)
def test_pages_that_name_one_another_end_a_query(
    full: Path, monkeypatch: pytest.MonkeyPatch, table: str, words: str
) -> None:
    """Six pages, each of which names the one below it 400 times: a scan would visit 400^6 rows."""
    monkeypatch.setattr("evofool.run.sqlite_file._LEAST_STEPS", 2_000_000)
    with closing(sqlite3.connect(full / FILE)) as database:
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        ((size,),) = database.execute("PRAGMA page_size").fetchall()
    data = bytearray((full / FILE).read_bytes())
    leaf, last = data[(root - 1) * size : root * size], len(data) // size
    below, pages = last + 1, [leaf]
    for _ in range(6):
        pages.append(fan(below, size))
        below += 1
    data[(root - 1) * size : root * size] = fan(below, size)
    data += b"".join(pages)
    data[28:32] = (len(data) // size).to_bytes(4)
    (full / FILE).write_bytes(data)
    with Store.open(full) as store, pytest.raises(StoreError, match=words):
        getattr(store, table)()


def fan(below: int, size: int) -> bytes:
    """An interior page of a table, all of whose children are the page `below`."""
    cells = 400
    offsets = [size - 5 * (k + 1) for k in range(cells)]
    page = bytearray(size)
    page[:12] = bytes([5, 0, 0]) + cells.to_bytes(2) + offsets[-1].to_bytes(2) + b"\0" + below.to_bytes(4)
    for k, offset in enumerate(offsets):
        page[12 + 2 * k : 14 + 2 * k] = offset.to_bytes(2)
        page[offset : offset + 5] = below.to_bytes(4) + b"\1"
    return bytes(page)


# --- no file

PLACES: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "link to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe"))[1],
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-journal"])
def test_what_is_no_file_is_refused_unopened(full: Path, name: str, place: str) -> None:
    (full / name).unlink(missing_ok=True)
    PLACES[place](full / name)
    with pytest.raises(EvofoolError, match=r"run\.db|cannot be read"):
        Store.open(full)


def test_a_journal_that_names_another_file_is_refused_and_that_file_stays(full: Path, tmp_path: Path) -> None:
    """SQLite would delete the file that a journal names as its super-journal."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (full / f"{FILE}-journal").write_bytes(bytes(512) + str(victim).encode() + bytes.fromhex("d9d505f920a163d7"))
    for write in (False, True):
        with pytest.raises(StoreError, match="names another file"):
            Store.open(full, write)
    assert victim.read_text() == "precious"


# --- verify


@pytest.fixture(scope="module")
def every_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run in free mode whose tables all have rows, as Store.save writes them."""
    folder = tmp_path_factory.mktemp("every") / "run"
    what = ["stop.evaluations=64", "stop.confidence=", "search.batch=16", "search.lag=1", 'search.mode="free"']
    what += ["search.keep=2", "search.random=0"]
    with Run.start(load("mnist-latent", what), folder) as run:
        run.advance()
        genome = run.encoding.pack(run.encoding.random(1, Key(3, 0))[0])
        zeros, cells = np.zeros(16, np.int64) - 1, np.zeros(10)
        run.store.save(
            replace(
                NOTHING,
                pending=[Pending(4, zeros, zeros, np.full((10, 2), -1), cells, 3)],
                quarantine=[QuarantineRow(7000, 4, -1, -1, genome, "it kills")],
                origins={0: GenomeId("other", 7)},
                methods={0: "apgd"},
                improvements=[ImprovementRow(1, 2, 3, 4.0, 5.0)],
            )
        )
        run.store.set_image_metrics([(0, ImageMetric("total_variation", 0.5, ""))])
    return folder


def flips() -> list[tuple[str, str]]:
    """Every column of every table; of meta every key."""
    columns = [(table, name) for table, names in COLUMNS.items() for name in names if table != "meta"]
    return [*columns, *(("meta", key) for key in ("format", "version", "digests", *RunMeta.model_fields))]


def test_a_sound_run_with_every_table_passes(every_table: Path) -> None:
    with StoredRun(every_table) as stored:
        assert verify(stored).faults == ()
        assert all(stored.store._rows(table, list(names)[:1]) for table, names in COLUMNS.items())


@pytest.mark.parametrize(("table", "name"), flips())
def test_verify_notices_another_value_in_any_column(every_table: Path, tmp_path: Path, table: str, name: str) -> None:
    """Values of the right type and within bounds wherever there are such."""
    folder = shutil.copytree(every_table, tmp_path / "run")
    with closing(sqlite3.connect(folder / FILE)) as database:
        if table == "meta":
            statement, old = "UPDATE meta SET value = ? WHERE key = ?", (name,)
            ((value,),) = database.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchall()
            spoilt = {"format": '"other"', "version": "5"}.get(name) or spoilt_json(value)
        else:
            key = ROW_KEYS.get(table, "rowid")
            last = f'SELECT "{name}", {key} FROM {table} ORDER BY {key} DESC LIMIT 1'
            ((value, row),) = database.execute(last).fetchall()
            statement, old = f'UPDATE {table} SET "{name}" = ? WHERE {key} = ?', (row,)
            spoilt = spoilt_value(name, value)
        assert spoilt != value
        assert database.execute(statement, (spoilt, *old)).rowcount == 1
        database.commit()
    try:
        with StoredRun(folder) as stored:
            faults = verify(stored).faults
    except EvofoolError:
        return
    assert any(table in fault or "class" in fault for fault in faults), faults


def test_verify_notices_that_the_optional_table_is_gone(every_table: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(every_table, tmp_path / "run")
    change(folder, "DROP TABLE runners_up")
    with StoredRun(folder) as stored:
        assert "the table runners_up is not as it was saved: a value or a row was changed" in verify(stored).faults


def spoilt_value(name: str, value: Any) -> Any:
    """Another value that the column may hold; of a blob with one bit flipped."""
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    if name == "verdict":
        return "recognised"
    if name == "name":
        return "nearest_real_hog_percentile"
    if name in ("row", "sha256"):
        return value.replace("0", "1", 1) if "0" in value else value.replace("1", "2", 1)
    if name == "switched":
        return 1 - value
    return "x" if value is None else value + "x" if isinstance(value, str) else value + 1


def spoilt_json(text: str) -> str:
    """The text of another value of the same kind."""
    value = json.loads(text)
    if isinstance(value, dict):
        key = min(value, default="x")
        value.setdefault(key, None)
        return json.dumps({**value, key: json.loads(spoilt_json(json.dumps(value[key])))}, sort_keys=True)
    if isinstance(value, list):
        return json.dumps([*value, "x"])
    return json.dumps("x" if value is None else value + "x" if isinstance(value, str) else value + 1)


def test_a_flipped_byte_in_metrics_does_not_end_a_run(call: Call, folder: Path) -> None:
    change(folder, """UPDATE metrics SET row = replace(row, '"median"', '"medIan"')""")
    said = call("verify", "run")
    assert (said.code, "the table metrics is not as it was saved" in said.err) == (1, True)
    said = call("run", "run", "--set", "stop.evaluations=96")
    assert said.code == 0, said.err
    assert "Warning: the curve is not drawn: row 0 has no median" in said.out
