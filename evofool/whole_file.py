"""Files that are written whole or not at all."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evofool.errors import EvofoolError, StoreError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The path of a temporary file, empty at first, which takes the place of path if the block ends without an error.

    Until then path keeps its content, and after an error or an interruption the temporary file is deleted; only a process
    that is killed can leave one (`is_temporary`). Of several writers at once, the last to end decides the content.
    Permissions are those of an ordinary write: the existing file's, else by the umask; a file that may not be written is
    refused. The folder of path is created if needed, and has to be writable. A link stays a link, and its file is replaced.
    Where path is a device, a pipe or a folder, the block gets path itself. StoreError, which names path, for an OSError in
    the block or before or after it.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        final = Path(os.path.realpath(path))
        if not final.parent.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
        mode = None
        if final.exists():
            os.close(os.open(final, os.O_WRONLY))  # an error for a file that an ordinary write could not change
            mode = stat.S_IMODE(final.stat().st_mode)
        draft = final.with_name(f".evofool-{os.urandom(8).hex()}.new")
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            if mode is not None:
                draft.chmod(mode | stat.S_IWUSR)  # now already, so that nobody reads a private file meanwhile
            yield draft
            if mode is not None:
                draft.chmod(mode)
            draft.replace(final)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except EvofoolError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file by `whole_file`; a text in UTF-8, with its newlines as they are."""
    with whole_file(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def is_temporary(path: Path) -> bool:
    """Whether the name is that of a temporary file of `whole_file`."""
    return re.fullmatch(r"\.evofool-[0-9a-f]{16}\.new", path.name) is not None
