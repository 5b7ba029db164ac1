"""Evidence in the last layer on networks whose sums are known, compared with captum's Grad-CAM, and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from evofool.errors import TargetError
from evofool.explain.evidence import evidence, exciting
from evofool.images import save_png
from evofool.targets import Preprocessing, Target

SHAPE = (3, 12, 12)


class Pooling(nn.Module):
    """A convolution, a ReLU, a mean over positions and a linear layer. how: where the ReLU is, and what follows."""

    def __init__(self, how: str = "module") -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 5, 3, 2), nn.ReLU(inplace=True), nn.Linear(5, 4)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.conv(x)
        features = F.relu(features) if self.how == "functional" else self.relu(features)
        if self.how == "max":
            return self.fc(features.amax((2, 3)))
        logits = self.fc(features.mean((2, 3)))
        return {"softmax": lambda z: z.softmax(1), "squared": lambda z: z * z.abs()}.get(self.how, lambda z: z)(logits)


def target(how: str = "module", crops: int = 1) -> Target:
    torch.manual_seed(3)
    network = Pooling(how)
    with torch.no_grad():
        network.fc.weight.mul_(8)
    preprocessing = Preprocessing(crops=crops, crop=(8, 8)) if crops > 1 else Preprocessing()
    return Target.from_module(network, ["a", "b", "c", "d"], SHAPE, preprocessing, "pooling")


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.mark.parametrize("how", ["module", "functional", "softmax"])
def test_sum_and_bias_are_the_logit_and_the_margin_and_the_map_sums_to_the_same(how: str) -> None:
    found = evidence(target(how), image(), 2, 1)
    z = target(how).logits(image()[None])[0].astype(np.float64)
    assert found.margin == pytest.approx(z[2] - z[1], abs=1e-4)
    assert found.of_margin.sum() + found.bias[0] - found.bias[1] == pytest.approx(z[2] - z[1], abs=1e-4)
    if how != "softmax":  # whose logits are logarithms of probabilities
        assert found.of_class.sum() + found.bias[0] == pytest.approx(z[2], abs=1e-4)
        assert found.of_other.sum() + found.bias[1] == pytest.approx(z[1], abs=1e-4)
    assert found.residual < 1e-4
    assert (found.last.linear, found.last.place) == ("fc", "conv" if how == "functional" else "relu")
    assert found.last.rectified == (how == "functional")
    assert (found.features >= 0).all()
    size = found.features.shape[1:]
    np.testing.assert_allclose(found.map_of_class(size).mean() + found.bias[0], found.logits[0], rtol=1e-4)
    np.testing.assert_allclose(found.map_of_margin(size).mean(), found.of_margin.sum(), rtol=1e-4)


def test_the_map_of_a_class_is_captums_grad_cam_of_the_pooled_layer() -> None:
    attr = pytest.importorskip("captum.attr")
    found = target()
    assert found.network is not None
    module = found.network.module
    x = torch.from_numpy(image()[None]).float() / 255
    cam = attr.LayerGradCam(found.logits_float, module.relu).attribute(x, target=2).detach().numpy()[0, 0]
    ours = evidence(found, image(), 2, 1)
    np.testing.assert_allclose(ours.map_of_class(cam.shape) / cam.size, cam, rtol=1e-4, atol=1e-6)


def test_the_strongest_channels_are_those_of_a_loop_and_name_their_classes() -> None:
    found = evidence(target(), image(), 2, 1)
    weight = found.last.weight
    parts = [(weight[2, k] - weight[1, k]) * found.features[k].mean() for k in range(5)]
    for_class, for_other = found.strongest(2)
    assert for_class == sorted((k for k in range(5) if parts[k] > 0), key=lambda k: -parts[k])[:2]
    assert for_other == sorted((k for k in range(5) if parts[k] < 0), key=lambda k: parts[k])[:2]
    assert found.classes_of(3, 2) == sorted(range(4), key=lambda c: -weight[c, 3])[:2]


def test_real_crops_are_those_with_the_largest_activation_around_its_place(tmp_path: Path) -> None:
    found = target()
    rng = np.random.default_rng(1)
    real = [rng.integers(0, 256, SHAPE, np.uint8) for _ in range(7)]
    for k, picture in enumerate(real):
        save_png(picture, tmp_path / f"{k}.png")
    last = evidence(found, image(), 2, 1).last
    crops, compared = exciting(found, last, tmp_path, [4, 0], each=2, batch=3)
    assert compared == 7
    assert list(crops) == [4, 0]
    for channel, best in crops.items():
        maps = [evidence(found, picture, 2, 1).features[channel] for picture in real]
        order = sorted(range(7), key=lambda k: -maps[k].max())
        assert [crop.file.name for crop in best] == [f"{k}.png" for k in order[:2]]
        assert best[0].peak == pytest.approx(maps[order[0]].max(), rel=1e-4)
        row, column = np.unravel_index(maps[order[0]].argmax(), maps[order[0]].shape)
        # Five of twelve pixels; a cell of the 5 x 5 map is 2.4 pixels wide.
        top, left = (int(np.clip(round((at + 0.5) / 5 * 12 - 2.5), 0, 7)) for at in (row, column))
        np.testing.assert_array_equal(best[0].pixels, real[order[0]][:, top : top + 5, left : left + 5])


def test_other_networks_are_refused_with_the_reason(lenet: Target) -> None:
    ring = np.zeros((1, 28, 28), np.uint8)
    with pytest.raises(TargetError, match="the input of fc2, its last linear layer, is not the mean over positions"):
        evidence(lenet, ring, 0, 1)
    with pytest.raises(TargetError, match="the input of fc, its last linear layer, is not the mean"):
        evidence(target("max"), image(), 0, 1)
    with pytest.raises(TargetError, match="its logits are not the output of fc, its last linear layer"):
        evidence(target("squared"), image(), 0, 1)
    with pytest.raises(TargetError, match="made of those to 10 crops"):
        evidence(target(crops=10), image(), 0, 1)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(TargetError, match="it has no linear layer"):
        evidence(Target.from_module(convolution, None, SHAPE), image(), 0, 1)
    with pytest.raises(TargetError, match="neither gradients nor layers"):
        evidence(Target("box", lenet.labels, lenet.shape, lenet.logits, {}), ring, 0, 1)


def test_a_network_of_imagenet_is_read_and_its_sum_is_its_logit() -> None:
    from evofool.targets import target as load

    found = load("efficientnet-lite0")
    picture = np.random.default_rng(0).integers(0, 256, found.shape, np.uint8)
    z = found.logits(picture[None])[0]
    ours = evidence(found, picture, 7, 9)
    assert (ours.last.linear, ours.last.place, ours.features.shape) == ("_fc", "_relu", (1280, 7, 7))
    assert ours.of_class.sum() + ours.bias[0] == pytest.approx(z[7], abs=1e-3)
    assert ours.of_margin.sum() + ours.bias[0] - ours.bias[1] == pytest.approx(z[7] - z[9], abs=1e-3)
