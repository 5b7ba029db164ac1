"""Targets that answer at random are measured by the mean of several answers, each of which is a query."""

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import TargetError
from evofool.targets import Target, target
from evofool.targets.averaged import average, needed, repeatability
from evofool.targets.photos import patterns
from evofool.targets.validation import validate

LABELS, SHAPE = ("a", "b", "c"), (1, 12, 12)


class Noisy(nn.Module):
    """A linear network whose logits vary from call to call."""

    labels, shape = LABELS, SHAPE

    def __init__(self, noise: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.noise = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)), noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = 20 * self.body(x)
        return z + self.noise * torch.randn_like(z)


def network(noise: float) -> Target:
    return Target.from_module(Noisy(noise), LABELS, SHAPE)


def callable_of(noise: float) -> Target:
    inner = network(noise)
    return Target("callable", LABELS, SHAPE, inner.raw, {"preprocessing": {}})


@pytest.mark.parametrize("make", [network, callable_of])
def test_an_answer_is_the_mean_of_several_and_costs_as_many_queries(make) -> None:
    plain, found, images = make(1.0), make(1.0), patterns(SHAPE, 4)
    average(found, 400)
    exact = network(0.0).logits(images)
    assert np.abs(plain.logits(images) - exact).max() > 0.5
    assert np.abs(found.logits(images) - exact).max() < 0.25  # 5 standard errors
    assert (plain.queries, found.queries, found.queries_per_image) == (4, 1600, 400)
    assert found.fingerprint() != plain.fingerprint()
    assert found.formats == ("float32",)


def test_gradients_are_means_too() -> None:
    """A network that sees every pixel in half of its passes has half of the plain gradient on average."""

    class Dropped(Noisy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 20 * self.body(x * (torch.rand_like(x) < 0.5))

    found = Target.from_module(Dropped(0.0), LABELS, SHAPE)
    average(found, 400)
    x = torch.full((1, *SHAPE), 0.5, requires_grad=True)
    found.logits_float(x)[0, 0].backward()
    plain = 20 * found.network.module.network.body[1].weight[0].reshape(SHAPE)
    assert torch.allclose(x.grad[0], plain / 2, atol=0.25 * plain.detach().abs().max().item())
    assert found.queries == 400


def test_a_random_target_is_refused_with_the_number_of_answers_that_suffices() -> None:
    (fault,) = validate(network(1.0)).faults
    enough = int(fault.partition("average=")[2].partition(" ")[0])
    assert "something in it is random" in fault
    assert 2 < enough <= 1000
    found = network(1.0)
    average(found, enough)
    checked = validate(found)
    assert checked.faults == ()
    assert any(f"means of {enough} are used" in note for note in checked.notes)
    few = network(1.0)
    average(few, 2)
    (fault,) = validate(few).faults
    assert "means of 2 do not repeat" in fault
    assert "average=" in fault


def test_answers_that_are_noise_alone_are_refused_with_the_reason() -> None:
    (fault,) = validate(network(1e3)).faults
    assert "even means of 1,000 answers would not repeat" in fault


def test_how_many_answers_are_needed() -> None:
    assert needed(0.2, 1.0) == 24  # (0.2 / 0.05)^2, and half as many again
    assert needed(0.01, 1.0) == 2
    assert needed(0.1, 1.0, 4) == 24
    assert needed(9.0, 1.0) is needed(1.0, 0.0) is needed(np.nan, 1.0) is None


def test_repeatability_is_the_noise_of_margins_beside_their_spread() -> None:
    noise, spread = repeatability(network(0.0))
    assert noise == 0.0
    assert spread > 0
    noise, _ = repeatability(network(1.0))
    assert 1.0 < noise < 2.0  # a margin is the difference of two logits with noise 1, or of one and the larger of two


@pytest.mark.parametrize("spec", ["lenet?average=1", "lenet?average=two", "lenet?average=1001"])
def test_a_number_that_makes_no_mean_is_refused(spec: str) -> None:
    with pytest.raises(TargetError, match="average is"):
        target(spec)


def test_the_spec_has_it_and_a_sound_network_answers_as_before() -> None:
    plain, found, images = target("lenet"), target("lenet?average=4"), patterns((1, 28, 28), 3)
    assert np.array_equal(found.logits(images), plain.logits(images))
    assert found.queries == 4 * plain.queries == 12
    assert found.name == "lenet?average=4"
