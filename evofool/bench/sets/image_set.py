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
    """N images, and the class of a target that each is meant to be taken for.

    source: as it was named. kind: "run", "table" or "folder". names: N, all different. classes: (N,) int64. left_out: how
    many more there are of classes that stand for no thing, by which nobody is fooled. chunk and threads: what a run's own
    target was asked by; 0 and 1 of the others.
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
        """uint8 (C, H, W) as the target takes it (images.resized); ImageError, naming it, for one that cannot be read."""
        return self._read[number]()


def is_run(path: Path) -> bool:
    """Whether there is a run at this path: its folder, or its file."""
    return path.name == FILE or (path / FILE).exists()


def refuse_nothing(path: Path) -> None:
    """ImageError where there is nothing at this path, or a file of another kind."""
    ways = "name a run, what evofool export wrote, or a folder of pictures named by class"
    if not path.exists():
        raise ImageError(f"there is no {path}: {ways}")
    if not path.is_dir() and not is_run(path) and path.suffix != ".parquet":
        raise ImageError(f"{path} is no folder, no run and no .parquet file: {ways}")


def image_set(path: Path, target: Target) -> ImageSet:
    """What is at this path, as target takes it: a run, what `evofool export` wrote, or a folder
    (targets.photos.find_photographs).

    Elites and the rows of a table are of the class that is called as theirs is. Images of classes that stand for no thing
    (targets.labels.is_rejection) are left out. ImageError for a path that holds none of these or nothing, and for classes
    that are none of the target's; StoreError for a run without elites.
    """
    refuse_nothing(path)
    if is_run(path):
        return _run(path, target)
    tables = _tables(path)
    if tables:
        return _table(path, tables, target)
    found = find_photographs(path, target.labels)
    kept = [one for one in found if not is_rejection(target.labels[one.class_id])]
    _refuse_rejections(path, kept)
    return ImageSet(
        str(path),
        "folder",
        tuple(one.file.relative_to(path).as_posix() for one in kept),
        np.array([one.class_id for one in kept], np.int64),
        [partial(_of_file, one.file, target) for one in kept],
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
        own = run.meta.target.fingerprint == target.fingerprint()
        how = (run.recipe.chunk, run.recipe.compute.threads) if own else (0, 1)
        return ImageSet(str(run.folder), "run", names, classes, read, len(found) - len(elites), *how)


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
        raise ImageError(f"{path}: all its images are of a class that stands for no thing, and fool nobody by it")


def _classes(labels: Sequence[str], path: Path, target: Target) -> np.ndarray:
    """(N,) int64: the target's classes of these labels."""
    known: Mapping[str, int] = {label: c for c, label in enumerate(target.labels)}
    if strangers := sorted(set(labels) - known.keys()):
        raise ImageError(
            f"{path}: {len(strangers)} of its classes are none of {target.name}'s {len(known)}: {', '.join(strangers[:5])}"
            f"{' ...' if len(strangers) > 5 else ''}; its labels are {', '.join(target.labels[:5])} ... If they are the "
            "same classes under other names, give the target these names: labels=FILE in its spec"
        )
    return np.array([known[label] for label in labels], np.int64)


def _of_png(png: bytes, name: str, target: Target) -> np.ndarray:
    return resized(decode_png(png, name), target.shape)


def _of_file(file: Path, target: Target) -> np.ndarray:
    """At the target's own size the pixels of explain.input_picture.read_picture; else scaled whole, nothing is cut off."""
    with open_image(file) as opened:
        picture, _ = flat(opened)
        if picture.mode.startswith(("I", "F")):
            raise ImageError(f"pixels of more than 8 bits (mode {picture.mode}); save it as an 8-bit picture")
        image = from_pil(picture.convert("L" if target.shape[0] == 1 else "RGB"))
    return resized(image, target.shape)
