"""Small targets for attacks, and all that a run has stored."""

import pytest
import torch
from torch import nn

from evofool.attacks.run import (
    METHODS,
)
from evofool.targets import Target

CLASSES, SIDE = 5, 8
LABELS = ["ant", "bee", "cat", "dog", "elk"]

each_method = pytest.mark.parametrize("method", list(METHODS))


class Tiny(nn.Module):
    """A convolution and a linear layer; it returns NaN for an image whose first pixel is above `broken`."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * SIDE * SIDE, CLASSES)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator) / 4)
        self.broken = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.last(torch.relu(self.conv(x)).flatten(1))
        return torch.where(x[:, 0, 0, :1] > self.broken, torch.nan, z)


def tiny(net: nn.Module | None = None) -> Target:
    return Target.from_module(net or Tiny(), LABELS, (1, SIDE, SIDE), name="tiny")
