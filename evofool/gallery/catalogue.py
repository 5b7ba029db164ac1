"""What the gallery shows: the runs, benchmarks and explanations below some folders, each with an id for its address."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evofool.errors import EvofoolError
from evofool.explain.folder import PAGE
from evofool.pages.html_page import files_of
from evofool.run.reader import FILE
from evofool.run.store import Store

Kind = Literal["run", "bench", "explanation"]

_KINDS: tuple[Kind, ...] = ("run", "bench", "explanation")
REPORT = "report.html"
COPY = "evofool-gallery.json"
"""A file in the folder of a static copy, which is none of what the gallery shows."""
_DEEPEST = 6  # folders below a root
_MOST = 2000  # entries
_LARGEST_PAGE = 1 << 24  # bytes that are read to know a page


@dataclass(frozen=True)
class Entry:
    """A folder that the gallery shows. id: for its address. name: its path below the root that it was found in.

    fault: why a run cannot be read, or "".
    """

    kind: Kind
    id: str
    folder: Path
    name: str
    fault: str = ""


class Catalogue:
    """The entries below some folders, found anew by each `scan`. No path is ever made of a request: only ids are looked up.

    A run has the id of its file, so that its address stays the same when it is moved; a copy of it has a number added.
    Benchmarks and explanations have ids from their paths. Links to other folders are not followed, and nothing inside the
    folder of a benchmark is an entry.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = [root.resolve() for root in roots]
        self._ids: dict[Path, tuple[tuple[int, int], str, str]] = {}  # of runs: the file's state, id, fault
        self.left_out = 0
        self._entries: dict[tuple[str, str], Entry] = {}

    def scan(self) -> list[Entry]:
        """All entries, runs first, then by path; at most 2,000. left_out: how many there are beyond these."""
        found: dict[tuple[str, str], Entry] = {}
        order = sorted(self._folders(), key=lambda each: (_KINDS.index(each[0]), str(each[1])))
        for kind, folder, name in order:
            own, fault = self._run_id(folder) if kind == "run" else (_hashed(folder), "")
            unique, number = own, 1
            while (kind, unique) in found:
                number += 1
                unique = f"{own}-{number}"
            found[kind, unique] = Entry(kind, unique, folder, name, fault)
            if len(found) == _MOST:
                break
        self._entries, self.left_out = found, len(order) - len(found)
        return list(found.values())

    def find(self, kind: Kind, entry_id: str) -> Entry | None:
        """The entry with this id; None if there is none."""
        if (kind, entry_id) not in self._entries:
            self.scan()
        return self._entries.get((kind, entry_id))

    def _folders(self) -> Iterator[tuple[Kind, Path, str]]:
        seen: set[Path] = set()
        for root in self.roots:
            for folder, inside, files in os.walk(root, followlinks=False):
                path = Path(folder)
                inside[:] = sorted(name for name in inside if not name.startswith("."))
                depth = len(path.relative_to(root).parts)
                if depth >= _DEEPEST:
                    inside.clear()
                if path in seen:
                    inside.clear()
                    continue
                seen.add(path)
                if COPY in files:
                    inside.clear()
                    continue
                if kind := _kind(path, files):
                    if kind == "bench":
                        inside.clear()
                    yield kind, path, _name(root, path)

    def _run_id(self, folder: Path) -> tuple[str, str]:
        """The id in a run's file, and why it cannot be read; then the id is from its path."""
        try:
            state = (folder / FILE).stat()
            stamp = state.st_ino, state.st_mtime_ns
        except OSError as error:
            return _hashed(folder), f"{folder.name} cannot be read ({error.strerror})"
        if folder not in self._ids or self._ids[folder][0] != stamp:
            try:
                with Store.open(folder) as store:
                    own, fault = store.meta().id, ""
            except EvofoolError as error:
                own, fault = "", str(error)
            if not (8 <= len(own) <= 64 and own.isascii() and own.isalnum()):
                own = _hashed(folder)
            self._ids[folder] = stamp, own, fault
        return self._ids[folder][1:]


def _kind(folder: Path, files: Sequence[str]) -> Kind | None:
    if FILE in files and not (folder / FILE).is_symlink():
        return "run"
    if REPORT in files and "summary.json" in files:
        return "bench"
    page = folder / PAGE
    if PAGE in files and not page.is_symlink() and _is_explanation(page):
        return "explanation"
    return None


def _is_explanation(page: Path) -> bool:
    try:
        if page.stat().st_size > _LARGEST_PAGE:
            return False
        with page.open("rb") as file:
            head = file.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        return False
    return files_of(head) is not None


def _name(root: Path, path: Path) -> str:
    inside = path.relative_to(root).as_posix()
    return root.name if inside == "." else inside


def _hashed(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
