"""A picture file as an input of a target, and a description of the changes."""

from pathlib import Path

import numpy as np
from PIL import Image

from evofool.images import from_pil
from evofool.targets import Target
from evofool.targets.photos import open_image, to_input

_KEPT = ("1", "L", "LA", "P", "RGB", "RGBA")  # modes of a picture that keeps its pixels if it has the target's size
_NAMES = {"L": "grey", "I;16": "16-bit grey", "I;16B": "16-bit grey", "I;16L": "16-bit grey", "P": "palette"}


def read_picture(file: Path, target: Target) -> tuple[np.ndarray, str]:
    """uint8 (C, H, W) as the target takes it, and a description of the changes, "" if there are none.

    A picture of the target's size keeps its pixels: an elite is not resized and cropped as a photograph would be.
    Transparent pixels are blended with white; 16-bit grey is divided by 257. ImageError, naming the file, for a file that
    cannot be read.
    """
    channels, height, width = target.shape
    mode = "L" if channels == 1 else "RGB"
    with open_image(file) as opened:
        size, old_mode = opened.size, opened.mode
        picture, flattened = flat(opened)
        if size == (width, height) and picture.mode in _KEPT:
            image = from_pil(picture.convert(mode))
        else:
            image = to_input(picture, target)
    resize = target.details.get("preprocessing", {}).get("resize")
    how = "" if size == (width, height) else f" (short side {resize}, centre)" if resize else " (squeezed)"
    if size == (width, height) and old_mode == mode and not flattened:
        return image, ""
    now = f"{width}x{height} {_NAMES.get(mode, mode)}"
    return image, f"{file.name}: {size[0]}x{size[1]} {_NAMES.get(old_mode, old_mode)} became {now}{how}{flattened}"


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
