"""DeepDream: what a layer responds to in an image, enhanced octave by octave, at the image's own size."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from evofool.ascend import objectives
from evofool.ascend.draws import Draws
from evofool.ascend.hooks import Hooks
from evofool.ascend.loop import to_uint8
from evofool.ascend.objectives import Objective
from evofool.ascend.tiles import TiledGradient, Tiling
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.targets import Target

_JITTER = 32  # pixels; for small images a seventh of the shorter side, as 32 is of 224


@dataclass(frozen=True)
class DreamSettings:
    """How an image is enhanced; scale, rate, jitter and zoom_by are those of Mordvintsev, Olah & Tyka 2015.

    octaves: sizes, each `scale` times the one before, up to the image's size. None: as many as bring the shorter side near a
    quarter of the target's, so that images of any size get shapes of all sizes; 7 for 427 pixels and a target of 224.
    iterations: steps an octave; each moves pixels (on [0, 1]) by `rate` times the gradient over its mean magnitude.
    jitter: pixels by which the image is rolled at random before each step; None: 32, and at most a seventh of the image's
    shorter side.

    tile: the longest side that a pass may have, in pixels; a larger octave is divided into tiles. Along a side that is
    divided, the image is rolled by up to half a tile before each step, so that the borders of tiles do not show. An
    octave whose tiles the layer does not accept has tiles of the target's own size. streams: tiles that are passed at the
    same time, each with the caller's number of torch threads; it does not change results.

    zoom: further frames, each made from the centre of the one before, enlarged by the share zoom_by. begin: the number of
    the first frame to make. Above 0 the image is frame begin - 1, and the frames are those that one call would have made.
    """

    octaves: int | None = None
    scale: float = 1.4
    iterations: int = 20
    rate: float = 1.5 / 255
    jitter: int | None = None
    tile: int = 384
    streams: int = 1
    zoom: int = 0
    zoom_by: float = 0.05
    begin: int = 0

    def __post_init__(self) -> None:
        if (self.octaves is not None and self.octaves < 1) or self.iterations < 1:
            raise ValueError(f"octaves {self.octaves} and iterations {self.iterations} have to be at least 1")
        if self.zoom < 0 or (self.jitter or 0) < 0:
            raise ValueError(f"zoom {self.zoom} and jitter {self.jitter} have to be at least 0")
        if not self.scale > 1 or not 0 < self.zoom_by < 1:
            raise ValueError(f"scale {self.scale} has to be above 1, and zoom_by {self.zoom_by} between 0 and 1")
        if self.tile < 1 or self.streams < 1:
            raise ValueError(f"tile {self.tile} and streams {self.streams} have to be at least 1")
        if not 0 <= self.begin <= self.zoom:
            raise ValueError(f"begin {self.begin} has to be between 0 and zoom {self.zoom}")


class DreamProgress(NamedTuple):
    """The progress of a dream. share: of the work of all its frames, 0 to 1."""

    frame: int  # that is being made, counted from 0
    frames: int  # 1 + zoom
    passes: int  # forward and backward passes of one tile each, so far
    of: int  # passes of all frames
    share: float


OnProgress = Callable[[DreamProgress], bool]
"""Called after each pass; returns whether to stop."""


def dream(
    target: Target,
    image: np.ndarray,
    layer: str,
    *,
    channel: int | None = None,
    guide: np.ndarray | None = None,
    settings: DreamSettings | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Iterator[np.ndarray]:
    """Enhance what a layer responds to in an image: ascent of 1/2 ||a||^2 of its output. 1 + zoom frames uint8 (C, H, W).

    image: uint8 (C, H, W), of any size that the layer accepts. channel: ascend the mean of this channel instead. guide:
    another uint8 (C, H, W); every position is moved towards the most similar position of the guide. The changes made at one
    octave are enlarged and added at the next. Source: Mordvintsev, Olah & Tyka 2015.

    A frame is made when the iterator is asked for it. If on_progress returns True, the frames end before the unfinished one.
    Memory: about 20 bytes for each value of the image, and a forward and a backward pass of one tile for each stream.
    Costs one pass for each octave, iteration and tile, up to the layer, and some queries for checks.

    The arguments are checked before this returns: TargetError for a target without gradients, and for an unknown layer or
    channel. ScoreError where a gradient is not finite.
    """
    settings = settings or DreamSettings()
    if channel is not None and guide is not None:
        raise ValueError("a dream has a channel or a guide, not both")
    _fits(target, image)
    with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
        octaves = _octaves(target, hooks, image, settings)
        objective = _objective(target, hooks, layer, channel, guide)
    return _Dream(target, layer, objective, octaves, settings, seed, on_progress).frames(image)


@dataclass
class _Dream:
    """A dream whose arguments are checked."""

    target: Target
    layer: str
    objective: Objective
    octaves: list[Tiling]  # the smallest first
    settings: DreamSettings
    seed: int
    on_progress: OnProgress | None
    passes: int = 0
    passed: float = 0.0  # pixels of all passes
    frame: int = 0  # the one that is being made
    octave: int = 0

    def frames(self, image: np.ndarray) -> Iterator[np.ndarray]:
        assert self.target.network is not None
        device, begin, end = self.target.network.device, self.settings.begin, self.settings.zoom + 1
        with (
            Hooks(self.target, [self.layer], logits=False) as hooks,
            TiledGradient(self.target, hooks, self.objective, self.settings.streams, self._stops) as gradient,
        ):
            for self.frame in range(begin, end):
                whole = _float(image).to(device)
                found = self._enhanced(gradient, _enlarged(whole, self.settings.zoom_by) if self.frame else whole)
                if found is None:
                    return
                del whole
                # Channel by channel, because rounding makes several copies.
                image = np.concatenate([to_uint8(part)[0] for part in found.split(1, 1)])
                yield image

    def _enhanced(self, gradient: TiledGradient, whole: torch.Tensor) -> torch.Tensor | None:
        """The frame, float (1, C, H, W); None if it was stopped."""
        image = whole
        detail: torch.Tensor | None = None
        for octave, tiling in enumerate(self.octaves):
            self.octave = octave
            size = (tiling.height, tiling.width)
            base = _resized(whole, size)
            image = base.clone() if detail is None else _resized(detail, size).add(base).clamp_(0.0, 1.0)
            detail = None  # here and below, to free hundreds of megabytes of a large photograph
            for iteration in range(self.settings.iterations):
                draws = Draws(self.seed, [self.frame * len(self.octaves) + octave], iteration + 1)
                found = gradient(image, tiling, _shift(draws, tiling, self._jitter()))
                if found is None:
                    return None
                mean = found.abs().mean().item()
                if not np.isfinite(mean):
                    raise ScoreError(
                        f'{self.target.name}: the gradient of layer "{self.layer}" is NaN or infinite for this image; check '
                        "the network's weights"
                    )
                image.add_(found, alpha=self.settings.rate / max(mean, 1e-20)).clamp_(0.0, 1.0)
                del found
            if octave < len(self.octaves) - 1:
                detail = image - base
        return image

    def _jitter(self) -> int:
        whole = self.octaves[-1]
        return min(_JITTER, min(whole.height, whole.width) // 7) if self.settings.jitter is None else self.settings.jitter

    def _stops(self) -> bool:
        """Called after each pass."""
        tiling, (frames, begin) = self.octaves[self.octave], (1 + self.settings.zoom, self.settings.begin)
        self.passes += 1
        self.passed += tiling.height * tiling.width / len(tiling)
        steps = self.settings.iterations * (frames - begin)
        pixels = steps * sum(octave.height * octave.width for octave in self.octaves)
        passes = steps * sum(map(len, self.octaves))
        progress = DreamProgress(self.frame, frames, self.passes, passes, min(1.0, self.passed / pixels))
        return self.on_progress is not None and self.on_progress(progress)


def _shift(draws: Draws, tiling: Tiling, jitter: int) -> tuple[int, int]:
    """Rows and columns by which the image is rolled before a step."""
    down = max(jitter, tiling.tile_height // 2) if tiling.rows > 1 else jitter
    right = max(jitter, tiling.tile_width // 2) if tiling.columns > 1 else jitter
    low, span = torch.tensor([-down, -right]), torch.tensor([2 * down + 1, 2 * right + 1])
    drawn = low + (draws.uniform(2)[0].double() * span).long()
    return int(drawn[0]), int(drawn[1])


def energies(target: Target, images: np.ndarray, layer: str) -> np.ndarray:
    """float64 (n,): 1/2 ||a||^2 of the layer's output for uint8 images (n, C, H, W); a dream ascends it."""
    with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
        found = [hooks.forward(_float(x)).layer(layer).double().square().sum() / 2 for x in images]
    return torch.stack(found).cpu().numpy()


