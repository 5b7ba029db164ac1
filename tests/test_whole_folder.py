"""Folders that are written whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from evofool.errors import StoreError
from evofool.whole_folder import whole_folder

MARK = "mark.json"


def write(folder: Path, *names: str) -> None:
    with whole_folder(folder, MARK) as draft:
        for name in names:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(name)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b", "one", "two/three")
    write(tmp_path / "a" / "b", "four")
    assert files(tmp_path / "a" / "b") == {"four", MARK}
    assert os.listdir(tmp_path / "a") == ["b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, StoreError])
def test_an_interruption_leaves_the_earlier_one(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "a", "one")

    def fail() -> None:
        with whole_folder(tmp_path / "a", MARK) as draft:
            (draft / "two").write_text("two")
            raise error

    with pytest.raises((error, StoreError)):
        fail()
    assert files(tmp_path / "a") == {"one", MARK}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_an_interruption_of_the_exchange_leaves_one_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, done: bool, error: type[BaseException]
) -> None:
    """The earlier folder is moved away, then the new one takes its place: each may be interrupted before or after it."""
    write(tmp_path / "a", "one")
    rename, calls = Path.rename, list[Path]()

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) != which + 1:
            return rename(self, target)
        if done:
            rename(self, target)
        raise error

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises((error, StoreError)):
        write(tmp_path / "a", "two")
    assert files(tmp_path / "a") == {"two" if which == 1 and done else "one", MARK}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("mark", [None, "", "[]", "{}", '{"format": "evofool.folder", "files": 3}', '{"files": ["x"]}'])
def test_a_folder_of_others_is_not_touched(tmp_path: Path, mark: str | None) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("theirs")
    if mark is not None:
        (tmp_path / "a" / MARK).write_text(mark)
    with pytest.raises(StoreError, match="is not empty"):
        write(tmp_path / "a", "one")
    assert (tmp_path / "a" / "x").read_text() == "theirs"


def test_a_file_that_was_added_is_not_deleted(tmp_path: Path) -> None:
    """Also a hidden one, a link, and one that appears while the new folder is written."""
    write(tmp_path / "a", "one")
    for name in ("two", ".hidden", "one-more/three"):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_text("theirs")
        with pytest.raises(StoreError, match="not of an earlier copy"):
            write(tmp_path / "a", "one")
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="has link"):
        write(tmp_path / "a", "one")
    (tmp_path / "a" / "link").unlink()
    with pytest.raises(StoreError, match="has late"), whole_folder(tmp_path / "a", MARK):
        (tmp_path / "a" / "late").write_text("theirs")
    assert (tmp_path / "a" / "late").read_text() == "theirs"


def test_the_list_of_files_is_complete(tmp_path: Path) -> None:
    write(tmp_path / "a", "one", "two/three")
    assert set(json.loads((tmp_path / "a" / MARK).read_text())["files"]) == files(tmp_path / "a")
