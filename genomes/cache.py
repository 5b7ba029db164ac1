"""The folder of numba's cache of compiled kernels.

Without a writable folder, as in a container whose packages belong to root, numba would raise an error.
"""

import contextlib
import os
import tempfile
from pathlib import Path


def _set_cache_folder() -> None:
    """Use a temporary folder if neither this package's folder nor the user's cache can be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    nearest = next((p for p in (home, *home.parents) if p.exists()), home)
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(folder, os.W_OK) for folder in (Path(__file__).parent, nearest)):
        return
    folder = Path(tempfile.gettempdir()) / f"evofool-numba-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    # numba unpickles the files there, so a folder that other users made or can write to is not safe.
    status = folder.lstat() if folder.is_dir() else None
    safe = status is not None and status.st_uid == os.getuid() and not status.st_mode & 0o022 and not folder.is_symlink()
    os.environ["NUMBA_CACHE_DIR"] = str(folder) if safe else tempfile.mkdtemp(prefix="evofool-numba-")


if os.name == "posix":
    _set_cache_folder()
