"""Where numba keeps compiled kernels. Without any writable place, as in a container whose packages belong to root, it would
refuse to work at all."""

import contextlib
import os
import tempfile
from pathlib import Path


def _find_room_for_kernels() -> None:
    """Name numba a temporary folder where neither this package's folder nor the user's cache can be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    nearest = next((p for p in (home, *home.parents) if p.exists()), home)
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(place, os.W_OK) for place in (Path(__file__).parent, nearest)):
        return
    place = Path(tempfile.gettempdir()) / f"evofool-numba-{os.getuid()}"
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700)
    # numba unpickles what it finds there: a folder that others made or can write to is no place for that.
    found = place.lstat() if place.is_dir() else None
    safe = found is not None and found.st_uid == os.getuid() and not found.st_mode & 0o022 and not place.is_symlink()
    os.environ["NUMBA_CACHE_DIR"] = str(place) if safe else tempfile.mkdtemp(prefix="evofool-numba-")


if os.name == "posix":
    _find_room_for_kernels()
