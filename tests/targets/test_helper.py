"""Callables in a helper process: the same answers, and an image that hangs or ends the process is named."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evofool.errors import TargetError, UnansweredError
from evofool.targets import Target, target
from evofool.targets.helper import HelperTarget

SOURCE = """
import os
import sys
import time

import numpy as np
import torch

import evofool

W = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)


class Box:
    shape, labels = (1, 6, 8), tuple("abcde")

    def __call__(self, images):
        os.write(1, b"this does not disturb the messages")
        first = images.reshape(len(images), -1)[:, 0]
        if (first == 1).any():
            time.sleep(600)
        if (first == 2).any():
            os._exit(7)
        if (first == 3).any():
            raise RuntimeError(f"out of luck in {os.getpid()} with {torch.get_num_threads()}")
        if len(images) > 8:
            time.sleep(600)
        return images.reshape(len(images), -1).astype(np.float32) @ W


def box():
    return Box()


def hangs():
    time.sleep(600)


def leaves():
    os._exit(9)


def network():
    made = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
    made.shape = (1, 6, 8)
    return made


def wrapped():
    return evofool.Target.probed("mine", Box(), list("abcde"), (1, 6, 8), evofool.Preprocessing(), "auto", {})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with a user's module."""
    made, before = tmp_path_factory.mktemp("code"), Path.cwd()
    (made / "helped_code.py").write_text(SOURCE, encoding="utf-8")
    os.chdir(made)
    yield made
    os.chdir(before)


@pytest.fixture(scope="module")
def helped(folder: Path) -> Target:
    found = target("python:helped_code:box?timeout=1")
    assert isinstance(found, HelperTarget)
    return found


def images(*first: int) -> np.ndarray:
    """An image for each number, which is its first pixel."""
    made = np.random.default_rng(0).integers(10, 256, (len(first), 1, 6, 8), np.uint8)
    made[:, 0, 0, 0] = first
    return made


def test_answers_and_fingerprint_are_those_without_a_time_out(helped: Target) -> None:
    plain, some = target("python:helped_code:box"), images(9, 8, 7)
    assert np.array_equal(helped.logits(some), plain.logits(some))
    assert np.array_equal(helped.logits(some, 8, first_row=2), plain.logits(some, 8, first_row=2))
    assert (helped.labels, helped.shape, helped.outputs) == (plain.labels, plain.shape, plain.outputs)
    assert helped.fingerprint() == plain.fingerprint()
    assert helped.queries == 6
    wrapped = target("python:helped_code:wrapped?timeout=60")
    assert np.array_equal(wrapped.logits(some), plain.logits(some))


def test_an_image_that_hangs_is_named_and_the_next_call_is_answered(helped: Target) -> None:
    with pytest.raises(UnansweredError, match=r"no answer within 1 s for image 3 of 4 \(SHA-256 of its pixels: ") as caught:
        helped.logits(images(9, 8, 1, 7))
    assert caught.value.row == 2
    assert helped.logits(images(9)).shape == (1, 5)


def test_an_image_that_ends_the_process_is_named_by_its_row_among_those_given(helped: Target) -> None:
    with pytest.raises(UnansweredError, match=r"its process ended \(exit status 7\) for image 4 of 8") as caught:
        helped.logits(images(9, 2), 8, first_row=2)
    assert caught.value.row == 1


def test_images_that_only_hang_together_say_what_to_change(helped: Target) -> None:
    with pytest.raises(
        UnansweredError, match=r"for 9 images, but each of them alone was answered; raise timeout="
    ) as caught:
        helped.logits(images(*[9] * 9))
    assert caught.value.row is None


def test_an_error_of_the_callable_is_told_and_its_process_goes_on(helped: Target) -> None:
    texts = []
    for _ in range(2):
        with pytest.raises(TargetError, match=r"failed on 1 images \(RuntimeError: out of luck in \d+") as caught:
            helped.logits(images(3))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert str(os.getpid()) not in texts[0]


def test_a_call_in_progress_can_be_cancelled(helped: Target) -> None:
    timer = threading.Timer(0.2, helped.cancel)
    timer.start()
    with pytest.raises(TargetError, match="cancelled before it answered"):
        helped.logits(images(1, 9))
    timer.join()
    assert helped.logits(images(9)).shape == (1, 5)


def test_what_cannot_be_called_in_a_helper_process_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match=r"timeout= is for callables, and network\(\) returns a torch network"):
        target("python:helped_code:network?timeout=60")
    with pytest.raises(TargetError, match=r'helped_code has no function "boxes"; did you mean "box"'):
        target("python:helped_code:boxes?timeout=60")
    with pytest.raises(TargetError, match=r"its process ended \(exit status 9\) when it was loaded"):
        target("python:helped_code:leaves?timeout=60")
    monkeypatch.setattr("evofool.targets.helper.START_SECONDS", 2.0)
    with pytest.raises(TargetError, match=r"no answer within 2 s when it was loaded"):
        target("python:helped_code:hangs?timeout=60")


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "soon"])
def test_a_time_out_is_a_number_of_seconds(seconds: str) -> None:
    with pytest.raises(TargetError, match=f'timeout is "?{seconds}"?; it has to be a number'):
        target(f"python:helped_code:box?timeout={seconds}")


def test_the_child_ends_with_its_target(folder: Path) -> None:
    found = target("python:helped_code:box?timeout=60")
    with pytest.raises(TargetError) as caught:
        found.logits(images(3))
    child = int(str(caught.value).split("out of luck in ")[1].split()[0])
    assert Path(f"/proc/{child}").exists()
    del found, caught
    gc.collect()
    assert not Path(f"/proc/{child}").exists()
