"""DeepDream: its objectives, octaves compared with a simple loop, zoom, sizes, and errors."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from evofool.ascend.hooks import Hooks
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain import dream as dreams
from evofool.explain.dream import DreamSettings, dream, energies
from evofool.images import quantise
from evofool.targets import Target, target


def small(scale: float = 1.0) -> Target:
    """Two convolutions, which take any size from 5 pixels, and a linear layer, which takes 24 x 32 alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.Tanh(), nn.Flatten()]
        net = nn.Sequential(*layers, nn.Linear(4 * 20 * 28, 5))
    net[0].weight.data.mul_(scale)
    return Target.from_module(net, None, (3, 24, 32), name="small")


def picture(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 190, (channels, height, width), np.uint8)


def answers(found: Target, image: np.ndarray, layer: str) -> torch.Tensor:
    with torch.no_grad(), Hooks(found, [layer], logits=False) as hooks:
        return hooks.forward(torch.tensor(image)[None].float() / 255).layer(layer)


def test_the_layer_responds_more_than_to_noise_of_the_same_size() -> None:
    found, image = small(), picture()
    for layer, jitter in (
        ("0", None),
        ("1", None),
        ("2", None),
        ("5", 0),
    ):  # for a linear layer a rolled image is another image
        (dreamt,) = dream(found, image, layer, settings=DreamSettings(octaves=1, jitter=jitter))
        assert (dreamt.dtype, dreamt.shape) == (np.uint8, image.shape)
        size = np.abs(dreamt.astype(float) - image).mean()
        noised = quantise((image + size * np.random.default_rng(1).choice([-1, 1], image.shape)) / 255)
        before, after, noise = energies(found, np.stack([image, dreamt, noised]), layer)
        assert after > 1.1 * before
        assert after > noise


def test_energy_is_half_the_sum_of_squares_of_the_layer() -> None:
    found, image = small(), picture()
    wanted = 0.5 * float(answers(found, image, "2").double().square().sum())
    assert energies(found, image[None], "2") == pytest.approx([wanted], rel=1e-5)


def test_octaves_equal_those_of_a_simple_loop() -> None:
    found, image = small(), picture()
    assert found.network is not None
    convolutions = found.network.module[:3]  # type: ignore[index]
    rate, iterations = 1.5 / 255, 4
    whole = torch.tensor(image)[None].float() / 255
    detail = torch.zeros(1, 3, 12, 16)
    for size in ((12, 16), (17, 23), (24, 32)):
        base = F.interpolate(whole, size, mode="bilinear", antialias=True) if size != (24, 32) else whole
        detail = F.interpolate(detail, size, mode="bilinear", antialias=True) if detail.shape[2:] != size else detail
        x = (base + detail).clamp(0, 1)
        for _ in range(iterations):
            x.requires_grad_()
            (g,) = torch.autograd.grad(convolutions(x).square().sum() / 2, x)
            x = (x + rate * g / g.abs().mean()).clamp(0, 1).detach()
        detail = x - base
    wanted = quantise((whole + detail)[0].numpy()).astype(int)
    (dreamt,) = dream(found, image, "2", settings=DreamSettings(octaves=3, iterations=iterations, jitter=0))
    assert np.abs(wanted - dreamt).max() <= 1
    assert (wanted == dreamt).mean() > 0.99


def test_octaves_change_low_frequencies_more() -> None:
    def low(dreamt: np.ndarray) -> float:
        power = np.abs(np.fft.fft2(dreamt.astype(float) - image)) ** 2
        frequency = np.hypot(np.fft.fftfreq(24)[:, None], np.fft.fftfreq(32)[None])
        return float(power[:, frequency <= 1 / 8].sum() / power.sum())

    found, image = small(), picture()
    (with_octaves,) = dream(found, image, "2", settings=DreamSettings(octaves=4, iterations=10))
    (without,) = dream(found, image, "2", settings=DreamSettings(octaves=1, iterations=40))
    assert low(with_octaves) > low(without)


def test_each_frame_of_a_zoom_starts_from_the_one_before() -> None:
    found, image = small(), picture()
    single = dream(found, image, "2", settings=DreamSettings(octaves=2, iterations=2))
    frames = dream(found, image, "2", settings=DreamSettings(octaves=2, iterations=2, zoom=2, zoom_by=0.1))
    assert len(frames) == 3
    assert np.array_equal(frames[0], single[0])
    for before, after in pairwise(frames):
        larger = dreams._enlarged(torch.tensor(before)[None].float() / 255, 0.1)[0].numpy() * 255
        assert np.abs(after - larger).mean() < 0.5 * np.abs(after - before.astype(float)).mean()


def test_a_zoom_enlarges_about_the_centre() -> None:
    y, x = torch.meshgrid(torch.arange(24.0) - 11.5, torch.arange(32.0) - 15.5, indexing="ij")
    larger = dreams._enlarged(torch.stack([x, y, x])[None], 0.25)
    assert torch.allclose(larger, torch.stack([x, y, x])[None] * 0.75, atol=1e-4)


