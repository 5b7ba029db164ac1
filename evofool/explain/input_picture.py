"""A picture file as an input of a target, and a description of the changes."""

import math
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from evofool.errors import ImageError
from evofool.images import from_pil
from evofool.targets import Target
from evofool.targets.photos import open_image, to_input

LARGEST_PHOTOGRAPH = 24_000_000
"""The most pixels of a whole photograph, 6,000 x 4,000: a dream of one takes about 2 GB of memory."""

_KEPT = ("1", "L", "LA", "P", "RGB", "RGBA")  # modes of a picture that keeps its pixels if it has the target's size
_NAMES = {"L": "grey", "I;16": "16-bit grey", "I;16B": "16-bit grey", "I;16L": "16-bit grey", "P": "palette"}


def read_picture(file: Path, target: Target) -> tuple[np.ndarray, str]:
    """uint8 (C, H, W) as the target takes it, and a description of the changes, "" if there are none, as by `fitted`.

    ImageError, naming the file, for a file that cannot be read.
    """
    with open_image(file) as opened:
        return fitted(opened, target, file.name)


def fitted(opened: Image.Image, target: Target, name: str) -> tuple[np.ndarray, str]:
    """A picture as the target takes it, uint8 (C, H, W), and a description of the changes to what `name` names.

    A picture of the target's size keeps its pixels: an elite is not resized and cropped as a photograph would be.
    Transparent pixels are blended with white; 16-bit grey is divided by 257.
    """
    channels, height, width = target.shape
    mode = "L" if channels == 1 else "RGB"
    size, old_mode = opened.size, opened.mode
    picture, flattened = flat(opened)
    if size == (width, height) and picture.mode in _KEPT:
        image = from_pil(picture.convert(mode))
    else:
        image = to_input(picture, target)
    resize = target.details.get("preprocessing", {}).get("resize")
    if resize and size != (width, height):
        how = f" (short side {resize}, centre)"
    else:
        how = "" if size[0] * height == size[1] * width else " (distorted)"
    if size == (width, height) and old_mode == mode and not flattened:
        return image, ""
    return image, _change_text(name, size, old_mode, (width, height), mode, how + flattened)


def read_photograph(file: Path, channels: int, size: int | None = None) -> tuple[np.ndarray, str]:
    """uint8 (C, H, W) of the whole picture, grey (C 1) or RGB (C 3), and a description of the changes, "" if there are none.

    size: the longer side, in pixels, that the picture is resampled to; None: its own size, and a picture of more than
    LARGEST_PHOTOGRAPH pixels is reduced to that. The picture is turned upright as its EXIF data says. Transparent pixels are
    blended with white; 16-bit grey is divided by 257. ImageError, naming the file, for a file that cannot be read, and for a
    size of too many pixels.
    """
    mode = "L" if channels == 1 else "RGB"
    with open_image(file) as opened:
        size_as_stored, old_mode = opened.size, opened.mode
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
        picture, change = flat(ImageOps.exif_transpose(opened))
        if picture.mode.startswith(("I", "F")):
            raise ImageError(f"pixels of more than 8 bits (mode {picture.mode}); save it as an 8-bit picture")
        picture = picture.convert(mode)
    old = picture.size
    scale = size / max(old) if size else min(1.0, math.sqrt(LARGEST_PHOTOGRAPH / (old[0] * old[1])))
    new = (max(1, int(old[0] * scale + 1e-6)), max(1, int(old[1] * scale + 1e-6)))
    if new[0] * new[1] > LARGEST_PHOTOGRAPH:
        raise ImageError(f"{file}: {new[0]:,} x {new[1]:,} pixels are too many; {LARGEST_PHOTOGRAPH:,} are the most")
    if new != old:
        picture = picture.resize(new, Image.Resampling.LANCZOS)
    if new == old and old_mode == mode and not turned and not change:
        return from_pil(picture), ""
    change += ", turned upright" if turned else ""
    change += f", because {LARGEST_PHOTOGRAPH:,} pixels are the most" if new != old and not size else ""
    return from_pil(picture), _change_text(file.name, size_as_stored, old_mode, new, mode, change)


def flat(picture: Image.Image) -> tuple[Image.Image, str]:
    """The picture without transparency and in 8 bits, and a description of the change."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8)), ", its 16 bits divided by 257"
    if picture.has_transparency_data:
        full = picture.convert("RGBA")
        if np.asarray(full)[..., 3].min() < 255:
            white = Image.new("RGBA", picture.size, "white")
            return Image.alpha_composite(white, full).convert("RGB"), ", transparency blended with white"
    return picture, ""


def _change_text(name: str, old: tuple[int, int], old_mode: str, new: tuple[int, int], mode: str, how: str) -> str:
    before, now = (f"{w}x{h} {_NAMES.get(m, m)}" for (w, h), m in ((old, old_mode), (new, mode)))
    return f"{name}: {before} became {now}{how}"
