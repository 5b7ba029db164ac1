"""Folders that are written whole or not at all, and replaced only if nothing else lies in them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evofool.errors import EvofoolError, StoreError
from evofool.json_text import parse_json
from evofool.text import to_json

_FORMAT, _VERSION = "evofool.folder", 1
_LONGEST = 1 << 24  # characters of a list of files


@contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """A new folder beside path, which takes its place if the block ends without an error; else it is deleted.

    A file `mark` in it lists its files. path may be missing, empty, or a folder that was written so and has no other files:
    then it is replaced. StoreError for any other folder, and for an OSError.
    """
    final = Path(os.path.realpath(path))
    try:
        _refuse_foreign(final, path, mark)
        final.parent.mkdir(parents=True, exist_ok=True)
        token = os.urandom(8).hex()
        draft, old = (final.with_name(f".evofool-{token}.{end}") for end in ("new", "old"))
        draft.mkdir()
        try:
            yield draft
            files = [*_files_of(draft), mark]
            (draft / mark).write_text(to_json({"format": _FORMAT, "version": _VERSION, "files": files}), encoding="utf-8")
            _refuse_foreign(final, path, mark)
            try:
                if final.exists():
                    final.rename(old)
                draft.rename(final)
            except BaseException:  # also Ctrl-C
                if old.exists() and not final.exists():
                    old.rename(final)
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
    except EvofoolError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None


def refuse_foreign(path: Path, mark: str) -> None:
    """StoreError for a path that whole_folder would not replace, before long work for it."""
    _refuse_foreign(Path(os.path.realpath(path)), path, mark)


def _files_of(folder: Path) -> list[str]:
    return sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir() or file.is_symlink()
    )


def _refuse_foreign(folder: Path, path: Path, mark: str) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StoreError(f"{path} is a file, not a folder; name another folder")
    found = _files_of(folder)
    if not found and not any(folder.iterdir()):
        return
    try:
        listed = parse_json((folder / mark).read_text(encoding="utf-8"), _LONGEST)
        known = set(listed["files"]) if listed["format"] == _FORMAT else set()
    except (OSError, ValueError, TypeError, KeyError):
        known = set()
    if foreign := [name for name in found if name not in known] or ([] if known else ["folders"]):
        raise StoreError(f"{path} is not empty, and has {foreign[0]}, which is not of an earlier copy; name a new folder")
