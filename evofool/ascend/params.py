"""Parameterisations: states that decode to images (CPPN weights are in cppn.py and scaled_weights.py)."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch.nn import functional as F

from evofool.ascend.draws import Draws
from evofool.ascend.spectrum import COLORS

Start = Callable[[Draws], torch.Tensor]
"""The draws of n items -> images (n, C, H, W) on [0, 1]."""


class Param(Protocol):
    """The states of n items are one float32 tensor (n, ...). items (m,) int64: which items the m states belong to."""

    def init(self, draws: Draws) -> torch.Tensor:
        """(n, ...): the start of each item."""
        ...

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """(m, ...) to images (m, C, H, W) on [0, 1], differentiable."""
        ...

    def project(self, state: torch.Tensor) -> torch.Tensor:
        """(m, ...): the nearest allowed states."""
        ...


class Pixels:
    """The pixels of the image, in the box [0, 1]. start: images (n, C, H, W), or a function that draws them.

    norm: the L2 norm that every image is scaled to, as closely as the box allows (Erhan 2009); 0: no scaling.
    """

    def __init__(self, start: Start | torch.Tensor, norm: float = 0.0) -> None:
        self._start, self._norm = start, norm

    def init(self, draws: Draws) -> torch.Tensor:
        images = self._start.clone() if isinstance(self._start, torch.Tensor) else self._start(draws)
        return self.project(images)

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return state

    def project(self, state: torch.Tensor) -> torch.Tensor:
        state = state.clamp(0.0, 1.0)
        if self._norm:
            # Scaling may leave the box, and clipping changes the norm: alternate a few times, and end with clipping.
            for _ in range(8):
                length = state.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
                state = (state * (self._norm / length)).clamp(0.0, 1.0)
        return state


class Coarse:
    """Pixels on a coarse grid of (height, width), enlarged to the size `full` by bilinear interpolation.

    The start is images (n, C, h, w) of any size, resized to the grid.
    """

    def __init__(self, images: torch.Tensor, grid: tuple[int, int], full: tuple[int, int]) -> None:
        self._full = full
        smaller = images.shape[2] > grid[0]
        self._start = images
        if tuple(images.shape[2:]) != grid:
            self._start = F.interpolate(images, grid, mode="bilinear", align_corners=False, antialias=smaller)

    def init(self, draws: Draws) -> torch.Tensor:
        return self._start.clone()

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        if tuple(state.shape[2:]) == self._full:
            return state
        return F.interpolate(state, self._full, mode="bilinear", align_corners=False)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state.clamp(0.0, 1.0)


class Sigmoid:
    """Pixels as a sigmoid of free values; the start is noise of the given standard deviation around middle grey."""

    def __init__(self, shape: tuple[int, int, int], deviation: float = 0.01) -> None:
        self._shape, self._deviation = shape, deviation

    def init(self, draws: Draws) -> torch.Tensor:
        return draws.normal(*self._shape) * self._deviation

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(state)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state


class Fourier:
    """Pixels as a sigmoid of Fourier coefficients, each divided by its frequency, in decorrelated colours.

    After Olah, Mordvintsev & Schubert (2017), "Feature visualization", and lucid's `fft_image` and `color_correlation`: a
    step then changes the frequencies in the proportions of photographs. States are (n, C, H, W // 2 + 1, 2), real and
    imaginary parts. shape (C, H, W); for C = 1 there are no colours to decorrelate. The start is noise: deviation 0.3 gives
    images of deviation about 0.1, since for a constant image all ReLUs may be inactive.
    """

    def __init__(self, shape: tuple[int, int, int], deviation: float = 0.3, device: torch.device | str = "cpu") -> None:
        self._shape, self._deviation = shape, deviation
        channels, height, width = shape
        self._scale = (1.0 / _frequencies(height, width)).unsqueeze(-1).to(device)
        self._colors = _color_matrix(channels, device)

    def init(self, draws: Draws) -> torch.Tensor:
        channels, height, width = self._shape
        return draws.normal(channels, height, width // 2 + 1, 2) * self._deviation

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_complex((state * self._scale).contiguous())
        images = torch.fft.irfft2(spectrum, s=self._shape[1:], norm="ortho") / 4
        return torch.sigmoid(_recolored(images, self._colors))

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state


class Phases:
    """Pixels as a sigmoid of a Fourier spectrum whose magnitude is fixed: the states are its phases.

    After Fel 2023, "Unlocking feature visualization for deep networks with MAgnitude Constrained Optimization": an image
    cannot put its energy into high frequencies that photographs do not have. magnitude (C, H, W // 2 + 1) is in decorrelated
    colours for C = 3, and shape (C, H, W). States are (n, C, H, W // 2 + 1), in radians; the start is uniform. An image is
    scaled to a standard deviation of `deviation` around 0 before the sigmoid; 1.25 gives the contrast of photographs.
    """

    def __init__(
        self,
        magnitude: torch.Tensor,
        shape: tuple[int, int, int],
        deviation: float = 1.25,
        device: torch.device | str = "cpu",
    ) -> None:
        self._shape, self._deviation = shape, deviation
        self._magnitude = magnitude.float().to(device)
        self._colors = _color_matrix(shape[0], device)

    def init(self, draws: Draws) -> torch.Tensor:
        return draws.uniform(*self._magnitude.shape, low=-math.pi, high=math.pi)

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        spectrum = torch.polar(self._magnitude.expand_as(state), state)
        images = _recolored(torch.fft.irfft2(spectrum, s=self._shape[1:], norm="ortho"), self._colors)
        images = images - images.mean((1, 2, 3), keepdim=True)
        images = images / images.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        return torch.sigmoid(self._deviation * images)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state


class BoxedFourier:
    """Pixels in the box [0, 1], whose states are Fourier coefficients times their frequency to the power of 0.7.

    With a rule like Adam, whose steps have the same size for each value of a state, low frequencies then change more than
    high ones, nearly in the proportions of photographs; and every image can be reached, with black and white pixels too. The
    start is noise with that spectrum around the colour centre, (C, 1, 1) on [0, 1]. States are (n, C, H, W // 2 + 1, 2).
    """

    def __init__(self, shape: tuple[int, int, int], centre: torch.Tensor, deviation: float = 0.1) -> None:
        self._shape, self._centre, self._deviation = shape, centre, deviation
        self._scale = (_frequencies(*shape[1:]) ** -0.7 / 16).unsqueeze(-1).to(centre.device)

    def init(self, draws: Draws) -> torch.Tensor:
        channels, height, width = self._shape
        noise = draws.normal(channels, height, width // 2 + 1, 2).to(self._centre) * self._deviation
        return self.project(noise + self._encode(self._centre.expand(1, *self._shape)))

    def decode(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        # Of projected states, so the values are on [0, 1] up to the error of the transforms.
        spectrum = torch.view_as_complex((state * self._scale).contiguous())
        return torch.fft.irfft2(spectrum, s=self._shape[1:], norm="ortho")

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return self._encode(self.decode(state, torch.arange(len(state))).clamp(0.0, 1.0))

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.fft.rfft2(images, norm="ortho")) / self._scale


def _frequencies(height: int, width: int) -> torch.Tensor:
    """(H, W // 2 + 1): the frequencies of rfft2's coefficients, in cycles a pixel; that of the mean is the lowest other."""
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return (fx * fx + fy * fy).sqrt().clamp_min(1.0 / max(height, width))


def _color_matrix(channels: int, device: torch.device | str) -> torch.Tensor | None:
    """(3, 3): decorrelated colours to RGB; None for images without colours."""
    colors = torch.tensor(COLORS)
    return (colors / colors.norm(dim=0).max()).to(device) if channels == 3 else None


def _recolored(images: torch.Tensor, colors: torch.Tensor | None) -> torch.Tensor:
    """Images (n, C, H, W) from decorrelated colours to RGB."""
    return images if colors is None else torch.einsum("bchw,dc->bdhw", images, colors)
