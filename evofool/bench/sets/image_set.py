"""A set of fooling images: a run's elites, an exported table, or a folder of pictures named by class."""

import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from evofool.csv_file import read_csv
from evofool.errors import ImageError, StoreError
from evofool.explain.input_picture import flat
from evofool.export.parquet import TableImage, read_images
from evofool.images import decode_png, from_pil, resized
from evofool.run.reader import FILE
from evofool.run.schema import EliteRecord
from evofool.run.stored import StoredRun
from evofool.targets import Target
from evofool.targets.labels import is_rejection
from evofool.targets.photos import find_photographs, open_image
from evofool.targets.redaction import public_name

_TABLE = "elites.csv"  # of an export
_METADATA = "metadata.csv"  # of a folder of images as Hugging Face's `datasets` reads it
_OF_A_SET = {"classifier", "arm", "sha256"}  # columns of the metadata.csv of a set


class MissingImage(NamedTuple):
    """An image of a class that the target does not have: its label, and the classifier that it was made for, or ""."""

    label: str
    classifier: str


@dataclass(frozen=True)
class ImageSet:
    """N images, each with its intended class of a target.

    source: the path as it was given. kind: "run", "table" or "folder". names: N, all different. classes: (N,) int64.
    confidences: (N,) float64, 0 to 1, of the class when the image was made, by the classifier that it was made for; NaN
    where the set does not say. classifiers: N, that classifier's name, or "". shape: (C, H, W) of the target. left_out: the
    number of further images, which are of rejection classes and so fool nobody. missing: further images, of classes that
    the target does not have. chunk and threads: those of the run if the target is the run's, so that scores are equal to
    the bit; else 0 and 1.
    """

    source: str
    kind: str
    names: tuple[str, ...]
    classes: np.ndarray
    confidences: np.ndarray
    classifiers: tuple[str, ...]
    shape: tuple[int, int, int]
    _pictures: Sequence["_Picture"]
    left_out: int
    missing: tuple[MissingImage, ...] = ()
    chunk: int = 0
    threads: int = 1

    def __len__(self) -> int:
        return len(self.names)

    def image(self, number: int) -> np.ndarray:
        """uint8 (C, H, W), resized to the target (images.resized). ImageError, with its name, if it cannot be read."""
        return resized(self._pictures[number].read(self.shape[0]), self.shape)

    def other_sizes(self) -> Counter[tuple[int, int]]:
        """By (height, width), the number of images that do not have the target's size; unreadable ones are not counted."""
        sizes = Counter(size for picture in self._pictures if (size := picture.size()) is not None)
        del sizes[self.shape[1:]]
        return sizes

    def notes(self) -> list[str]:
        """Sentences on images of classes that the target does not have, and of another size than it takes."""
        found = []
        if self.missing:
            labels = Counter(image.label for image in self.missing)
            found.append(
                f"{len(self.missing):,} more images are of {len(labels):,} classes that the target does not have, and are "
                f"left out: {', '.join(sorted(labels)[:5])}{' ...' if len(labels) > 5 else ''}"
            )
        if sizes := self.other_sizes():
            listed = ", ".join(_size(size) for size, _ in sizes.most_common(3)) + (" ..." if len(sizes) > 3 else "")
            found.append(
                f"{sum(sizes.values()):,} images have another size ({listed}), and are resized to {_size(self.shape[1:])}; "
                "this makes some of them harmless"
            )
        return found


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


class _Picture(Protocol):
    def read(self, channels: int) -> np.ndarray:
        """uint8 (C, H, W) at its own size. ImageError if it cannot be read."""

    def size(self) -> tuple[int, int] | None:
        """(height, width), without decoding the pixels; None if it cannot be read."""


@dataclass(frozen=True)
class _Png:
    """The bytes of a PNG, and what an error calls it."""

    png: bytes
    name: str

    def read(self, channels: int) -> np.ndarray:
        return decode_png(self.png, self.name)

    def size(self) -> tuple[int, int] | None:
        if len(self.png) < 24 or not self.png.startswith(b"\x89PNG"):
            return None
        width, height = struct.unpack(">II", self.png[16:24])  # of the header
        return height, width


@dataclass(frozen=True)
class _File:
    """A picture file. One of the target's size is read as by explain.input_picture.read_picture."""

    file: Path

    def read(self, channels: int) -> np.ndarray:
        with open_image(self.file) as opened:
            picture, _ = flat(opened)
            if picture.mode.startswith(("I", "F")):
                raise ImageError(f"pixels of more than 8 bits (mode {picture.mode}); save it as an 8-bit picture")
            return from_pil(picture.convert("L" if channels == 1 else "RGB"))

    def size(self) -> tuple[int, int] | None:
        with suppress(ImageError), open_image(self.file) as opened:
            return opened.height, opened.width
        return None


def is_run(path: Path) -> bool:
    """Whether the path is a run's folder or file."""
    return path.name == FILE or (path / FILE).exists()


def refuse_nothing(path: Path) -> None:
    """ImageError if there is nothing at this path, or a file of another kind."""
    ways = "name a run, an export of evofool export, or a folder of pictures named by class"
    if not path.exists():
        raise ImageError(f"there is no {path}: {ways}")
    if not path.is_dir() and not is_run(path) and path.suffix != ".parquet":
        raise ImageError(f"{path} is no folder, no run and no .parquet file: {ways}")


