"""Noise that depends on the image repeats to the bit, and is found by the smallest changes of an image."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from evofool.scores import log_odds
from evofool.targets import Preprocessing, Target, target
from evofool.targets.abruptness import measure_changes
from evofool.targets.validation import check, validate

CAFFE = Path(__file__).parents[2] / ".." / "shared" / "data" / "lenet_caffe.safetensors"
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def changed(after: Change, before: Callable[[np.ndarray], np.ndarray] = lambda images: images) -> Target:
    """The bundled network, with logits after(logits, images), for images before(images)."""
    inner = target("lenet")

    def forward(images: np.ndarray) -> np.ndarray:
        return after(inner.logits(before(images)), images).astype(np.float32)

    return Target("changed", inner.labels, inner.shape, forward, {"preprocessing": {}})


def hash_noise(scale: float) -> Change:
    """Normal noise that is seeded by the image's bytes. The spread of the network's logits is about 4.8."""

    def add(logits: np.ndarray, images: np.ndarray) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "little") for image in images]
        return logits + np.stack([np.random.default_rng(seed).normal(0, scale, logits.shape[1]) for seed in seeds])

    return add


def jpeg(images: np.ndarray) -> np.ndarray:
    seen = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[0]).save(buffer, "JPEG", quality=50)
        seen.append(np.asarray(Image.open(buffer))[None])
    return np.stack(seen)


@pytest.mark.parametrize("scale", [0.1, 0.5, 3.0])
def test_noise_that_depends_on_the_image_is_found(scale: float) -> None:
    found = measure_changes(changed(hash_noise(scale)))
    assert found.abrupt
    assert 0.4 < found.one / (np.sqrt(2) * scale / 4.8) < 1.6
    assert found.note().startswith("answers change abruptly: noise that depends on the image?")


def same(logits: np.ndarray, _images: np.ndarray) -> np.ndarray:
    return logits


@pytest.mark.parametrize(
    "make",
    [
        lambda: target("lenet"),
        lambda: changed(lambda z, _: np.round(100 * z) / 100),
        lambda: changed(lambda z, _: np.round(z)),
        lambda: changed(lambda z, _: z**5),
        lambda: changed(lambda z, _: 1000 * z),
        lambda: changed(lambda z, _: np.eye(10)[z.argmax(axis=1)]),
        lambda: changed(lambda z, _: log_odds(1000 * z)),
        lambda: changed(lambda z, _: 0 * z),
        lambda: changed(same, jpeg),
        lambda: changed(same, lambda images: (images > 127) * np.uint8(255)),
        lambda: changed(same, lambda images: images // 32 * 32),
        lambda: changed(hash_noise(1e-3)),
        pytest.param(
            lambda: target(f"lenet-caffe?weights={CAFFE}"),
            marks=pytest.mark.skipif(not CAFFE.exists(), reason="needs the weights of the 2015 network"),
        ),
    ],
)
def test_smooth_coarse_and_compressed_answers_are_no_false_alarm(make: Callable[[], Target]) -> None:
    found = measure_changes(make())
    assert not found.abrupt
    assert found.note() == ""
    assert found.one < 0.002


def test_it_is_a_note_of_the_validation_and_no_fault() -> None:
    noisy = changed(hash_noise(0.5))
    for checked in (validate(noisy, 32, probe=True), check(noisy, speed=False).validation):
        assert checked.faults == ()
        assert any("change abruptly" in note for note in checked.notes)
    assert not any("abruptly" in note for note in validate(noisy, 32).notes)
    assert not any("abruptly" in note for note in validate(target("lenet"), 32, probe=True).notes)


def test_a_target_that_is_refused_is_not_asked() -> None:
    class Nothing(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] * 0

    found = Target.from_module(Nothing(), tuple("0123456789"), (1, 28, 28), Preprocessing())
    assert validate(found, 32, probe=True).faults
    queries = found.queries
    assert validate(found, 32).faults
    assert found.queries == 2 * queries
