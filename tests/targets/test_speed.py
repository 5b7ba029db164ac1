"""The choice of a number format, and how rates are measured: with synthetic formats, never by the speed of real ones."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from evofool.errors import TargetError
from evofool.targets import Target, target
from evofool.targets.network import FLOAT32, Network
from evofool.targets.photos import patterns
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.speed import (
    SpeedMeasurement,
    choose_for_cpu,
    choose_for_gpu,
    choose_format,
    images_per_second,
    log_odds_difference,
    measure_speeds,
)


class Formats(Target):
    """Ten pixels as logits; each format adds the value of a function of the number of images."""

    formats = ()  # type: ignore[assignment]

    def __init__(self, **formats: Callable[[int], float]) -> None:
        self.added = {FLOAT32: lambda n: 0.0, **formats}
        self.calls: list[tuple[str, int]] = []
        details = {"preprocessing": {}, "device": "cuda"}
        network = Network(nn.Flatten(), Preprocessing())
        super().__init__("fake", list("0123456789"), (1, 2, 5), lambda x: x, details, network=network)
        self.formats = tuple(self.added)  # type: ignore[assignment]

    def raw(self, images: np.ndarray, number_format: str) -> np.ndarray:
        self.calls.append((number_format, len(images)))
        out = images.reshape(len(images), -1).astype(np.float32) / 64
        out[:, 0] += self.added[number_format](len(images))
        return out


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


def full(most: int) -> Callable[[int], float]:
    """A format for which at most this many images fit into memory."""

    def added(images: int) -> float:
        if images > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 0.0

    return added


def broken(_: int) -> float:
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({"float32": 100.0}, "float32"),
        ({"float32": 100.0, "float32-folded": 119.0}, "float32"),
        ({"float32": 100.0, "float32-folded": 120.0}, "float32-folded"),
        ({"float32": 100.0, "float32-folded": 150.0, "bfloat16": 170.0}, "float32-folded"),
        ({"float32": 100.0, "float32-folded": 150.0, "bfloat16": 180.0, "float16": 190.0}, "bfloat16"),
        ({"float32": 100.0, "float32-folded": 50.0, "bfloat16": 130.0}, "bfloat16"),
    ],
)
def test_a_format_has_to_be_a_fifth_faster_than_the_best_before_it(rates: dict[str, float], chosen: str) -> None:
    assert choose_for_gpu(rates) == chosen


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({"float32": 100.0}, "float32"),
        ({"float32": 100.0, "float32-folded": 90.0}, "float32-folded"),
        ({"float32": 100.0, "float32-folded": 150.0, "bfloat16": 140.0}, "bfloat16"),
        ({"float32": 100.0, "float32-folded": 110.0, "bfloat16": 30.0}, "float32-folded"),
        ({"float32": 100.0, "float32-folded": 70.0, "bfloat16": 30.0}, "float32"),
    ],
)
def test_on_a_cpu_a_busy_moment_does_not_change_the_choice(rates: dict[str, float], chosen: str) -> None:
    assert choose_for_cpu(rates) == chosen


def test_formats_that_differ_too_much_or_fail_are_dropped_with_the_reason() -> None:
    fake = Formats(
        **{"float32-folded": lambda n: 0.01}, bfloat16=lambda n: 9.0, float16=lambda n: float("nan"), compiled=broken
    )
    choice = choose_format(fake, 8)
    assert choice.chunk == 8
    assert set(choice.rates) == {"float32", "float32-folded"}
    assert set(choice.differences) == {"float32-folded", "bfloat16"}
    assert set(choice.dropped) == {"bfloat16", "float16", "compiled"}
    assert "log-odds differ from float32 by" in choice.dropped["bfloat16"]
    assert "at most 0.25 and 1.5 are allowed" in choice.dropped["bfloat16"]
    assert choice.dropped["float16"] == "returns NaN or infinity"
    assert choice.dropped["compiled"] == "RuntimeError: no compiler"


def test_the_chunk_is_halved_until_every_format_fits_the_memory() -> None:
    fake = Formats(**{"float32-folded": full(24)})
    choice = choose_format(fake, 64)
    assert choice.chunk == 16
    assert set(choice.rates) == {"float32", "float32-folded"}
    assert {n for _, n in fake.calls} == {64, 32, 16}


def test_too_little_memory_for_one_image_is_an_error() -> None:
    with pytest.raises(TargetError, match=r"fake: the memory of cuda does not hold one image's forward pass; use a smaller"):
        choose_format(Formats(float32=full(0)), 64)


def test_a_target_with_one_format_is_not_queried() -> None:
    lenet = target("lenet")
    choice = choose_format(lenet, 16)
    assert (choice.number_format, choice.chunk, choice.rates) == ("float32", 16, {})
    assert lenet.queries == 0


def test_the_difference_is_that_of_log_odds() -> None:
    fake = Formats(**{"float32-folded": lambda n: 0.0}, bfloat16=lambda n: 3.0)
    images = patterns(fake.shape, 6)
    assert log_odds_difference(fake, "float32-folded", images) == (0.0, 0.0)
    median, most = log_odds_difference(fake, "bfloat16", images)
    assert 0 < median <= most <= 3.0 + 1e-5


def test_a_rate_counts_its_queries_and_leaves_torch_s_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    fake = Formats()
    assert images_per_second(fake, FLOAT32, 4, workers=3, seconds=0.0) > 0
    assert fake.calls == [(FLOAT32, 4)] * 6  # a first and one timed chunk of every worker
    assert fake.queries == 24
    assert torch.get_num_threads() == before


def test_workers_run_concurrently() -> None:
    met = threading.Barrier(2, timeout=30)

    class Meeting(Formats):
        def raw(self, images: np.ndarray, number_format: str) -> np.ndarray:
            met.wait()  # passes when two calls run at once
            return super().raw(images, number_format)

    assert images_per_second(Meeting(), FLOAT32, 1, workers=2, seconds=0.0) > 0


def test_an_error_in_a_worker_is_raised() -> None:
    for workers in (1, 3):
        with pytest.raises(TargetError, match="no compiler"):
            images_per_second(Formats(odd=broken), "odd", 2, workers)

    def later(images: int, done: list[int] = []) -> float:  # noqa: B006
        done.append(images)
        time.sleep(0.01)
        return broken(0) if len(done) > 2 else 0.0

    with pytest.raises(TargetError, match="no compiler"):
        images_per_second(Formats(odd=later), "odd", 2, seconds=10.0)


def test_a_table_has_a_row_for_every_setting_and_compiled_formats_one_chunk() -> None:
    fake = Formats(**{"float32-folded": full(4), "float16-compiled": lambda n: 0.0})
    fake.streams = 2
    rows = list(measure_speeds(fake, fake.formats, (1, 8), seconds=0.0))
    assert [(r.number_format, r.chunk, r.workers) for r in rows] == [
        (f, chunk, workers)
        for f in fake.formats
        for chunk in ((1, 8) if f != "float16-compiled" else (8,))
        for workers in (1, 2)
    ]
    assert [r for r in rows if r.images_per_second is None] == [
        SpeedMeasurement("float32-folded", 8, w, None) for w in (1, 2)
    ]
