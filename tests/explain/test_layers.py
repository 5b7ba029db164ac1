"""The default layers of an explanation."""

import pytest
import torch
from torch import nn

import evofool
from evofool.errors import TargetError
from evofool.explain.layers import evenly, in_order, last_layer
from evofool.targets import Target


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm(self.conv(x))


class Network(nn.Module):
    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 3)
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(*(Block() for _ in range(blocks)), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def target(module: nn.Module) -> Target:
    return Target.from_module(module, ["a", "b", "c"], (3, 8, 8))


def test_blocks_are_spread_from_first_to_last_in_the_order_in_which_they_run() -> None:
    found = target(Network())
    assert evenly(found, 6) == ["stem", "body.0", "body.1", "body.2", "body.3", "head"]
    assert evenly(found, 99) == evenly(found, 6)
    assert evenly(found, 3) == ["stem", "body.1", "head"]
    assert evenly(evofool.target("lenet")) == ["conv1", "conv2", "fc1", "fc2"]


def test_named_layers_are_ordered_as_they_run_with_the_logits_last() -> None:
    found = target(Network())
    assert in_order(found, ["head", "logits", "body.2", "stem", "head", "body"]) == [
        "stem",
        "body.2",
        "body",
        "head",
        "logits",
    ]
    assert in_order(found, ["logits", "nowhere", "stem"]) == ["stem", "nowhere", "logits"]


def test_the_last_layer_is_linear_or_else_a_convolution() -> None:
    assert last_layer(target(Network())) == "head"
    assert last_layer(target(nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten()))) == "0"


def test_choosing_layers_leaves_no_hook_and_counts_a_pass() -> None:
    found = target(Network())
    before = found.queries
    evenly(found)
    assert found.queries - before == 1
    assert found.network is not None
    assert not any(module._forward_hooks for module in found.network.module.modules())


def test_a_network_without_weights_and_a_black_box_are_errors() -> None:
    bare = target(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    for choose in (evenly, last_layer):
        with pytest.raises(TargetError, match="name a layer"):
            choose(bare)
        with pytest.raises(TargetError, match="neither gradients nor layers"):
            choose(Target("box", ["a", "b"], (3, 8, 8), lambda x: x, {}))
