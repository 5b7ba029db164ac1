"""8-bit images: quantised, written as PNG and read back here alone, so that the scored image is the saved one."""

import hashlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from evofool.errors import ImageError
from evofool.whole_file import whole_file, write_whole

MOST_PIXELS = 89_000_000
"""The largest picture that is opened. A larger one could fill the memory from a file of some kilobytes; Pillow warns a
little above this."""
GIANTS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
"""The exceptions that Pillow raises for a picture that could be an attack."""

MOST_VALUES = 1 << 24
"""The most values of an image that a target takes, over all channels: RGB of 2,364 x 2,364 pixels. Published classifiers
take up to 1,024 x 1,024, and one batch of RGB images of 10,000 x 10,000 pixels does not fit into memory."""

LARGE_SIDE = 64
"""Pixels: from this short side on images are large, as photographs are; below it they are small, as digits are."""


def is_large(shape: tuple[int, int, int]) -> bool:
    """Whether images of this shape (C, H, W) are large. They are scored and optimised a few at a time."""
    return min(shape[1:]) >= LARGE_SIDE


def shape_fault(shape: tuple[int, ...]) -> str:
    """Why no target can have images of this shape; empty if one can: (C, H, W) whole numbers, C 1 or 3, H and W > 0."""
    whole = len(shape) == 3 and all(isinstance(side, int) and not isinstance(side, bool) for side in shape)
    if not whole or shape[0] not in (1, 3) or min(shape) < 1:
        return f"the shape of an image is (1 or 3, H, W), not {shape}"
    if shape[0] * shape[1] * shape[2] > MOST_VALUES:
        return f"an image of shape {shape} has {shape[0] * shape[1] * shape[2]:,} values; {MOST_VALUES:,} are the most"
    return ""


def levels(x: Any) -> Any:
    """Floats in [0, 1], numpy's or torch's, to whole numbers 0..255 of their type: round(255 x), halves up, clipped."""
    return (x.clip(0.0, 1.0) * 255.0 + 0.5) // 1


def quantise(x: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] to uint8, rounded as by `levels`."""
    return levels(x).astype(np.uint8)


def to_pil(image: np.ndarray) -> Image.Image:
    """uint8 (C, H, W), C 1 (grey) or 3 (RGB)."""
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image is a NumPy array, uint8 (1 or 3, H, W), not a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or not image.size:
        raise ImageError(f"an image is uint8 (1 or 3, H, W), not {image.dtype} {image.shape}")
    return Image.fromarray(image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def from_pil(picture: Image.Image) -> np.ndarray:
    """uint8 (C, H, W) of a picture of mode L (C 1) or RGB (C 3): a copy, contiguous."""
    pixels = np.array(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resized(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (C, H, W) of any size to uint8 of another shape; an image that has it already is returned unchanged.

    The whole image is scaled and nothing is cropped: bilinear, averaging where it shrinks (Pillow's). RGB becomes grey by
    the luma of ITU-R 601, grey becomes three equal channels.
    """
    if fault := shape_fault(shape):
        raise ImageError(fault)
    channels, height, width = shape
    if isinstance(image, np.ndarray) and image.shape == shape and image.dtype == np.uint8:
        return image
    picture = to_pil(image).convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return from_pil(picture)


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (C, H, W) as a PNG file's bytes; lossless."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


@lru_cache(maxsize=64)
def fewer_colours(png: bytes) -> bytes:
    """A PNG with at most 96 colours that looks much the same, or the same bytes if that is no shorter."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)


def decode_png(png: bytes, where: str = "PNG", shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """The uint8 (C, H, W) that encode_png encoded. shape: that it has to have; None allows any.

    ImageError, naming `where`, for anything else than such a PNG, and for one of more than MOST_PIXELS.
    """
    picture = opened_png(png, where, shape=shape)
    if picture.mode not in ("L", "RGB"):
        raise ImageError(f"{where}: PNG of mode {picture.mode}; expected 8-bit grey (L) or RGB")
    image = from_pil(picture)
    if shape is not None and image.shape != shape:
        raise ImageError(f"{where}: its picture is {image.shape}, not {shape}")
    return image


def opened_png(
    png: bytes, where: str = "PNG", most: int = MOST_PIXELS, shape: tuple[int, int, int] | None = None
) -> Image.Image:
    """The decoded picture of a PNG of any mode. most: pixels. shape: (C, H, W), whose size it has to have; None: any size.

    ImageError, naming `where`, for anything else than a whole PNG, and for one of more pixels or of another size, which is
    told from its header, before anything is decoded.
    """
    if not isinstance(png, bytes):
        raise ImageError(f"{where}: a PNG is bytes, not a {type(png).__name__}")
    # The size is read from the header, because Pillow would warn of a large picture first, and unpack it.
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    if png[12:16] == b"IHDR":
        if shape is not None and (height, width) != shape[1:]:
            raise ImageError(f"{where}: a PNG of {width:,} x {height:,} pixels, not {shape[2]:,} x {shape[1]:,}")
        if width * height > most:
            raise ImageError(f"{where}: a PNG of {width:,} x {height:,} pixels; {most:,} are the most that is read")
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            width, height = picture.size
            if width * height > most:  # of a file whose first chunk is another one
                raise ImageError(f"{where}: a PNG of {width:,} x {height:,} pixels; {most:,} are the most that is read")
            picture.load()
            return picture
    except ImageError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, *GIANTS) as error:
        raise ImageError(f"{where}: not a whole PNG ({error})") from None


def pixel_sha256(image: np.ndarray) -> str:
    """SHA-256, in hexadecimal, of the shape and the pixels of a uint8 (C, H, W): equal pictures have it in every PNG."""
    shape = "x".join(map(str, image.shape))
    return hashlib.sha256(f"{shape}|".encode() + np.ascontiguousarray(image, np.uint8).tobytes()).hexdigest()


def save_png(image: np.ndarray, path: Path) -> None:
    """Write uint8 (C, H, W) to path, whole or not at all."""
    write_whole(path, encode_png(image))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture to path, a PNG."""
    with whole_file(path) as draft:
        picture.save(draft, "PNG")
