"""Files appear whole or not at all."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evofool.errors import StoreError
from evofool.whole_file import is_temporary, whole_file, write_whole


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError, StoreError])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_error_in_the_middle_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, error: type[BaseException], before: bytes | None
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    expected = StoreError if issubclass(error, OSError) else error

    def write_half() -> None:
        with whole_file(path) as draft:
            draft.write_bytes(b"half of th")
            assert path.exists() == (before is not None)
            raise error("a crash")

    with pytest.raises(expected):
        write_half()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({} if before is None else {"file": before})


def test_only_a_name_of_its_own_is_temporary(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as draft:
        assert is_temporary(draft)
        assert draft.parent == tmp_path
        assert list(tmp_path.iterdir()) == [draft]
    assert not is_temporary(tmp_path / "file")
    assert not is_temporary(tmp_path / "file.new")


def test_the_name_can_be_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


def test_writers_at_once_do_not_mix_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as one, whole_file(path) as other:
        one.write_text("one")
        other.write_text("other")
        assert not path.exists()
    assert path.read_text() == "one", "the last to end"
    contents = [bytes([k]) * 100_000 for k in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for seen in threads.map(lambda content: (write_whole(path, content), path.read_bytes())[1], contents * 8):
            assert seen in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("umask")
def test_permissions_are_those_of_an_ordinary_write(tmp_path: Path) -> None:
    path, plain = tmp_path / "file", tmp_path / "plain"
    plain.write_bytes(b"")
    write_whole(path, b"")
    assert mode(path) == mode(plain) == 0o640
    path.chmod(0o604)
    write_whole(path, b"again")
    assert (mode(path), path.read_bytes()) == (0o604, b"again")


def test_a_file_that_may_not_be_written_is_refused_as_by_an_ordinary_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may write it
        write_whole(path, b"new")
    else:
        with pytest.raises(StoreError, match=r"Permission denied"):
            write_whole(path, b"new")
    assert (mode(path), [p.name for p in tmp_path.iterdir()]) == (0o444, ["file"])


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "elsewhere" / "file"
    link.symlink_to(file)
    for text in ("new", "newer"):
        write_whole(link, text)
        assert link.is_symlink()
        assert (file.read_text(), [p.name for p in tmp_path.iterdir() if is_temporary(p)]) == (text, [])


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(pipe.read_bytes)
        write_whole(pipe, b"content")
        assert read.result() == b"content"
    assert pipe.is_fifo()


def test_the_error_names_the_file_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below, further = tmp_path / "file" / "below", tmp_path / "file" / "below" / "further"
    for path, reason in ((below, "Not a directory"), (further, "Not a directory"), (tmp_path, "Is a directory")):
        with pytest.raises(StoreError, match=rf"^{path} cannot be written \({reason}\)$"):
            write_whole(path, b"")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
