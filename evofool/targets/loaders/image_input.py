"""The images that a network in a file takes: number format, axes, and how many in a batch."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from evofool.errors import TargetError
from evofool.targets.arguments import image_shape
from evofool.targets.spec import Spec

_MOST_IN_BATCH = 1 << 28  # values
_LAYOUTS = "(B, C, H, W), (B, H, W, C), (B, H, W) or (B, pixels)"


class ImageInput(NamedTuple):
    """An input for images (B, C, H, W), (B, H, W, C), grey (B, H, W), or rows of pixels (B, C * H * W)."""

    dtype: torch.dtype
    batch: int | None  # None: any number
    channels: int
    size: tuple[int, int]  # height, width
    last: bool = False  # channels last
    axes: int = 4  # 3: (B, H, W), 2: (B, C * H * W)
    alpha: bool = False  # a fourth channel, for opacity

    @classmethod
    def of(
        cls, dtype: torch.dtype, shape: Sequence[object], spec: Spec, takes: str, default: tuple[int, int] | None = None
    ) -> "ImageInput":
        """Read from the shape of an input, in which a side that is not a whole number above 0 is free; TargetError for
        images, or fixed batches of them, that are too large.

        Rows of pixels are grey and square unless size= says otherwise. takes: the input in words, for errors. default: the
        size of images where the input leaves it free.
        """
        found = cls._read(dtype, shape, spec, takes, default)
        values = math.prod(image_shape(spec.head, (found.channels, *found.size)))
        if (found.batch or 1) * values > _MOST_IN_BATCH:
            raise TargetError(f"{spec.head}: takes {takes}; that are {found.batch:,} images at once, which is too many")
        return found

    @classmethod
    def _read(
        cls, dtype: torch.dtype, shape: Sequence[object], spec: Spec, takes: str, default: tuple[int, int] | None
    ) -> "ImageInput":
        if not 2 <= len(shape) <= 4:
            raise TargetError(f"{spec.head}: takes {takes}; it has to take only images, {_LAYOUTS}")
        batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in shape)
        if len(sides) == 1:
            return cls(dtype, batch, *_of_row(sides[0], spec, takes), axes=2)
        last = len(sides) == 3 and sides[0] not in (1, 3) and (sides[2] in (1, 3) or (sides[2] == 4 and sides[0] != 4))
        height, width, channels = (*sides, 1) if len(sides) == 2 else sides if last else (*sides[1:], sides[0])
        if channels not in (1, 3, 4, None):
            raise TargetError(f"{spec.head}: takes {takes}; images have 1 or 3 channels, and a fourth for opacity")
        known = (height, width) if height and width else default
        size = spec.side(known)
        if any(side not in (None, given) for side, given in zip((height, width), size, strict=True)):
            raise TargetError(f"{spec.head}: takes {takes}; its images cannot be {size[0]}x{size[1]}")
        return cls(dtype, batch, min(channels or 3, 3), size, last, len(sides) + 1, channels == 4)

    def arranged(self, x: torch.Tensor, opaque: float = 0.0) -> torch.Tensor:
        """float (B, C, H, W), preprocessed, in this input's format and axes. opaque: an opaque pixel's alpha."""
        if self.alpha:
            x = torch.cat([x, x.new_full((len(x), 1, *x.shape[2:]), opaque)], 1)
        if x.dtype != self.dtype:
            x = x.to(self.dtype)
        if self.axes == 3:
            return x[:, 0].contiguous()
        x = (x.permute(0, 2, 3, 1) if self.last else x).contiguous()
        return x.flatten(1) if self.axes == 2 else x

    def parts(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """x, arranged, in batches of the size that the input takes; the last one is filled up with zeros."""
        step = self.batch or len(x)
        if short := -len(x) % step:
            x = torch.cat([x, x.new_zeros((short, *x.shape[1:]))])
        yield from x.split(step)


def _of_row(pixels: int | None, spec: Spec, takes: str) -> tuple[int, tuple[int, int]]:
    """Channels and (height, width) of images that are rows of pixels: grey and square unless size= says otherwise."""
    side = math.isqrt(pixels or 0)
    size = spec.side((side, side) if pixels and side * side == pixels else None)
    area = size[0] * size[1]
    if pixels not in (None, area, 3 * area):
        raise TargetError(f"{spec.head}: takes {takes}; its images cannot be {size[0]}x{size[1]}")
    return 3 if pixels == 3 * area else 1, size
