"""Frames as an animation: GIF, animated PNG or MP4, by the ending of the file's name."""

import itertools
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evofool.errors import ImageError
from evofool.images import to_pil
from evofool.whole_file import whole_file

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".gif", ".png", ".apng", ".mp4")
LONGEST = 1280
"""The longest side of an animation, in pixels; larger frames are reduced."""
FRAME_SECONDS = 0.08


def refuse_animation(path: Path) -> None:
    """ImageError for a file whose ending is no animation's, and for an MP4 without the package that writes it."""
    if path.suffix.lower() not in ENDINGS:
        raise ImageError(f"{path}: an animation ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if path.suffix.lower() == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise ImageError(f"{path}: MP4 needs imageio-ffmpeg: pip install 'evofool[video]', or name a .gif or .png file")


def write_animation(path: Path, frames: Iterable[np.ndarray]) -> tuple[int, int]:
    """Write frames, uint8 (C, H, W) of equal shape, C 1 or 3, that repeat for ever; returns its (width, height).

    A frame takes FRAME_SECONDS. The file is replaced when the new one is complete. StoreError if it cannot be written;
    ImageError as in refuse_animation.
    """
    refuse_animation(path)
    pictures = (_reduced(frame) for frame in frames)
    first = next(pictures)
    size = first.size
    with whole_file(path) as draft:
        if path.suffix.lower() == ".mp4":
            size = (size[0] - size[0] % 2, size[1] - size[1] % 2)
            if not min(size):
                raise ImageError(f"{path}: an MP4 needs at least 2 x 2 pixels, not {first.width} x {first.height}")
            _write_mp4(draft, size, itertools.chain([first], pictures))
        else:
            kind = "GIF" if path.suffix.lower() == ".gif" else "PNG"
            # A list, since Pillow passes over the frames of a PNG more than once.
            rest = list(pictures)
            first.save(draft, kind, save_all=True, append_images=rest, duration=round(1000 * FRAME_SECONDS), loop=0)
    return size


def _reduced(frame: np.ndarray) -> "Image.Image":
    from PIL import Image

    picture = to_pil(frame)
    scale = LONGEST / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture


def _write_mp4(path: Path, size: tuple[int, int], pictures: Iterable["Image.Image"]) -> None:
    """H.264 in the pixel format that every player reads, which needs even sides: an odd last row or column is left out."""
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=1 / FRAME_SECONDS,
        codec="libx264",
        pix_fmt_out="yuv420p",
        quality=8,
        macro_block_size=1,
        ffmpeg_log_level="error",
        output_params=["-f", "mp4"],  # the ending of a temporary file does not say so
    )
    writer.send(None)
    try:
        for picture in pictures:
            writer.send(picture.convert("RGB").crop((0, 0, *size)).tobytes())
    finally:
        writer.close()
