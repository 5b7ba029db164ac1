"""The answers of a slow target are kept while it is validated."""

import json
from pathlib import Path

import numpy as np
import pytest

from evofool.targets import answer_record
from evofool.targets.validation import Validation, validate
from tests.synthetic import fake, linear


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass counts as slow."""
    monkeypatch.setattr(answer_record, "_SLOW", -1.0)


def validated(folder: Path, passes: list[int], until: int = 1 << 30) -> Validation:
    """A target's validation; it is interrupted in the pass number `until`, and passes gets the images of each."""

    def forward(images: np.ndarray) -> np.ndarray:
        if len(passes) == until:
            raise KeyboardInterrupt
        passes.append(len(images))
        return linear(images)

    return validate(fake(forward), 8, folder)


@pytest.mark.usefixtures("slow")
def test_a_validation_that_is_interrupted_again_and_again_ends_like_another(tmp_path: Path) -> None:
    whole: list[int] = []
    expected = validated(tmp_path / "whole", whole)
    assert not (tmp_path / "whole").exists()
    parts: list[int] = []
    for until in range(1, len(whole)):
        with pytest.raises(KeyboardInterrupt):
            validated(tmp_path / "run", parts, until)
        assert len(list((tmp_path / "run").iterdir())) == 1
    assert validated(tmp_path / "run", parts) == expected
    assert parts == whole, "no pass was repeated"
    assert not (tmp_path / "run").exists()


def test_a_fast_target_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        validated(tmp_path / "run", [], 3)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("slow")
def test_a_target_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        if len(images) == 1:
            raise ValueError("single images are refused")
        return linear(images)

    with pytest.raises(ValueError, match="single images are refused"):
        validate(fake(forward), 8, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b'"another key"\n' + b"0" * 64 + b" AAAA\n",
        b"[" * 100_000,
        json.dumps("key").encode() + b"\nno pair\n",
        json.dumps("key").encode() + b"\n" + b"0" * 64 + b" !!!!\n",
    ],
)
def test_a_damaged_record_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "validation.answers"
    path.write_bytes(content)
    record = answer_record.AnswerRecord(path, "key")
    images = np.zeros((2, 1, 3, 3), np.uint8)
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert (record.answer(images, 2, lambda: expected) == expected).all()
    again = answer_record.AnswerRecord(path, "key")
    assert (again.answer(images, 2, lambda: expected + 1) == expected).all()
    assert (again.answer(images, 2, lambda: expected + 1) == expected + 1).all(), "the second pass is computed"
    other = answer_record.AnswerRecord(path, "key")
    assert (other.answer(images + 1, 2, lambda: expected + 2) == expected + 2).all(), "other images"
