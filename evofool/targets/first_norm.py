"""What can be told of a network's preprocessing without a photograph: whether its first batch norm sees what it knows.

A batch norm keeps the mean and the variance of its input over the training images. Synthetic images with the spectrum and
the colours of photographs give nearly the same if images are scaled as in training, and other values if they are not.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from evofool.targets.classifier import Target
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.wiring import Change, range_changes

_IMAGES = 8
_MEAN, _SPREAD, _SHARED = (0.485, 0.456, 0.406), 0.24, 0.9  # of photographs: means, deviation, correlation of the channels
_FARTHER, _FAR = 3.0, 0.2
"""How many times as far as the nearest one a way to scale images has to be, and how far at least, to be worth a note.
Chosen on EfficientNet-Lite0 (right 0.05, the nearest wrong one 0.43); on Lite1 and Lite2 0.04 and 0.64, 0.06 and 0.36."""
_SMALL = 1e-4  # channels with less than this share of the largest variance hardly carry anything


def scaling_note(target: Target) -> str:
    """A note if another usual way to scale images fits the first batch norm far better, else "".

    For torch networks of colour images. The order of the channels can hardly be told so.
    """
    network = target.network
    if network is None or target.shape[0] != 3:
        return ""
    current = Change("", Preprocessing(**target.details["preprocessing"]))
    images = torch.from_numpy(_like_photographs(target.shape[1:])).to(network.device).float()
    norm = _first_norm(network.module, current.preprocessing, images[:1])
    target.count(1)
    if norm is None:
        return ""
    changes = list(_candidates(target, current))
    far = [_distance(network.module, norm, change.preprocessing, images) for change in changes]
    target.count(_IMAGES * len(far))
    best = int(np.argmin(far))
    if not far[0] > max(_FAR, _FARTHER * far[best]):
        return ""
    options = "&".join(f"{name}={value}" for name, value in changes[best].options.items())
    return (
        f"its first batch norm was trained on images scaled otherwise: {changes[best].words} ({options}) is nearer to what "
        f"it keeps of them ({far[best]:.2g}) than the present scaling ({far[0]:.2g}); try it with labelled photographs: "
        "--images DIR"
    )


def _first_norm(module: nn.Module, fed: Preprocessing, images: torch.Tensor) -> nn.BatchNorm2d | None:
    """The batch norm that is called first, if it was trained; None if there is none."""
    called: list[nn.BatchNorm2d] = []
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None]
    hooks = [part.register_forward_pre_hook(lambda norm, _: called.append(norm)) for part in norms]
    try:
        with torch.inference_mode():
            module(fed.affine(images.device)(images)[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not called or called[0].running_mean is None or called[0].running_var is None:
        return None
    untrained = not called[0].running_mean.any() and bool((called[0].running_var == 1).all())
    return None if untrained else called[0]


def _candidates(target: Target, current: Change) -> Iterator[Change]:
    yield current
    for change in range_changes(target, current):
        if change.options and change.preprocessing.order == current.preprocessing.order:
            yield change


def _distance(module: nn.Module, norm: nn.BatchNorm2d, fed: Preprocessing, images: torch.Tensor) -> float:
    """The median over channels of the divergence of what the norm sees from what it has kept, both taken as normal."""
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
    try:
        with torch.inference_mode():
            for part in fed.affine(images.device)(images).split(len(images)):
                module(part)
    finally:
        hook.remove()
    x = torch.cat(seen)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    kept_mean, kept = norm.running_mean, norm.running_var
    assert kept_mean is not None
    assert kept is not None
    ratio = variance / kept
    apart = 0.5 * (ratio + (mean - kept_mean).square() / kept - 1 - torch.log(ratio + 1e-12))
    return float(apart[kept > _SMALL * kept.max()].median())


def _like_photographs(side: tuple[int, int]) -> np.ndarray:
    """uint8 (_IMAGES, 3, H, W): noise of amplitude 1 / frequency with the means and deviations of photographs' channels."""
    draw = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side[0])[:, None], np.fft.fftfreq(side[1])[None])
    frequency[0, 0] = 1.0

    def noise() -> np.ndarray:
        found = np.fft.ifft2(np.fft.fft2(draw.normal(size=side)) / frequency).real
        return np.asarray((found - found.mean()) / found.std())

    images = []
    for _ in range(_IMAGES):
        grey = noise()
        channels = [_SHARED * grey + (1 - _SHARED**2) ** 0.5 * noise() for _ in _MEAN]
        images.append([255 * (m + _SPREAD * channel) for m, channel in zip(_MEAN, channels, strict=True)])
    return np.clip(images, 0, 255).astype(np.uint8)
