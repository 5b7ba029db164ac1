"""DeepDream: what a layer sees in an image already, enhanced octave by octave until it can be seen by people too."""

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

_JITTER = 32  # pixels, and no more than a seventh of the image's shorter side, as of 224


def dream(
    target: Target,
    image: np.ndarray,
    layer: str,
    *,
    channel: int | None = None,
    guide: np.ndarray | None = None,
    octaves: int = 4,
    scale: float = 1.4,
    iterations: int = 10,
    rate: float = 1.5 / 255,
    jitter: int | None = None,
    zoom: int = 0,
    zoom_by: float = 0.05,
    seed: int = 0,
    tick: Tick | None = None,
) -> list[np.ndarray]:
    """The image with more of what the layer answers to: climbs 1/2 ||a||^2 of it. uint8 (C, H, W) in; 1 + zoom frames out.

    Of a channel alone: its mean. guide, another uint8 (C, H, W), draws every place towards what is most like it in that
    image. The image is dreamt on at `octaves` sizes, each `scale` times the one before up to its own, and what each has
    changed is carried up to the next. iterations steps an octave, each `rate` times the gradient over its mean magnitude,
    pixels on [0, 1], on the image rolled by up to `jitter` pixels (None: 32, and at most a seventh of the image's side).
    Every frame after the first is dreamt from the one before, drawn larger by a share zoom_by about its centre.
    Source: Mordvintsev, Olah & Tyka 2015; constants are theirs.

    The image may have any size that the layer takes, the target's or not. tick counts the iterations of all frames; once it
    says stop, the frame at hand is finished as it is and is the last. Costs iterations + 1 forward and iterations backward
    passes an octave, up to the layer; one query more for each octave, and one for looking at sizes. TargetError for a target
    without gradients, a layer or channel that is not there, and one that does not take images as small as the octaves: with
    octaves=1 it is the image's own size alone. ScoreError where the layer answers what is not finite.
    """
    if octaves < 1 or iterations < 1 or zoom < 0 or not scale > 1 or not 0 < zoom_by < 1 or (jitter or 0) < 0:
        raise ValueError("octaves and iterations are at least 1, zoom and jitter 0, scale is over 1, zoom_by within 0 and 1")
    if channel is not None and guide is not None:
        raise ValueError("a dream is of a channel or guided, not both")
    _fits(target, image)
    sides = _sizes(image.shape[1:], octaves, scale)
    objective = _objective(target, image, layer, channel, guide, sides)
    roll = min(_JITTER, min(image.shape[1:]) // 7) if jitter is None else jitter
    stopped = False
    done, total = 0, (1 + zoom) * octaves * iterations

    def told(iteration: int, _steps: int) -> bool:
        nonlocal stopped
        stopped = tick is not None and tick(done + iteration, total)
        return stopped

    frames: list[np.ndarray] = []
    while len(frames) <= zoom and not stopped:
        whole = _enlarged(_float(frames[-1]), zoom_by) if frames else _float(image)
        detail = torch.zeros_like(whole)
        for octave, size in enumerate(sides):
            base = _resized(whole, size)
            ascent = Ascent(
                Pixels(base + _resized(detail, size)),
                objective,
                Normalised(rate, "mean"),
                iterations,
                transforms=[Jitter(roll)] if roll else [],
                rounded=False,
            )
            found = ascend(target, ascent, [len(frames) * octaves + octave], seed=seed, tick=told)
            if not np.isfinite(found.scores[0]):
                raise ScoreError(f'{target.name}: layer "{layer}" answers NaN or infinity for this image; check its weights')
            assert found.states is not None
            detail = found.states.cpu() - base
            done += iterations
            if stopped:
                break
        frames.append(to_uint8(whole + _resized(detail, sides[-1]))[0])
    return frames


def energies(target: Target, images: np.ndarray, layer: str) -> np.ndarray:
    """float64 (n,): 1/2 ||a||^2 of the layer for uint8 images (n, C, H, W), what a dream climbs."""
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
    """What is climbed, once it is sure that the layer takes all sizes and has what is asked for."""
    with Hooks(target, [layer], logits=False) as hooks, torch.no_grad():
        answer = _taken(target, hooks, image, layer, sides)
        if channel is None and guide is None:
            return objectives.layer_energy(layer)
        if answer.ndim not in (2, 4) or (guide is not None and answer.ndim != 4):
            shape = tuple(answer.shape[1:])
            raise TargetError(f'{target.name}: layer "{layer}" answers {shape}, no map of channels; dream of its energy')
        if guide is not None:
            _fits(target, guide)
            return objectives.guide(layer, hooks.forward(_float(guide)).layer(layer).float())
        assert channel is not None
        if not 0 <= channel < answer.shape[1]:
            raise TargetError(f'{target.name}: layer "{layer}" has no channel {channel}; it has 0 to {answer.shape[1] - 1}')
        return objectives.channel(layer, [channel])


def _taken(target: Target, hooks: Hooks, image: np.ndarray, layer: str, sides: list[tuple[int, int]]) -> torch.Tensor:
    """The layer's answer at the smallest size. TargetError if there is none, which says how many octaves there can be."""
    whole = _float(image)
    for skipped, (height, width) in enumerate(sides):
        try:
            answer = hooks.forward(_resized(whole, (height, width))).layer(layer)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever somebody's own code raises
            why = f"{type(error).__name__}: {str(error)[:200]}"
            continue
        if not skipped:
            return answer
        small = " x ".join(map(str, sides[0]))
        raise TargetError(
            f'{target.name}: layer "{layer}" does not take images of {small} pixels, the smallest of {len(sides)} octaves '
            f"({why}); octaves={len(sides) - skipped} is the most"
        )
    raise TargetError(f'{target.name}: layer "{layer}" does not take images of {height} x {width} pixels ({why})')


def _sizes(size: tuple[int, ...], octaves: int, scale: float) -> list[tuple[int, int]]:
    """(height, width) of every octave, the smallest first."""
    height, width = size
    return [(max(1, round(height / scale**k)), max(1, round(width / scale**k))) for k in reversed(range(octaves))]


def _fits(target: Target, image: np.ndarray) -> None:
    channels = target.shape[0]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != channels:
        raise ImageError(f"{target.name}: dreams on uint8 ({channels}, H, W), not {image.dtype} {image.shape}")


def _float(image: np.ndarray) -> torch.Tensor:
    """uint8 (C, H, W) to float32 (1, C, H, W) on [0, 1]."""
    return torch.tensor(image)[None].float() / 255


def _resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def _enlarged(images: torch.Tensor, by: float) -> torch.Tensor:
    """The middle of an image, 1 - by of its sides, at full size."""
    share = torch.tensor([[[1 - by, 0, 0], [0, 1 - by, 0]]]).expand(len(images), 2, 3)
    return F.grid_sample(images, F.affine_grid(share, list(images.shape), align_corners=False), align_corners=False)
