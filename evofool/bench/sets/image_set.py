"""A set of fooling images: a run's elites, an exported table, or a folder of pictures named by class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from evofool.errors import ImageError
from evofool.explain.input_picture import flat
from evofool.export.parquet import read_images
from evofool.images import decode_png, from_pil, resized
from evofool.run.reader import FILE
from evofool.run.stored import StoredRun
from evofool.targets import Target
from evofool.targets.labels import is_rejection
from evofool.targets.photos import find_photographs, open_image


@dataclass(frozen=True)
class ImageSet:
    """N images, each with its intended class of a target.

    source: the path as it was given. kind: "run", "table" or "folder". names: N, all different. classes: (N,) int64.
    left_out: the number of further images, which are of rejection classes and so fool nobody. chunk and threads: those of
    the run if the target is the run's, so that scores are equal to the bit; else 0 and 1.
    """

    source: str
    kind: str
    names: tuple[str, ...]
    classes: np.ndarray
    _read: Sequence[Callable[[], np.ndarray]]
    left_out: int
    chunk: int = 0
    threads: int = 1

    def __len__(self) -> int:
        return len(self.names)

    def image(self, number: int) -> np.ndarray:
        """uint8 (C, H, W), resized to the target (images.resized). ImageError, with its name, if it cannot be read."""
        return self._read[number]()


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

    Elites and rows of a table get the target's class with the same label. Images of rejection classes
    (targets.labels.is_rejection) are left out. ImageError for a path without images, and for labels that the target does not
    have; StoreError for a run without elites.
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
    return ImageSet(
        str(path),
        "folder",
        tuple(photograph.file.relative_to(path).as_posix() for photograph in kept),
        np.array([photograph.class_id for photograph in kept], np.int64),
        [partial(_of_file, photograph.file, target) for photograph in kept],
        len(found) - len(kept),
    )


def _run(path: Path, target: Target) -> ImageSet:
    with StoredRun(path) as run:
        found = run.elites()
        elites = [elite for elite in found if not is_rejection(elite.label)]
        _refuse_rejections(path, elites)
        names = tuple(f"birth {e.row.birth} in class {e.row.class_id}, niche {e.row.niche}" for e in elites)
        classes = _classes([e.label for e in elites], path, target)
        read = [partial(_of_png, e.row.png, f"{path}: {name}", target) for e, name in zip(elites, names, strict=True)]
        same_target = run.meta.target.fingerprint == target.fingerprint()
        settings = (run.recipe.chunk, run.recipe.compute.threads) if same_target else (0, 1)
        return ImageSet(str(run.folder), "run", names, classes, read, len(found) - len(elites), *settings)


def _tables(path: Path) -> list[Path]:
    if path.suffix == ".parquet" and path.is_file():
        return [path]
    return sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])


def _table(path: Path, tables: Sequence[Path], target: Target) -> ImageSet:
    found = list(enumerate(row for file in tables for row in read_images(file)))
    if not found:
        raise ImageError(f"{path}: its table has no images")
    rows = [(number, row) for number, row in found if not is_rejection(row[1])]
    _refuse_rejections(path, rows)
    names = tuple(f"row {number}, {name}" if name else f"row {number}" for number, (name, _, _) in rows)
    classes = _classes([label for _, (_, label, _) in rows], path, target)
    read = [partial(_of_png, png, f"{path}: {name}", target) for (_, (_, _, png)), name in zip(rows, names, strict=True)]
    return ImageSet(str(path), "table", names, classes, read, len(found) - len(rows))


def _refuse_rejections(path: Path, kept: Sequence[object]) -> None:
    if not kept:
        raise ImageError(f"{path}: all its images are of a rejection class, so none of them can fool a classifier")


def _classes(labels: Sequence[str], path: Path, target: Target) -> np.ndarray:
    """(N,) int64: the target's classes of these labels."""
    known: Mapping[str, int] = {label: c for c, label in enumerate(target.labels)}
    if unknown := sorted(set(labels) - known.keys()):
        raise ImageError(
            f"{path}: {len(unknown)} of its classes are not among the {len(known)} of {target.name}: "
            f"{', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}; its labels are {', '.join(target.labels[:5])} ... If they are the "
            "same classes under other names, give the target these names: labels=FILE in its spec"
        )
    return np.array([known[label] for label in labels], np.int64)


def _of_png(png: bytes, name: str, target: Target) -> np.ndarray:
    return resized(decode_png(png, name), target.shape)


def _of_file(file: Path, target: Target) -> np.ndarray:
    """The picture at the target's size. Pictures of that size are read as by explain.input_picture.read_picture; others are
    scaled without cropping."""
    with open_image(file) as opened:
        picture, _ = flat(opened)
        if picture.mode.startswith(("I", "F")):
            raise ImageError(f"pixels of more than 8 bits (mode {picture.mode}); save it as an 8-bit picture")
        image = from_pil(picture.convert("L" if target.shape[0] == 1 else "RGB"))
    return resized(image, target.shape)
