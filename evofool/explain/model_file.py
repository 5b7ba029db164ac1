"""What the learned inverses share: the folder that keeps them, photographs by content, and reading a file."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from evofool.errors import ImageError, StoreError
from evofool.targets.photos import image_files
from genomes import GenomeError
from genomes.tensor_file import MOST_BYTES

AGAIN = "learn another one by --train DIR"
_Model = TypeVar("_Model")


def cache_folder() -> Path:
    """$EVOFOOL_CACHE, or evofool in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("EVOFOOL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evofool"


def by_content(folder: Path, most: int) -> dict[str, Path]:
    """The pictures of a folder, at any depth, by the SHA-256 of their bytes, in its order; of equal ones one.

    Of more than `most` files so many are taken, evenly spaced by path. ImageError for a file that cannot be read.
    """
    found = {_digest(file): file for file in image_files(folder, most)}
    return {digest: found[digest] for digest in sorted(found)}


def read_model(path: Path, of_bytes: Callable[[bytes], _Model], *, again: str = AGAIN) -> _Model:
    """of_bytes of a file's content; StoreError, which names the file, for its GenomeError and for a file that is missing.

    again: how to get a good one, the end of the message.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is a folder, a pipe or a device")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise StoreError(f"{path} is too long: a model has at most {MOST_BYTES:,} bytes; {again}")
        return of_bytes(data)
    except GenomeError as error:
        raise StoreError(f"{path} {error}; {again}") from None
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"the model {path} cannot be read ({error.strerror or error})") from None


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{file} cannot be read ({error.strerror or error})") from None
