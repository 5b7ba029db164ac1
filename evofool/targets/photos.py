"""Labelled photographs out of a folder, as a target sees them; and patterns for where there are none."""

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
from evofool.targets.labels import is_rejection
from evofool.targets.target import Target

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
_FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF"]
_LAYOUTS = "a folder of pictures for every class, or pictures named CLASS_anything.jpg, for example WNID_label.jpg"


class Photograph(NamedTuple):
    """A picture's file and the class that it shows."""

    file: Path
    class_id: int


def find_photographs(folder: Path, labels: Sequence[str]) -> list[Photograph]:
    """The pictures of a folder in order of their paths, with their classes; ImageError if the classes cannot be told.

    Either a sub-folder for every class, with pictures at any depth, or pictures named CLASS_anything, where CLASS holds no
    underscore. The classes' names are labels ("tench"), numbers with labels as `evofool export` writes them ("000_tench"),
    or, if there are exactly as many of them as labels, anything: then their order, numbers by their value, is that of the
    classes, as WNIDs ("n01440764") have it. Classes that stand for no thing ("rejected") need not be there. Hidden files are
    passed over.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; photographs are {_LAYOUTS}")
    try:
        seen = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        homes = {path.name: pictures(path) for path in seen if path.is_dir()}
    except OSError as error:
        raise ImageError(f"{folder} cannot be read ({error})") from None
    homes = {name: files for name, files in homes.items() if files}
    loose = [path for path in seen if path.is_file() and path.suffix.lower() in _SUFFIXES]
    if homes and loose:
        raise ImageError(
            f"{folder} holds {len(homes)} folders with pictures and {len(loose)} pictures beside them ({loose[0].name}); "
            f"it has to be {_LAYOUTS}"
        )
    if not homes and not loose:
        raise ImageError(f"{folder} holds no pictures ({', '.join(_SUFFIXES)}); needed is {_LAYOUTS}")
    for path in loose:
        homes.setdefault(path.stem.partition("_")[0], []).append(path)
    classes = _classes(list(homes), labels, folder, "folders" if not loose else "beginnings of names")
    return [Photograph(file, classes[name]) for name, files in homes.items() for file in files]


def photographs(
    found: Sequence[Photograph], target: Target, batch: int = 32
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Path]]]:
    """uint8 images (B, C, H, W), their classes (B,) int64 and their files, B <= batch: not all fit in memory."""
    for begin in range(0, len(found), batch):
        part = found[begin : begin + batch]
        images = []
        for file, _ in part:
            with open_image(file) as picture:
                # No turning by EXIF: evaluations on ImageNet do not turn either.
                images.append(to_input(picture, target))
        yield np.stack(images), np.array([p.class_id for p in part], np.int64), [p.file for p in part]


@contextmanager
def open_image(file: Path) -> Iterator[Image.Image]:
    """The picture of a file, to be decoded inside the with block: of the usual formats alone, and no giant.

    ImageError, naming the file, for what is none and for whatever decoding it stumbles over.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata and palettes: the pixels count
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ImageError(f"{picture.width:,} x {picture.height:,} pixels; {MOST_PIXELS:,} are the most")
                yield picture
    except (OSError, ValueError, SyntaxError, *GIANTS) as error:
        # Pillow and the system end by naming the file, which is named already.
        why = re.sub(rf":? {re.escape(repr(str(file)))}$", "", str(error))
        raise ImageError(f"{file} cannot be read as a picture ({why})") from None


def to_input(picture: Image.Image, target: Target) -> np.ndarray:
    """A picture as the uint8 (C, H, W) that a target takes: scaled and cut as its preprocessing says, grey if it is.

    Short side to `resize` pixels (more if the target's shape is larger), then the centre; without `resize` the whole
    picture is squeezed into the shape. Scaled as torchvision scales Pillow's pictures.
    """
    channels, height, width = target.shape
    if picture.mode.startswith(("I", "F")):
        raise ImageError(f"pixels of more than 8 bits (mode {picture.mode}); save it as an 8-bit picture")
    picture = picture.convert("L" if channels == 1 else "RGB")
    preprocessing = target.details.get("preprocessing", {})
    resize = preprocessing.get("resize")
    filter_ = Image.Resampling[preprocessing.get("interpolation", "bilinear").upper()]
    if resize is None:
        size = (width, height)
    else:
        w, h = picture.size
        factor = max(resize / min(w, h), width / w, height / h)
        # Rounded down, as torchvision does; the guard is for a factor that came out one bit short.
        size = (max(width, int(w * factor + 1e-9)), max(height, int(h * factor + 1e-9)))
    if picture.size != size:
        picture = picture.resize(size, filter_)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return from_pil(picture.crop((left, top, left + width, top + height)))


def patterns(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, C, H, W) to ask a target about: smooth colours and noise in turn, all different."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    for image in images[::2]:
        for c in range(channels):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8))
            image[c] = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return images


def drawings(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, C, H, W): bold strokes, white on black and black on white in turn, each channel's its own."""
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


def pictures(folder: Path) -> list[Path]:
    """The files of pictures in a folder, at any depth, in order of their paths; hidden ones are passed over."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _classes(names: list[str], labels: Sequence[str], folder: Path, what: str) -> dict[str, int]:
    """The class that each name stands for."""
    known = {_plain(label): c for c, label in enumerate(labels)}
    if len(known) < len(labels):  # labels that differ in their punctuation alone
        known = {label: c for c, label in enumerate(labels)}
    by_label = {name: _label_of(name, known, labels) for name in names}
    strangers = [name for name, class_id in by_label.items() if class_id is None]
    if not strangers:
        return {name: class_id for name, class_id in by_label.items() if class_id is not None}
    things = [c for c, label in enumerate(labels) if not is_rejection(label)]
    classes = things if len(names) == len(things) else range(len(labels))
    ordered = dict(zip(sorted(names, key=_in_order), classes, strict=False))
    numbered = all(n.isdecimal() and int(n) == c for n, c in ((name.partition("_")[0], c) for name, c in ordered.items()))
    # Some known and some not is a typing error or another set of classes: their order would put wrong classes to them.
    if len(names) == len(classes) and (numbered or len(strangers) == len(names)):
        return ordered
    raise ImageError(
        f"{folder}: {len(names)} different {what}, {len(strangers)} of them no labels of the target's {len(labels)} "
        f"({', '.join(strangers[:5])}{' ...' if len(strangers) > 5 else ''}); they have to be labels "
        f"({', '.join(labels[:3])} ...), or exactly {len(things)} names in class order. Layouts: {_LAYOUTS}"
    )


def _label_of(name: str, known: dict[str, int], labels: Sequence[str]) -> int | None:
    for key in (name, _plain(name)):
        if key in known:
            return known[key]
    number, _, rest = name.partition("_")
    if rest and number.isdecimal() and int(number) < len(labels):
        # `evofool export` cuts long labels.
        return int(number) if _plain(labels[int(number)]).startswith(_plain(rest)) else None
    return None


def _plain(label: str) -> str:
    """Without case and punctuation, which do not survive in file names."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _in_order(name: str) -> list[int | str]:
    """Numbers by their value: class_2 before class_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]
