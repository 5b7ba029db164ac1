"""Leaky gradients: the outputs are the network's, and ReLUs pass on a share of the gradient that they would stop."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from evofool.ascend.leaky import LeakyGradients


class Functional(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(F.relu(x + 0, inplace=True) * 2)


class UsesWhatItChanged(nn.Module):
    """The sum is that of the changed input, since the ReLU works in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 3
        return F.relu(y, inplace=True) + y


NETWORKS = {
    "relu": nn.Sequential(nn.ReLU()),
    "in place": nn.Sequential(nn.Identity(), nn.Hardtanh(0, 2, inplace=True), nn.ReLU(inplace=True)),
    "functions": Functional(),
    "uses what it changed": UsesWhatItChanged(),
}
X = torch.tensor([[-4.0, -0.5, 0.25, 1.0, 9.0]])


def passed(network: nn.Module, leak: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the gradient of its sum."""
    x = X.clone().requires_grad_()
    with LeakyGradients(leak).attached(network) as forward:
        output = forward(x, x * 1, lambda raw: raw)
        output.sum().backward()
    assert x.grad is not None
    return output.detach(), x.grad


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_networks(name: str) -> None:
    assert torch.equal(passed(NETWORKS[name], 0.3)[0], NETWORKS[name](X * 1))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("relu", [0.3, 0.3, 1, 1, 1]),
        ("in place", [0.3, 0.3, 1, 1, 0.3]),
        ("functions", [0.6, 0.6, 2, 2, 0.6]),
    ],
)
def test_a_share_of_the_gradient_passes_where_a_relu_changes_its_input(name: str, wanted: list[float]) -> None:
    assert passed(NETWORKS[name], 0.3)[1][0].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_leak_gradients_are_exact(name: str) -> None:
    x = X.clone().requires_grad_()
    NETWORKS[name](x * 1).sum().backward()
    assert torch.equal(passed(NETWORKS[name], 0.0)[1], x.grad)


def test_gradients_outside_of_the_context_are_exact() -> None:
    network = NETWORKS["relu"]
    before = passed(network, 0.0)[1]
    passed(network, 0.3)
    x = X.clone().requires_grad_()
    network(x).sum().backward()
    assert torch.equal(before, x.grad)
