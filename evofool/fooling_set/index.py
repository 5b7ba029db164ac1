"""set.json: what a set of fooling images is made of, its classifiers, and its files with their hashes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evofool.errors import StoreError
from evofool.json_file import read_json, write_json

INDEX, SCHEMA, VERSION = "set.json", "evofool.set", 1
CONFIDENT = 0.99
WRITTEN = "set"  # of a folder in which a set is built, the folder of the set itself


@dataclass(frozen=True)
class SetIndex:
    """A set as a whole.

    evofool: the version that wrote it. recipe: the recipe, as plain data. classifiers: by name group, spec, fingerprint,
    weights_sha256 (None of a black box), shape, labels and notes. sample: 0, or of a sample how many images of each
    classifier and arm it has at most. counts: by classifier and arm, the numbers of `images`, of those that the classifier
    assigns to their class (`predicted`), and of these at a confidence of at least CONFIDENT (`confident`).
    images: how many there are, png_bytes and genome_bytes their sizes. files: by path in the folder, its bytes and sha256;
    without those of the layout of folders, whose images have theirs in the table.
    """

    name: str
    version: str
    evofool: str
    recipe: Mapping[str, Any]
    classifiers: Mapping[str, Mapping[str, Any]]
    sample: int
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    images: int
    png_bytes: int
    genome_bytes: int
    files: Mapping[str, Mapping[str, Any]]

    def write(self, folder: Path) -> None:
        """Write set.json."""
        write_json(folder / INDEX, {"schema": SCHEMA, "version": VERSION, "set": vars(self)})

    @classmethod
    def read(cls, folder: Path) -> "SetIndex":
        """The index of a set, or of the set in a folder in which one was built. StoreError if there is none."""
        record = read_json(folder_of(folder) / INDEX, SCHEMA, VERSION, "read it with the evofool that wrote it")
        try:
            found = cls(**record["set"])
            texts = isinstance(found.name, str) and isinstance(found.version, str)
            named = all(isinstance(of["fingerprint"], str) and isinstance(of["group"], str) for of in _values(found))
            if not texts or not named or type(found.images) is not int:
                raise ValueError("its name, its version or its classifiers are not what they should be")
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"{folder_of(folder) / INDEX} is damaged ({type(error).__name__}: {error})") from None


def _values(index: SetIndex) -> Sequence[Mapping[str, Any]]:
    return list(index.classifiers.values())


def folder_of(folder: Path) -> Path:
    """The folder of the set itself: this one, or the one in it, if a set was built there. StoreError if there is none."""
    for found in (folder / WRITTEN, folder):
        if (found / INDEX).is_file():
            return found
    raise StoreError(f"{folder} has no set of fooling images (there is no {INDEX}); evofool set build makes one")


def file_record(path: Path) -> dict[str, Any]:
    """bytes and sha256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
