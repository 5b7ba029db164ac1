"""The keyed streams: compared with SplitMix64 in plain Python, and tests of randomness."""

from typing import Any

import numpy as np
import pytest

from genomes import Direct, Key
from genomes.random import integers, normal, start, uniform

KEYS = [(0, 0, 0), (1, 2, 3), (3, 2, 1), (2**63 - 1, 0, 1), (7, 2**63 - 1, 5), (7, 5, 2**63 - 1), (2**40, 2**41, 2**42)]


def drawn(key: tuple[int, int, int], count: int) -> np.ndarray:
    stream = np.empty(1, np.uint64)
    start(stream, *key)
    return np.array([uniform(stream) for _ in range(count)])


@pytest.mark.parametrize("key", KEYS)
def test_a_stream_is_splitmix64_to_the_bit(reference_stream: Any, key: tuple[int, int, int]) -> None:
    reference = reference_stream(*key)
    assert drawn(key, 100).tolist() == [reference.uniform() for _ in range(100)]


def test_the_reference_stream_gives_the_published_splitmix64_numbers(reference_stream: Any) -> None:
    reference = reference_stream(0)
    reference.state = 1234567  # Rosetta Code's reference, "Pseudo-random numbers/Splitmix64"
    assert [reference.bits() for _ in range(5)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("n", [1, 2, 3, 256, 1000, 2**31, 2**52 + 1])
def test_integers_are_the_floors_of_n_times_the_uniform_draws(
    reference_stream: Any, key: tuple[int, int, int], n: int
) -> None:
    reference = reference_stream(*key)
    assert integers(Key(*key), n, 50).tolist() == [reference.integer(n) for _ in range(50)]


def test_uniform_draws_lie_in_the_half_open_unit_interval_and_have_its_moments() -> None:
    u = drawn((1, 2, 3), 50_000)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / u.size)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / u.size)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(u.size)


def test_normal_draws_are_sums_of_twelve_uniform_ones_and_have_the_moments_of_the_normal_distribution() -> None:
    stream = np.empty(1, np.uint64)
    start(stream, 1, 2, 3)
    z = np.array([normal(stream) for _ in range(20_000)])
    np.testing.assert_allclose(z, drawn((1, 2, 3), 240_000).reshape(-1, 12).sum(axis=1) - 6, atol=1e-12)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    assert abs((np.abs(z) < 1).mean() - 0.683) < 0.015
    assert np.abs(z).max() < 6


@pytest.mark.parametrize("n", [2, 7, 64, 1000])
def test_integers_fill_their_range_evenly(n: int) -> None:
    draws = integers(Key(11, 22, 33), n, 200 * n)
    counts = np.bincount(draws, minlength=n)
    assert counts.size == n
    chi_square = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi_square - (n - 1)) < 4 * np.sqrt(2 * (n - 1))  # mean and deviation of chi-square with n - 1 freedoms


def test_neighbouring_rows_batches_and_seeds_draw_evenly_too() -> None:
    firsts = np.array([drawn((s, b, r), 1)[0] for s in range(20) for b in range(20) for r in range(20)])
    counts = np.bincount((firsts * 50).astype(int), minlength=50)
    assert abs(((counts - 160) ** 2 / 160).sum() - 49) < 4 * np.sqrt(2 * 49)


def test_different_seeds_batches_and_rows_have_different_streams(reference_stream: Any) -> None:
    keys = [(s, b, r) for s in range(12) for b in range(12) for r in range(12)]
    keys += [key for power in range(5, 63, 7) for key in ((2**power, 0, 0), (0, 2**power, 0), (0, 0, 2**power))]
    assert len({reference_stream(*key).bits() for key in keys}) == len(keys)
    pixels = Direct(channels=1, height=2, width=8)
    seen = {pixels.random(1, Key(*key)).tobytes() for key in keys}
    assert len(seen) == len(keys)


def test_the_key_of_a_later_row_is_that_of_its_stream() -> None:
    assert Key(1, 2, 3).at(4) == Key(1, 2, 7)
    assert Key(1, 2).at(0) == Key(1, 2, 0)
    assert integers(Key(1, 2).at(7), 1000, 20).tolist() == integers(Key(1, 2, 7), 1000, 20).tolist()
    assert integers(Key(1, 2, 7), 1000, 20).tolist() != integers(Key(1, 2, 8), 1000, 20).tolist()
