"""A copy of a folder is kept up to date by what has changed in it."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from evofool.cluster.folder_changes import FolderWatcher, apply_changes
from evofool.cluster.folder_transfer import read_files
from evofool.errors import StoreError

BLOCK = 1 << 16


def test_only_blocks_that_differ_are_sent(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    watcher = FolderWatcher(source)
    assert watcher.changes() is None, "there is nothing yet"
    content = np.random.default_rng(0).bytes(10 * BLOCK + 7)
    (source / "run.db").write_bytes(content)
    (source / "run.lock").write_text("")
    first = watcher.changes()
    assert first is not None
    assert first.keys() == {"run.db"}
    assert sum(map(len, first["run.db"][1].values())) == len(content)
    apply_changes(first, copy)
    assert watcher.changes() is None
    content = content[: 3 * BLOCK] + b"!" + content[3 * BLOCK + 1 :] + b"more"
    (source / "run.db").write_bytes(content)
    second = watcher.changes()
    assert second is not None
    assert {number: len(block) for number, block in second["run.db"][1].items()} == {3: BLOCK, 10: 11}
    apply_changes(second, copy)
    assert read_files(copy) == {"run.db": content}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]


def test_a_copy_follows_any_sequence_of_changes(tmp_path: Path) -> None:
    """Files appear, grow, shrink, are rewritten and vanish, in folders of their own too."""
    source, copy, rng = tmp_path / "source", tmp_path / "copy", np.random.default_rng(1)
    source.mkdir()
    watcher = FolderWatcher(source)
    names = ["a", "b", "sub/c", "sub/deep/d"]
    for _ in range(60):
        path = source / names[rng.integers(4)]
        path.parent.mkdir(parents=True, exist_ok=True)
        kind, size = rng.integers(5), int(rng.integers(4 * BLOCK))
        if kind == 0:
            path.unlink(missing_ok=True)
        elif kind == 1 or not path.exists():
            path.write_bytes(rng.bytes(size))
        elif kind == 2:
            path.write_bytes(path.read_bytes() + rng.bytes(size // 4))
        elif kind == 3:
            path.write_bytes(path.read_bytes()[:size])
        else:
            path.write_bytes(rng.bytes(path.stat().st_size))
        if (changes := watcher.changes()) is not None:
            apply_changes(changes, copy)
        assert read_files(copy) == read_files(source)


def test_a_database_in_use_is_copied_as_of_its_last_commit(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    watcher = FolderWatcher(source)
    database = sqlite3.connect(source / "run.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t (n, filler)")
    for n in range(8):  # past the size at which SQLite folds its log into the file
        database.execute("BEGIN")
        database.executemany("INSERT INTO t VALUES (?, zeroblob(4000))", [(n,)] * 200)
        database.execute("COMMIT")
        changes = watcher.changes()
        assert changes is not None
        apply_changes(changes, copy)
        if n % 4 == 3:
            reader = sqlite3.connect(copy / "run.db")
            assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert reader.execute("SELECT max(n), count(*) FROM t").fetchall() == [(n, 200 * (n + 1))]
            reader.close()
            # The reader has folded the log of the copy into it; a copy that is only kept is not opened for writing.
            for path in copy.iterdir():
                path.unlink()
            watcher = FolderWatcher(source)
            apply_changes(watcher.changes() or {}, copy)
    database.close()


def test_a_name_that_leads_out_of_the_copy_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    apply_changes({"run.db": (1, {0: b"1"})}, copy)
    for name in ("../out", "/etc/out", "sub\\..\\out", "C:out"):
        with pytest.raises(StoreError, match="does not lead to a file below"):
            apply_changes({"run.db": (1, {0: b"2"}), name: (1, {0: b"x"})}, copy)
    assert read_files(copy) == {"run.db": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
