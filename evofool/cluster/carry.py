"""A job's folder where its worker cannot see the driver's disk: its files travel, all of them, as bytes.

The driver leaves a token in a folder that all jobs' folders lie below. A worker that reads the same token there writes into
the job's folder itself; another one works in a folder of its own, whose files take the place of the job's.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from evofool.errors import StoreError

_FILE = ".seen-by-workers"
_OF_ONE_MACHINE = (".lock", "-shm")  # locks, and SQLite's index of a write-ahead log, which it makes anew


def token(folder: Path) -> str:
    """Leave a token in a folder, in place of an earlier one, for a worker to find. StoreError if it cannot be written."""
    text = secrets.token_hex(16)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FILE).write_text(text)
    except OSError as error:
        raise StoreError(f"{folder / _FILE}: cannot be written ({error.strerror})") from None
    return text


def sees(folder: str, token: str) -> bool:
    """Whether this is the folder that the driver left the token in, and can be written to from here."""
    try:
        return (Path(folder) / _FILE).read_text() == token and os.access(folder, os.W_OK)
    except (OSError, ValueError):
        return False


def forget(folder: Path) -> None:
    """Take the token away; where that cannot be, one that is left harms nobody."""
    with suppress(OSError):
        (folder / _FILE).unlink()


def packed(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path from there; {} where there is no such folder. Locks are left out.

    StoreError for one that cannot be read.
    """
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_OF_ONE_MACHINE))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    except OSError as error:
        raise StoreError(f"{error.filename or folder} cannot be read ({error.strerror})") from None


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def bring(files: Mapping[str, bytes], folder: Path) -> None:
    """Let a folder hold these files and no others. StoreError, and the folder is as before, if they cannot be written.

    They are written beside it and change places with it as a whole: a database never stands beside another one's log. Killed
    between the two renames, the folder is missing, and the old one is beside it as NAME.before: `restore` takes it back.
    """
    draft, before = folder.with_name(f"{folder.name}.draft"), _before(folder)
    try:
        restore(folder)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        unpack(files, draft)
        if folder.exists():
            folder.rename(before)
        draft.rename(folder)
    except OSError as error:
        with suppress(StoreError):
            restore(folder)
        shutil.rmtree(draft, ignore_errors=True)
        raise StoreError(f"{folder}: what a worker sent of it cannot be written ({error.strerror})") from None
    shutil.rmtree(before, ignore_errors=True)


def restore(folder: Path) -> None:
    """Take back the folder that `bring` has moved aside, where none has come in its place. StoreError if that cannot be."""
    before = _before(folder)
    try:
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)
        elif before.exists():
            before.rename(folder)
    except OSError as error:
        raise StoreError(f"{before} cannot be renamed to {folder.name} ({error.strerror})") from None


def _before(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.before")
