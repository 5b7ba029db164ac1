"""What a deployed classifier's pipeline does to an image before the classifier sees it: JPEG, WebP, resizing, cropping.

A pipeline is a chain of steps on 8-bit pictures, each exact: there is no randomness, and the codecs are Pillow's.
"""

import difflib
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, features
from torch.nn import functional as F

from evofool.errors import TargetError
from evofool.images import from_pil, is_large, to_pil
from evofool.machine import cpus
from evofool.targets.preprocessing import INTERPOLATIONS, MOST_RESIZE
from evofool.text import shortened, whole_number

MOST = 64  # pipelines
_SIDE = MOST_RESIZE  # pixels
_LONGER = 16384  # pixels of the longer side of a resized picture
_LONGEST = {"JPEG": 65_500, "WEBP": 16_383}  # pixels of a side, by the formats
UNCHANGED = "same"


class Step(Protocol):
    """A step of a pipeline."""

    @property
    def text(self) -> str:
        """As a spec names it, in its shortest form."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        """An 8-bit picture, grey (L) or RGB, to another one of the same mode."""

    def smooth(self, images: torch.Tensor) -> torch.Tensor:
        """The same for float images (B, C, H, W), about, with gradients: what a backward pass goes through."""


class Encoded(NamedTuple):
    """Saved as a lossy file and read again. WebP has no grey pictures, so that these are converted to RGB and back.

    Quality apart, the settings are Pillow's: JPEG has half the resolution of colour along each side (4:2:0). Backwards it
    does nothing (straight-through: BPDA, Athalye, Carlini & Wagner 2018, section 4.1).
    """

    form: str  # JPEG or WEBP
    quality: int

    @property
    def text(self) -> str:
        return f"{self.form.lower()}:{self.quality}"

    def __call__(self, picture: Image.Image) -> Image.Image:
        if max(picture.size) > _LONGEST[self.form]:
            raise TargetError(
                f"{self.text} cannot save {picture.width:,} x {picture.height:,} pixels; a side has at most "
                f"{_LONGEST[self.form]:,}"
            )
        file = io.BytesIO()
        picture.save(file, self.form, quality=self.quality)
        with Image.open(file, formats=[self.form]) as read:
            return read.convert(picture.mode)

    def smooth(self, images: torch.Tensor) -> torch.Tensor:
        return images


class Resized(NamedTuple):
    """To so many pixels of the shorter side; the longer one in proportion, rounded. By Pillow, which averages when it makes
    pictures smaller (except `nearest`)."""

    side: int
    interpolation: str

    @property
    def text(self) -> str:
        return f"resize:{self.side}" + (f":{self.interpolation}" if self.interpolation != "bilinear" else "")

    def __call__(self, picture: Image.Image) -> Image.Image:
        height, width = self._size((picture.height, picture.width))
        return resize(picture, (height, width), self.interpolation)

    def smooth(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        return smooth_resize(images, self._size((height, width)), self.interpolation)

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = _proportional(size, self.side)
        if max(height, width) > _LONGER:
            raise TargetError(
                f"{self.text} makes {width:,} x {height:,} pixels of {size[1]} x {size[0]}; {_LONGER:,} are the most"
            )
        return height, width


class Cropped(NamedTuple):
    """The middle of the picture, side x side pixels."""

    side: int

    @property
    def text(self) -> str:
        return f"crop:{self.side}"

    def __call__(self, picture: Image.Image) -> Image.Image:
        top, left = self._corner((picture.height, picture.width))
        return picture.crop((left, top, left + self.side, top + self.side))

    def smooth(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        top, left = self._corner((height, width))
        return images[:, :, top : top + self.side, left : left + self.side]

    def _corner(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.side > min(size):
            raise TargetError(f"{self.text} does not fit into {size[1]} x {size[0]} pixels")
        return (size[0] - self.side) // 2, (size[1] - self.side) // 2


class Shifted(NamedTuple):
    """Moved to the right and down by so many pixels, or to the left and up; the edge is repeated."""

    right: int
    down: int

    @property
    def text(self) -> str:
        return f"shift:{self.right}" + (f":{self.down}" if self.down != self.right else "")

    def __call__(self, picture: Image.Image) -> Image.Image:
        pixels = np.asarray(picture)
        rows, columns = self._places((picture.height, picture.width))
        return Image.fromarray(np.ascontiguousarray(pixels[rows][:, columns]))

    def smooth(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        rows, columns = (torch.from_numpy(at).to(images.device) for at in self._places((height, width)))
        return images[:, :, rows[:, None], columns]

    def _places(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        if abs(self.down) >= size[0] or abs(self.right) >= size[1]:
            raise TargetError(f"{self.text} moves all of {size[1]} x {size[0]} pixels out of the picture")
        rows, columns = (np.clip(np.arange(n) - by, 0, n - 1) for n, by in zip(size, (self.down, self.right), strict=True))
        return rows, columns


class Pipeline(NamedTuple):
    """A chain of steps. text: as a spec names it, in its shortest form.

    After the last step a picture of another size is resized to its first size, with the interpolation of the last resizing
    (bilinear if there is none).
    """

    text: str
    steps: tuple[Step, ...]

    @property
    def interpolation(self) -> str:
        return next((step.interpolation for step in reversed(self.steps) if isinstance(step, Resized)), "bilinear")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W) to the same, C 1 or 3. TargetError for a step that the size of the images does not allow."""
        if not self.steps:
            return images
        # Pillow's codecs and resizing let other threads run; for small images threads cost more than they save.
        several = len(images) > 1 and is_large(images.shape[1:]) and cpus() > 1
        return np.stack([*(_threads().map if several else map)(self._delivered, images)]) if len(images) else images

    def _delivered(self, image: np.ndarray) -> np.ndarray:
        first = picture = to_pil(image)
        for step in self.steps:
            picture = step(picture)
        return from_pil(resize(picture, (first.height, first.width), self.interpolation))

    def smooth(self, images: torch.Tensor) -> torch.Tensor:
        """The same for float images (B, C, H, W), about, with gradients."""
        x = images
        for step in self.steps:
            x = step.smooth(x)
        height, width = images.shape[2:]
        return smooth_resize(x, (height, width), self.interpolation)


