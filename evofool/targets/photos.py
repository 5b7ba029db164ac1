"""Labelled photographs from a folder, as inputs of a target; and synthetic patterns."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from evofool.errors import ImageError
from evofool.images import GIANTS, MOST_PIXELS, from_pil
from evofool.targets.classifier import Target
from evofool.targets.labels import is_rejection

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
_FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF"]
_LAYOUTS = "a folder of pictures for every class, or pictures named CLASS_anything.jpg, for example WNID_label.jpg"


class Photograph(NamedTuple):
    """The file of a photograph, and its class."""

    file: Path
    class_id: int


def find_photographs(folder: Path, labels: Sequence[str]) -> list[Photograph]:
    """The photographs of a folder, ordered by path, with their classes; ImageError if the classes cannot be determined.

    Either a sub-folder for every class, with images at any depth, or images named CLASS_anything, where CLASS has no
    underscore. The classes' names are labels ("tench"), numbers with labels as `evofool export` writes them ("000_tench"),
    or, if there are exactly as many names as labels, any names in class order, with numbers ordered by value; WNIDs
    ("n01440764") are in class order. Rejection classes ("rejected") may be missing. Hidden files are skipped.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder; photographs have to be {_LAYOUTS}")
    try:
        entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        by_name = {path.name: image_files(path) for path in entries if path.is_dir()}
    except OSError as error:
        raise ImageError(f"{folder} cannot be read ({error})") from None
    by_name = {name: files for name, files in by_name.items() if files}
    loose = [path for path in entries if path.is_file() and path.suffix.lower() in _SUFFIXES]
    if by_name and loose:
        raise ImageError(
            f"{folder} has {len(by_name)} folders with pictures and {len(loose)} pictures beside them ({loose[0].name}); "
            f"it has to be {_LAYOUTS}"
        )
    if not by_name and not loose:
        raise ImageError(f"{folder} has no pictures ({', '.join(_SUFFIXES)}); it has to be {_LAYOUTS}")
    for path in loose:
        by_name.setdefault(path.stem.partition("_")[0], []).append(path)
    classes = _classes(list(by_name), labels, folder, "folders" if not loose else "beginnings of names")
    return [Photograph(file, classes[name]) for name, files in by_name.items() for file in files]


def photographs(
    found: Sequence[Photograph], target: Target, batch: int = 32
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Path]]]:
    """uint8 images (B, C, H, W), their classes (B,) int64 and their files, B <= batch, since not all fit in memory."""
    for begin in range(0, len(found), batch):
        part = found[begin : begin + batch]
        images = []
        for file, _ in part:
            with open_image(file) as picture:
                # Not rotated by EXIF: evaluations on ImageNet are not either.
                images.append(to_input(picture, target))
        yield np.stack(images), np.array([p.class_id for p in part], np.int64), [p.file for p in part]


