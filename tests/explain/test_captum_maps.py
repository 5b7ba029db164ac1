"""Integrated gradients and Grad-CAM on networks where both are known, and what is said without captum."""

import builtins
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import TargetError
from evofool.explain import captum_maps
from evofool.explain.captum_maps import grad_cam, integrated_gradients
from evofool.explain.covering import filled
from evofool.explain.evidence import evidence
from evofool.targets import Target
from tests.explain.test_evidence import image
from tests.explain.test_evidence import target as pooling
from tests.explain.test_sufficient import weighted


def test_integrated_gradients_of_a_linear_network_are_its_contributions_and_complete() -> None:
    pytest.importorskip("captum.attr")
    target, weight, picture = weighted()
    found = integrated_gradients(target, picture, 0, 1, steps=3)
    expected = (weight * (picture / 255.0 - filled(picture, "mean") / 255.0))[0]
    np.testing.assert_allclose(found.map, expected, atol=1e-5)
    assert abs(found.residual) < 1e-4
    z = target.logits(np.stack([picture, filled(picture, "mean")]))
    np.testing.assert_allclose([found.margin, found.of_baseline], z[:, 0] - z[:, 1], atol=1e-4)
    other_way = integrated_gradients(target, picture, 1, 0, steps=3)
    np.testing.assert_allclose(other_way.map, -found.map, atol=1e-6)


def test_the_residual_is_what_the_steps_leave_out_and_falls_with_them(lenet: Target) -> None:
    pytest.importorskip("captum.attr")
    picture = np.random.default_rng(0).integers(0, 256, lenet.shape, np.uint8)
    residuals = []
    for steps in (2, 64):
        found = integrated_gradients(lenet, picture, 3, 5, steps=steps)
        assert found.residual == pytest.approx(found.map.sum() - (found.margin - found.of_baseline), abs=1e-3)
        residuals.append(abs(found.residual))
    assert residuals[1] < residuals[0]


def test_grad_cam_of_a_pooled_network_is_its_evidence_where_that_is_positive() -> None:
    pytest.importorskip("captum.attr")
    found = grad_cam(pooling(), image(), 2)
    assert (found.layer, found.positions) == ("relu", (5, 5))
    ours = evidence(pooling(), image(), 2, 1)
    coarse = torch.from_numpy(np.maximum(ours.map_of_class((5, 5)), 0) / 25)
    enlarged = nn.functional.interpolate(coarse[None, None], (12, 12), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found.map, enlarged, rtol=1e-4, atol=1e-6)


def test_grad_cam_is_of_the_last_layer_with_positions(lenet: Target) -> None:
    pytest.importorskip("captum.attr")
    picture = np.zeros((1, 28, 28), np.uint8)
    picture[:, 4:24, 12:16] = 255
    found = grad_cam(lenet, picture, 1)
    assert found.map.shape == (28, 28)
    assert found.map.min() >= 0
    assert found.layer == "conv2"


class Tokens(nn.Module):
    """A convolution whose positions become a sequence, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Tokens(), "mix works on a sequence of 9 tokens"),
        (ChannelsLast(), r"the output of norm, 3 x 3 x 6, is not a map of the image"),
        (nn.Sequential(nn.Flatten(), nn.Linear(432, 3)), "no layer's output has positions"),
    ],
)
def test_a_network_without_a_spatial_layer_is_refused_with_the_reason(module: nn.Module, reason: str) -> None:
    pytest.importorskip("captum.attr")
    with pytest.raises(TargetError, match=reason):
        grad_cam(Target.from_module(module, None, (3, 12, 12)), image(), 0)


def test_without_captum_a_sentence_says_how_to_get_it(lenet: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("captum"):
            raise ImportError("No module named 'captum'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TargetError, match=r"need captum \(No module named 'captum'\): pip install 'evofool\[explain\]'"):
        integrated_gradients(lenet, np.zeros(lenet.shape, np.uint8), 0, 1)
    monkeypatch.undo()
    monkeypatch.setattr(captum_maps.importlib.util, "find_spec", lambda _name: None)
    assert not captum_maps.available()
