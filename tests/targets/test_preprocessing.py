"""A network's input and the meaning of its output, compared with a slow NumPy version."""

from typing import Any

import numpy as np
import pytest
import torch

from evofool.errors import TargetError
from evofool.scores import log_odds
from evofool.targets import Target
from evofool.targets.preprocessing import Preprocessing, to_logits


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0,)), ((0.4,), (0.1, 0.2, 0.3)), ((100.0, 1.0, 2.0), (0.5,))])
def test_pixels_are_scaled_shifted_and_swapped(
    channels: int, order: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    if channels == 1:
        mean, std = mean[:1], std[:1]
    x = pixels(2, channels, 4, 5)
    given = (x[:, ::-1] if order == "BGR" else x).astype(np.float64)
    expected = (given / 255 - np.reshape(mean, (1, -1, 1, 1))) / np.reshape(std, (1, -1, 1, 1))
    found = Preprocessing(1 / 255, mean, std, order).affine()(torch.from_numpy(x).float())
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("crops", [5, 10])
@pytest.mark.parametrize("crop", [(4, 6), (7, 8), (3, 3)])
def test_crops_are_the_corners_the_centre_and_their_mirror_images(crops: int, crop: tuple[int, int]) -> None:
    x, (h, w) = pixels(3, 3, 7, 8), crop
    y, z = 7 - h, 8 - w
    places = [(0, 0), (0, z), (y, 0), (y, z), (y // 2, z // 2)]
    expected = []
    for image in x.astype(np.float32):
        cut = [image[:, top : top + h, left : left + w] for top, left in places]
        expected += cut + [part[:, :, ::-1] for part in cut] if crops == 10 else cut
    found = Preprocessing(1.0, crops=crops, crop=crop).affine()(torch.from_numpy(x).float())
    assert np.array_equal(found.numpy(), np.stack(expected))


def test_crops_larger_than_the_image_are_refused() -> None:
    with pytest.raises(TargetError, match="crops of 4x9 cannot be cut out of an image of 7x8"):
        Preprocessing(crops=5, crop=(4, 9)).affine()(torch.zeros(1, 3, 7, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crops": 10}, "crops are 1"), ({"crop": (3, 3)}, "crops are 1"), ({"crops": 4, "crop": (3, 3)}, "crops are 1"),
        ({"mean": ()}, "one number"), ({"mean": (1.0, 2.0, 3.0), "std": (1.0, 2.0)}, "one number"),
        ({"mean": (float("nan"),)}, "finite"), ({"std": (float("inf"),)}, "finite"),
        ({"resize": 0}, "resize 0 has to be from 1 to 4,096 pixels"),
        ({"resize": 4097}, "resize 4097 has to be from 1 to 4,096 pixels"),
        ({"interpolation": "area"}, '"area" is none of'),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Preprocessing(**settings)


def test_gradients_pass_through_every_step() -> None:
    x = torch.full((1, 3, 6, 6), 100.0, requires_grad=True)
    Preprocessing(0.5, (1.0, 2.0, 3.0), (1.0, 2.0, 4.0), "BGR", 10, (6, 6)).affine()(x).sum().backward()
    assert x.grad is not None
    # Ten crops as large as the image: each pixel counts ten times.
    assert torch.allclose(x.grad[0, :, 0, 0], torch.tensor([10 * 0.5 / 4, 10 * 0.5 / 2, 10 * 0.5 / 1]))


def test_logits_are_unchanged_and_probabilities_become_their_logarithms() -> None:
    z = torch.tensor([[1.0, -2.0, 0.5], [3.0, 3.0, -1.0]])
    assert to_logits(z, "logits", 1) is z
    p = z.softmax(1)
    assert np.allclose(log_odds(to_logits(p, "probabilities", 1).numpy()), log_odds(z.numpy()), atol=1e-5)


def test_log_odds_do_not_saturate_where_the_probability_is_1() -> None:
    p = torch.tensor([[1.0, 1e-9], [1.0, 1e-12], [1.0, 0.0]])
    first, second, third = log_odds(to_logits(p, "probabilities", 1).numpy())[:, 0]
    assert 0 < first < second < third < 100


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_several_crops_have_their_mean_probability(outputs: str) -> None:
    z = torch.randn(4 * 10, 6, generator=torch.Generator().manual_seed(0)) * 5
    p = z.softmax(1)
    found = to_logits(z if outputs == "logits" else p, outputs, 10)
    expected = p.double().unflatten(0, (4, 10)).mean(1)
    assert found.softmax(1).numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert found.exp().sum(1).numpy() == pytest.approx(np.ones(4), abs=1e-5)


def test_nan_is_not_turned_into_a_number() -> None:
    for outputs in ("logits", "probabilities"):
        for crops in (1, 5):
            assert to_logits(torch.full((10, 3), float("nan")), outputs, crops).isnan().all()


def test_a_target_of_ten_crops_is_the_mean_over_ten_answers_and_counts_one_query_an_image() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 5))
    cropped = Target.from_module(module, list("abcde"), (3, 6, 7), Preprocessing(crops=10, crop=(4, 4)))
    uncropped = Target.from_module(module, list("abcde"), (3, 4, 4))
    x = pixels(2, 3, 6, 7)
    parts = Preprocessing(1.0, crops=10, crop=(4, 4)).affine()(torch.from_numpy(x).float()).numpy().astype(np.uint8)
    expected = torch.from_numpy(uncropped.logits(parts)).softmax(1).unflatten(0, (2, 10)).mean(1)
    found = cropped.logits(x)
    assert torch.from_numpy(found).softmax(1).numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert cropped.queries == 2
