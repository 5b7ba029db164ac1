"""What the first batch norm tells of how a network was fed when it was trained."""

import numpy as np
import pytest
import torch
from torch import nn

from evofool.targets import Preprocessing, Target
from evofool.targets.first_norm import scaling_note
from evofool.targets.validation import check

SHAPE = (3, 32, 32)
RIGHT = Preprocessing(mean=(0.5,), std=(0.5,))


def photograph_like(seed: int) -> np.ndarray:
    """Other images than those that are compared: blurred noise around photographs' mean colours."""
    draw = np.random.default_rng(seed)
    coarse = draw.normal(size=(16, 3, 4, 4)).repeat(8, 2).repeat(8, 3) + 0.3 * draw.normal(size=(16, 3, 32, 32))
    return np.clip(255 * (np.array([0.485, 0.456, 0.406])[:, None, None] + 0.23 * coarse), 0, 255).astype(np.uint8)


def trained(fed: Preprocessing) -> nn.Module:
    """A network whose norm has seen images fed so."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    with torch.no_grad():
        for seed in range(60):
            network(fed.affine()(torch.from_numpy(photograph_like(seed)).float()))
    return network


@pytest.mark.parametrize(
    "wrong",
    [Preprocessing(), Preprocessing(scale=1.0), Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))],
)
def test_another_scaling_than_in_training_is_noted_and_the_right_one_is_not(wrong: Preprocessing) -> None:
    network = trained(RIGHT)
    assert scaling_note(Target.from_module(network, None, SHAPE, RIGHT, "net")) == ""
    note = scaling_note(Target.from_module(network, None, SHAPE, wrong, "net"))
    assert "its first batch norm was trained on images scaled otherwise: pixels on -" in note
    assert any(note in each for each in check(Target.from_module(network, None, SHAPE, wrong, "net"), speed=False).notes)


def test_nothing_is_told_without_a_norm_or_of_grey_images() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(4))
    plain(torch.zeros(1, *SHAPE))
    assert scaling_note(Target.from_module(plain, None, SHAPE, Preprocessing(scale=1.0), "net")) == ""
    grey = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(4))
    grey(torch.rand(2, 1, 32, 32))
    assert scaling_note(Target.from_module(grey, None, (1, 32, 32), Preprocessing(scale=1.0), "net")) == ""


def test_an_untrained_norm_and_one_that_is_never_called_tell_nothing() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.body = nn.BatchNorm2d(3), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    fresh = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 30 * 30, 4))
    for network in (Unused(), fresh):
        assert scaling_note(Target.from_module(network, None, SHAPE, Preprocessing(scale=1.0), "net")) == ""
