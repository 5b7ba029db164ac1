"""The interface of a classifier: the bundled networks, users' networks, and the errors for those that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evofool.errors import EvofoolError, TargetError
from evofool.targets import Preprocessing, Target, target
from evofool.targets.networks import CaffeLeNet, LeNet


def images_of(shape: tuple[int, int, int], count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def weights_file(folder: Path, network: nn.Module, name: str = "weights.safetensors") -> Path:
    path = folder / name
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


def small(seed: int = 0, channels: int = 3, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 7), nn.Tanh(), nn.Linear(7, classes)
    )


# --- the bundled network


def test_lenet_has_ten_digits_and_describes_itself(lenet: Target) -> None:
    assert lenet.name == "lenet"
    assert lenet.labels == tuple("0123456789")
    assert lenet.shape == (1, 28, 28)
    assert lenet.differentiable
    fed = lenet.details["preprocessing"]
    assert {k: fed[k] for k in ("scale", "mean", "std", "order", "crops")} == {
        "scale": 1 / 255, "mean": (0.0,), "std": (1.0,), "order": "RGB", "crops": 1
    }  # fmt: skip
    assert len(lenet.details["weights_sha256"]) == 64
    out = lenet.logits(images_of((1, 28, 28)))
    assert out.shape == (6, 10)
    assert out.dtype == np.float32


def test_two_lenets_are_the_same_classifier_with_separate_counters() -> None:
    first, second = target("lenet"), target("lenet")
    assert first.fingerprint() == second.fingerprint()
    first.logits(images_of((1, 28, 28)))
    assert (first.queries, second.queries) == (6, 0)


def test_a_user_s_weights_file_makes_another_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    for name, network in (("lenet", LeNet()), ("lenet-caffe", CaffeLeNet())):
        path = weights_file(tmp_path, network, f"{name} 50%+.safetensors")
        for spec in (f"{name}?weights={quote(str(path))}", f"{name}?weights={path}".replace("%", "%25")):
            custom = target(spec)
            assert custom.name.startswith(f"{name}?weights={tmp_path}")
            assert target(custom.name).fingerprint() == custom.fingerprint()
            assert custom.fingerprint() != target("lenet").fingerprint()
            pixels = images_of((1, 28, 28))
            scale = 1 / 255 if name == "lenet" else 1 / 256
            with torch.no_grad():
                expected = network.eval()(torch.from_numpy(pixels).float() * scale)
            assert custom.logits(pixels) == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lenets", r'no target is called "lenets"; there are .*lenet.* did you mean "lenet"\?'),
        ("", 'no target is called ""'),
        ("zzz?weights=x", 'no target is called "zzz"'),
        ("lenet?wieghts=x", 'lenet: no option "wieghts"; did you mean "weights"'),
        ("lenet?weights=nowhere.safetensors", r"lenet: there is no weights file /.*/nowhere\.safetensors"),
        ("lenet?weights=", "lenet: there is no weights file"),
        ("lenet-caffe", r"lenet-caffe: has no bundled weights; name a file, lenet-caffe\?weights=FILE"),
    ],
)
def test_an_unknown_kind_is_refused_with_the_list_of_kinds(spec: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        target(spec)
    assert isinstance(caught.value, EvofoolError)
    assert isinstance(caught.value, ValueError)


def test_a_truncated_or_foreign_weights_file_is_named(tmp_path: Path) -> None:
    whole = weights_file(tmp_path, LeNet()).read_bytes()
    path = tmp_path / "broken.safetensors"
    for content in (
        b"",
        whole[:7],
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-1],
        b"PK\x03\x04" + bytes(500),
        b"\x80\x04.",
    ):
        path.write_bytes(content)
        with pytest.raises(TargetError, match=r"lenet: .*broken\.safetensors is not a complete safetensors file"):
            target(f"lenet?weights={path}")


def test_another_network_s_weights_are_named_by_what_is_missing_unexpected_and_wrong(tmp_path: Path) -> None:
    state = LeNet().state_dict()
    state["fc9.bias"] = state.pop("fc2.bias")
    state["conv1.weight"] = torch.zeros(20, 3, 5, 5)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(TargetError, match=r"other\.safetensors has another network's weights") as caught:
        target(f"lenet?weights={tmp_path / 'other.safetensors'}")
    for part in ("missing ['fc2.bias']", "unexpected ['fc9.bias']", "conv1.weight (20, 3, 5, 5) instead of (20, 1, 5, 5)"):
        assert part in str(caught.value)


# --- users' networks


def test_a_module_becomes_a_target_in_eval_mode() -> None:
    module = nn.Sequential(small(), nn.Dropout(0.5))
    custom = Target.from_module(module, list("abcd"), (3, 6, 6), name="mine")
    assert not module.training
    assert (custom.name, custom.labels, custom.shape, custom.queries) == ("mine", ("a", "b", "c", "d"), (3, 6, 6), 0)
    assert np.array_equal(custom.logits(images_of((3, 6, 6))), custom.logits(images_of((3, 6, 6))))
    assert Target.from_module(small(), list("abcd"), (3, 6, 6)).name == "Sequential"


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [(1 / 255, (0.0,), (1.0,)), (1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)), (1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))],
)
def test_preprocessing_equals_numpy_s(order: str, scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    custom = Target.from_module(
        nn.Flatten(), [str(k) for k in range(3 * 4 * 5)], (3, 4, 5), Preprocessing(scale, mean, std, order), outputs="logits"
    )
    pixels = images_of((3, 4, 5))
    x = pixels.astype(np.float64)
    if order == "BGR":
        x = x[:, [2, 1, 0]]
    expected = (x * scale - np.reshape(mean, (1, -1, 1, 1))) / np.reshape(std, (1, -1, 1, 1))
    assert custom.logits(pixels) == pytest.approx(expected.reshape(len(pixels), -1), rel=1e-5, abs=1e-5)
    floats = torch.from_numpy(pixels).float() / 255
    assert custom.logits_float(floats).numpy() == pytest.approx(expected.reshape(len(pixels), -1), rel=1e-4, abs=1e-4)


def test_a_single_mean_may_be_combined_with_a_std_per_channel_and_vice_versa() -> None:
    pixels = images_of((3, 4, 5))
    for mean, std in (((0.5, 0.4, 0.3), (1.0,)), ((0.5,), (0.2, 0.3, 0.25))):
        custom = Target.from_module(nn.Flatten(), [str(k) for k in range(60)], (3, 4, 5), Preprocessing(1 / 255, mean, std))
        expected = (pixels / 255.0 - np.reshape(mean, (1, -1, 1, 1))) / np.reshape(std, (1, -1, 1, 1))
        assert custom.logits(pixels) == pytest.approx(expected.reshape(len(pixels), -1), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "GBR"}, "GBR"), ({"scale": 0.0}, "scale 0.0"), ({"scale": -1.0}, "scale -1.0"),
        ({"std": (0.0,)}, "std"), ({"std": (1.0, -1.0, 1.0)}, "std"), ({"scale": float("nan")}, "scale nan"),
    ],
)  # fmt: skip
def test_invalid_preprocessing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Preprocessing(**settings)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (list("abc"), "mine: 4 outputs but 3 labels"),
        (list("abcde"), "mine: 4 outputs but 5 labels"),
        (list("abca"), "mine: labels have to be at least two different names"),
        (["a"], "mine: 4 outputs but 1 labels"),
        ([], "mine: 4 outputs but 0 labels"),
    ],
)
def test_labels_that_do_not_fit_the_network_are_found_at_once(labels: list[str], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Target.from_module(small(), labels, (3, 6, 6), name="mine")


@pytest.mark.parametrize("shape", [(3, 7, 6), (1, 6, 6), (3, 2, 2)])
def test_a_shape_that_the_network_does_not_take_is_found_at_once(shape: tuple[int, int, int]) -> None:
    with pytest.raises(TargetError, match=r"mine: it does not take images of shape"):
        Target.from_module(small(), list("abcd"), shape, name="mine")


@pytest.mark.parametrize("shape", [(2, 6, 6), (6, 6), (4, 6, 6)])
def test_images_are_grey_or_rgb(shape: Any) -> None:
    with pytest.raises(TargetError, match=r"the shape of an image is \(1 or 3, H, W\)"):
        Target("x", list("ab"), shape, lambda x: np.zeros((len(x), 2), np.float32), {})


def test_a_network_that_returns_a_map_or_a_tuple_is_refused_by_name() -> None:
    class Several(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.flatten(1), x

    for module in (nn.Conv2d(3, 4, 3), Several()):
        with pytest.raises(TargetError, match="mine"):
            Target.from_module(module, list("abcd"), (3, 6, 6), name="mine")


def test_a_mean_for_another_number_of_channels_is_refused() -> None:
    with pytest.raises(TargetError):
        Target.from_module(small(), list("abcd"), (3, 6, 6), Preprocessing(mean=(0.1, 0.2), std=(1.0, 1.0)))


# --- queries


def simple(forward: Callable[[np.ndarray], np.ndarray] | None = None) -> Target:
    return Target("simple", list("ab"), (1, 3, 4), forward or (lambda x: np.zeros((len(x), 2), np.float32)), {})


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 3, 4), np.float32), np.zeros((2, 1, 4, 3), np.uint8), np.zeros((2, 3, 3, 4), np.uint8),
        np.zeros((1, 3, 4), np.uint8), np.zeros((0, 1, 3, 4), np.uint8), np.zeros((2, 1, 3, 4), np.int64),
    ],
    ids=lambda x: f"{x.dtype} {x.shape}",
)  # fmt: skip
def test_only_whole_batches_of_uint8_images_are_taken(images: np.ndarray) -> None:
    found = simple()
    with pytest.raises(TargetError, match=r"simple: takes uint8 images \(B, 1, 3, 4\), not"):
        found.logits(images)
    assert found.queries == 0


def test_queries_count_images_and_padding_is_neither_counted_nor_returned() -> None:
    shapes: list[int] = []

    def forward(images: np.ndarray) -> np.ndarray:
        shapes.append(len(images))
        return np.stack([images.reshape(len(images), -1).sum(axis=1), np.ones(len(images))], axis=1).astype(np.float32)

    found = simple(forward)
    images = images_of((1, 3, 4), 5)
    whole = found.logits(images)
    for pad_to in (0, 3, 5, 8):
        assert np.array_equal(found.logits(images, pad_to=pad_to), whole)
    assert shapes == [5, 5, 5, 5, 8]
    assert found.queries == 25


def test_an_answer_of_the_wrong_shape_is_refused_with_both_numbers() -> None:
    for shape in ((5, 3), (4, 2), (5,), (5, 2, 1)):
        with pytest.raises(TargetError, match=r"simple: \d logits but 2 labels \(answer of shape \("):
            simple(lambda x, shape=shape: np.zeros(shape, np.float32)).logits(images_of((1, 3, 4), 5))


def test_nan_passes_through_for_the_search_to_refuse() -> None:
    assert np.isnan(simple(lambda x: np.full((len(x), 2), np.nan, np.float32)).logits(images_of((1, 3, 4), 2))).all()


def test_a_black_box_has_neither_gradients_nor_layers() -> None:
    found = simple()
    assert not found.differentiable
    with pytest.raises(TargetError, match="simple: a black box, which has neither gradients nor layers"):
        found.logits_float(torch.zeros(1, 1, 3, 4))
    with pytest.raises(TargetError, match="black box"):
        found.activations(torch.zeros(1, 1, 3, 4), "fc")


def test_the_logits_of_an_image_do_not_depend_on_the_rest_of_the_batch(lenet: Target) -> None:
    images = images_of((1, 28, 28), 16)
    together = lenet.logits(images)
    shuffled = np.random.default_rng(1).permutation(16)
    assert np.array_equal(lenet.logits(images[shuffled]), together[shuffled])
    assert np.array_equal(lenet.logits(images[:3], pad_to=16), together[:3])


# --- white boxes


def test_logits_of_floats_are_those_of_the_pixels_and_have_gradients(lenet: Target) -> None:
    pixels = images_of((1, 28, 28), 3)
    floats = (torch.from_numpy(pixels).float() / 255).requires_grad_()
    logits = lenet.logits_float(floats)
    assert logits.detach().numpy() == pytest.approx(lenet.logits(pixels), abs=1e-4)
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), floats)
    assert gradient.shape == floats.shape
    assert gradient.abs().sum() > 0


def test_the_gradient_is_the_slope_of_the_logits() -> None:
    custom = Target.from_module(small(), list("abcd"), (3, 6, 6), Preprocessing(1 / 255, (0.5,), (0.25,), "BGR"))
    x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(custom.logits_float(x)[0, 2], x)
    for pixel in ((0, 0, 0, 0), (0, 1, 3, 2), (0, 2, 5, 5)):
        step = torch.zeros_like(x)
        step[pixel] = 0.05
        with torch.no_grad():
            slope = (custom.logits_float(x + step)[0, 2] - custom.logits_float(x - step)[0, 2]) / 0.1
        assert float(slope) == pytest.approx(float(gradient[pixel]), abs=0.02 + 0.1 * abs(float(gradient[pixel])))


def test_activations_are_a_layer_s_output_and_no_hook_stays_behind() -> None:
    module = small()
    custom = Target.from_module(module, list("abcd"), (3, 6, 6))
    x = torch.rand(2, 3, 6, 6)
    for layer in ("0", "2", "5"):
        expected = module[: int(layer) + 1](x)
        assert torch.allclose(custom.activations(x, layer), expected, atol=1e-5)
    assert torch.allclose(custom.activations(x, ""), custom.logits_float(x), atol=1e-5)
    with pytest.raises(TargetError, match="Sequential: no layer '9'; there are 0, 1, 2, 3, 4, 5"):
        custom.activations(x, "9")
    with pytest.raises(RuntimeError):
        custom.activations(torch.rand(2, 3, 9, 9), "0")
    assert not any(layer._forward_hooks for layer in module.modules())
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(custom.activations(y, "0")[:, 1].mean(), y)
    assert gradient.abs().sum() > 0


def test_activations_are_not_overwritten_by_a_layer_that_works_in_place() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(80, 4))
    custom = Target.from_module(module, list("abcd"), (3, 6, 6))
    x = torch.rand(2, 3, 6, 6)
    with torch.no_grad():
        assert torch.allclose(custom.activations(x, "0"), module[0](x), atol=1e-5)


def test_a_layer_that_is_not_used_is_an_error() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.idle = small(), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    custom = Target.from_module(Idle(), list("abcd"), (3, 6, 6), name="mine")
    with pytest.raises(TargetError, match="idle"):
        custom.activations(torch.rand(1, 3, 6, 6), "idle")


def test_white_box_queries_are_counted_as_well() -> None:
    custom = Target.from_module(small(), list("abcd"), (3, 6, 6))
    custom.logits_float(torch.rand(2, 3, 6, 6))
    custom.activations(torch.rand(3, 3, 6, 6), "0")
    custom.logits(images_of((3, 6, 6), 4))
    assert custom.queries == 9


# --- fingerprint


def test_the_fingerprint_changes_with_weights_labels_shape_and_preprocessing_alone() -> None:
    same = [Target.from_module(small(), list("abcd"), (3, 6, 6)) for _ in range(2)]
    same[1].details["backend"], same[1].details["device"], same[1].name = "torch 99", "cuda", "another name"
    others = [
        Target.from_module(small(1), list("abcd"), (3, 6, 6)),
        Target.from_module(small(), list("abdc"), (3, 6, 6)),
        Target.from_module(small(), list("abcd"), (3, 6, 6), Preprocessing(order="BGR")),
        Target.from_module(small(), list("abcd"), (3, 6, 6), Preprocessing(mean=(0.1,))),
    ]
    prints = {t.fingerprint() for t in same}
    assert len(prints) == 1
    assert len(prints | {t.fingerprint() for t in others}) == 1 + len(others)
