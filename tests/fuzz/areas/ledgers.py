"""The ledger of a black box: its file's bytes, and any value in its columns."""

import sqlite3
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

from evofool.targets.remote.ledger import FILE, Check, Ledger, Probe
from tests.fuzz.mutations import apply_bytes, as_json, byte_edits, page_edits, sql_values, values
from tests.fuzz.room import Area, Fault, Room

FORMAT = {"classifier": "c", "kind": "logits", "top_k": 3, "decimals": None, "described": {"missing": "x"}}
COLUMNS = {
    "bill": ("id", "requests", "answers", "free_at", "entered_at", "reading"),
    "answers": ("id", "image", "logits"),
    "probes": ("id", "first", "png", "image", "logits"),
    "checks": ("id", "requests", "images", "newest", "size", "share", "agreed"),
}
STATEMENTS = (
    "DROP TABLE answers", "DROP TABLE bill", "DELETE FROM bill", "PRAGMA user_version = 9", "PRAGMA application_id = 1",
    "DROP TABLE answers; CREATE VIEW answers AS SELECT 1 id, x'00' image, x'00' logits",
    "DROP TABLE bill; CREATE VIEW bill AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x id, "
    "x requests, x answers, 0.0 free_at, 0.0 entered_at, NULL reading FROM n WHERE x < 0",
    "CREATE TRIGGER t BEFORE UPDATE ON bill BEGIN SELECT RAISE(ABORT, 'no' || char(27) || '[2J'); END",
    "CREATE TRIGGER t AFTER UPDATE ON bill BEGIN DELETE FROM answers; DELETE FROM bill; END",
    "CREATE TRIGGER t AFTER INSERT ON answers BEGIN INSERT INTO answers SELECT NULL, randomblob(8), x'' FROM answers; END",
    "CREATE TABLE more (x)",
)  # fmt: skip


@cache
def sample() -> bytes:
    """A ledger with a format and three answers."""
    with TemporaryDirectory() as folder:
        ledger = Ledger()
        ledger.store_in(Path(folder))
        ledger.response_format(FORMAT)
        ledger.keep({bytes([k]) * 32: np.arange(3, dtype=np.float32) for k in range(3)})
        ledger.spend(None, 0.0, 1e9)
        ledger.keep_probes([Probe(b"p" * 32, b"png", np.ones(3, np.float32), True)], 2)
        ledger.add_check(Check(1, 1, 0.5, 0.25, True, 3))
        del ledger
        path = Path(folder) / FILE
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA journal_mode = DELETE")
        db.close()
        return path.read_bytes()


def enter(case: tuple[Any, ...], room: Room) -> None:
    how, *given = case
    path = room.work / FILE
    path.write_bytes(apply_bytes(sample(), given[0]) if how == "bytes" else sample())
    if how != "bytes":
        _change(path, how, *given)
    ledger = Ledger()
    ledger.keep({b"9" * 32: np.ones(3, np.float32)})
    ledger.store_in(room.work)
    ledger.response_format()
    ledger.response_format({**FORMAT, "described": {}})
    ledger.known([bytes([k]) * 32 for k in range(4)], 3)
    at = ledger.spend(10, 0.5, 1e9)
    if at is not None and not (isinstance(at, float | int) and at == at):
        raise Fault(f"a request may be sent at {at!r}")
    ledger.refund()
    ledger.probes()
    ledger.checks()
    ledger.add_check(Check(2, 2, 0.5, 0.25, False, ledger.newest()))
    ledger.keep({b"8" * 32: np.ones(3, np.float32)})
    if not isinstance(ledger.requests + ledger.answers, int):
        raise Fault("the counts are not whole numbers")


def _change(path: Path, how: str, *given: Any) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        if how == "statement":
            db.executescript(given[0])
        else:
            table, column, value = given
            db.execute("PRAGMA ignore_check_constraints = ON")
            if column == "reading" and not isinstance(value, bytes | str):
                value = as_json(value)
            db.execute(f"UPDATE {table} SET {column} = ?", (value,))
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        pass  # this value cannot be in a file
    finally:
        db.close()


_COLUMNS = st.sampled_from([(table, column) for table, columns in COLUMNS.items() for column in columns])
CASES = st.one_of(
    st.tuples(st.just("bytes"), byte_edits()),
    st.tuples(st.just("bytes"), page_edits()),
    st.builds(lambda column, value: ("value", *column, value), _COLUMNS, sql_values()),
    st.builds(
        lambda key, value: ("value", "bill", "reading", {**FORMAT, key: value}),
        st.sampled_from(sorted(FORMAT)), values(),
    ),
    st.tuples(st.just("value"), st.just("bill"), st.just("reading"), values()),
    st.tuples(st.just("statement"), st.sampled_from(STATEMENTS)),
)  # fmt: skip
AREA = Area("ledgers", CASES, enter, 5, prepare=sample)
