"""What is climbed in: states that decode to images. A genome is such a state (CPPN weights are in cppn.py)."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch.nn import functional as F

from evofool.ascend.draws import Draws

Start = Callable[[Draws], torch.Tensor]
"""Draws of n items to images (n, C, H, W) on [0, 1]."""


class Param(Protocol):
    """States are one float32 tensor (n, ...), an item a row; rows (m,) int64 say which items m states are of."""

    def init(self, draws: Draws) -> torch.Tensor:
        """(n, ...): where each item starts."""
        ...

    def decode(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(m, ...) to images (m, C, H, W) on [0, 1], differentiable."""
        ...

    def project(self, state: torch.Tensor) -> torch.Tensor:
        """(m, ...): the nearest states that are allowed."""
        ...


class Pixels:
    """The image itself, in the box [0, 1]. start is what makes the first images, or these images (n, C, H, W) themselves.

    norm: the L2 norm that every image is brought to, as near as the box allows (Erhan 2009); 0: none.
    """

    def __init__(self, start: Start | torch.Tensor, norm: float = 0.0) -> None:
        self._start, self._norm = start, norm

    def init(self, draws: Draws) -> torch.Tensor:
        images = self._start.clone() if isinstance(self._start, torch.Tensor) else self._start(draws)
        return self.project(images)

    def decode(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return state

    def project(self, state: torch.Tensor) -> torch.Tensor:
        state = state.clamp(0.0, 1.0)
        if self._norm:
            # Scaling may leave the box and clipping the sphere: a few turns come near both, and the box has the last word.
            for _ in range(8):
                length = state.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
                state = (state * (self._norm / length)).clamp(0.0, 1.0)
        return state


class Coarse:
    """Pixels on a grid of (height, width), drawn at `full` size by bilinear interpolation: an octave from coarse to fine.

    They start as these images (n, C, h, w) of any size, reduced or enlarged to the grid.
    """

    def __init__(self, images: torch.Tensor, grid: tuple[int, int], full: tuple[int, int]) -> None:
        self._full = full
        smaller = images.shape[2] > grid[0]
        self._start = images
        if tuple(images.shape[2:]) != grid:
            self._start = F.interpolate(images, grid, mode="bilinear", align_corners=False, antialias=smaller)

    def init(self, draws: Draws) -> torch.Tensor:
        return self._start.clone()

    def decode(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if tuple(state.shape[2:]) == self._full:
            return state
        return F.interpolate(state, self._full, mode="bilinear", align_corners=False)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state.clamp(0.0, 1.0)


class Sigmoid:
    """Free pixels through a sigmoid; they start as noise of the given standard deviation around middle grey."""

    def __init__(self, shape: tuple[int, int, int], deviation: float = 0.01) -> None:
        self._shape, self._deviation = shape, deviation

    def init(self, draws: Draws) -> torch.Tensor:
        return draws.normal(*self._shape) * self._deviation

    def decode(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(state)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state


class Fourier:
    """Fourier coefficients, each divided by its frequency, in decorrelated colours, through a sigmoid.

    After Olah, Mordvintsev & Schubert (2017), "Feature visualization", and lucid's `fft_image` and `color_correlation`:
    steps of one size then change all frequencies alike, as photographs have them. A state is (n, C, H, W // 2 + 1, 2), real
    and imaginary parts; all are transformed at once. shape (C, H, W); with C 1 there is no colour to decorrelate. They start
    as noise; deviation 0.3 makes the first images' about 0.1, since a blank one can lie where every ReLU is dead.
    """

    _COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))

    def __init__(self, shape: tuple[int, int, int], deviation: float = 0.3, device: torch.device | str = "cpu") -> None:
        self._shape, self._deviation = shape, deviation
        channels, height, width = shape
        fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
        frequency = (fx * fx + fy * fy).sqrt().clamp_min(1.0 / max(height, width))
        self._scale = (1.0 / frequency).unsqueeze(-1).to(device)
        colors = torch.tensor(self._COLORS)
        self._colors = (colors / colors.norm(dim=0).max()).to(device) if channels == 3 else None

    def init(self, draws: Draws) -> torch.Tensor:
        channels, height, width = self._shape
        return draws.normal(channels, height, width // 2 + 1, 2) * self._deviation

    def decode(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_complex((state * self._scale).contiguous())
        images = torch.fft.irfft2(spectrum, s=self._shape[1:], norm="ortho") / 4
        if self._colors is not None:
            images = torch.einsum("bchw,dc->bdhw", images, self._colors)
        return torch.sigmoid(images)

    def project(self, state: torch.Tensor) -> torch.Tensor:
        return state
