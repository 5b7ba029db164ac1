"""Whether logits depend on an image's place in a chunk: compared with a slow loop over all shifts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from evofool.machine import mkl_mode
from evofool.scores import log_odds, margin
from evofool.targets import Target
from evofool.targets.guarded import DetectorRule, guarded
from evofool.targets.photos import patterns
from evofool.targets.position import SAFETY, Position, measure, measure_on
from tests.synthetic import CLASSES, SIDE, fake, linear

CHUNK = 16
SHAPE = (1, SIDE, SIDE)

Forward = Callable[[np.ndarray], np.ndarray]


def by_row(images: np.ndarray) -> np.ndarray:
    steps = np.float32(1e-5) * np.arange(CLASSES, dtype=np.float32)
    return linear(images) + np.arange(len(images), dtype=np.float32)[:, None] * steps


def in_the_last_row(images: np.ndarray) -> np.ndarray:
    logits = linear(images)
    logits[CHUNK - 1 :, 2] *= np.float32(1 + 1e-6)
    return logits


def by_other_images(images: np.ndarray) -> np.ndarray:
    return linear(images) + np.float32([1e-6, 0, 0, 0, 0]) * np.float32(images.max(axis=(1, 2, 3)).mean())


def slow_tolerance(target: Target, images: np.ndarray, chunk: int) -> float:
    """SAFETY times the largest difference of a logit between two rows, as a share of the image's largest logit."""
    first = target.logits(images, chunk).astype(np.float64)
    padded = np.concatenate([images, np.zeros((chunk - len(images), *target.shape), np.uint8)])
    largest = 0.0
    for shift in range(1, chunk):
        shifted = target.logits(np.stack([padded[(row - shift) % chunk] for row in range(chunk)])).astype(np.float64)
        for image in range(len(images)):
            before, after = first[image], shifted[(image + shift) % chunk]
            largest = max(largest, np.abs(before - after).max() / max(np.abs(before).max(), np.abs(after).max()))
    return float(SAFETY * largest)


def test_a_target_whose_rows_are_independent_has_no_tolerance() -> None:
    for chunk in (1, 2, 7, CHUNK):
        assert measure(fake(), chunk) == Position(chunk, False, 0.0)
    assert measure(fake(), CHUNK).notes() == ()


@pytest.mark.parametrize("forward", [by_row, in_the_last_row])
def test_the_tolerance_is_measured_over_all_shifts(forward: Forward) -> None:
    position = measure(fake(forward), CHUNK)
    assert position.dependent
    assert position.tolerance == slow_tolerance(fake(forward), patterns(SHAPE, CHUNK), CHUNK) > 0
    (note,) = position.notes()
    assert f"logits depend on an image's row in a chunk of {CHUNK}" in note
    assert f"within {position.tolerance:.2g} of the size of their logits" in note


def test_a_dependence_on_the_other_images_is_detected() -> None:
    position = measure(fake(by_other_images), CHUNK)
    assert position.dependent
    assert position.tolerance is not None
    assert position.tolerance > 0


def test_it_can_be_measured_on_any_images() -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, *SHAPE), np.uint8)
    for forward in (linear, by_row, in_the_last_row):
        target = fake(forward)
        position = measure_on(target, CHUNK, images, target.logits(images, CHUNK))
        assert position.tolerance == slow_tolerance(target, images, CHUNK)
        assert position.dependent == (forward is not linear)


@pytest.mark.parametrize(("side", "passes"), [(6, 2 + 4), (64, 2 + 1)])
def test_an_independent_target_costs_few_passes_and_large_images_three(side: int, passes: int) -> None:
    sizes: list[int] = []

    def forward(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return linear(images)

    target = fake(forward, (1, side, side))
    assert not measure(target, CHUNK).dependent
    assert sizes == [CHUNK] * passes
    assert target.queries == CHUNK * passes - CHUNK // 2


def test_a_target_that_is_billed_or_keeps_its_answers_counts_as_dependent_and_is_sent_nothing() -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        pytest.fail("it was queried")

    class Billed(Target):
        @property
        def requests(self) -> int:
            return 1

    billed = Billed("billed", ["a", "b"], SHAPE, forward, {})
    persistent = fake(forward)
    persistent.counts_persist = True
    for target in (billed, persistent):
        position = measure(target, CHUNK)
        assert position == Position(CHUNK, True, None)
        assert position.notes() == ()
        assert position.allowed(np.ones((3, CLASSES), np.float32)).tolist() == [0, 0, 0]


def test_a_chunk_that_does_not_fit_the_memory_is_not_measured() -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        raise MemoryError

    assert measure(fake(forward), CHUNK) == Position(CHUNK, True, None)


def test_answers_that_are_not_finite_are_left_out() -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        logits = by_row(images)
        logits[~images.any(axis=(1, 2, 3))] = np.nan  # padding
        logits[images[:, 0, 0, 0] % 3 == 0] = np.inf
        return logits

    tolerance = measure(fake(forward), CHUNK).tolerance
    assert tolerance is not None
    assert 0 < tolerance < 1


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_log_odds_and_margins_differ_by_no_more_than_allowed(size: float) -> None:
    draw = np.random.default_rng(0)
    position = Position(CHUNK, True, 1e-3)
    logits = (draw.normal(size=(500, CLASSES)) * size).astype(np.float32)
    largest = np.abs(logits).max(axis=1, keepdims=True)
    moved = (logits + draw.choice([-1, 1], logits.shape) * 0.999e-3 * largest).astype(np.float32)
    allowed = position.allowed(logits)
    for score in (log_odds, margin):
        apart = np.abs(score(logits) - score(moved)).max(axis=1)
        assert (apart <= allowed).all()
        assert (apart > 0.4 * allowed).any(), "the bound is tight"


def test_a_position_is_restored_from_its_dict() -> None:
    for position in (Position(8, False, 0.0), Position(16, True, 1.3e-7), Position(4, True, None)):
        assert Position(**position.to_dict()) == position


@pytest.mark.skipif(mkl_mode() != "AUTO", reason="torch has no MKL, or the user has set another mode")
@pytest.mark.parametrize("chunk", [64, 15])
def test_a_small_network_and_a_mahalanobis_guard_have_the_same_bits_in_any_order_of_the_chunk(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 6), nn.ReLU(), nn.Linear(6, CLASSES))
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator))
    base = Target.from_module(network, None, SHAPE, name="mlp")
    draw = lambda *sides: torch.randn(sides, generator=generator)  # noqa: E731
    half = draw(5, 5)
    tensors = {
        "middle": draw(6),
        "project": draw(6, 5),
        "means": draw(CLASSES, 5),
        "precision": half @ half.T + torch.eye(5),
    }
    guard = guarded(base, DetectorRule("mahalanobis", 9.0, 3.0, 2.0, 1.0, layer="3", tensors=tensors), "guarded mlp")
    images = patterns(SHAPE, chunk)
    for target in (base, guard):
        first = target.logits(images)
        for seed in range(20):
            order = np.random.default_rng(seed).permutation(chunk)
            assert np.array_equal(target.logits(images[order]), first[order])
        assert measure(target, chunk) == Position(chunk, False, 0.0)
