"""One writer at a time for a run's folder."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from evofool.errors import StoreError

LOCK = "run.lock"
_PATIENCE = 60.0  # seconds


def lock_run(folder: Path) -> FileLock:
    """The acquired lock of a run's folder; StoreError if another process has it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"{folder} is in use: another evofool is writing this run; show, export and verify work meanwhile"
        ) from None
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror or error})") from None
    return lock


def wait_for_lock(folder: Path) -> None:
    """Wait until the worker of a killed process ends, for a minute at most: it may still be writing this run."""
    if (folder / LOCK).exists():
        # If it does not end, opening the run fails with a message.
        with suppress(Timeout, OSError), FileLock(folder / LOCK).acquire(timeout=_PATIENCE):
            pass
