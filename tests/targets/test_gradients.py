"""Gradients are masked if fewer than half of the images have one that can be used."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from evofool.targets import Preprocessing, Target
from evofool.targets.gradients import check_gradients
from tests import synthetic

SHAPE = (1, 12, 12)


class Around(nn.Module):
    """after(network(before(x)))."""

    def __init__(self, before: Callable, after: Callable, seed: int = 3) -> None:
        super().__init__()
        self.network = synthetic.network(seed).network.module  # type: ignore[union-attr]
        self.before, self.after = before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.network(self.before(x)))


def around(before: Callable = lambda x: x, after: Callable = lambda z: z) -> Target:
    return Target.from_module(Around(before, after), None, SHAPE, Preprocessing(scale=1 / 255), "around")


def infinite(x: torch.Tensor) -> torch.Tensor:
    """x, with the derivative of a square root at 0."""
    return x + (x - x.detach()).sqrt()


MASKED = {
    "threshold": (around(before=lambda x: (x > 0.5).float()), "there are none: the output does not depend on the image"),
    "detach": (around(before=lambda x: x.detach()), "there are none: the output does not depend on the image"),
    "detached logits": (around(after=lambda z: z.detach()), "there are none: the output does not depend on the image"),
    "rounded logits": (around(after=lambda z: (100 * z).round() / 100), "zero everywhere for 16 of 16 images"),
    "infinite": (around(before=infinite), "not finite for 16 of 16 images"),
    "ripple": (around(before=lambda x: x + 1e-3 * torch.sin(1e9 * x)), "absurdly large"),
    "softmax": (around(after=lambda z: (z * 1e5).softmax(1)), "zero everywhere for"),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked_gradients_are_found(name: str) -> None:
    target, fault = MASKED[name]
    found = check_gradients(target)
    assert found.fault.startswith(fault)
    assert 2 * found.usable < found.images


@pytest.mark.parametrize("after", [lambda z: z, lambda z: z / 1024, lambda z: z * 1024, lambda z: z**5])
def test_a_network_has_its_gradients_at_any_temperature(after: Callable) -> None:
    assert check_gradients(around(after=after)).fault == ""


def test_gradients_that_are_zero_for_noise_alone_are_not_masked() -> None:
    """A network that was trained to be uncertain about noise may answer all of it alike."""
    noise_like = lambda x: (x.sub(x.mean((1, 2, 3), keepdim=True)).abs().amax((1, 2, 3), keepdim=True) < 0.6).float()  # noqa: E731
    target = around(before=lambda x: x * (1 - noise_like(x)))
    found = check_gradients(target)
    assert 8 <= found.usable < 16
    assert found.fault == ""


def test_real_images_count_too() -> None:
    real = np.random.default_rng(1).integers(0, 256, (40, *SHAPE), np.uint8)
    assert check_gradients(around(), real).images == 32
