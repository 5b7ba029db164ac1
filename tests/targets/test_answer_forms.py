"""Answers in other forms than (B, K) become scores of two classes or more, the same by a network, a callable and ONNX."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import TargetError
from evofool.scores import log_odds
from evofool.targets import Target, target
from evofool.targets.preprocessing import Preprocessing

SHAPE = (1, 6, 6)
IMAGES = np.random.default_rng(1).integers(0, 256, (5, *SHAPE), np.uint8)


class Body(nn.Module):
    """K scores, whose form `made` changes."""

    def __init__(self, classes: int, made: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.made = nn.Sequential(nn.Flatten(), nn.Linear(36, classes)), made

    def forward(self, x: torch.Tensor) -> Any:
        return self.made(self.body(x))


def scores(classes: int) -> torch.Tensor:
    with torch.no_grad():
        return Body(classes, lambda z: z)(torch.from_numpy(IMAGES).float() / 255)


@pytest.mark.parametrize(
    "form",
    [
        lambda z: z[:, :, None],
        lambda z: z[:, :, None, None],
        lambda z: (z, "hidden states"),
        lambda z: {"logits": z, "loss": None},
        lambda z: {"out": z},
        lambda z: SimpleNamespace(logits=z),
    ],
)
def test_the_scores_of_a_network_are_found_in_its_answer(form: Callable[[torch.Tensor], Any]) -> None:
    found = Target.from_module(Body(3, form), None, SHAPE, name="net")
    assert np.allclose(found.logits(IMAGES), scores(3), atol=1e-6)
    assert found.network is not None
    assert found.network.module(torch.zeros(2, *SHAPE)).shape == (2, 3), "also where gradients are taken"


@pytest.mark.parametrize("flat", [False, True])
def test_one_output_is_the_second_of_two_classes(flat: bool) -> None:
    form = (lambda z: 9 * z[:, 0]) if flat else (lambda z: 9 * z)
    z = 9 * scores(1)[:, 0].numpy()
    found = Target.from_module(Body(1, form), ["cat"], SHAPE, name="net")
    assert found.labels == ("not cat", "cat")
    assert np.allclose(log_odds(found.logits(IMAGES))[:, 1], z, atol=1e-5)
    assert 'its one output is taken for the logit of the second of two classes, "cat"' in found.details["notes"][0]
    odds = Target.from_module(Body(1, lambda z: torch.sigmoid(form(z))), None, SHAPE, name="net")
    assert odds.labels == ("0", "1")
    assert np.allclose(log_odds(odds.logits(IMAGES))[:, 1], z, atol=1e-4)
    assert "the probability of" in odds.details["notes"][0]
    stated = Target.from_module(Body(1, lambda z: torch.sigmoid(z)), None, SHAPE, name="net", outputs="logits")
    assert np.allclose(log_odds(stated.logits(IMAGES))[:, 1], torch.sigmoid(scores(1))[:, 0], atol=1e-5)


def test_networks_of_another_number_format_are_run_in_float32_and_left_as_they_are() -> None:
    half = Body(3, lambda z: z).half()
    found = Target.from_module(half, None, SHAPE, name="net")
    assert np.allclose(found.logits(IMAGES), scores(3), atol=1e-2)
    assert next(half.parameters()).dtype == torch.float16
    assert found.details["notes"] == ["its weights are torch.float16 and are run in float32"]


CALLABLES = """
import numpy as np, torch

def made(form):
    def call(x):
        z = np.asarray(x, np.float32).reshape(len(x), -1)[:, :3] / 50
        return form(z)
    call.shape = (1, 6, 6)
    return call

def array(): return made(lambda z: z)
def tensor(): return made(torch.from_numpy)
def rows(): return made(lambda z: z.tolist())
def pair(): return made(lambda z: (z, None))
def one(): return made(lambda z: z[:, 0])
def text(): return made(lambda z: "z")

def forest():
    from sklearn.ensemble import RandomForestClassifier
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (90, 36)), np.arange(90) % 3
    found = RandomForestClassifier(50, random_state=0).fit(x, np.array(["a", "b", "c"])[y])
    found.shape = (1, 6, 6)
    return found
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "form_nets.py").write_text(CALLABLES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "form_nets", raising=False)
    return "python:form_nets"


def test_callables_may_return_tensors_lists_tuples_and_one_output(module: str) -> None:
    expected = target(f"{module}:array").logits(IMAGES)
    for name in ("tensor", "rows", "pair"):
        assert np.array_equal(target(f"{module}:{name}").logits(IMAGES), expected)
    one = target(f"{module}:one")
    assert np.allclose(log_odds(one.logits(IMAGES))[:, 1], expected[:, 0], atol=1e-6)
    assert one.refed is not None
    fed = one.refed(__import__("evofool").Preprocessing(scale=2.0))
    assert fed is not None
    assert np.allclose(log_odds(fed(IMAGES))[:, 1], 2 * expected[:, 0], atol=1e-5), "also fed otherwise"
    with pytest.raises(TargetError, match="it returns a str; it has to return an array of scores"):
        target(f"{module}:text")


def test_an_estimator_of_scikit_learn_is_a_target_whose_coarse_answers_are_noted(module: str) -> None:
    found = target(f"{module}:forest")
    assert found.labels == ("a", "b", "c")
    assert found.outputs == "probabilities"
    assert np.allclose(np.exp(found.logits(IMAGES)).sum(1), 1, atol=1e-5)
    assert any("rounded to 2 decimals" in note for note in found.details["notes"])


@pytest.mark.parametrize(("classes", "steps", "gain"), [(10, 256, 4), (10, 100, 4), (300, 256, 9)])
def test_a_rounded_softmax_is_probabilities_though_its_rows_do_not_sum_to_1(classes: int, steps: int, gain: int) -> None:
    exact = Body(classes, lambda z: torch.softmax(gain * z, 1))

    def rounded(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            p = exact(torch.from_numpy(images).float() / 255)
        return (p.numpy() * steps).round() / np.float32(steps)

    def made(forward: Callable[[np.ndarray], np.ndarray], outputs: str = "auto") -> Target:
        return Target.probed("net", forward, None, SHAPE, Preprocessing(), outputs, {})

    assert np.abs(rounded(IMAGES).sum(axis=1) - 1).max() > 2e-3
    found = made(rounded)
    assert found.outputs == made(rounded, "probabilities").outputs == "probabilities"
    assert f"its probabilities are in steps of 1/{steps}" in found.details["notes"][0]
    p = np.exp(found.logits(IMAGES))
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert p.min() > 0
    network = Body(classes, lambda z: (torch.softmax(gain * z, 1) * steps).round() / steps)
    assert Target.from_module(network, None, SHAPE, name="net").outputs == "probabilities"
    with pytest.raises(TargetError, match="outputs is probabilities, but rows of its answer sum to"):
        made(lambda images: rounded(images) + np.float32(2 / steps), "probabilities")
