"""One writer at a time for a run's folder, on a local disk."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from evofool.errors import StoreError

LOCK = "run.lock"
_PATIENCE = 60.0  # seconds
_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "lustre", "gpfs", "ceph")


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


def refuse_network(folder: Path) -> None:
    """StoreError for a network file system: SQLite's locks do not work there, and two writers could destroy a run."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return
    path = folder.resolve()
    above = [(mount, kind) for mount, kind in mounts if path.is_relative_to(mount.replace("\\040", " "))]
    mount, kind = max(above, key=lambda m: len(m[0]), default=("", ""))
    if kind.startswith(_NETWORK):
        raise StoreError(f"{folder} is on a network file system ({kind} at {mount}); a run needs a local disk (--out)")
