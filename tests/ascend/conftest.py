"""Small networks with known layers."""

import pytest
import torch
from torch import nn

from evofool.targets import Target


class Net(nn.Module):
    """Two convolutions with one ReLU used twice, in place, and a linear layer; counts how often its last layer runs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.unused = nn.Linear(2, 2)
        self.last = nn.Linear(4, 5)
        self.ended = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.second(x))
        self.ended += len(x)
        return self.last(x.mean((2, 3)))


@pytest.fixture
def small() -> Target:
    return Target.from_module(Net(), list("abcde"), (1, 8, 8))
