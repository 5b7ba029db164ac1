"""Where numba keeps compiled kernels. Without any writable place, as in a container whose packages belong to root, it would
refuse to work at all."""

import os
import tempfile
from pathlib import Path


def _find_room_for_kernels() -> None:
    """Name numba a temporary folder where neither this package's folder nor the user's cache can be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    nearest = next((p for p in (home, *home.parents) if p.exists()), home)
    if not any(os.access(place, os.W_OK) for place in (Path(__file__).parent, nearest)):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"evofool-numba-{os.getuid()}"))


if os.name == "posix":
    _find_room_for_kernels()
