"""What users pass to the Python interface: errors name the argument, its value and what it has to be."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import EvofoolError, ImageError, TargetError
from evofool.images import decode_png, encode_png, resized
from evofool.targets import Preprocessing, Target
from evofool.targets.arguments import texts
from tests.synthetic import SIDE, fake, linear

LABELS = ["a", "b", "c"]
SHAPE = (1, 4, 4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3))


def built(module: Any = None, labels: Any = LABELS, shape: Any = SHAPE, **options: Any) -> Target:
    return Target.from_module(network() if module is None else module, labels, shape, **options)


def prepared(**wrong: Any) -> Callable[[], Any]:
    return lambda: Preprocessing(**wrong)


def target(*wrong: Any) -> Callable[[], Any]:
    return lambda: Target(*wrong)


def logits(wrong: Any) -> Callable[[], Any]:
    return lambda: fake().logits(wrong)


def floats(wrong: Any) -> Callable[[], Any]:
    return lambda: built().logits_float(wrong)


PIXELS = np.zeros((2, 1, SIDE, SIDE), np.uint8)
NOTHING: Any = None

WRONG: dict[str, tuple[Callable[[], Any], type[EvofoolError], str]] = {
    "a number as mean": (prepared(mean=0.1), TargetError, r"mean is 0\.1 \(float\); .* a tuple of numbers"),
    "text as mean": (prepared(mean="0.1"), TargetError, r"mean is '0\.1'"),
    "texts in std": (prepared(std=("1",)), TargetError, r"std is \('1',\)"),
    "no mean": (prepared(mean=None), TargetError, "mean is None"),
    "text as scale": (prepared(scale="1"), TargetError, "scale is '1'"),
    "a fraction of crops": (prepared(crops=5.0, crop=(2, 2)), TargetError, r"crops is 5\.0"),
    "a number as crop": (prepared(crops=5, crop=3), TargetError, "crop is 3"),
    "a negative crop": (prepared(crops=5, crop=(-1, 3)), TargetError, r"crop is \(-1, 3\)"),
    "a list as order": (prepared(order=["RGB"]), TargetError, "neither RGB nor BGR"),
    "text as resize": (prepared(resize="256"), TargetError, "resize is '256'"),
    "a function as module": (lambda: built(linear), TargetError, r"module is <function .*torch\.nn\.Module"),
    "another preprocessing": (lambda: built(preprocessing={"mean": 1}), TargetError, "preprocessing is .*evofool.Preproc"),
    "no such device": (lambda: built(device="abacus"), TargetError, "cannot be put on the device 'abacus'"),
    "a device that is not there": (lambda: built(device="cuda:77"), TargetError, "cannot be put on the device 'cuda:77'"),
    "whole numbers as labels": (lambda: built(labels=[1, 2, 3]), TargetError, r"label 0 is 1 \(int\); .* a text"),
    "a text as labels": (lambda: built(labels="abc"), TargetError, "labels is 'abc'"),
    "a number as labels": (lambda: built(labels=3), TargetError, "labels is 3"),
    "a negative height": (lambda: built(shape=(1, -28, 28)), TargetError, r"the shape of an image .* not \(1, -28, 28\)"),
    "fractions as shape": (lambda: built(shape=(1, 28.0, 28)), TargetError, r"shape is \(1, 28\.0, 28\) \(tuple\)"),
    "a number as shape": (lambda: built(shape=28), TargetError, "shape is 28"),
    "a text as shape": (lambda: built(shape="abc"), TargetError, "shape is 'abc'"),
    "two sides": (lambda: built(shape=(28, 28)), TargetError, r"\(1 or 3, H, W\), not \(28, 28\)"),
    "two channels": (lambda: built(shape=(2, 4, 4)), TargetError, r"the shape of an image is \(1 or 3, H, W\)"),
    "too many pixels": (lambda: built(shape=(1, 100_000, 100_000)), TargetError, "16,777,216 are the most"),
    "a number as name": (target(3, LABELS, SHAPE, linear, {}), TargetError, r"name is 3"),
    "no function": (target("t", LABELS, SHAPE, 3, {}), TargetError, "forward is 3"),
    "no details": (target("t", LABELS, SHAPE, linear, None), TargetError, "details is None"),
    "a list of images": (logits(PIXELS.tolist()), TargetError, "as a NumPy array, not a list"),
    "no images": (logits(None), TargetError, "not a NoneType"),
    "a tensor": (logits(torch.zeros(1, SIDE, SIDE)), TargetError, r"not a Tensor; pass image\[None\]"),
    "one image": (logits(PIXELS[0]), TargetError, r"not uint8 \(1, 6, 6\); pass image\[None\]"),
    "float images": (logits(PIXELS / 255), TargetError, r"takes uint8 images .* not float64"),
    "wrong channels": (logits(PIXELS.repeat(3, 1)), TargetError, r"not uint8 \(2, 3, 6, 6\)"),
    "an empty batch": (logits(PIXELS[:0]), TargetError, r"not uint8 \(0, 1, 6, 6\)"),
    "a scalar": (logits(np.uint8(3)), TargetError, "not a uint8"),
    "an array without axes": (logits(np.array(3, np.uint8)), TargetError, r"not uint8 \(\)"),
    "an array as float images": (floats(PIXELS / 255), TargetError, "as a torch tensor, not a ndarray"),
    "whole numbers as float images": (floats(torch.zeros((1, *SHAPE), dtype=torch.uint8)), TargetError, "not torch.uint8"),
    "float images of another shape": (floats(torch.zeros(2, 3, 4, 4)), TargetError, r"not torch.float32 \(2, 3, 4, 4\)"),
    "activations of nothing": (lambda: built().activations(NOTHING, "0"), TargetError, "as a torch tensor"),
    "nothing as picture": (lambda: encode_png(NOTHING), ImageError, "not a NoneType"),
    "an empty picture": (lambda: encode_png(np.zeros((1, 0, 4), np.uint8)), ImageError, r"not uint8 \(1, 0, 4\)"),
    "nothing as PNG": (lambda: decode_png(NOTHING), ImageError, "a PNG is bytes, not a NoneType"),
    "resized to nothing": (lambda: resized(PIXELS[0], (1, 0, 4)), ImageError, r"not \(1, 0, 4\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_with_what_it_has_to_be(name: str) -> None:
    call, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        call()


def test_images_in_any_memory_layout_are_classified_alike() -> None:
    for classifier in (fake(), built()):
        images = np.random.default_rng(0).integers(0, 256, (4, *classifier.shape), np.uint8)
        expected = classifier.logits(images[::-1].copy())
        np.testing.assert_array_equal(classifier.logits(images[::-1]), expected)
        frozen = images[::-1].copy()
        frozen.flags.writeable = False
        np.testing.assert_array_equal(classifier.logits(frozen), expected)
        transposed = np.ascontiguousarray(images[::-1].transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
        np.testing.assert_array_equal(classifier.logits(transposed), expected)


def test_numbers_and_texts_of_numpy_are_taken() -> None:
    values: Any = [np.float32(0.5)]
    given = Preprocessing(mean=values, std=(np.float64(2.0),))
    assert (given.mean, given.std) == ((0.5,), (2.0,))
    labels, shape = np.array(LABELS), np.array(SHAPE)
    made: Target = target("t", labels, shape, linear, {"mean": given.mean})()
    assert made.shape == SHAPE
    assert all(type(side) is int for side in made.shape)
    assert made.fingerprint()


def test_a_module_of_torch_export_is_a_target_in_the_mode_of_its_export() -> None:
    module = network().eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.export.export(module, (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: batch},))
    with pytest.raises(NotImplementedError):
        exported.module().eval()
    found = built(exported.module())
    images = np.random.default_rng(1).integers(0, 256, (5, *SHAPE), np.uint8)
    np.testing.assert_allclose(found.logits(images), built(module).logits(images), atol=1e-5)
    with pytest.raises(TargetError, match=r"of an ExportedProgram pass its module\(\)"):
        built(exported)


def test_labels_by_number_are_ordered_by_it() -> None:
    for labels in ({1: "b", 0: "a", 2: "c"}, {"2": "c", "0": "a", "1": "b"}):
        assert texts("net", labels) == ("a", "b", "c")
    for labels in ({1: "a", 2: "b"}, {"x": "a"}, {0: "a", "0": "b"}):
        with pytest.raises(TargetError, match="net: labels by number need the numbers 0 to"):
            texts("net", labels)