def _octaves(target: Target, hooks: Hooks, image: np.ndarray, settings: DreamSettings) -> list[Tiling]:
    """The octaves of an image, the smallest first, in tiles of sizes that the layer accepts."""
    _, height, width = image.shape
    octaves = settings.octaves
    if octaves is None:
        above = min(height, width) / (min(target.shape[1:]) / 4)
        octaves = 1 + max(0, round(math.log(above, settings.scale)))
    found = []
    for k in reversed(range(octaves)):
        rows, columns = (max(1, round(side / settings.scale**k)) for side in (height, width))
        tiling = Tiling.of(rows, columns, settings.tile)
        accepted = _accepts(target, hooks, tiling.tile_height, tiling.tile_width)
        found.append(tiling if accepted else Tiling(rows, columns, *target.shape[1:]))
    return found


def _accepts(target: Target, hooks: Hooks, height: int, width: int) -> bool:
    """Whether the layer can be computed for images of this size, which a black one is passed to find out."""
    try:
        hooks.forward(torch.zeros(1, target.shape[0], height, width))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a user's module may raise any error
        return False
    return True


def _objective(target: Target, hooks: Hooks, layer: str, channel: int | None, guide: np.ndarray | None) -> Objective:
    """The objective to ascend, after a check that the layer has what it needs."""
    if channel is None and guide is None:
        return objectives.layer_energy(layer)
    output = hooks.forward(torch.zeros(1, *target.shape)).layer(layer)
    if output.ndim not in (2, 4) or (guide is not None and output.ndim != 4):
        shape = tuple(output.shape[1:])
        raise TargetError(
            f'{target.name}: layer "{layer}" has output {shape}, which has no map of channels; omit channel and guide'
        )
    if guide is not None:
        _fits(target, guide)
        if not _accepts(target, hooks, *guide.shape[1:]):
            taken, given = (f"{height} x {width}" for height, width in (target.shape[1:], guide.shape[1:]))
            raise TargetError(
                f'{target.name}: layer "{layer}" does not accept a guide of {given} pixels; resize it to {taken}'
            )
        return objectives.guide(layer, hooks.forward(_float(guide)).layer(layer).float())
    assert channel is not None
    if not 0 <= channel < output.shape[1]:
        raise TargetError(f'{target.name}: layer "{layer}" has no channel {channel}; it has 0 to {output.shape[1] - 1}')
    return objectives.channel(layer, [channel])


def _fits(target: Target, image: np.ndarray) -> None:
    channels = target.shape[0]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != channels:
        raise ImageError(f"{target.name}: a dream needs an image uint8 ({channels}, H, W), not {image.dtype} {image.shape}")


def _float(image: np.ndarray) -> torch.Tensor:
    """uint8 (C, H, W) to float32 (1, C, H, W) on [0, 1]."""
    return torch.tensor(image)[None].float() / 255


def _resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def _enlarged(images: torch.Tensor, by: float) -> torch.Tensor:
    """The centre of an image, with sides of 1 - by, enlarged to full size."""
    share = torch.tensor([[[1 - by, 0, 0], [0, 1 - by, 0]]], device=images.device).expand(len(images), 2, 3)
    return F.grid_sample(images, F.affine_grid(share, list(images.shape), align_corners=False), align_corners=False)
