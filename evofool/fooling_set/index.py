"""set.json: what a set of fooling images is made of, its classifiers, and its files with their hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evofool.errors import StoreError
from evofool.json_file import read_json, write_json
from evofool.run.meta import fault_of

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
        path = folder_of(folder) / INDEX
        record = read_json(path, SCHEMA, VERSION, "read it with the evofool that wrote it").get("set")
        try:
            _Index.model_validate(record)
        except ValidationError as error:
            raise StoreError(f"{path} is damaged ({fault_of(error)})") from None
        return cls(**cast("dict[str, Any]", record))


# --- what a file has to have, so that what reads it need not ask

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Side = Annotated[int, Field(ge=1, lt=1 << 31)]


class _Classifier(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    group: str
    spec: str
    fingerprint: str
    weights_sha256: str | None
    shape: Annotated[list[_Side], Field(min_length=3, max_length=3)]
    labels: list[str]
    notes: list[str]


class _Recipe(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    title: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    bytes: _Count
    sha256: str


class _Index(BaseModel):
    """The fields of SetIndex."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    version: str
    evofool: str
    recipe: _Recipe
    classifiers: Annotated[dict[str, _Classifier], Field(min_length=1)]
    sample: _Count
    counts: dict[str, dict[str, dict[str, _Count]]]
    images: _Count
    png_bytes: _Count
    genome_bytes: _Count
    files: dict[str, _File]


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