@contextmanager
def open_image(file: Path) -> Iterator[Image.Image]:
    """The image of a file, to be decoded inside the with block; common formats only, limited in size.

    ImageError, naming the file, for other files and for errors while decoding.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata and palettes: only pixels matter
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ImageError(f"{picture.width:,} x {picture.height:,} pixels; at most {MOST_PIXELS:,} are allowed")
                yield picture
    except (OSError, ValueError, SyntaxError, *GIANTS) as error:
        # Messages of Pillow and the system end with the file's name, which is in ours already.
        reason = re.sub(rf":? {re.escape(repr(str(file)))}$", "", str(error))
        raise ImageError(f"{file} cannot be read as a picture ({reason})") from None


def to_input(picture: Image.Image, target: Target) -> np.ndarray:
    """A picture as a target's input, uint8 (C, H, W): resized and cropped as its preprocessing says, grey for one channel.

    The short side is resized to `resize` pixels (more if the target's shape is larger), then the centre is cropped; without
    `resize` the whole picture is resized to the shape. Resized as torchvision does with Pillow's images.
    """
    preprocessing = target.details.get("preprocessing", {})
    return fitted(picture, target.shape, preprocessing.get("resize"), preprocessing.get("interpolation", "bilinear"))


def fitted(picture: Image.Image, shape: tuple[int, int, int], resize: int | None, interpolation: str) -> np.ndarray:
    """A picture as uint8 (C, H, W), as to_input says it."""
    channels, height, width = shape
    if picture.mode.startswith(("I", "F")):
        raise ImageError(f"pixels of more than 8 bits (mode {picture.mode}); save it as an 8-bit picture")
    picture = picture.convert("L" if channels == 1 else "RGB")
    filter_ = Image.Resampling[interpolation.upper()]
    if resize is None:
        size = (width, height)
    else:
        w, h = picture.size
        factor = max(resize / min(w, h), width / w, height / h)
        # Rounded down, as torchvision does; 1e-9 corrects a factor that is one bit too low.
        size = (max(width, int(w * factor + 1e-9)), max(height, int(h * factor + 1e-9)))
        if size[0] * size[1] > MOST_PIXELS:  # 1 x 10,000 pixels would take gigabytes
            raise ImageError(
                f"{w:,} x {h:,} pixels are {size[0]:,} x {size[1]:,} with a short side of {resize}, and at most "
                f"{MOST_PIXELS:,} pixels are allowed; crop it first"
            )
    if picture.size != size:
        picture = picture.resize(size, filter_)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return from_pil(picture.crop((left, top, left + width, top + height)))


def patterns(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, C, H, W) test images: smooth colours and noise in turn, all different."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    for image in images[::2]:
        for c in range(channels):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8))
            image[c] = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return images


def drawings(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, C, H, W): bold strokes, white on black and black on white in turn, different for each channel."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    images = np.empty((count, *shape), np.uint8)
    for k, image in enumerate(images):
        for c in range(channels):
            sheet = Image.new("L", (width, height))
            corners = rng.uniform(0.15, 0.85, (int(rng.integers(2, 6)), 2)) * (width, height)
            thick = max(1, round(min(height, width) / float(rng.uniform(7, 14))))
            ImageDraw.Draw(sheet).line([(float(x), float(y)) for x, y in corners], fill=255, width=thick, joint="curve")
            image[c] = np.asarray(sheet)
        if k % 2:
            np.subtract(255, image, out=image)
    return images


def image_files(folder: Path, most: int | None = None) -> list[Path]:
    """The image files of a folder, at any depth, ordered by path; hidden ones are skipped.

    most: of more files, so many, evenly spaced; None: all.
    """
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    found = sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if most is None or len(found) <= most:
        return found
    return [found[k] for k in np.linspace(0, len(found) - 1, most).round().astype(int)]


def _classes(names: list[str], labels: Sequence[str], folder: Path, entries: str) -> dict[str, int]:
    """The class of each name. entries: what the names are of, for the error message."""
    known = {_normalized(label): c for c, label in enumerate(labels)}
    if len(known) < len(labels):  # labels that differ only in punctuation
        known = {label: c for c, label in enumerate(labels)}
    by_label = {name: _label_of(name, known, labels) for name in names}
    unknown = [name for name, class_id in by_label.items() if class_id is None]
    if not unknown:
        return {name: class_id for name, class_id in by_label.items() if class_id is not None}
    real = [c for c, label in enumerate(labels) if not is_rejection(label)]
    classes = real if len(names) == len(real) else range(len(labels))
    ordered = dict(zip(sorted(names, key=_sort_key), classes, strict=False))
    numbered = all(n.isdecimal() and int(n) == c for n, c in ((name.partition("_")[0], c) for name, c in ordered.items()))
    # If only some names are labels, a name is misspelt or the classes differ: the order would assign wrong classes.
    if len(names) == len(classes) and (numbered or len(unknown) == len(names)):
        return ordered
    hint = (
        ". The target has one class more: if it is one for the background, give labels=FILE with a line for it first"
        if len(names) == len(real) - 1 and len(unknown) == len(names)
        else ""
    )
    raise ImageError(
        f"{folder}: {len(names)} different {entries}, of which {len(unknown)} are not among the target's {len(labels)} "
        f"({', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}); they have to be labels "
        f"({', '.join(labels[:3])} ...), or exactly {len(real)} names in class order. Layouts: {_LAYOUTS}{hint}"
    )


def _label_of(name: str, known: dict[str, int], labels: Sequence[str]) -> int | None:
    for key in (name, _normalized(name)):
        if key in known:
            return known[key]
    number, _, rest = name.partition("_")
    if rest and number.isdecimal() and int(number) < len(labels):
        # `evofool export` cuts long labels.
        return int(number) if _normalized(labels[int(number)]).startswith(_normalized(rest)) else None
    return None


def _normalized(label: str) -> str:
    """Without case and punctuation, which file names do not preserve."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _sort_key(name: str) -> list[int | str]:
    """Orders numbers by value: class_2 before class_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]
