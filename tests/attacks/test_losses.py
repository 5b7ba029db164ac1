"""Auto-PGD that climbs several losses in the same passes."""

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.loop import unit_length
from evofool.attacks.gradient import LOSSES, apgd
from evofool.errors import RecipeError
from evofool.targets import Target
from evofool.targets import target as load_target
from evofool.targets.preprocessing import Preprocessing

DIGITS = tuple(str(digit) for digit in range(10))
BOTH = "margin+logit"


class Mapped(nn.Module):
    """The bundled lenet with a map of all its logits."""

    def __init__(self, power: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        network = load_target("lenet").network
        assert network is not None
        self.base, self.power, self.scale = network.module, power, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.base(x)
        return z**self.power * self.scale


def mapped(power: int = 1, scale: float = 1.0) -> Target:
    preprocessing = Preprocessing(**load_target("lenet").details["preprocessing"])
    return Target.from_module(Mapped(power, scale), DIGITS, (1, 28, 28), preprocessing, "mapped")


def first_steps(target: Target, losses: str, budget: int = 20) -> list[int]:
    """By class, the forward passes until its image is classified as it; more than the budget if none is."""
    found = dict.fromkeys(range(10), budget + 1)

    def note(classes: np.ndarray, forwards: np.ndarray, logits: np.ndarray) -> None:
        for c, f in zip(classes[logits.argmax(1) == classes].tolist(), forwards.tolist(), strict=False):
            found[c] = min(found[c], f)

    apgd(target, range(10), rank="margin", losses=losses, budget=budget, on_answers=note)
    return list(found.values())


def test_several_losses_share_the_forward_passes() -> None:
    target = load_target("lenet")
    one, two = (apgd(target, (3, 8), rank="margin", losses=losses, budget=12) for losses in ("margin", BOTH))
    assert one.forwards.tolist() == two.forwards.tolist() == [12, 12]
    assert one.backwards.tolist() == [11, 11]
    assert two.backwards.tolist() == [22, 22]
    assert not np.array_equal(one.images, two.images)
    plain = apgd(target, (3, 8), rank="margin", budget=12)
    assert np.array_equal(plain.images, one.images), "margin alone is the default of the method"
    assert plain.improvements == one.improvements


def test_one_loss_given_twice_is_that_loss() -> None:
    """Signed steps follow the direction alone, as long as no step is halved."""
    target = load_target("lenet")
    once, twice = (apgd(target, (1, 7), rank="margin", losses=losses, budget=9) for losses in ("logit", "logit+logit"))
    assert np.array_equal(once.images, twice.images)


@pytest.mark.parametrize("losses", [*sorted(LOSSES.keys() - {"log_odds"}), BOTH])
def test_a_temperature_changes_no_step(losses: str) -> None:
    warm, cold = (apgd(mapped(scale=scale), (0, 5), rank="margin", losses=losses, budget=20) for scale in (1.0, 0.25))
    assert np.array_equal(warm.images, cold.images)
    assert np.array_equal(warm.scores, 4 * cold.scores)


def test_a_monotone_map_of_the_logits_gains_little_against_two_losses() -> None:
    """z^5 changes no arg-max, but the gradient of the margin then hardly sees logits near 0."""
    steps = {
        (name, losses): np.mean(first_steps(target, losses))
        for name, target in (("z", mapped()), ("z^5", mapped(5)))
        for losses in ("margin", BOTH)
    }
    assert steps["z^5", "margin"] > 1.5 * steps["z", "margin"]
    assert steps["z^5", BOTH] < 1.25 * steps["z", "margin"]
    assert steps["z", BOTH] < 1.1 * steps["z", "margin"], "nor do two losses cost much without a map"


def test_lengths_are_exact_under_powers_of_two_and_zero_stays_zero() -> None:
    g = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    g[2] = 0
    g[3, 0, 0, 0] = torch.inf
    for power in (-100, -30, 10, 60):
        assert torch.equal(unit_length(g * 2.0**power)[:3], unit_length(g)[:3])
    assert torch.allclose(unit_length(g)[:2].flatten(1).norm(dim=1), torch.ones(2))
    assert not unit_length(g)[2].any()
    assert not torch.isfinite(unit_length(g)[3]).all()


class Broken(nn.Module):
    """Two classes whose logits are linear and a third that has a gradient that is not finite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = x.flatten(1).sum(1)
        return torch.stack([s, -s, torch.full_like(s, -1e3)], 1)


def test_a_gradient_that_is_not_finite_does_not_count_beside_others() -> None:
    target = Target.from_module(Broken(), ("a", "b", "c"), (1, 4, 4), Preprocessing(scale=1 / 255), "broken")
    found = apgd(target, (0,), rank="margin", losses="logit+ratio", budget=10)
    assert found.iterations.tolist() == [9]
    assert found.scores[0] > 10


def test_unknown_losses_are_named() -> None:
    with pytest.raises(RecipeError, match='there is no loss "dlr"; there are margin, logit, log_odds, ratio'):
        apgd(load_target("lenet"), (0,), losses="margin+dlr", budget=5)
