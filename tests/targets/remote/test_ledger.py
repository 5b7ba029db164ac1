"""The ledger of a black box: no request is lost and no limit exceeded, with concurrent writers and killed processes."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import StoreError
from evofool.targets.remote.ledger import FILE, Check, Ledger

FORMAT = {"classifier": "c", "kind": "probabilities", "top_k": 3, "decimals": None}


def opened(folder: Path, **options: int) -> Ledger:
    ledger = Ledger(**options)
    ledger.store_in(folder)
    return ledger


def rows(*names: str) -> dict[bytes, np.ndarray]:
    return {name.encode(): np.array([ord(name[0]), 0.1, -1e30], np.float32) for name in names}


@pytest.mark.parametrize("kept", [False, True])
def test_stored_answers_are_restored_exactly_and_count_once(kept: bool, tmp_path: Path) -> None:
    ledger = opened(tmp_path) if kept else Ledger()
    ledger.keep(rows("a", "b"))
    ledger.keep(rows("b", "c"))
    found = ledger.known([b"a", b"c", b"d"], 3)
    assert found.keys() == {b"a", b"c"}
    assert all(np.array_equal(found[key], row) for key, row in rows("a", "c").items())
    assert found[b"a"].dtype == np.float32
    assert (ledger.answers, ledger.requests) == (3, 0)
    assert len(ledger.known([str(i).encode() for i in range(2000)], 3)) == 0


def test_counts_in_memory_are_added_to_the_file(tmp_path: Path) -> None:
    for requests, answers in ((2, 2), (4, 3), (6, 3)):
        ledger = Ledger()
        ledger.spend(None, 0, 0)
        ledger.keep(rows("a", "b") if requests < 4 else rows("b", "c"))
        ledger.store_in(tmp_path)
        ledger.store_in(tmp_path)
        ledger.spend(None, 0, 0)
        assert (ledger.requests, ledger.answers) == (requests, answers)
        assert len(ledger.known([b"a", b"b"], 3)) == 2
    with pytest.raises(StoreError, match=r"other/answers\.db: the answers are stored in .*answers\.db already"):
        ledger.store_in(tmp_path / "other")


def test_a_missing_folder_is_created(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "runs" / "a")
    ledger.spend(None, 0, 0)
    assert opened(tmp_path / "runs" / "a").requests == 1


def test_requests_counted_in_memory_can_exhaust_the_limit_of_the_file(tmp_path: Path) -> None:
    first, second = Ledger(), Ledger()
    for ledger in (first, second):
        assert [ledger.spend(3, 0, 0) for _ in range(2)] == [0, 0]
        ledger.store_in(tmp_path)
    assert first.requests == second.requests == 4
    assert first.spend(3, 0, 0) is second.spend(3, 0, 0) is opened(tmp_path).spend(4, 0, 0) is None
    assert opened(tmp_path).requests == 4


def test_a_recorded_request_that_was_not_sent_is_refunded(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert [ledger.spend(2, 0, 0) for _ in range(3)] == [0, 0, None]
    ledger.refund()
    assert [ledger.spend(2, 0, 0) for _ in range(2)] == [0, None]


@pytest.mark.slow
def test_a_request_is_on_the_disk_before_it_is_sent(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from evofool.targets.remote.ledger import Ledger
ledger = Ledger()
ledger.store_in(Path({str(tmp_path)!r}))
for _ in range(3):
    assert ledger.spend(5, 0, 0) is not None
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 9
    ledger = opened(tmp_path)
    assert ledger.requests == 3
    assert [ledger.spend(5, 0, 0) for _ in range(3)] == [0, 0, None]


def test_the_limit_is_kept_by_concurrent_threads_and_connections(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def spend(number: int) -> int:
        start.wait(20)  # all create the file at once
        ledger = shared if number % 2 else opened(tmp_path)
        return sum(ledger.spend(37, 0, 0) is not None for _ in range(12))

    shared = Ledger()
    with ThreadPoolExecutor(6) as pool:
        shared.store_in(tmp_path)
        assert sum(pool.map(spend, range(6))) == 37
    assert shared.requests == 37


def test_the_rate_assigns_times_and_survives_a_clock_that_is_set_back(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert [ledger.spend(None, 2, now) for now in (100, 100, 101, 110)] == [100, 102, 104, 110]
    assert opened(tmp_path).spend(None, 2, 110) == 112
    assert ledger.spend(None, 0, 50) == 50, "without a rate there is no waiting"
    ledger.spend(None, 2, 1e9)
    assert ledger.spend(None, 2, 200) == 200
    assert ledger.spend(None, 2, 199.99) == 202, "another thread read its clock slightly earlier"


def test_a_rate_of_less_than_one_an_hour_is_kept(tmp_path: Path) -> None:
    day = 86_400.0
    ledger = opened(tmp_path)
    assert [ledger.spend(None, day, now) for now in (1e9, 1e9, 1e9 + 5)] == [1e9, 1e9 + day, 1e9 + 2 * day]
    assert opened(tmp_path).spend(None, day, 1e9 + 6) == 1e9 + 3 * day


def test_the_oldest_answers_go_first_and_stay_counted(tmp_path: Path) -> None:
    for ledger in (Ledger(cache_bytes=5 * 12), opened(tmp_path, cache_bytes=5 * 12)):
        for name in "abcdefgh":
            ledger.keep(rows(name))
        assert ledger.known([name.encode() for name in "abcdefgh"], 3).keys() == {name.encode() for name in "defgh"}
        assert ledger.answers == 8
        ledger.keep(rows("a"))
        assert ledger.answers == 9, "an image that is sent again is counted again"


def test_answers_dropped_from_memory_stay_counted_in_the_file(tmp_path: Path) -> None:
    opened(tmp_path).keep(rows("g"))
    ledger = Ledger(cache_bytes=2 * 12)
    for name in "fgh":
        ledger.keep(rows(name))
    ledger.store_in(tmp_path)
    assert ledger.answers == 3


def test_the_response_format_that_was_stored_first_is_kept(tmp_path: Path) -> None:
    ledger = Ledger()
    assert ledger.response_format() is None
    assert ledger.response_format(FORMAT) == FORMAT
    assert ledger.response_format({**FORMAT, "decimals": 3}) == FORMAT
    ledger.store_in(tmp_path)
    assert opened(tmp_path).response_format() == FORMAT
    for key, other in (("classifier", "d"), ("kind", "top"), ("top_k", 2)):
        foreign = Ledger()
        foreign.response_format({**FORMAT, key: other})
        foreign.spend(None, 0, 0)
        with pytest.raises(
            StoreError,
            match=rf"answers\.db has the answers of another target: {key} is {FORMAT[key]} there and {other} here",
        ):
            foreign.store_in(tmp_path)
        assert (foreign.requests, foreign.path) == (1, None), "it continues in memory"
    assert opened(tmp_path).requests == 0


def test_after_a_check_that_did_not_agree_answers_since_the_one_before_are_dropped(tmp_path: Path) -> None:
    ledger, other = opened(tmp_path), opened(tmp_path)
    ledger.keep(rows("a"))
    first = ledger.newest()
    ledger.keep(rows("b"))  # while the check is in flight
    ledger.add_check(Check(5, 4, 0.0, 0.0, True, first))
    newest = other.newest()
    ledger.add_check(Check(60, 4, 9.0, 1.0, False, ledger.newest()))
    assert ledger.known([b"a", b"b"], 3).keys() == {b"a"}
    other.add_check(Check(55, 4, 0.0, 0.0, True, newest))  # of another process, for which row 2 was still that of "b"
    ledger.keep(rows("c"))
    ledger.add_check(Check(90, 4, 9.0, 1.0, False, ledger.newest()))
    assert ledger.known([b"a", b"b", b"c"], 3).keys() == {b"a"}
    assert [check.newest for check in ledger.checks()] == [1, 1, 1, 1]


def damaged(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
    db.close()


def test_a_file_that_is_not_a_ledger_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"My diary, and no database at all. " * 200)
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=r"answers\.db is not a ledger of requests and answers, or is damaged \(file is not a"
    ):
        opened(tmp_path)
    assert path.read_bytes() == before
    path.unlink()
    damaged(path, "CREATE TABLE bill (id INTEGER PRIMARY KEY, requests INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="it is another database"):
        opened(tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    with pytest.raises(StoreError, match=r"answers\.db: the ledger of requests and answers cannot be opened"):
        opened(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM bill",
        "DROP TABLE bill",
        "DROP TABLE answers",
        "UPDATE bill SET reading = '{'",
        "UPDATE bill SET reading = '[]'",
        'UPDATE bill SET reading = \'{"kind": "top", "top_k": "3", "decimals": 1}\'',
        "UPDATE answers SET logits = x'00'",
    ],
)
def test_a_damaged_ledger_is_named(statement: str, tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.response_format(FORMAT)
    ledger.keep(rows("a"))
    del ledger
    damaged(tmp_path / FILE, statement)

    def use() -> None:
        again = opened(tmp_path)
        again.response_format()
        again.known([b"a"], 3)

    with pytest.raises(StoreError, match=r"answers\.db"):
        use()


@pytest.mark.parametrize("how", ["FAIL", "ROLLBACK"])  # SQLite may have rolled back by itself
def test_a_ledger_that_cannot_be_written_is_an_error_before_anything_is_sent(how: str, tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    damaged(tmp_path / FILE, f"CREATE TRIGGER full BEFORE UPDATE ON bill BEGIN SELECT RAISE({how}, 'disk is full'); END")
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"cannot be used \(disk is full\); its contents are safe, but nothing more is sent"
        ):
            ledger.spend(None, 0, 0)
    assert ledger.requests == 0
