"""A substitute model: a small network that is trained on a target's answers, and whose gradients stand in for the target's.

Source: Papernot et al. 2017, "Practical black-box attacks against machine learning"), with gradient
ascent on the substitute in place of their augmentation by the Jacobian.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from evofool.ascend.approximation import Finish, Forward
from evofool.images import levels
from evofool.targets.classifier import Target
from evofool.targets.photos import drawings, patterns
from evofool.targets.replaced_gradient import with_gradient_of

_SIDE = 64  # pixels of its input, at most
_WIDTHS = (16, 32, 64)  # channels
_BATCH = 32
_RATE = 3e-3
_CHUNK = 32  # images that the target answers at once


class Lesson(NamedTuple):
    """How a substitute model is trained.

    queries: images that the target answers, in all. The second half of them are made in `rounds` equal parts, each by
    climbing the substitute model, which is then trained again. passes: how often each training uses every answer. steps: of
    a climb.
    """

    queries: int
    rounds: int = 2
    passes: int = 12
    steps: int = 8


class Substitute:
    """An Approximation whose gradients are those of a network trained on the target's answers."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network, self._device = network.eval().requires_grad_(False), device

    @contextmanager
    def attached(self, module: nn.Module) -> Iterator[Forward]:
        """As in Approximation."""

        def forward(images: torch.Tensor, x: torch.Tensor, finish: Finish) -> torch.Tensor:
            with torch.no_grad():
                logits = finish(module(x))
            return with_gradient_of(logits, self.network(images.to(self._device)))

        yield forward


def train_substitute(target: Target, lesson: Lesson, seed: int, on_round: Callable[[], object] = lambda: None) -> Substitute:
    """A substitute model that is trained with lesson.queries queries of the target.

    The first half of the images are strokes, smooth colours and noise. The others are made by climbing the substitute model
    as trained so far. It learns the logits, centred for each image and divided by the standard deviation of all, so that a
    temperature changes nothing. The same seed and the same number of torch's threads give the same substitute model.
    """
    device = torch.device("cpu") if target.network is None else target.network.device
    generator = torch.Generator().manual_seed(seed)
    network = _network(target.shape, len(target.labels), generator).to(device)
    first = lesson.queries - lesson.queries // 2
    images = _first_images(target.shape, first, seed)
    answers = _answers(target, images)
    left, rounds = lesson.queries - first, max(1, min(lesson.rounds, lesson.queries // 2))
    for k in range(rounds + 1):
        _train(network, images, answers, lesson.passes, generator, device)
        on_round()
        if k == rounds:
            break
        n = left // (rounds - k)
        left -= n
        new = _climbed(network, images, n, len(target.labels), lesson.steps, generator, device)
        images, answers = np.concatenate([images, new]), np.concatenate([answers, _answers(target, new)])
    return Substitute(network, device)


def _network(shape: tuple[int, int, int], classes: int, generator: torch.Generator) -> nn.Sequential:
    sides = [min(side, round(side * _SIDE / max(shape[1:]))) if max(shape[1:]) > _SIDE else side for side in shape[1:]]
    layers: list[nn.Module] = [_Fit((sides[0], sides[1]))]
    channels = shape[0]
    for width in _WIDTHS:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2, ceil_mode=True)]
        channels = width
    layers += [nn.Flatten(), nn.LazyLinear(128), nn.SiLU(), nn.Linear(128, classes)]
    network = nn.Sequential(*layers)
    network(torch.zeros(1, *shape))
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return network


class _Fit(nn.Module):
    """Images on [0, 1] of any size to those of the substitute model's size, centred."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return 2 * images - 1


def _first_images(shape: tuple[int, int, int], n: int, seed: int) -> np.ndarray:
    """uint8 (n, C, H, W): strokes, colours and noise (photos.patterns), and noise of various strength around grey."""
    drawn, smooth = n // 3, n // 3
    rng = np.random.default_rng([seed, 1])
    grey = n - drawn - smooth
    strength = rng.uniform(0.02, 0.5, (grey, 1, 1, 1))
    noise = (0.5 + strength * rng.standard_normal((grey, *shape))).clip(0.0, 1.0)
    return np.concatenate(
        [drawings(shape, drawn, seed), patterns(shape, smooth, seed), np.floor(noise * 255 + 0.5).astype(np.uint8)]
    )


def _answers(target: Target, images: np.ndarray) -> np.ndarray:
    """float32 (n, K): logits, centred for each image where classes exclude each other."""
    logits = np.concatenate([target.logits(images[at : at + _CHUNK]) for at in range(0, len(images), _CHUNK)])
    if target.multilabel:
        return logits
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), np.float32)


def _train(
    network: nn.Sequential,
    images: np.ndarray,
    answers: np.ndarray,
    passes: int,
    generator: torch.Generator,
    device: torch.device,
) -> None:
    scale = float(answers.std()) or 1.0
    fit, layers = network[0], network[1:]
    # Resized once: that takes longer than a pass.
    fitted = [fit(torch.from_numpy(part).float() / 255.0) for part in np.array_split(images, -(-len(images) // _CHUNK))]
    x, y = torch.cat(fitted), torch.from_numpy(answers) / scale
    total = passes * -(-len(x) // _BATCH)
    network.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=total + 1)
    with torch.enable_grad():
        for _ in range(passes):
            for rows in torch.randperm(len(x), generator=generator).split(_BATCH):
                z = layers(x[rows].to(device))
                loss = F.smooth_l1_loss(z - z.mean(1, keepdim=True), y[rows].to(device))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    network.eval().requires_grad_(False)


def _climbed(
    network: nn.Module,
    images: np.ndarray,
    n: int,
    classes: int,
    steps: int,
    generator: torch.Generator,
    device: torch.device,
) -> np.ndarray:
    """uint8 (n, C, H, W): images drawn from those known, moved by signs of the gradient of a class's margin."""
    rows = torch.randint(len(images), (n,), generator=generator)
    of = torch.arange(n) % classes
    moved = []
    for at in range(0, n, _BATCH):
        x = torch.from_numpy(images[rows[at : at + _BATCH].numpy()]).to(device).float() / 255.0
        c = of[at : at + _BATCH].to(device)
        for step in range(steps):
            x.requires_grad_()
            with torch.enable_grad():
                z = network(x)
                margins = z.gather(1, c[:, None])[:, 0] - z.scatter(1, c[:, None], -torch.inf).amax(1)
                (gradient,) = torch.autograd.grad(margins.sum(), x)
            x = (x.detach() + 0.1 * (1 - step / steps) * gradient.sign()).clamp(0.0, 1.0)
        moved.append(levels(x).to(torch.uint8).cpu().numpy())
    return np.concatenate(moved) if moved else images[:0]
