"""8-bit images: the only place where they are quantised, written as PNG and read back. What is scored is what is saved."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from evofool.errors import ImageError


def levels(x: Any) -> Any:
    """Floats in [0, 1], numpy's or torch's, to whole numbers 0..255 of their type: round(255 x), halves up, clipped."""
    return (x.clip(0.0, 1.0) * 255.0 + 0.5) // 1


def quantise(x: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] to uint8, as `levels` has them."""
    return levels(x).astype(np.uint8)


def to_pil(image: np.ndarray) -> Image.Image:
    """uint8 (C, H, W), C 1 (grey) or 3 (RGB)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ImageError(f"an image is uint8 (1 or 3, H, W), not {image.dtype} {image.shape}")
    return Image.fromarray(image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (C, H, W) as a PNG file's bytes; lossless."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode_png(png: bytes, where: str = "PNG") -> np.ndarray:
    """The uint8 (C, H, W) that encode_png was given. Raises ImageError, naming `where`, on anything that is no such PNG."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            picture.load()
            if picture.mode not in ("L", "RGB"):
                raise ImageError(f"{where}: PNG of mode {picture.mode}; expected 8-bit grey (L) or RGB")
            pixels = np.asarray(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{where}: not a whole PNG ({error})") from None
    return pixels[None].copy() if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def save_png(image: np.ndarray, path: Path) -> None:
    """Write uint8 (C, H, W) to path."""
    path.write_bytes(encode_png(image))
