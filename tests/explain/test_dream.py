"""DeepDream: its objectives, octaves compared with a simple loop, zoom, sizes, and errors."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from evofool.ascend.hooks import Hooks
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain import dream as dreams
from evofool.explain.dream import DreamProgress, DreamSettings, dream, energies
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
        (dreamt,) = dream(found, image, layer, settings=DreamSettings(octaves=1, iterations=10, jitter=jitter))
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
    (single,) = dream(found, image, "2", settings=DreamSettings(octaves=2, iterations=2))
    frames = list(dream(found, image, "2", settings=DreamSettings(octaves=2, iterations=2, zoom=2, zoom_by=0.1)))
    assert len(frames) == 3
    assert np.array_equal(frames[0], single)
    for before, after in pairwise(frames):
        larger = dreams._enlarged(torch.tensor(before)[None].float() / 255, 0.1)[0].numpy() * 255
        assert np.abs(after - larger).mean() < 0.5 * np.abs(after - before.astype(float)).mean()


def test_a_zoom_enlarges_about_the_centre() -> None:
    y, x = torch.meshgrid(torch.arange(24.0) - 11.5, torch.arange(32.0) - 15.5, indexing="ij")
    larger = dreams._enlarged(torch.stack([x, y, x])[None], 0.25)
    assert torch.allclose(larger, torch.stack([x, y, x])[None] * 0.75, atol=1e-4)


def test_a_channel_alone_responds_more() -> None:
    found, image = small(), picture()
    (dreamt,) = dream(found, image, "2", channel=3, settings=DreamSettings(octaves=2, iterations=10))
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
        next(dream(found, image, "2", settings=DreamSettings(iterations=2, octaves=2), seed=s)) for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_images_larger_than_the_targets_can_be_dreamt_on() -> None:
    (dreamt,) = dream(small(), picture(40, 50), "2", settings=DreamSettings(octaves=2, iterations=2))
    assert dreamt.shape == (3, 40, 50)


def test_digits_can_be_dreamt_on() -> None:
    image = quantise(np.pad(np.full((1, 16, 4), 0.9), ((0, 0), (6, 6), (12, 12))))
    found = target("lenet")
    frames = list(dream(found, image, "conv2", settings=DreamSettings(octaves=2, iterations=10, zoom=1)))
    assert [f.shape for f in frames] == [(1, 28, 28)] * 2
    assert energies(found, frames[0][None], "conv2") > 1.1 * energies(found, image[None], "conv2")


def test_a_stopped_dream_ends_before_the_unfinished_frame_and_continues_with_it() -> None:
    seen: list[DreamProgress] = []

    def stop(progress: DreamProgress) -> bool:
        seen.append(progress)
        return progress.passes >= 9

    found, image, settings = small(), picture(), DreamSettings(octaves=2, iterations=3, zoom=2)
    frames = list(dream(found, image, "2", settings=settings, on_progress=stop))
    assert len(frames) == 1
    assert [p.frame for p in seen] == [0] * 6 + [1] * 3
    assert [p.passes for p in seen] == list(range(1, 10))
    assert [p.share for p in seen] == sorted(p.share for p in seen)
    whole = list(dream(found, image, "2", settings=settings, on_progress=lambda p: seen.append(p) or False))
    assert seen[-1] == (2, 3, 18, 18, 1.0)
    assert np.array_equal(whole[0], frames[0])
    assert not np.array_equal(whole[0], whole[1])
    rest = list(dream(found, frames[0], "2", settings=replace(settings, begin=1)))
    assert np.array_equal(np.stack(whole[1:]), np.stack(rest))


def test_the_smallest_octave_is_near_a_quarter_of_the_targets_size() -> None:
    def sizes(height: int, width: int) -> list[int]:
        found = small()
        with Hooks(found, ["2"], logits=False) as hooks:
            return [octave.height for octave in dreams._octaves(found, hooks, picture(height, width), DreamSettings())]

    assert sizes(24, 32) == [6, 9, 12, 17, 24]
    assert sizes(60, 80)[-1] == 60
    assert all(4.8 <= sizes(height, 200)[0] <= 7.2 for height in (6, 13, 24, 60, 151))
    assert sizes(3, 3) == [3]


def test_tiles_do_not_show_and_streams_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rolling the borders of tiles change less, since units there lack a part of their surroundings."""

    def change_at_borders(dreamt: np.ndarray) -> float:
        change = np.abs(dreamt.astype(float) - image).mean((0, 2))
        return float(change[[15, 16, 31, 32]].mean() / np.median(change))

    found, image = small(), picture(48, 32)
    settings = DreamSettings(octaves=1, iterations=20, tile=16)
    (dreamt,) = dream(found, image, "2", settings=settings)
    assert change_at_borders(dreamt) == pytest.approx(1, abs=0.3)
    (with_streams,) = dream(found, image, "2", settings=replace(settings, streams=3))
    assert np.array_equal(dreamt, with_streams)
    monkeypatch.setattr(dreams, "_shift", lambda *_: (0, 0))
    assert change_at_borders(next(dream(found, image, "2", settings=settings))) < 0.6


@pytest.mark.parametrize("kind", ["torchvision:resnet18", "timm:resnet18"])
def test_networks_of_torchvision_and_timm_dream(kind: str) -> None:
    pytest.importorskip(kind.partition(":")[0])
    found = target(f"{kind}?weights=random&size=64")
    image = picture(64, 64)
    (dreamt,) = dream(found, image, "layer2", settings=DreamSettings(octaves=2, iterations=3))
    before, after = energies(found, np.stack([image, dreamt]), "layer2")
    assert after > before


def test_a_layer_of_one_size_is_shown_tiles_of_that_size() -> None:
    """The linear layer takes 24 x 32 alone; an image of any size is divided into, or repeated within, such tiles."""
    found = small()
    for size in ((30, 70), (24, 32), (11, 9)):
        image = picture(*size)
        (dreamt,) = dream(found, image, "5", settings=DreamSettings(octaves=2, iterations=3))
        assert dreamt.shape == image.shape
        assert (dreamt != image).mean() > 0.5


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
    with pytest.raises(TargetError, match=r'layer "3" does not accept a guide of 2 x 9 pixels; resize it to 24 x 32'):
        dream(found, image, "3", guide=picture(2, 9))
    with pytest.raises(ScoreError, match='the gradient of layer "0" is NaN or infinite'):
        next(dream(small(float("inf")), image, "0"))
    with pytest.raises(ValueError, match="a dream has a channel or a guide, not both"):
        dream(found, image, "2", channel=0, guide=image)
    with pytest.raises(ValueError, match="octaves 0 and iterations 20 have to be at least 1"):
        dream(found, image, "2", settings=DreamSettings(octaves=0))


def test_no_hook_is_left() -> None:
    found = small()
    assert len(list(dream(found, picture(), "2", settings=DreamSettings(octaves=2, iterations=1)))) == 1
    assert found.network is not None
    assert not any(module._forward_hooks for module in found.network.module.modules())
