"""From 8-bit images to a network's input (scaling, channel order, crops), and from its output to one row of logits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Any

import torch
from torch.nn import functional as F

from evofool.errors import TargetError
from evofool.text import shortened

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
MOST_RESIZE = 4096  # pixels
TINY = 1e-38  # about float32's smallest normal number; stands for a probability of 0
_BELOW_1 = 1 - 2.0**-24  # float32's largest number below 1; stands for a probability of 1


@dataclass(frozen=True)
class Preprocessing:
    """A network's input: (pixel * scale - mean) / std, pixel 0..255, per channel; channels are swapped first for BGR.

    invert: of 255 - pixel. transpose: rows and columns are swapped.

    mean and std have one number, or one per channel. crops 1: the image as it is; 5: its corners and centre, each of
    `crop` = (height, width); 10: their mirror images too. With several crops, their probabilities are averaged
    (10: Nguyen 2015 [code: fit/fit_deep_learning.hpp]).
    resize and interpolation define how photographs become images of the target's shape: the short side is resized to
    `resize` pixels (1 to MOST_RESIZE), then the centre is cropped; None resizes the whole picture. They do not affect
    evolved images.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: str = "RGB"
    crops: int = 1
    crop: tuple[int, int] | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    invert: bool = False
    transpose: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not all(map(_is_number, values)):
                raise _wrong(name, values, "a tuple of numbers: one, or one per channel")
            plain = (value if isinstance(value, (int, float)) else float(value) for value in values)  # JSON has no NumPy
            object.__setattr__(self, name, tuple(plain))
        if not _is_number(self.scale):
            raise _wrong("scale", self.scale, "a number")
        for name in ("crops", "resize"):
            value = getattr(self, name)
            if not (_is_whole(value) or (name == "resize" and value is None)):
                raise _wrong(name, value, "a whole number")
        if self.crop is not None:
            if (
                not isinstance(self.crop, Sequence)
                or len(self.crop) != 2
                or not all(_is_whole(s) and s > 0 for s in self.crop)
            ):
                raise _wrong("crop", self.crop, "(height, width) in pixels")
            object.__setattr__(self, "crop", tuple(self.crop))
        for name in ("invert", "transpose"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, getattr(self, name), "True or False")
        if self.order not in ("RGB", "BGR"):
            raise TargetError(f'channel order "{self.order}" is neither RGB nor BGR')
        if not self.scale > 0 or any(not s > 0 for s in self.std):
            raise TargetError(f"scale {self.scale} and std {self.std} have to be > 0")
        if not all(math.isfinite(v) for v in (self.scale, *self.mean, *self.std)):
            raise TargetError(f"scale {self.scale}, mean {self.mean} and std {self.std} have to be finite")
        lengths = {len(self.mean), len(self.std)} - {1}
        if not self.mean or not self.std or len(lengths) > 1:
            raise TargetError(f"mean {self.mean} and std {self.std} have to have one number, or one per channel")
        if self.crops not in (1, 5, 10) or (self.crop is None) != (self.crops == 1):
            raise TargetError(f"crops are 1 (the whole image), 5 or 10 of a given size, not {self.crops} of {self.crop}")
        if self.interpolation not in INTERPOLATIONS:
            raise TargetError(f'interpolation "{self.interpolation}" is none of {", ".join(INTERPOLATIONS)}')
        if self.resize is not None and not 1 <= self.resize <= MOST_RESIZE:
            raise TargetError(f"resize {shortened(str(self.resize))} has to be from 1 to {MOST_RESIZE:,} pixels")

    def zero(self, channels: int) -> torch.Tensor:
        """(channels, 1, 1) on [0, 1]: the colour that becomes 0, or the nearest one."""
        mean = torch.tensor(self.mean).expand(channels) / (self.scale * 255)
        colour = mean.flip(0) if self.order == "BGR" else mean
        return (1 - colour if self.invert else colour).clamp(0, 1).view(-1, 1, 1)

    def is_shift(self, mean: float = 0.0) -> bool:
        """Whether all it does to pixels is to subtract this number; channels and pixels may be rearranged."""
        return (self.scale, {*self.mean}, {*self.std}) == (1.0, {mean}, {1.0})

    def same_input(self, other: "Preprocessing") -> bool:
        """Whether a network gets the same input for an image; how photographs become images may differ."""
        return replace(self, resize=None, interpolation="bilinear") == replace(other, resize=None, interpolation="bilinear")

    def described(self) -> dict[str, Any]:
        """As JSON values, of which Preprocessing(**values) makes the same; invert and transpose only where they are True."""
        return {key: value for key, value in asdict(self).items() if key not in ("invert", "transpose") or value}

    def affine(self, device: torch.device | str = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from float pixels (B, C, H, W) on 0..255 to the network's input (B * crops, C, h, w).

        Differentiable. The crops of an image are neighbours.
        """
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (self.mean, self.std))
        # Made on the CPU: some devices have no float64.
        gain, shift = (self.scale / std).float().to(device), (mean / std).float().to(device)
        swap = self.order == "BGR"
        shifted = bool(shift.any())

        def apply(pixels: torch.Tensor) -> torch.Tensor:
            x = pixels.transpose(2, 3) if self.transpose else pixels
            x = 255 - x if self.invert else x
            x = (x.flip(1) if swap else x) * gain
            x = x - shift if shifted else x
            return x if self.crop is None else _cut(x, self.crops, self.crop)

        return apply


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _wrong(name: str, value: object, wanted: str) -> TargetError:
    return TargetError(f"Preprocessing: {name} is {value!r:.80} ({type(value).__name__}); it has to be {wanted}")


def _cut(x: torch.Tensor, crops: int, crop: tuple[int, int]) -> torch.Tensor:
    (height, width), (h, w) = x.shape[2:], crop
    if h > height or w > width:
        raise TargetError(f"crops of {h}x{w} cannot be cut out of an image of {height}x{width}")
    ends = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w), ((height - h) // 2, (width - w) // 2)]
    parts = [x[:, :, top : top + h, left : left + w] for top, left in ends]
    if crops == 10:
        parts += [part.flip(3) for part in parts]
    return torch.stack(parts, 1).flatten(0, 1)


def to_logits(raw: torch.Tensor, outputs: str, crops: int) -> torch.Tensor:
    """A network's output (B * crops, K) float32, of kind `outputs` (classifier.OUTPUTS), as logits (B, K).

    The logarithms of probabilities are logits of the same softmax: log-odds computed from them do not saturate where the
    probability itself rounds to 1. Several crops' probabilities are averaged, as logarithms.
    Of multi-label probabilities they are log(p / (1 - p)), at most 16.6, since float32 has no number between 1 - 2^-24 and
    1; NaN for what is outside of [0, 1].
    """
    if outputs.startswith("multilabel-"):
        return _of_sigmoids(raw, outputs, crops)
    z = raw.clamp_min(TINY).log() if outputs == "probabilities" else raw
    if crops == 1:
        return z
    p = F.log_softmax(z, 1).unflatten(0, (-1, crops))
    return torch.logsumexp(p, 1) - torch.log(torch.tensor(float(crops)))


def _of_sigmoids(raw: torch.Tensor, outputs: str, crops: int) -> torch.Tensor:
    z = raw
    if outputs == "multilabel-probabilities":
        p = raw.clamp(TINY, _BELOW_1).where((raw >= 0) & (raw <= 1 + 1e-6), torch.nan)
        z = p.log() - torch.log1p(-p)
    if crops == 1:
        return z
    present, absent = (torch.logsumexp(F.logsigmoid(each).unflatten(0, (-1, crops)), 1) for each in (z, -z))
    return present - absent
