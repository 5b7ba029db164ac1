"""Sufficient subsets on targets whose evidence is known, and backward selection compared with an exact one."""

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain.covering import filled
from evofool.explain.curves import random_map
from evofool.explain.sufficient import KEPT, backward_selection, least_kept, sufficient
from evofool.scores import confidence, log_odds
from evofool.targets import Target
from tests.explain.one_patch import PATCH, SHAPE, lit, one_patch

MAPS = {"true": PATCH * 1.0, "false": ~PATCH * 1.0, "random": random_map(*SHAPE[1:])}


class Weighted(nn.Module):
    """The logit of class 0 is a weighted sum of the pixels, that of class 1 is 0."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = (x * self.weight).sum((1, 2, 3))
        return torch.stack([first, torch.zeros_like(first)], 1)


def weighted(side: int = 8) -> tuple[Target, np.ndarray, np.ndarray]:
    """A target, its weights (1, side, side) and an image."""
    rng = np.random.default_rng(2)
    weight, image = rng.normal(0, 1, (1, side, side)), rng.integers(0, 256, (1, side, side), np.uint8)
    return Target.from_module(Weighted(weight), ["a", "b"], (1, side, side)), weight, image


def test_the_threshold_is_nine_tenths_of_the_confidence_also_where_it_saturates() -> None:
    for odds in (-30.0, -2.0, 0.0, 3.0):
        assert confidence(least_kept(odds)) == pytest.approx(KEPT * confidence(odds), rel=1e-9)
    assert least_kept(800.0) == pytest.approx(np.log(9))


def test_subsets_keep_the_class_and_one_pixel_fewer_loses_it() -> None:
    target = one_patch()
    found = sufficient(target, lit(), 0, MAPS, first={"true": [30, 50]}, rounds=20)
    assert target.queries == 2 + 3 * (7 + 20) + 2
    assert found.threshold == least_kept(found.whole)
    other = filled(lit(), "mean")
    for name, subset in found.subsets.items():
        order = np.argsort(-MAPS[name].ravel(), kind="stable")
        count = int(subset.mask.sum())
        assert subset.mask.ravel()[order[:count]].all()
        assert subset.share == count / 1024
        fewer = subset.mask.copy()
        fewer.ravel()[order[count - 1]] = False
        both = np.stack([np.where(mask, lit(), other) for mask in (subset.mask, fewer)])
        kept, lost = log_odds(target.logits(both))[:, 0]
        assert kept == pytest.approx(subset.log_odds)
        assert kept >= found.threshold > lost
    # Of the patch's 64 pixels some suffice; the false map puts them in after all others.
    assert found.subsets["true"].share < 64 / 1024 < 0.9 < found.subsets["false"].share


def test_an_image_whose_fill_keeps_the_class_needs_no_pixel() -> None:
    found = sufficient(one_patch(), np.full(SHAPE, 200, np.uint8), 0, MAPS)
    assert found.empty == pytest.approx(found.whole)
    assert {subset.share for subset in found.subsets.values()} == {0.0}


def test_maps_that_cannot_be_are_named() -> None:
    with pytest.raises(ImageError, match=r'map "short" is \(31, 32\), not \(32, 32\)'):
        sufficient(one_patch(), lit(), 0, {"short": np.zeros((31, 32))})
    with pytest.raises(ScoreError, match='map "bad" is not finite'):
        sufficient(one_patch(), lit(), 0, {"bad": np.full((32, 32), np.nan)})


def test_backward_selection_of_a_linear_network_is_the_order_of_its_contributions() -> None:
    target, weight, image = weighted()
    steps: list[int] = []
    before = target.queries
    order, counts, odds = backward_selection(target, image, 0, on_step=lambda step, _of: steps.append(step))
    assert target.queries - before == len(steps) == len(counts)
    parts = (weight * (image / 255.0 - filled(image, "mean") / 255.0))[0].ravel()
    assert sorted(order.ravel().tolist()) == list(range(64))
    assert np.argsort(order.ravel()).tolist() == np.argsort(parts).tolist()
    assert counts == sorted(counts, reverse=True)
    for count, path in zip(counts, odds, strict=True):
        alone = np.where(order >= 64 - count, image, filled(image, "mean"))
        assert path == pytest.approx(log_odds(target.logits(alone[None]))[0, 0], abs=1e-4)


def test_backward_selection_differentiates_again_after_each_step() -> None:
    """What a pixel adds depends on others, so the order differs from that of the first gradient."""
    rng = np.random.default_rng(4)
    alone, products = rng.normal(0, 1, 16), rng.normal(0, 1, (16, 16))
    image = rng.integers(0, 256, (1, 4, 4), np.uint8)

    class Quadratic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pixels = x.flatten(1)
            first = pixels @ torch.from_numpy(alone).float()
            first = first + ((pixels @ torch.from_numpy(products).float()) * pixels).sum(1)
            return torch.stack([first, torch.zeros_like(first)], 1)

    other = filled(image, "mean").ravel() / 255.0
    change = image.ravel() / 255.0 - other

    def slopes(left: list[int]) -> np.ndarray:
        """Of the log-odds, which are the logit, by each pixel's mask."""
        pixels = other.copy()
        pixels[left] += change[left]
        return change * (alone + (products + products.T) @ pixels)

    left, removed = list(range(16)), list[int]()
    while len(left) > 2:
        now = slopes(left)
        left.sort(key=lambda pixel: now[pixel])
        gone = int(np.ceil(0.2 * len(left)))
        removed, left = removed + left[:gone], left[gone:]
    now = slopes(left)
    removed += sorted(left, key=lambda pixel: now[pixel])
    target = Target.from_module(Quadratic(), ["a", "b"], (1, 4, 4))
    found = backward_selection(target, image, 0, removed=0.2)
    assert found.map.ravel().argsort().tolist() == removed
    assert removed != slopes(list(range(16))).argsort().tolist()


def test_backward_selection_reports_the_steps_to_a_tenth_and_then_to_two_pixels() -> None:
    target, _weight, image = weighted(16)
    steps: list[tuple[int, int]] = []
    counts = backward_selection(target, image, 0, on_step=lambda *at: steps.append(at)).counts
    planned = sum(count > 25.6 for count in counts) + 1
    assert [step for step, _ in steps] == list(range(1, len(counts) + 1))
    assert {of for _, of in steps[:planned]} == {planned}
    # The mean colour keeps class 1 of an image of that colour, so all pixels go.
    steps.clear()
    counts = backward_selection(target, np.full_like(image, 9), 1, on_step=lambda *at: steps.append(at)).counts
    assert counts[-1] <= 2
    assert {of for _, of in steps[:planned]} == {planned}
    assert {of for _, of in steps[planned:]} == {len(counts)}


def test_a_cut_graph_is_named_as_for_other_gradients() -> None:
    class Cut(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.flatten(1)[:, :2] > 0.5).float()

    with pytest.raises(TargetError, match="gives no gradients: its output does not depend on the image"):
        backward_selection(Target.from_module(Cut(), ["a", "b"], SHAPE), lit(), 0)


def test_a_target_without_gradients_has_no_backward_selection() -> None:
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        backward_selection(one_patch(), lit(), 0)
