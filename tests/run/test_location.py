"""Runs on network file systems, and in folders that are deleted."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from evofool.errors import StoreError
from evofool.run import location
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from tests.run.cases import recipe
from tests.synthetic import fake


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as one on a network file system."""
    folder = tmp_path / "share"
    folder.mkdir()
    local = location.network_file_system
    monkeypatch.setattr(
        "evofool.run.store.network_file_system",
        lambda path: "nfs4 at /share" if path.resolve().is_relative_to(folder) else local(path),
    )
    monkeypatch.setattr(
        location, "network_file_system", lambda path: "nfs4 at /share" if path.resolve().is_relative_to(folder) else None
    )
    return folder


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """A run on a local disk."""
    with Run.start(recipe(stop={"evaluations": 160}), tmp_path / "run", fake()) as run:
        run.advance()
    return tmp_path / "run"


def test_a_run_on_a_network_file_system_is_read_from_a_copy(share: Path, ended: Path) -> None:
    shutil.copytree(ended, share / "run")
    before = sorted((path.name, path.read_bytes()) for path in (share / "run").iterdir())
    with StoredRun(share / "run") as stored, StoredRun(ended) as original:
        assert stored.store.path == share / "run" / FILE
        assert stored.store.elites() == original.store.elites()
        copy = stored.store._copy
        assert copy is not None
        assert Path(copy.name).is_dir()
    assert not Path(copy.name).exists()
    with StoredRun(share / "run") as stored:
        verify(stored, fake())
    assert sorted((path.name, path.read_bytes()) for path in (share / "run").iterdir()) == before


def test_a_copy_of_a_run_that_goes_on_is_read_with_its_log(share: Path, tmp_path: Path) -> None:
    with Run.start(recipe(stop={"evaluations": 160}), tmp_path / "run", fake()) as run:
        run.advance()
        (share / "run").mkdir()
        for name in (FILE, f"{FILE}-wal"):
            shutil.copyfile(tmp_path / "run" / name, share / "run" / name)
    with sqlite3.connect((share / "run" / FILE).as_uri() + "?mode=ro&immutable=1", uri=True) as alone:
        assert alone.execute("SELECT count(*) FROM elites").fetchone() == (0,), "without its log it has no elites"
    with StoredRun(share / "run") as stored:
        assert len(stored.store.elites()) > 0


def test_writing_on_a_network_file_system_is_refused_and_the_message_says_what_to_do(share: Path, ended: Path) -> None:
    with pytest.raises(StoreError, match=r"nfs4 at /share.*local disk \(--out\).*copy it here"):
        Run.start(recipe(), share / "new", fake())
    assert list((share / "new").iterdir()) == []
    shutil.copytree(ended, share / "run")
    with pytest.raises(StoreError, match=r"nfs4 at /share"):
        Run.resume(share / "run", target=fake())
    with pytest.raises(StoreError, match=r"nfs4 at /share"):
        Store.open(share / "run", write=True)


@pytest.mark.parametrize(
    ("mounts", "folder", "found"),
    [
        ("server:/x /share nfs4 rw 0 0\n/dev/sda / ext4 rw 0 0\n", "/share/a/b", "nfs4 at /share"),
        ("/dev/sda / ext4 rw 0 0\nserver:/x /share nfs4 rw 0 0\n", "/shared/a", None),
        ("server:/x / nfs rw 0 0\n/dev/sda /tmp ext4 rw 0 0\n", "/tmp/a", None),
        ("systemd-1 /data autofs rw 0 0\nserver:/d /data nfs4 rw 0 0\n/dev/sda / ext4 rw 0 0\n", "/data/a", "nfs4 at /data"),
        ("", "/tmp/a", None),
    ],
)
def test_the_innermost_mount_decides(
    mounts: str, folder: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **_: mounts)
    assert location.network_file_system(Path(folder)) == found


def test_a_run_in_the_package_cache_of_ray_is_warned_about(tmp_path: Path) -> None:
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123" / "runs" / "one"
    with Run.start(recipe(), folder, fake()) as run:
        assert any("Ray's package cache" in warning and "--out" in warning for warning in run.warnings)
    assert location.temporary_note(tmp_path / "runs") is None


def test_a_copy_that_changes_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, copied = tmp_path / FILE, []
    database.write_bytes(b"old")

    def copyfile(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())
        copied.append(source)
        if len(copied) in busy:
            source.write_bytes(b"newer" * len(copied))

    monkeypatch.setattr(location.shutil, "copyfile", copyfile)
    busy = {1, 2}
    with location.local_copy(database) as folder:
        assert (Path(folder) / FILE).read_bytes() == database.read_bytes() == b"newernewer"
    assert len(copied) == 3
    copied.clear()
    busy = set(range(100))
    with pytest.raises(StoreError, match="is being written on another machine"):
        location.local_copy(database)
