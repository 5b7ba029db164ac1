"""Where a run's folder may be: on a local disk to be written, anywhere to be read."""

import shutil
import tempfile
from pathlib import Path

from evofool.errors import StoreError

_NETWORK = (
    *("nfs", "cifs", "smb", "9p", "afs", "lustre", "gpfs", "ceph", "beegfs", "glusterfs", "vboxsf"),
    *("fuse.sshfs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone"),
)

_ATTEMPTS = 5  # to copy a file that changes meanwhile


def network_file_system(folder: Path) -> str | None:
    """The kind and the mount point of the network file system that a folder is on; None on a local disk, or if unknown."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    path = folder.resolve()
    above = [(mount, kind) for mount, kind in mounts if path.is_relative_to(mount.replace("\\040", " "))]
    # Of several mounts at one place, as with autofs, the last one is used.
    mount, kind = max(reversed(above), key=lambda m: len(m[0]), default=("", ""))
    return f"{kind} at {mount}" if kind.startswith(_NETWORK) else None


def refuse_network(folder: Path) -> None:
    """StoreError for a network file system: SQLite's locks do not work there, and two writers could destroy a run."""
    if where := network_file_system(folder):
        raise StoreError(
            f"{folder} is on a network file system ({where}), where a run cannot be written safely. Run in a folder on a "
            "local disk (--out), and copy it here once it is stopped or has ended (cp -r); show, export, verify and merge "
            "read it here"
        )


def local_copy(database: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder with a copy of a database and of the log beside it, to be read without locks of its own."""
    folder = tempfile.TemporaryDirectory(prefix="evofool-")
    files = [database, database.with_name(f"{database.name}-wal")]
    try:
        for _ in range(_ATTEMPTS):
            before = [_state(file) for file in files]
            for file in files:
                copy = Path(folder.name) / file.name
                copy.unlink(missing_ok=True)
                if file == database or file.exists():
                    shutil.copyfile(file, copy)
            if [_state(file) for file in files] == before:
                return folder
        raise StoreError(f"{database} is being written on another machine; read it there, or when the run has stopped")
    except OSError as error:
        folder.cleanup()
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{database} cannot be copied to be read ({error.strerror})") from None


def _state(file: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None if there is no such file."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def temporary_note(folder: Path) -> str | None:
    """A note if a folder is in the package cache of Ray, where a job that was submitted begins; None if it is not."""
    parts = folder.absolute().parts
    if "runtime_resources" not in parts or not any(part.startswith("_ray_pkg_") for part in parts):
        return None
    path = folder.absolute()
    return f"{path} is in Ray's package cache, which Ray deletes after the job; give an absolute path elsewhere (--out)"