def image_set(path: Path, target: Target) -> ImageSet:
    """The images at this path for a target: a run, an export of `evofool export`, or a folder (targets.photos).

    Elites and rows of a table get the target's class with the same label; those whose label the target does not have are
    left out (ImageSet.missing). Images of rejection classes (targets.labels.is_rejection) are left out, too. ImageError for
    a path without images, if no label is the target's, and for a folder with a label that the target does not have;
    StoreError for a run without elites.
    """
    refuse_nothing(path)
    if is_run(path):
        return _run(path, target)
    tables = _tables(path)
    if tables:
        return _table(path, tables, target)
    found = find_photographs(path, target.labels)
    kept = [photograph for photograph in found if not is_rejection(target.labels[photograph.class_id])]
    _refuse_rejections(path, kept)
    names = tuple(photograph.file.relative_to(path).as_posix() for photograph in kept)
    by_name = _table_rows(path)
    rows = [by_name.get(name, _TableRow()) for name in names]
    return ImageSet(
        str(path),
        "folder",
        names,
        np.array([photograph.class_id for photograph in kept], np.int64),
        np.array([row.confidence for row in rows], np.float64),
        tuple(row.classifier for row in rows),
        target.shape,
        [_File(photograph.file) for photograph in kept],
        len(found) - len(kept),
    )


class _TableRow(NamedTuple):
    """What a table has of a picture: the confidence, and the classifier that it was made for."""

    confidence: float = math.nan
    classifier: str = ""


def _table_rows(folder: Path) -> dict[str, _TableRow]:
    """By file, its row in the table of `evofool export`, or in metadata.csv; nothing without either.

    metadata.csv is in this folder, or in the one above if that is of a set of `evofool set build`, whose groups share one.
    """
    folder = folder.resolve()
    tables = (
        (folder.parent / _METADATA, "file_name", f"{folder.name}/"),
        (folder / _METADATA, "file_name", ""),
        (folder / _TABLE, "file", ""),
    )
    found: dict[str, _TableRow] = {}
    for table, column, prefix in tables:
        with suppress(StoreError, OSError):
            for row in read_csv(table):
                if prefix and not row.keys() >= _OF_A_SET:
                    break
                name = row.get(column, "")
                if name.startswith(prefix):
                    kept = _TableRow(_confidence(row.get("confidence", "")), row.get("classifier", ""))
                    found[name.removeprefix(prefix)] = kept
    return found


def _confidence(text: str) -> float:
    with suppress(ValueError):
        p = float(text)
        if 0 <= p <= 1:
            return p
    return math.nan


def _run(path: Path, target: Target) -> ImageSet:
    with StoredRun(path) as run:
        classifier = public_name(run.recipe.target)
        entries = [TableImage(_name(e.row), e.label, e.row.png, e.confidence, classifier) for e in run.elites()]
        same_target = run.meta.target.fingerprint == target.fingerprint()
        settings = (run.recipe.chunk, run.recipe.compute.threads) if same_target else (0, 1)
        return _of_entries(path, str(run.folder), "run", entries, target, settings)


def _name(row: EliteRecord) -> str:
    return f"birth {row.birth} in class {row.class_id}, niche {row.niche}"


def _tables(path: Path) -> list[Path]:
    if path.suffix == ".parquet" and path.is_file():
        return [path]
    return sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])


def _table(path: Path, tables: Sequence[Path], target: Target) -> ImageSet:
    rows = (row for file in tables for row in read_images(file))
    entries = [
        row._replace(name=f"row {number}, {row.name}" if row.name else f"row {number}") for number, row in enumerate(rows)
    ]
    if not entries:
        raise ImageError(f"{path}: its table has no images")
    return _of_entries(path, str(path), "table", entries, target)


def _of_entries(
    path: Path, source: str, kind: str, found: Sequence[TableImage], target: Target, settings: tuple[int, int] = (0, 1)
) -> ImageSet:
    entries = [entry for entry in found if not is_rejection(entry.label)]
    _refuse_rejections(path, entries)
    known: Mapping[str, int] = {label: c for c, label in enumerate(target.labels)}
    _refuse_other_labels(path, {entry.label for entry in entries}, known, target)
    kept = [entry for entry in entries if entry.label in known]
    return ImageSet(
        source,
        kind,
        tuple(entry.name for entry in kept),
        np.array([known[entry.label] for entry in kept], np.int64),
        np.array([np.nan if entry.confidence is None else entry.confidence for entry in kept], np.float64),
        tuple(entry.classifier for entry in kept),
        target.shape,
        [_Png(entry.png, f"{path}: {entry.name}") for entry in kept],
        len(found) - len(entries),
        tuple(MissingImage(entry.label, entry.classifier) for entry in entries if entry.label not in known),
        *settings,
    )


def _refuse_rejections(path: Path, kept: Sequence[object]) -> None:
    if not kept:
        raise ImageError(f"{path}: all its images are of a rejection class, so none of them can fool a classifier")


def _refuse_other_labels(path: Path, labels: set[str], known: Mapping[str, int], target: Target) -> None:
    """ImageError if no label is the target's."""
    if not labels & known.keys():
        unknown = sorted(labels)
        raise ImageError(
            f"{path}: none of its {len(unknown)} classes is among the {len(known)} of {target.name}: "
            f"{', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}; its labels are {', '.join(target.labels[:5])} ... If they are the "
            "same classes under other names, give the target these names: labels=FILE in its spec"
        )