def pipelines(text: str, who: str) -> tuple[Pipeline, ...]:
    """Those of a list such as "same,jpeg:75+shift:2": a comma separates them, and a plus the steps of one.

    who begins the message of a TargetError.
    """
    parts = [part.strip() for part in text.split(",")]
    made = tuple(_pipeline(part, who) for part in parts)
    names = [pipeline.text for pipeline in made]
    if twice := [name for name in names if names.count(name) > 1]:
        raise TargetError(f"{who}: through has {twice[0]} twice")
    if len(made) > MOST:
        raise TargetError(f"{who}: through has {len(made)} pipelines; at most {MOST} are possible")
    return made


def refuse_misfits(made: Sequence[Pipeline], shape: tuple[int, int, int], who: str) -> None:
    """TargetError, which begins with who, for a step that images of this shape are too small or too long for."""
    for pipeline in made:
        try:
            pipeline(np.zeros((1, *shape), np.uint8))
        except TargetError as error:
            raise TargetError(f"{who}: {error}") from None


def codec_versions(made: tuple[Pipeline, ...]) -> str:
    """The libraries whose version may change the bits of these pipelines' pictures, such as "Pillow 12.0.0, libjpeg 6.2"."""
    forms = {step.form for pipeline in made for step in pipeline.steps if isinstance(step, Encoded)}
    jpeg = f"libjpeg-turbo {features.version('libjpeg_turbo')}"
    if not features.check("libjpeg_turbo"):
        jpeg = f"libjpeg {features.version('jpg')}"
    used = [name for form, name in (("JPEG", jpeg), ("WEBP", f"libwebp {features.version('webp')}")) if form in forms]
    return ", ".join([f"Pillow {Image.__version__}", *used])


