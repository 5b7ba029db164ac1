"""Saliency compared with captum's, averages compared with their definitions, and errors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.draws import Draws
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain.saliency import AVERAGES, Averaging, gradient, saliency, smooth_saliency
from evofool.targets import Target, target
from evofool.targets.photos import patterns

CAPTUM = {"smooth": "smoothgrad", "smooth_squared": "smoothgrad_sq", "variance": "vargrad"}


def inputs(found: Target, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of all kinds, and classes in turn."""
    return patterns(found.shape, count), np.arange(count) * 37 % len(found.labels)


def tensors(images: np.ndarray, classes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(images).float() / 255, torch.from_numpy(classes)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "count"), [("lenet", 32), ("efficientnet-lite0", 8)])
def test_saliency_is_captums(spec: str, count: int) -> None:
    attr = pytest.importorskip("captum.attr")
    found = target(spec)
    images, classes = inputs(found, count)
    x, c = tensors(images, classes)
    theirs = attr.Saliency(found.logits_float).attribute(x.requires_grad_(), target=c)
    ours = saliency(found, images, classes, microbatch=count)
    assert ours.dtype == np.float32
    assert ours.max() > 1e-3
    assert np.abs(ours - theirs.detach().amax(1).numpy()).max() <= 1e-5


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("average", CAPTUM)
def test_smooth_averages_are_captums_noise_tunnel_of_the_same_noise(
    lenet: Target, average: str, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attr = pytest.importorskip("captum.attr")
    count, samples, noise = 4, 7, 0.2
    images, classes = inputs(lenet, count)
    x, c = tensors(images, classes)
    drawn = torch.stack([Draws(5, range(count), s).normal(*lenet.shape) for s in range(samples)], 1).flatten(0, 1)

    def ours_for_theirs(mean: float, deviations: torch.Tensor) -> torch.Tensor:
        assert deviations.shape == drawn.shape
        return mean + deviations * drawn

    monkeypatch.setattr(torch, "normal", ours_for_theirs)
    theirs = attr.NoiseTunnel(attr.Saliency(lenet.logits_float)).attribute(
        x, nt_type=CAPTUM[average], nt_samples=samples, stdevs=noise, target=c, abs=not signed
    )
    ours = saliency(
        lenet, images, classes, averaging=Averaging(average, signed=signed, samples=samples, noise=noise), seed=5
    )
    expected = theirs.detach().abs().amax(1).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_the_three_smooth_maps_are_those_of_saliency_to_the_bit_for_the_passes_of_one(lenet: Target) -> None:
    images, classes = inputs(lenet, 3)
    before = lenet.queries
    found = smooth_saliency(lenet, images, classes, samples=4, noise=0.2, seed=5, keys=[7, 8, 9])
    assert lenet.queries - before == 3 * 4
    assert list(found) == list(CAPTUM)
    for kind, maps in found.items():
        averaging = Averaging(kind, samples=4, noise=0.2)
        np.testing.assert_array_equal(maps, saliency(lenet, images, classes, averaging=averaging, seed=5, keys=[7, 8, 9]))


def test_the_margins_gradient_is_the_difference_of_two_and_shares_the_forward_passes(lenet: Target) -> None:
    images, classes = inputs(lenet, 3)
    against = (classes + 1) % 10
    before = lenet.queries
    found = smooth_saliency(lenet, images, classes, samples=4, noise=0.2, seed=5, against=against)
    assert lenet.queries - before == 3 * 4
    for kind, maps in smooth_saliency(lenet, images, classes, samples=4, noise=0.2, seed=5).items():
        np.testing.assert_array_equal(found[kind], maps)
    one = smooth_saliency(lenet, images, classes, samples=1, noise=0.0, against=against)["margin"]
    expected = np.abs(gradient(lenet, images, classes) - gradient(lenet, images, against)).max(1)
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5 * expected.max())
    with pytest.raises(TargetError, match="no class 10"):
        smooth_saliency(lenet, images, classes, against=[10, 0, 0])


def test_the_gradient_is_the_logits_slope(lenet: Target) -> None:
    images, classes = inputs(lenet, 3)
    slopes = gradient(lenet, images, classes)
    x, c = tensors(images, classes)
    rng = np.random.default_rng(0)
    for _ in range(5):
        direction = torch.from_numpy(rng.standard_normal(images.shape).astype(np.float32))
        step = 1e-4  # small enough to meet no kink of the network
        with torch.no_grad():
            up, down = (lenet.logits_float(x + s * direction).gather(1, c[:, None])[:, 0] for s in (step, -step))
        expected = ((up - down) / (2 * step)).numpy()
        np.testing.assert_allclose((slopes * direction.numpy()).sum((1, 2, 3)), expected, rtol=0.05, atol=0.1)


def test_ten_crops_are_the_mean_of_each_sub_image_put_back_by_hand(lenet: Target) -> None:
    images, classes = inputs(lenet, 2)
    found = saliency(lenet, images, classes, averaging=Averaging("crops", shift=3))
    height, width = lenet.shape[1:]
    total, shown = np.zeros((2, *lenet.shape)), np.zeros((height, width))
    for dy, dx in ((-3, -3), (-3, 3), (3, -3), (3, 3), (0, 0)):
        # What the sub-image shows at (i, j) is the image at (i + dy, j + dx), or the nearest pixel of its edge.
        rows, columns = np.arange(height) + dy, np.arange(width) + dx
        part = images[:, :, rows.clip(0, height - 1)][..., columns.clip(0, width - 1)]
        for mirrored in (False, True):
            slope = np.abs(gradient(lenet, np.ascontiguousarray(part[..., ::-1]) if mirrored else part, classes))
            slope = slope[..., ::-1] if mirrored else slope
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    if 0 <= row < height and 0 <= column < width:
                        total[:, :, row, column] += slope[:, :, i, j]
                        shown[row, column] += 1
    np.testing.assert_allclose(found, (total / shown).max(1), rtol=1e-4, atol=1e-6)


