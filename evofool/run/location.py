"""Where a run's folder may be: on a local disk to be written, anywhere to be read."""

import shutil
import tempfile
from pathlib import Path

from evofool.errors import StoreError

_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "lustre", "gpfs", "ceph")


def network_file_system(folder: Path) -> str | None:
    """The kind and the mount point of the network file system that a folder is on; None on a local disk, or if unknown."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    path = folder.resolve()
    above = [(mount, kind) for mount, kind in mounts if path.is_relative_to(mount.replace("\\040", " "))]
    mount, kind = max(above, key=lambda m: len(m[0]), default=("", ""))
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
    try:
        for name in (database.name, f"{database.name}-wal"):
            if name == database.name or database.with_name(name).exists():
                shutil.copyfile(database.with_name(name), Path(folder.name) / name)
    except OSError as error:
        folder.cleanup()
        raise StoreError(f"{database} cannot be copied to be read ({error.strerror})") from None
    return folder


def temporary_note(folder: Path) -> str | None:
    """A note if a folder is in the package cache of Ray, where a job that was submitted begins; None if it is not."""
    parts = folder.absolute().parts
    if "runtime_resources" not in parts or not any(part.startswith("_ray_pkg_") for part in parts):
        return None
    path = folder.absolute()
    return f"{path} is in Ray's package cache, which Ray deletes after the job; give an absolute path elsewhere (--out)"