def resize(picture: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    """A picture with (height, width) pixels; itself if it has them."""
    if (picture.height, picture.width) == size:
        return picture
    return picture.resize((size[1], size[0]), Image.Resampling[interpolation.upper()])


def smooth_resize(images: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """Float images (B, C, H, W) with (height, width) pixels, by torch; bicubic stands for Lanczos."""
    if tuple(images.shape[2:]) == size:
        return images
    if interpolation == "nearest":
        return F.interpolate(images, size, mode="nearest-exact")
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    return F.interpolate(images, size, mode=mode, align_corners=False, antialias=True)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cpus(), "pipelines")


def _proportional(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) with the shorter one of `side` pixels."""
    height, width = size
    if height <= width:
        return side, max(side, round(width * side / height))
    return max(side, round(height * side / width)), side


# --- reading


def _pipeline(text: str, who: str) -> Pipeline:
    if text == UNCHANGED:
        return Pipeline(text, ())
    steps = tuple(_step(part.strip(), who) for part in text.split("+"))
    return Pipeline("+".join(step.text for step in steps), steps)


def _step(text: str, who: str) -> Step:
    name, *values = text.split(":")
    read = _STEPS.get(name)
    if read is None:
        near = difflib.get_close_matches(name, [*_STEPS, UNCHANGED], 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise TargetError(
            f'{who}: through has "{shortened(text)}"; there are {", ".join(_FORMS)}, joined by +, and {UNCHANGED} alone'
            + hint
        )
    step = read(values)
    if step is None:
        raise TargetError(f'{who}: through has "{shortened(text)}"; it has to be {_WORDS[name]}')
    return step


def _whole(text: str, least: int, most: int) -> int | None:
    number = whole_number(text.removeprefix("-"))
    number = -number if number is not None and text.startswith("-") else number
    return number if number is not None and least <= number <= most else None


def _encoded(form: str, least: int) -> Callable[[list[str]], Step | None]:
    def read(values: list[str]) -> Step | None:
        quality = _whole(values[0], least, 100) if len(values) == 1 else None
        return None if quality is None else Encoded(form, quality)

    return read


def _resized(values: list[str]) -> Step | None:
    side = _whole(values[0], 1, _SIDE) if len(values) in (1, 2) else None
    interpolation = values[1] if len(values) == 2 else "bilinear"
    return Resized(side, interpolation) if side is not None and interpolation in INTERPOLATIONS else None


def _cropped(values: list[str]) -> Step | None:
    side = _whole(values[0], 1, _SIDE) if len(values) == 1 else None
    return None if side is None else Cropped(side)


def _shifted(values: list[str]) -> Step | None:
    found = [_whole(value, -_SIDE, _SIDE) for value in values]
    if len(found) not in (1, 2) or None in found:
        return None
    right, down = found[0], found[-1]
    return None if right is None or down is None else Shifted(right, down)


_STEPS: Mapping[str, Callable[[list[str]], Step | None]] = {
    "jpeg": _encoded("JPEG", 1),
    "webp": _encoded("WEBP", 0),
    "resize": _resized,
    "crop": _cropped,
    "shift": _shifted,
}
_FORMS = ("jpeg:QUALITY", "webp:QUALITY", "resize:PIXELS[:INTERPOLATION]", "crop:PIXELS", "shift:RIGHT[:DOWN]")
_WORDS = {
    "jpeg": "jpeg:QUALITY, from 1 to 100",
    "webp": "webp:QUALITY, from 0 to 100",
    "resize": f"resize:PIXELS or resize:PIXELS:INTERPOLATION, pixels from 1 to {_SIDE:,} and {', '.join(INTERPOLATIONS)}",
    "crop": f"crop:PIXELS, from 1 to {_SIDE:,}",
    "shift": "shift:PIXELS, or shift:RIGHT:DOWN, whole numbers; negative ones move to the left and up",
}