def test_crops_of_no_shift_see_the_image_and_its_mirror(lenet: Target) -> None:
    images, classes = inputs(lenet, 2)
    unmirrored, mirrored = (gradient(lenet, np.ascontiguousarray(i), classes) for i in (images, images[..., ::-1]))
    expected = (np.abs(unmirrored) + np.abs(mirrored[..., ::-1])).max(1) / 2
    found = saliency(lenet, images, classes, averaging=Averaging("crops", shift=0))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_pass_counts_as_a_query(lenet: Target) -> None:
    images, classes = inputs(lenet, 3)
    passes = {}
    for average in AVERAGES:
        before = lenet.queries
        saliency(lenet, images, classes, averaging=Averaging(average, samples=6), microbatch=2)
        passes[average] = (lenet.queries - before) / 3
    assert passes == {"none": 1, "crops": 10, "smooth": 6, "smooth_squared": 6, "variance": 6}


@pytest.mark.parametrize("average", AVERAGES)
def test_equal_seeds_give_equal_results_and_noise_does_not_depend_on_the_batch(lenet: Target, average: str) -> None:
    images, classes = inputs(lenet, 5)
    found = saliency(lenet, images, classes, averaging=Averaging(average, samples=3), seed=1)
    assert (found == saliency(lenet, images, classes, averaging=Averaging(average, samples=3), seed=1)).all()
    for other in (
        saliency(lenet, images, classes, averaging=Averaging(average, samples=3), seed=1, microbatch=2)[3:],
        saliency(lenet, images[3:], classes[3:], averaging=Averaging(average, samples=3), seed=1, keys=(3, 4)),
    ):
        np.testing.assert_allclose(found[3:], other, rtol=1e-4, atol=1e-6)
    if average in CAPTUM:
        assert (found != saliency(lenet, images, classes, averaging=Averaging(average, samples=3), seed=2)).any()


def test_nothing_is_left_in_the_network(lenet: Target) -> None:
    assert lenet.network is not None
    images, classes = inputs(lenet, 2)
    saliency(lenet, images, classes, averaging=Averaging("crops"))
    assert all(p.grad is None for p in lenet.network.module.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in lenet.network.module.modules())


def test_a_black_box_names_the_alternatives() -> None:
    box = Target("box", ("a", "b"), (1, 4, 4), lambda images: np.zeros((len(images), 2), np.float32), {})
    with pytest.raises(TargetError, match=r"box: a target without gradients.*Occlusion.*square.*nes.*random"):
        saliency(box, np.zeros((1, 1, 4, 4), np.uint8), [0])


@pytest.mark.parametrize(
    ("images", "classes", "kind", "message"),
    [
        (np.zeros((1, 1, 28, 28), np.uint8), [10], TargetError, r"no class 10; there are 10, 0 \(0\) to 9"),
        (np.zeros((1, 1, 28, 28), np.uint8), [-1], TargetError, "no class -1"),
        (np.zeros((2, 1, 28, 28), np.uint8), [1], TargetError, "2 images need as many classes"),
        (np.zeros((1, 1, 28, 27), np.uint8), [1], ImageError, r"\(B, 1, 28, 28\), not uint8 \(1, 1, 28, 27\)"),
        (np.zeros((1, 1, 28, 28), np.float32), [1], ImageError, "not float32"),
        (np.zeros((0, 1, 28, 28), np.uint8), [], ImageError, r"not uint8 \(0,"),
    ],
)
def test_invalid_images_and_classes_are_named(
    lenet: Target, images: Any, classes: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        saliency(lenet, images, classes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "median"}, '"median" is none of none, crops, smooth'),
        ({"samples": 0}, "samples 0 has to be at least 1"),
        ({"noise": -1.0}, r"noise -1\.0 at least 0"),
        ({"shift": 28}, "shift 28 has to be at least 0 and under 28"),
        ({"keys": (1, 2)}, "2 keys for 1 images"),
    ],
)
def test_invalid_settings_are_refused(lenet: Target, wrong: dict[str, Any], message: str) -> None:
    keys = wrong.get("keys")
    wrong = {name: value for name, value in wrong.items() if name != "keys"}
    with pytest.raises(ValueError, match=message):
        saliency(lenet, np.zeros((1, 1, 28, 28), np.uint8), [0], averaging=Averaging(**wrong), keys=keys)


class Detaching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().flatten(1)[:, :3]


class Cracked(nn.Module):
    """Its slope at a black pixel is infinite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3].sqrt()


@pytest.mark.parametrize(("network", "kind", "message"), [
    (Detaching, TargetError, "no gradient reaches the image"),
    (Cracked, ScoreError, "gradient of class 1 is not finite"),
])  # fmt: skip
def test_a_missing_or_infinite_gradient_is_an_error(network: type[nn.Module], kind: type[Exception], message: str) -> None:
    found = Target.from_module(network(), None, (1, 4, 4), outputs="logits")
    with pytest.raises(kind, match=message):
        saliency(found, np.zeros((2, 1, 4, 4), np.uint8), [1, 1])
