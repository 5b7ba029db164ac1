"""Shared fixtures: the random stream in plain Python, and CPPNs grown by many variations."""

from collections.abc import Callable

import numpy as np
import pytest

from genomes import CPPN, Key

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


class PlainStream:
    """SplitMix64 (Steele, Lea & Flood 2014) on Python's whole numbers, started for (seed, batch, row)."""

    def __init__(self, seed: int, batch: int = 0, row: int = 0) -> None:
        h = mix((seed + GOLDEN) & MASK)
        h = mix((h + GOLDEN * (batch + 1)) & MASK)
        self.state = mix(h ^ (GOLDEN * (row + 1) & MASK))

    def bits(self) -> int:
        self.state = (self.state + GOLDEN) & MASK
        return mix(self.state)

    def uniform(self) -> float:
        return (self.bits() >> 11) / 2**53

    def integer(self, n: int) -> int:
        return int(self.uniform() * n)


@pytest.fixture(scope="session")
def reference_stream() -> type[PlainStream]:
    return PlainStream


@pytest.fixture(scope="session")
def evolve() -> Callable[..., np.ndarray]:
    """evolve(encoding, count, batches=60, seed=0): a batch varied that many times over, without selection."""
    grown: dict[tuple[CPPN, int, int, int], np.ndarray] = {}

    def evolve(encoding: CPPN, count: int, batches: int = 60, seed: int = 0) -> np.ndarray:
        arguments = (encoding, count, batches, seed)
        if arguments not in grown:
            genomes = encoding.random(count, Key(seed, 0))
            for batch in range(1, batches + 1):
                genomes = encoding.vary(genomes, genomes, Key(seed, batch))
            grown[arguments] = genomes
        return grown[arguments].copy()

    return evolve
