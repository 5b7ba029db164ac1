"""Random transforms that make an ascent robust: functions (images, draws) -> images, drawn for each image separately."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from evofool.ascend.draws import Draws

Transform = Callable[[torch.Tensor, Draws], torch.Tensor]
"""(images (m, C, H, W) on [0, 1], draws of m items) -> images; differentiable."""


class Jitter:
    """Roll the image by up to `most` pixels in each direction, around the edges (as in DeepDream)."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        shifts = draws.integers(-self.most, self.most + 1, 2).tolist()
        return torch.stack([image.roll(shift, (1, 2)) for image, shift in zip(images, shifts, strict=True)])


class Pad:
    """Add a border of `width` pixels of one value; the image grows."""

    def __init__(self, width: int, value: float = 0.5) -> None:
        self.width, self.value = width, value

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        return F.pad(images, [self.width] * 4, value=self.value)


class Rotate:
    """Rotate by up to `degrees` either way and scale by a factor in [low, high], about the centre; reflect edges."""

    def __init__(self, degrees: float = 0.0, low: float = 1.0, high: float = 1.0) -> None:
        self.degrees, self.low, self.high = degrees, low, high

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        angle = draws.uniform(low=-self.degrees, high=self.degrees) * (math.pi / 180)
        scale = draws.uniform(low=self.low, high=self.high)
        cos, sin, nothing = torch.cos(angle) / scale, torch.sin(angle) / scale, torch.zeros_like(angle)
        ratio = images.shape[2] / images.shape[3]  # affine_grid counts both sides as 2
        rows = [torch.stack([cos, -sin * ratio, nothing], 1), torch.stack([sin / ratio, cos, nothing], 1)]
        grid = F.affine_grid(torch.stack(rows, 1).to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False, padding_mode="reflection")


class Crops:
    """Crop a random part, a share in [low, high] of the sides, and enlarge it to full size."""

    def __init__(self, low: float = 0.5, high: float = 1.0) -> None:
        self.low, self.high = low, high

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        share = draws.uniform(low=self.low, high=self.high)
        centre = (draws.uniform(2) * 2 - 1) * (1 - share)[:, None]  # in affine_grid's units
        nothing = torch.zeros_like(share)
        rows = [torch.stack([share, nothing, centre[:, 0]], 1), torch.stack([nothing, share, centre[:, 1]], 1)]
        grid = F.affine_grid(torch.stack(rows, 1).to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False, padding_mode="reflection")


class Centre:
    """Crop the middle, height x width: removes the border that Pad added."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        top, left = (images.shape[2] - self.height) // 2, (images.shape[3] - self.width) // 2
        return images[:, :, top : top + self.height, left : left + self.width]


class Noise:
    """Add normal noise of the given standard deviation."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        return images + draws.normal(*images.shape[1:]) * self.deviation


class Blur:
    """A Gaussian blur; sigma in pixels, the same for all images."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, images: torch.Tensor, draws: Draws | None = None) -> torch.Tensor:
        return blurred(images, self.sigma)


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images (n, C, H, W) under a Gaussian of sigma pixels, truncated at 3 sigma; edge pixels are repeated."""
    if sigma <= 0:
        return images
    reach = max(1, min(math.ceil(3 * sigma), *(side - 1 for side in images.shape[2:])))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    weights = (weights / weights.sum()).to(images.dtype)
    channels = images.shape[1]
    wide = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="replicate"), wide, groups=channels)
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), wide.transpose(2, 3), groups=channels)


def robust(height: int, width: int) -> tuple[Transform, ...]:
    """The standard transforms of feature visualisation (Olah, Mordvintsev & Schubert 2017; lucid's defaults).

    Pad by 12, jitter by 8, scale by 10%, rotate by 10 degrees, jitter by 4, for 224 pixels; in proportion for other sizes.
    """
    proportion = min(height, width) / 224
    size = lambda pixels: max(1, round(pixels * proportion))  # noqa: E731
    moves = (Pad(size(12)), Jitter(size(8)), Rotate(10.0, 0.9, 1.1), Jitter(size(4)))
    return (*moves, Centre(height, width))
