"""The folder of a list of jobs: one process at a time works there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evofool.errors import StoreError
from evofool.whole_file import is_temporary

LOCK = "jobs.lock"
_PROBE = 0.5  # seconds: is_in_use() has the lock for a moment, and that is no other process at work


@contextmanager
def locked_folder(folder: Path, work: str, manifest: str = "") -> Iterator[None]:
    """A folder that is created if needed and locked until the end. StoreError if another process has locked it.

    work: what is done there, for the message: "benchmark". manifest: the file that a folder of this work has; StoreError if
    the folder has others and not this one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=_PROBE)
    except Timeout:
        raise StoreError(f"{folder} is in use: another evofool is working on this {work}") from None
    except OSError as error:
        if folder.is_file():
            raise StoreError(f"{folder} is a file, and a folder is needed: take another --out") from None
        raise StoreError(f"{folder} cannot be written ({error.strerror or error})") from None
    try:
        # A process that was killed before it had written the manifest has left no more than the lock and a temporary file.
        others = (path for path in folder.iterdir() if path.name != LOCK and not is_temporary(path))
        if manifest and not (folder / manifest).is_file() and any(others):
            raise StoreError(f"{folder} is not empty and holds no {work} ({manifest}); take another --out")
        yield
    finally:
        lock.release()


def is_folder_name(name: str) -> bool:
    """Whether this is the name of a folder right inside another one, and not a path that may lead elsewhere."""
    return Path(name).name == name not in ("", "..") and "\0" not in name and len(name.encode()) <= 255


def is_in_use(folder: Path) -> bool | None:
    """Whether a process of this machine has locked the folder; None if that cannot be found out."""
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return None
    lock.release()
    return False
