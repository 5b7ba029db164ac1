"""Training the generator on pictures of chairs of boxes, which it knows by number alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from evofool.explain.chairs.generator import ChairGenerator, GeneratorLayout
from evofool.explain.chairs.renderer import AZIMUTHS, PLAIN, render, view_grid
from evofool.explain.chairs.styles import random_styles


@dataclass(frozen=True)
class TrainingSettings:
    """steps of `batch` pictures each. rate: Adam's, the largest, which falls to 0 as a cosine; code_times: the codes' rate
    over it. noise: standard deviation of what is added to a code at each step, so that near codes mean near chairs.
    variants: pictures of each chair and view, the first without a transformation. seed: of all that is drawn."""

    steps: int = 6000
    batch: int = 32
    rate: float = 1e-3
    code_times: float = 5.0
    noise: float = 0.1
    variants: int = 2
    seed: int = 0


def seen_views() -> np.ndarray:
    """bool (62,): the views of view_grid that the generator is trained on, every second azimuth from 0 to 30.

    The other azimuths are held out. Each of them is between two that are seen.
    """
    return np.arange(len(view_grid())) % AZIMUTHS % 2 == 0


def train(
    layout: GeneratorLayout | None = None,
    settings: TrainingSettings | None = None,
    *,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> tuple[ChairGenerator, list[float]]:
    """A generator of the chairs of a layout, and the loss of each step.

    The loss is Dosovitskiy 2015's: 10 times the mean square of the picture's error, and the mask's. A chair's code begins as
    the principal components of its pictures, which is learned on; from random codes the chairs are told apart late. Passes
    are in bfloat16, which takes half the time where the processor has it. The same arguments and threads give the same bits
    on one kind of machine.
    """
    layout, settings = layout or GeneratorLayout(), settings or TrainingSettings()
    on_progress("rendering")
    chairs, views, transforms, images, masks = _pictures(layout, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        generator = ChairGenerator(layout)
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        generator.codes.data = principal_components(images[: len(images) // settings.variants], layout)
        losses = []
        others = [weight for name, weight in generator.named_parameters() if name != "codes"]
        optimiser = torch.optim.Adam([{"params": others}, {"params": [generator.codes]}], betas=(0.9, 0.99))
        order = torch.empty(0, dtype=torch.int64)
        for step in range(settings.steps):
            if len(order) < settings.batch:
                order = torch.cat([order, torch.randperm(len(chairs))])
            rows, order = order[: settings.batch], order[settings.batch :]
            rate = settings.rate * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / settings.steps)) / 2
            for group, times in zip(optimiser.param_groups, (1.0, settings.code_times), strict=True):
                group["lr"] = rate * times
            codes = generator.codes[chairs[rows]]
            with torch.autocast("cpu", torch.bfloat16):
                drawn = generator(codes + settings.noise * torch.randn_like(codes), views[rows], transforms[rows])
            image_error, mask_error = (
                (part.float() - true[rows].float() / 255).square().mean()
                for part, true in zip(drawn, (images, masks), strict=True)
            )
            loss = 10 * image_error + mask_error
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if (step + 1) % 100 == 0:
                on_progress(f"step {step + 1} of {settings.steps}, loss {np.mean(losses[-100:]):.4f}")
    generator.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return generator.eval().requires_grad_(False), losses


def principal_components(images: torch.Tensor, layout: GeneratorLayout) -> torch.Tensor:
    """float32 (styles, code): the first components of what a chair's pictures show, each of mean 0 and variance 1.

    images: uint8 (styles * V, 3, S, S), the same V views of each chair, one chair after the other. Components beyond the
    number of chairs less 1 are 0. The sign makes the largest value of a component positive.
    """
    halved = torch.nn.functional.avg_pool2d(images.float(), 2).reshape(layout.styles, -1).double()
    away = halved - halved.mean(0)
    _, vectors = torch.linalg.eigh(away @ away.T)
    kept = vectors.flip(1)[:, : min(layout.code, layout.styles - 1)]
    kept = kept * kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign() * math.sqrt(layout.styles)
    return torch.nn.functional.pad(kept, (0, layout.code - kept.shape[1])).float()


def _pictures(layout: GeneratorLayout, settings: TrainingSettings) -> tuple[torch.Tensor, ...]:
    """By picture the chair's number, the view and the transformation; and the pictures and masks, uint8."""
    seen = np.flatnonzero(seen_views())
    chairs = np.tile(np.repeat(np.arange(layout.styles), len(seen)), settings.variants)
    views = view_grid()[np.tile(seen, layout.styles * settings.variants)]
    transforms = np.random.default_rng(settings.seed).uniform(-1, 1, (len(chairs), len(PLAIN)))
    transforms[: layout.styles * len(seen)] = PLAIN
    images, masks = render(random_styles(layout.styles, layout.seed)[chairs], views, transforms, size=layout.size)
    return (
        torch.from_numpy(chairs),
        torch.from_numpy(views).float(),
        torch.from_numpy(transforms).float(),
        torch.from_numpy(images),
        torch.from_numpy(masks),
    )
