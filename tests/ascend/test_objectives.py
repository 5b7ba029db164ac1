"""Objectives, item by item, compared with simple loops and with the scores of a search."""

import numpy as np
import pytest
import torch

from evofool import scores
from evofool.ascend import objectives as o
from evofool.ascend.hooks import ForwardPass

Z = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.0, 0.25], [30.0, -20.0, 5.0]])
CLASSES = torch.tensor([2, 1, 0, 1])
ROWS = torch.tensor([3, 0, 2])  # of the items, whose classes are 1, 2, 0
IMAGES = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(1))


def value(objective: o.Objective, layers: dict[str, torch.Tensor] | None = None) -> np.ndarray:
    return objective(ForwardPass(Z, layers or {}), IMAGES, ROWS).double().numpy()


def test_scores_of_classes_equal_those_that_a_search_ranks_by() -> None:
    picked = np.arange(3), np.array([1, 2, 0])
    z = Z.numpy()
    assert np.allclose(value(o.class_logit(CLASSES)), z[picked])
    assert np.allclose(value(o.log_odds(CLASSES)), scores.log_odds(z)[picked], atol=1e-5)
    assert np.allclose(value(o.margin(CLASSES)), scores.margin(z)[picked], atol=1e-5)
    assert np.allclose(value(o.probability(CLASSES)), scores.confidence(scores.log_odds(z))[picked], atol=1e-6)


def test_units_and_channels_are_looked_up_by_item() -> None:
    maps = torch.arange(3 * 4 * 3 * 5.0).view(3, 4, 3, 5)
    flat = torch.arange(12.0).view(3, 4)
    middle = o.unit("m", [(0,), (1,), (2,), (3,)])  # items 3, 0 and 2 come
    assert value(middle, {"m": maps}).tolist() == [maps[0, 3, 1, 2], maps[1, 0, 1, 2], maps[2, 2, 1, 2]]
    place = o.unit("m", [(0, 2, 4)] * 4)
    assert value(place, {"m": maps}).tolist() == maps[:, 0, 2, 4].tolist()
    assert value(o.unit("f", [(0,), (1,), (2,), (3,)]), {"f": flat}).tolist() == [3.0, 4.0, 10.0]
    assert value(o.channel("m", [3, 2, 1, 0]), {"m": maps}).tolist() == [
        float(maps[0, 0].mean()), float(maps[1, 3].mean()), float(maps[2, 1].mean())
    ]  # fmt: skip


def test_energy_and_match() -> None:
    a = torch.rand(3, 2, 3, 3)
    features = torch.rand(4, 2, 3, 3)
    assert np.allclose(value(o.layer_energy("a"), {"a": a}), [0.5 * float((x**2).sum()) for x in a])
    expected = [-float(((a[k] - features[i]) ** 2).sum() / (features[i] ** 2).sum()) for k, i in enumerate(ROWS.tolist())]
    assert np.allclose(value(o.match("a", features), {"a": a}), expected, atol=1e-6)


@pytest.mark.parametrize("products", [1, 13, 1 << 22])
def test_a_guide_uses_the_best_match_of_each_position(products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(o, "_MOST_PRODUCTS", products)
    a, g = torch.rand(1, 4, 2, 2), torch.rand(1, 4, 3, 2)
    pairs = a[0].flatten(1).T @ g[0].flatten(1)
    one = o.guide("a", g)(ForwardPass(None, {"a": a}), IMAGES[:1], ROWS[:1])
    assert float(one) == pytest.approx(float(pairs.max(1).values.sum()), rel=1e-5)


def test_image_priors_equal_simple_loops() -> None:
    x = IMAGES.double().numpy()
    assert np.allclose(value(o.l2(0.25)), ((x - 0.25) ** 2).sum((1, 2, 3)))
    assert np.allclose(value(o.alpha_norm(6, 0.5, 255)), (np.abs((x - 0.5) * 255) ** 6).sum((1, 2, 3)), rtol=1e-4)
    for beta in (2.0, 1.0):
        total = np.zeros(3)
        for n, c, i, j in np.ndindex(*x.shape):
            dy = x[n, c, i + 1, j] - x[n, c, i, j] if i + 1 < x.shape[2] else 0.0
            dx = x[n, c, i, j + 1] - x[n, c, i, j] if j + 1 < x.shape[3] else 0.0
            total[n] += (dx**2 + dy**2) ** (beta / 2)
        assert np.allclose(value(o.total_variation(beta)), total, rtol=1e-4)


def test_objectives_can_be_added_and_keep_their_layers() -> None:
    both = o.class_logit(CLASSES) - 0.5 * o.l2() + o.layer_energy("a") * 2.0
    a = torch.rand(3, 2)
    expected = value(o.class_logit(CLASSES)) - 0.5 * value(o.l2()) + 2 * value(o.layer_energy("a"), {"a": a})
    assert np.allclose(value(both, {"a": a}), expected, atol=1e-5)
    assert both.layers == ("a",)
    assert both.logits
    assert not o.layer_energy("a").logits


def test_the_crops_of_an_image_are_one_item() -> None:
    """Two crops of each of three images: a layer has six rows, and an item the mean over its two."""
    maps, flat = torch.rand(6, 4, 3, 5), torch.rand(6, 4)
    pairs = [(0, 1), (2, 3), (4, 5)]
    items = ROWS.tolist()
    index = [(0,), (1,), (2,), (3,)]
    expected = [float((flat[a, items[k]] + flat[b, items[k]]) / 2) for k, (a, b) in enumerate(pairs)]
    assert np.allclose(value(o.unit("f", index), {"f": flat}), expected)
    expected = [float((maps[a, items[k]].mean() + maps[b, items[k]].mean()) / 2) for k, (a, b) in enumerate(pairs)]
    assert np.allclose(value(o.channel("m", [0, 1, 2, 3]), {"m": maps}), expected)
    expected = [float((maps[a] ** 2).sum() + (maps[b] ** 2).sum()) / 4 for a, b in pairs]
    assert np.allclose(value(o.layer_energy("m"), {"m": maps}), expected)
    assert o.guide("m", torch.rand(1, 4, 2, 2))(ForwardPass(None, {"m": maps}), IMAGES, ROWS).shape == (3,)
