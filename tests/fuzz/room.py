"""One case in a folder of its own: what may happen there, and what is a fault."""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from evofool.errors import EvofoolError
from genomes import GenomeError

OURS = (EvofoolError, GenomeError)
"""The errors that a user can cause."""

BAD_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal may act on: control characters but tab and newline, bidirectional controls, halves of characters."""

_WRITES = {"os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.link": 2, "os.symlink": 2}
"""Audit events that change the file system, and how many of their first arguments are paths."""


class Fault(AssertionError):
    """The code did what it must not do. The message begins with a line that is the same for the same cause."""


@dataclass(frozen=True)
class Area:
    """A kind of input. enter(case, room) writes the case to the room and gives it to the code that reads it.

    cases: plain data (numbers, texts, bytes, lists), so that a failing one can be printed and pasted into a test. weight:
    its share of all examples. prepare: makes what all cases need, once for each process; warm: compiles what they use. line:
    writes a case to the room and gives the arguments of a command that reads it, None where there is none.
    """

    name: str
    cases: st.SearchStrategy[Any]
    enter: Callable[[Any, "Room"], None]
    weight: int = 1
    prepare: Callable[[], object] = lambda: None
    warm: Callable[[], object] = lambda: None
    line: "Callable[[Any, Room], list[str | Path] | None]" = lambda case, room: None


@dataclass
class Room:
    """The folder of one case: the files that the code reads, which must not change, and a folder in which it may write."""

    folder: Path
    given: dict[Path, bytes] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """The current folder of the code under test."""
        return self.folder / "work"

    def give(self, name: str, content: bytes, fixed: bool = True) -> Path:
        """A file for the code to read; fixed: it may not be changed."""
        path = self.folder / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if fixed:
            self.given[path] = content
        return path

    def call(self, *arguments: str | Path) -> int:
        """Run a command in this process, and check what it prints. Its exit status."""
        return check_output(*_command(*arguments))

    def check(self) -> None:
        """Fault for a given file that has changed."""
        for path, content in self.given.items():
            if not path.is_file() or path.read_bytes() != content:
                raise Fault(f"a file that was only to be read has changed: {path.name}")


def check_output(status: int, output: str) -> int:
    """Fault for an exit status that is not ours, for a bug that is admitted, and for characters that act on a terminal."""
    if bad := BAD_CHARACTERS.search(output):
        line = next(line for line in output.split("\n") if BAD_CHARACTERS.search(line))
        raise Fault(f"a raw {bad[0]!r} is printed\n{line!r:.2000}")
    for sign in (
        "This is a bug",
        "Traceback (most recent call last)",
        "evofool: out of memory",
        "evaluation: out of memory",
    ):
        if sign in output:
            line = next(line for line in output.split("\n") if sign in line)
            raise Fault(f"a fault is admitted: {line[:150]}\n{output[-3000:]}")
    if status not in (0, 1, 2):
        raise Fault(f"exit status {status}\n{output[-2000:]}")
    return status


def attempt(area: Area, case: Any) -> None:
    """Give one case to the code; Fault if the code breaks the rules (see docs of this package)."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory()))
    room = Room(folder)
    room.work.mkdir()
    before, temporary = Path.cwd(), tempfile.tempdir
    os.chdir(room.work)
    tempfile.tempdir = str(folder)
    try:
        with _watched(folder) as outside:
            try:
                area.enter(case, room)
            except OURS:
                pass
            except Fault:
                raise
            except Exception as error:
                raise Fault(f"{where(error)}\n{traceback.format_exc()[-4000:]}") from None
        if outside:
            raise Fault(f"it writes outside its folder\n{outside[0]}")
        room.check()
    finally:
        os.chdir(before)
        tempfile.tempdir = temporary
        shutil.rmtree(folder, ignore_errors=True)


def where(error: BaseException) -> str:
    """The type of an error and the innermost line of ours: the same for the same cause."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if re.search(r"/(evofool|genomes)/", frame.filename)]
    at = (ours or frames)[-1]
    file = re.sub(r".*/(?=(evofool|genomes|tests)/)", "", at.filename)
    return f"{type(error).__name__} in {file}, {at.name}: {at.line}"


def memory() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _command(*arguments: str | Path) -> tuple[int, str]:
    """(exit status, all output) of a command in this process. An error that is not the user's passes through."""
    from evofool.cli.app import main

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    before, argv = os.environ.get("EVOFOOL_TRACEBACK"), sys.argv
    os.environ["EVOFOOL_TRACEBACK"] = "1"
    sys.argv = ["evofool", *map(str, arguments)]
    status = 0
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            try:
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = argv
        if before is None:
            del os.environ["EVOFOOL_TRACEBACK"]
        else:
            os.environ["EVOFOOL_TRACEBACK"] = before
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "replace"))  # type: ignore[attr-defined]
    return status, "\n".join(texts)


_allowed: str | None = None
_outside: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _allowed is None:
        return
    paths: tuple[Any, ...] = ()
    if event == "open":
        path, mode, flags = arguments
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (mode is None and flags & (os.O_WRONLY | os.O_RDWR))
        paths = (path,) if writes else ()
    elif event in _WRITES:
        paths = arguments[: _WRITES[event]]
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike) and not _is_inside(os.path.abspath(os.fsdecode(path))):
            _outside.append(f"{event} {os.fsdecode(path)}")


def _is_inside(path: str) -> bool:
    return path.startswith((f"{_allowed}/", "/dev/null")) or "__pycache__" in path


_installed = False


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    """A list of what is written outside the folder meanwhile. An audit hook stays for good, so one serves all."""
    global _allowed, _installed
    if not _installed:
        sys.addaudithook(_audit)
        _installed = True
    _outside.clear()
    _allowed = str(folder)
    try:
        yield _outside
    finally:
        _allowed = None
