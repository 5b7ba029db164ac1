"""Sending a job's folder to a worker that cannot see the driver's disk: all of its files travel as bytes.

The driver leaves a token in a folder that all jobs' folders lie below. A worker that can read the same token there writes
into the job's folder itself. Any other worker writes into a folder of its own, sends what has changed there whenever the
job has saved (folder_changes.py), and all of it at the end.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from evofool.errors import StoreError

_TOKEN_FILE = ".seen-by-workers"
_LOCAL_SUFFIXES = (".lock", "-shm")  # locks, and SQLite's index of a write-ahead log, which it creates again


def leave_token(folder: Path) -> str:
    """Write a new token into a folder, for workers to find. StoreError if it cannot be written."""
    token = secrets.token_hex(16)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _TOKEN_FILE).write_text(token)
    except OSError as error:
        raise StoreError(f"{folder / _TOKEN_FILE}: cannot be written ({error.strerror})") from None
    return token


def is_shared(folder: str, token: str) -> bool:
    """Whether this is the folder that the driver left the token in, and it can be written to from here."""
    try:
        return (Path(folder) / _TOKEN_FILE).read_text() == token and os.access(folder, os.W_OK)
    except (OSError, ValueError):
        return False


def remove_token(folder: Path) -> None:
    """Remove the token; if that fails, the file that is left does no harm."""
    with suppress(OSError):
        (folder / _TOKEN_FILE).unlink()


def files_below(folder: Path) -> list[tuple[str, Path]]:
    """(path from there, path) of every file below a folder, in order, but locks; none if there is no such folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_LOCAL_SUFFIXES))
    return [(path.relative_to(folder).as_posix(), path) for path in paths]


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder (`files_below`), by its path from there. StoreError for one that cannot be read."""
    try:
        return {name: path.read_bytes() for name, path in files_below(folder)}
    except OSError as error:
        raise StoreError(f"{error.filename or folder} cannot be read ({error.strerror})") from None


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files below a folder, which is created if needed.

    StoreError for a name that does not lead to a file below it (`path_below`); then nothing is written.
    """
    paths = {name: path_below(folder, name) for name in files}
    for name, content in files.items():
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_bytes(content)


def path_below(folder: Path, name: str) -> Path:
    """The path of a file that another machine has named, relative to a folder and with "/" between its parts.

    StoreError if it would lie outside: for a name with "..", a root or a drive, with a backslash or a colon, which Windows
    understands as such, and where a symbolic link leads out of the folder.
    """
    parts = name.split("/")
    path = folder.joinpath(*parts) if all(parts) else folder
    if (
        any(part in ("", ".", "..") for part in parts)
        or any(character in name for character in "\\:\0")
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        raise StoreError(f"{folder}: a file was sent with the name {name!r}, which does not lead to a file below it")
    return path


def replace_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Replace the files of a folder by these (`rebuild_folder`)."""
    rebuild_folder(folder, lambda draft: write_files(files, draft))


def rebuild_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Replace a folder by what write(draft) writes below draft. StoreError if that fails; the folder is then as before.

    The draft lies beside the folder and is then renamed, so that a database never lies beside the log of another. If the
    process is killed between the two renames, the old folder is left as NAME.before: `restore_folder` recovers it.
    """
    draft, before = folder.with_name(f"{folder.name}.draft"), _before(folder)
    try:
        restore_folder(folder)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write(draft)
        if folder.exists():
            folder.rename(before)
        draft.rename(folder)
    except (OSError, StoreError) as error:
        with suppress(StoreError):
            restore_folder(folder)
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{folder}: the files that a worker sent cannot be written ({error.strerror})") from None
    shutil.rmtree(before, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Recover the folder that `replace_folder` has moved aside, if none has replaced it. StoreError if that fails."""
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
