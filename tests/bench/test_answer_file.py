"""Answers to real images, stored as they arrive."""

from pathlib import Path

import numpy as np
import pytest

from evofool.bench.calibration import Calibration, calibrate
from evofool.bench.real import RealImages
from evofool.errors import Interrupted
from evofool.targets import Target, target

NUMBER = 100  # three batches of 32 and a batch of 4


def real(seed: int = 0, other: int | None = None) -> RealImages:
    """Noise; the image with number `other` is replaced."""
    images = np.random.default_rng(seed).integers(0, 256, (NUMBER, 1, 28, 28), np.uint8)
    if other is not None:
        images[other] = 255 - images[other]

    def read(batch: int):
        for begin in range(0, NUMBER, batch):
            part = images[begin : begin + batch]
            yield part, np.arange(begin, begin + len(part))

    return RealImages("noise", np.arange(NUMBER) % 10, read)


def broken_off(lenet: Target, images: RealImages, keep: Path, after: int) -> None:
    messages: list[str] = []

    def report(message: str) -> None:
        messages.append(message)
        if len(messages) == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        calibrate(lenet, images, report, keep=keep)


def calibrated(lenet: Target, images: RealImages, keep: Path) -> tuple[Calibration, int]:
    before = lenet.queries
    return calibrate(lenet, images, keep=keep), lenet.queries - before


def test_an_interrupted_calibration_continues_to_the_same_bits(lenet, tmp_path):
    keep = tmp_path / "kept" / "lenet.answers"
    broken_off(lenet, real(), keep, after=2)
    broken_off(lenet, real(), keep, after=3)
    made, number = calibrated(lenet, real(), keep)
    assert number == 4
    whole = calibrate(lenet, real())
    assert made.logits.tobytes() == whole.logits.tobytes()
    assert made.logits.dtype == np.float32
    assert made.sha256 == whole.sha256
    assert calibrated(lenet, real(), keep)[1] == 0, "a whole file has all of them"


def test_a_torn_end_is_queried_again(lenet, tmp_path):
    keep = tmp_path / "lenet.answers"
    broken_off(lenet, real(), keep, after=2)
    with keep.open("r+b") as file:
        file.truncate(keep.stat().st_size - 5)
    made, number = calibrated(lenet, real(), keep)
    assert number == NUMBER - 32
    assert made.logits.tobytes() == calibrate(lenet, real()).logits.tobytes()
    damaged = bytearray(keep.read_bytes())
    damaged[0] ^= 1
    keep.write_bytes(damaged)
    made, number = calibrated(lenet, real(), keep)
    assert number == NUMBER
    assert made.logits.tobytes() == calibrate(lenet, real()).logits.tobytes()


def test_other_images_are_queried(lenet, tmp_path):
    keep = tmp_path / "lenet.answers"
    calibrate(lenet, real(), keep=keep)
    made, number = calibrated(lenet, real(other=40), keep)
    assert number == NUMBER - 32, "the first batch is the same"
    assert made.logits.tobytes() == calibrate(lenet, real(other=40)).logits.tobytes()


def test_another_target_is_queried(lenet, tmp_path):
    keep = tmp_path / "lenet.answers"
    calibrate(lenet, real(), keep=keep)
    scaled = target("lenet?scale=1/128")
    made, number = calibrated(scaled, real(), keep)
    assert number == NUMBER
    assert made.logits.tobytes() == calibrate(scaled, real()).logits.tobytes()