def test_a_channel_alone_responds_more() -> None:
    found, image = small(), picture()
    (dreamt,) = dream(found, image, "2", channel=3, settings=DreamSettings(octaves=2))
    before, after = (answers(found, x, "2")[0].mean((1, 2)) for x in (image, dreamt))
    assert after[3] > before[3]
    assert after[3] - before[3] == (after - before).max()


def test_a_guide_moves_every_position_towards_the_most_similar_one() -> None:
    def similarity(x: np.ndarray) -> float:
        a, b = (answers(found, y, "2")[0].flatten(1).double() for y in (x, guide))
        return sum(max(float(p @ q) for q in b.T) for p in a.T)

    found, image, guide = small(), picture(), picture(10, 10, seed=2)
    (dreamt,) = dream(found, image, "2", guide=guide, settings=DreamSettings(octaves=1, iterations=5))
    assert similarity(dreamt) > similarity(image)


def test_a_dream_depends_on_the_seed() -> None:
    found, image = small(), picture()
    first, again, other = (
        dream(found, image, "2", settings=DreamSettings(iterations=2, octaves=2), seed=s)[0] for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_images_larger_than_the_targets_can_be_dreamt_on() -> None:
    (dreamt,) = dream(small(), picture(40, 50), "2", settings=DreamSettings(octaves=2, iterations=2))
    assert dreamt.shape == (3, 40, 50)


def test_digits_can_be_dreamt_on() -> None:
    image = quantise(np.pad(np.full((1, 16, 4), 0.9), ((0, 0), (6, 6), (12, 12))))
    found = target("lenet")
    frames = dream(found, image, "conv2", settings=DreamSettings(octaves=2, zoom=1))
    assert [f.shape for f in frames] == [(1, 28, 28)] * 2
    assert energies(found, frames[0][None], "conv2") > 1.1 * energies(found, image[None], "conv2")


def test_a_stopped_dream_ends_with_the_current_frame() -> None:
    ticks: list[tuple[int, int]] = []

    def tick(done: int, of: int) -> bool:
        ticks.append((done, of))
        return done >= 9

    found, image = small(), picture()
    frames = dream(found, image, "2", settings=DreamSettings(octaves=2, iterations=3, zoom=2), tick=tick)
    assert len(frames) == 2
    assert ticks[-1] == (9, 18)
    assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)
    assert not np.array_equal(frames[0], frames[1])


@pytest.mark.parametrize("kind", ["torchvision:resnet18", "timm:resnet18"])
def test_networks_of_torchvision_and_timm_dream(kind: str) -> None:
    pytest.importorskip(kind.partition(":")[0])
    found = target(f"{kind}?weights=random&size=64")
    image = picture(64, 64)
    (dreamt,) = dream(found, image, "layer2", settings=DreamSettings(octaves=2, iterations=3))
    before, after = energies(found, np.stack([image, dreamt]), "layer2")
    assert after > before


def test_a_layer_that_takes_no_smaller_images_names_the_possible_number_of_octaves() -> None:
    found, image = small(), picture()
    with pytest.raises(
        TargetError, match=r'layer "5" does not accept images of 9 x 12 pixels, .* at most octaves=1 are possible'
    ):
        dream(found, image, "5")
    with pytest.raises(
        TargetError, match=r"images of 3 x 4 pixels, the smallest of 4 octaves .*; at most octaves=3 are possible"
    ):
        dream(found, image, "2", settings=DreamSettings(scale=2))
    with pytest.raises(TargetError, match=r'layer "5" does not accept images of 30 x 32 pixels \('):
        dream(found, picture(30, 32), "5")
    assert len(dream(found, image, "5", settings=DreamSettings(octaves=1, iterations=1))) == 1


def test_invalid_arguments_are_errors() -> None:
    found, image = small(), picture()
    with pytest.raises(TargetError, match='small: no layer "7"'):
        dream(found, image, "7")
    with pytest.raises(TargetError, match=r'layer "2" has no channel 4; it has 0 to 3'):
        dream(found, image, "2", channel=4)
    with pytest.raises(TargetError, match=r'layer "5" has output \(5,\), which has no map of channels'):
        dream(found, image, "5", guide=image, settings=DreamSettings(octaves=1))
    box = Target("box", ["a", "b"], (3, 24, 32), lambda x: np.zeros((len(x), 2), np.float32), {})
    with pytest.raises(TargetError, match="box: it has neither gradients nor layers"):
        dream(box, image, "0")
    with pytest.raises(ImageError, match=r"a dream needs an image uint8 \(3, H, W\), not uint8 \(1, 24, 32\)"):
        dream(found, image[:1], "2")
    with pytest.raises(ScoreError, match='the output of layer "0" is NaN or infinite'):
        dream(small(float("inf")), image, "0")
    with pytest.raises(ValueError, match="a dream has a channel or a guide, not both"):
        dream(found, image, "2", channel=0, guide=image)
    with pytest.raises(ValueError, match="octaves 0 and iterations 10 have to be at least 1"):
        dream(found, image, "2", settings=DreamSettings(octaves=0))


def test_no_hook_is_left() -> None:
    found = small()
    dream(found, picture(), "2", settings=DreamSettings(octaves=2, iterations=1))
    assert found.network is not None
    assert not any(module._forward_hooks for module in found.network.module.modules())
