"""DeepDream: what a layer responds to in an image, enhanced octave by octave."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from evofool.ascend import objectives
from evofool.ascend.hooks import Hooks
from evofool.ascend.loop import Ascent, Tick, ascend, to_uint8
from evofool.ascend.objectives import Objective
from evofool.ascend.params import Pixels
from evofool.ascend.rules import Normalised
from evofool.ascend.transforms import Jitter
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.targets import Target

_JITTER = 32  # pixels; for small images a seventh of the shorter side, as 32 is of 224


@dataclass(frozen=True)
class DreamSettings:
    """How an image is enhanced; the constants are those of Mordvintsev, Olah & Tyka 2015.

    octaves: sizes, each `scale` times the one before, up to the image's size. iterations: steps an octave; each moves pixels
    (on [0, 1]) by `rate` times the gradient over its mean magnitude. jitter: pixels by which the image is rolled at random
    before each step; None: 32, and at most a seventh of the image's shorter side. zoom: further frames, each made from the
    centre of the one before, enlarged by the share zoom_by.
    """

    octaves: int = 4
    scale: float = 1.4
    iterations: int = 10
    rate: float = 1.5 / 255
    jitter: int | None = None
    zoom: int = 0
    zoom_by: float = 0.05

    def __post_init__(self) -> None:
        if self.octaves < 1 or self.iterations < 1:
            raise ValueError(f"octaves {self.octaves} and iterations {self.iterations} have to be at least 1")
        if self.zoom < 0 or (self.jitter or 0) < 0:
            raise ValueError(f"zoom {self.zoom} and jitter {self.jitter} have to be at least 0")
        if not self.scale > 1 or not 0 < self.zoom_by < 1:
            raise ValueError(f"scale {self.scale} has to be above 1, and zoom_by {self.zoom_by} between 0 and 1")


def dream(
    target: Target,
    image: np.ndarray,
    layer: str,
    *,
    channel: int | None = None,
    guide: np.ndarray | None = None,
    settings: DreamSettings | None = None,
    seed: int = 0,
    tick: Tick | None = None,
) -> list[np.ndarray]:
    """Enhance what a layer responds to in an image: ascent of 1/2 ||a||^2 of its output. 1 + zoom frames uint8 (C, H, W).

    image: uint8 (C, H, W), of any size that the layer accepts. channel: ascend the mean of this channel instead. guide:
    another uint8 (C, H, W); every position is moved towards the most similar position of the guide. The changes made at one
    octave are enlarged and added at the next. Source: Mordvintsev, Olah & Tyka 2015.

    tick is called with the iterations of all frames; once it returns True, the current frame is finished as it is and is
    the last one. Costs iterations + 1 forward and iterations backward passes an octave, up to the layer; one query more for
    each octave, and one for checking sizes. TargetError for a target without gradients, for an unknown layer or channel, and
    for a layer that does not accept the smallest octave (octaves=1 uses only the image's size). ScoreError where the
    layer's output is not finite.
    """
    settings = settings or DreamSettings()
    if channel is not None and guide is not None:
        raise ValueError("a dream has a channel or a guide, not both")
    octaves, iterations = settings.octaves, settings.iterations
    _fits(target, image)
    sides = _sizes(image.shape[1:], octaves, settings.scale)
    objective = _objective(target, image, layer, channel, guide, sides)
    jitter = min(_JITTER, min(image.shape[1:]) // 7) if settings.jitter is None else settings.jitter
    stopped = False
    done, total = 0, (1 + settings.zoom) * octaves * iterations

    def tick_all(iteration: int, _steps: int) -> bool:
        nonlocal stopped
        stopped = tick is not None and tick(done + iteration, total)
        return stopped

    frames: list[np.ndarray] = []
    while len(frames) <= settings.zoom and not stopped:
        whole = _enlarged(_float(frames[-1]), settings.zoom_by) if frames else _float(image)
        detail = torch.zeros_like(whole)
        for octave, size in enumerate(sides):
            base = _resized(whole, size)
            ascent = Ascent(
                Pixels(base + _resized(detail, size)),
                objective,
                Normalised(settings.rate, "mean"),
                iterations,
                transforms=[Jitter(jitter)] if jitter else [],
                rounded=False,
            )
            found = ascend(target, ascent, [len(frames) * octaves + octave], seed=seed, tick=tick_all)
            if not np.isfinite(found.scores[0]):
                raise ScoreError(
                    f'{target.name}: the output of layer "{layer}" is NaN or infinite for this image; check its weights'
                )
            assert found.states is not None
            detail = found.states.cpu() - base
            done += iterations
            if stopped:
                break
        frames.append(to_uint8(whole + _resized(detail, sides[-1]))[0])
    return frames


def energies(target: Target, images: np.ndarray, layer: str) -> np.ndarray:
    """float64 (n,): 1/2 ||a||^2 of the layer's output for uint8 images (n, C, H, W); a dream ascends it."""
    with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
        found = [hooks.forward(_float(x)).layer(layer).double().square().sum() / 2 for x in images]
    return torch.stack(found).cpu().numpy()


def _objective(
    target: Target,
    image: np.ndarray,
    layer: str,
    channel: int | None,
    guide: np.ndarray | None,
    sides: list[tuple[int, int]],
) -> Objective:
    """The objective to ascend, after a check that the layer accepts all sizes and has the channel."""
    with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
        output = _output(target, hooks, image, layer, sides)
        if channel is None and guide is None:
            return objectives.layer_energy(layer)
        if output.ndim not in (2, 4) or (guide is not None and output.ndim != 4):
            shape = tuple(output.shape[1:])
            raise TargetError(
                f'{target.name}: layer "{layer}" has output {shape}, which has no map of channels; omit channel and guide'
            )
        if guide is not None:
            _fits(target, guide)
            return objectives.guide(layer, hooks.forward(_float(guide)).layer(layer).float())
        assert channel is not None
        if not 0 <= channel < output.shape[1]:
            raise TargetError(f'{target.name}: layer "{layer}" has no channel {channel}; it has 0 to {output.shape[1] - 1}')
        return objectives.channel(layer, [channel])


def _output(target: Target, hooks: Hooks, image: np.ndarray, layer: str, sides: list[tuple[int, int]]) -> torch.Tensor:
    """The layer's output at the smallest size; TargetError with the largest possible number of octaves if it has none."""
    whole = _float(image)
    for skipped, (height, width) in enumerate(sides):
        try:
            output = hooks.forward(_resized(whole, (height, width))).layer(layer)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a user's module may raise any error
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            continue
        if not skipped:
            return output
        small = " x ".join(map(str, sides[0]))
        raise TargetError(
            f'{target.name}: layer "{layer}" does not accept images of {small} pixels, the smallest of {len(sides)} octaves '
            f"({reason}); at most octaves={len(sides) - skipped} are possible"
        )
    raise TargetError(f'{target.name}: layer "{layer}" does not accept images of {height} x {width} pixels ({reason})')


def _sizes(size: tuple[int, ...], octaves: int, scale: float) -> list[tuple[int, int]]:
    """(height, width) of every octave, the smallest first."""
    height, width = size
    return [(max(1, round(height / scale**k)), max(1, round(width / scale**k))) for k in reversed(range(octaves))]


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
    share = torch.tensor([[[1 - by, 0, 0], [0, 1 - by, 0]]]).expand(len(images), 2, 3)
    return F.grid_sample(images, F.affine_grid(share, list(images.shape), align_corners=False), align_corners=False)
