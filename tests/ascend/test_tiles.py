"""Gradients tile by tile, compared with one pass over a rolled image, and how an image is divided."""

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend import objectives
from evofool.ascend.hooks import Hooks
from evofool.ascend.tiles import TiledGradient, Tiling
from evofool.targets import Target


def pointwise() -> Target:
    """A network whose first layer sees single pixels, so that tiles do not change its gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Target.from_module(net, None, (3, 8, 8), name="pointwise")


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("tiling", [Tiling(10, 14, 4, 5), Tiling(10, 14, 10, 14), Tiling(10, 14, 16, 16)])
def test_the_tiles_together_have_the_gradient_of_the_whole_image(tiling: Tiling, streams: int) -> None:
    target, image = pointwise(), torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(1))
    energy, passes = objectives.layer_energy("1"), []
    with Hooks(target, ["1"], logits=False) as hooks:
        x = image.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(energy(hooks.forward(x), x, torch.zeros(1, dtype=torch.int64)).sum(), x)
        with TiledGradient(target, hooks, energy, streams, lambda: bool(passes.append(1))) as gradient:
            for shift in ((0, 0), (3, -9), (-31, 100)):
                found = gradient(image, tiling, shift)
                assert found is not None
                assert torch.allclose(found, wanted, atol=1e-6)
    assert len(passes) == 3 * len(tiling)


@pytest.mark.parametrize("streams", [1, 2])
def test_it_stops_between_tiles(streams: int) -> None:
    target, passes = pointwise(), []

    def stops() -> bool:
        passes.append(1)
        return len(passes) == 3

    with (
        Hooks(target, ["1"], logits=False) as hooks,
        TiledGradient(target, hooks, objectives.layer_energy("1"), streams, stops) as gradient,
    ):
        assert gradient(torch.rand(1, 3, 9, 9), Tiling(9, 9, 3, 3), (0, 0)) is None
    assert len(passes) == 3


def test_tiles_are_as_few_as_possible_and_of_about_equal_size() -> None:
    for height, width, most in np.random.default_rng(0).integers(1, 300, (200, 3)).tolist():
        tiling = Tiling.of(height, width, most)
        assert len(tiling) == -(-height // most) * -(-width // most)
        assert tiling.tile_height <= most
        assert tiling.tile_width <= most
        assert 0 <= tiling.rows * tiling.tile_height - height < tiling.rows
        assert 0 <= tiling.columns * tiling.tile_width - width < tiling.columns
