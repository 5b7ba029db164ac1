"""What has changed in a folder since the last look, in blocks of its files, so that a large file that grows costs little.

A job in a temporary folder sends its files to the driver like this whenever it has saved. Only plain values travel.
"""

import os
import shutil
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from evofool.cluster.folder_transfer import files_below, path_below, rebuild_folder
from evofool.errors import StoreError

_BLOCK = 1 << 16  # bytes
_RECENT = 100_000_000  # ns, more than the resolution of a file's time

Changes = Mapping[str, tuple[int, Mapping[int, bytes]]]
"""By name, every file that there is now: its size, and by their numbers those of its blocks that are new or different."""


class _Seen(NamedTuple):
    """A file as it was when it was last looked at."""

    size: int
    modified: int  # ns; 0 if it was so recent that a later change may get the same time
    hashes: tuple[bytes, ...]  # of its blocks


class FolderWatcher:
    """Tells what has changed in a folder since the last time. The files have to be in a consistent state at each call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, _Seen] = {}

    def changes(self) -> Changes | None:
        """What has changed since the last call, at first since there was nothing; None if nothing has.

        StoreError for a file that cannot be read.
        """
        found: dict[str, tuple[int, Mapping[int, bytes]]] = {}
        seen: dict[str, _Seen] = {}
        for name, path in files_below(self._folder):
            before = self._seen.get(name, _Seen(-1, 0, ()))
            try:
                at = path.stat()
                if (at.st_size, at.st_mtime_ns) == before[:2]:
                    seen[name], found[name] = before, (before.size, {})
                else:
                    settled = at.st_mtime_ns if time.time_ns() - at.st_mtime_ns > _RECENT else 0
                    seen[name], found[name] = _compared(path.read_bytes(), settled, before.hashes)
            except OSError as error:
                raise StoreError(f"{path} cannot be read ({error.strerror})") from None
        same = seen.keys() == self._seen.keys() and all(seen[name].hashes == self._seen[name].hashes for name in seen)
        self._seen = seen
        return None if same else found


def apply_changes(changes: Changes, folder: Path) -> None:
    """Bring a copy of the folder up to date, which is as the folder was at the changes before these.

    The copy is replaced as a whole (`rebuild_folder`); files that are as before are not copied but linked. StoreError if a
    file cannot be written, or has a name that leads out of the folder; the copy is then as before.
    """

    def write(draft: Path) -> None:
        for name, (size, blocks) in changes.items():
            before, path = path_below(folder, name), path_below(draft, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not blocks and before.is_file() and before.stat().st_size == size and _is_linked(before, path):
                continue
            if before.is_file():
                shutil.copyfile(before, path)
            with path.open("r+b" if before.is_file() else "wb") as file:
                for number, block in blocks.items():
                    file.seek(number * _BLOCK)
                    file.write(block)
                file.truncate(size)

    rebuild_folder(folder, write)


def _compared(content: bytes, modified: int, hashes: tuple[bytes, ...]) -> tuple[_Seen, tuple[int, Mapping[int, bytes]]]:
    """A file as it is now, and its blocks whose hashes are not these."""
    blocks = [content[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)]
    now = tuple(blake2b(block, digest_size=16).digest() for block in blocks)
    new = {number: block for number, block in enumerate(blocks) if hashes[number : number + 1] != now[number : number + 1]}
    return _Seen(len(content), modified, now), (len(content), new)


def _is_linked(before: Path, path: Path) -> bool:
    """Make path a second name of a file; False where that cannot be, as on some file systems."""
    if before.is_symlink():
        return False
    try:
        os.link(before, path)
    except OSError:
        return False
    return True
