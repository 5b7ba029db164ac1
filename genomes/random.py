"""Keyed random streams: a draw depends on (seed, batch, row) only, not on the thread or the machine.

Each (seed, batch, row) starts its own SplitMix64 stream (Steele, Lea & Flood 2014, "Fast splittable
pseudorandom number generators", the finaliser of Stafford's variant 13). Kernels compiled with numba take the stream as
an array of one uint64, so that drawing advances it in place.
"""

from typing import Any, NamedTuple

import numba
import numpy as np


class Key(NamedTuple):
    """The key of a block of streams: child i of a chunk draws from the stream (seed, batch, row + i).

    seed, batch and row are whole numbers in [0, 2**63). A chunk that starts at row r of a batch has the key with row r.
    """

    seed: int
    batch: int
    row: int = 0

    def at(self, row: int) -> "Key":
        """The key of the chunk that starts at this row."""
        return Key(self.seed, self.batch, self.row + row)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53


@numba.njit(inline="always")
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> _S30)) * _MIX_A
    z = (z ^ (z >> _S27)) * _MIX_B
    return z ^ (z >> _S31)


@numba.njit(inline="always")
def start(stream: np.ndarray, seed: int, batch: int, row: int) -> None:
    """Set stream[0] (uint64) to the beginning of the stream (seed, batch, row)."""
    h = _mix(np.uint64(seed) + _GOLDEN)
    h = _mix(h + _GOLDEN * (np.uint64(batch) + np.uint64(1)))
    stream[0] = _mix(h ^ (_GOLDEN * (np.uint64(row) + np.uint64(1))))


@numba.njit(inline="always")
def uniform(stream: np.ndarray) -> float:
    """One float64, uniform on [0, 1) in steps of 2**-53."""
    stream[0] += _GOLDEN
    return np.float64(_mix(stream[0]) >> _S11) * _TO_UNIT


@numba.njit(inline="always")
def integer(stream: np.ndarray, n: int) -> Any:
    """One int64, uniform on [0, n); the bias of flooring is below n * 2**-53."""
    return np.int64(uniform(stream) * n)


@numba.njit
def normal(stream: np.ndarray) -> float:
    """One float64 of mean 0 and variance 1 within +-6: the sum of 12 uniform draws less 6, nearly normal.

    It takes no logarithm, so it has the same bits on any machine.
    """
    total = -6.0
    for _ in range(12):
        total += uniform(stream)
    return total


@numba.njit(cache=True)
def _fill_integers(seed: int, batch: int, row: int, n: int, out: np.ndarray) -> None:
    stream = np.empty(1, np.uint64)
    start(stream, seed, batch, row)
    for i in range(out.size):
        out[i] = integer(stream, n)


def integers(key: Key, n: int, count: int) -> np.ndarray:
    """count int64, uniform on [0, n), all from the stream `key`."""
    out = np.empty(count, np.int64)
    _fill_integers(key.seed, key.batch, key.row, n, out)
    return out


def normals(key: Key, n: int, count: int) -> np.ndarray:
    """float64 (n, count), nearly normal (see normal): row i has the first draws of the stream key.at(i)."""
    rows = np.uint64(key.row) + np.arange(n, dtype=np.uint64)
    with np.errstate(over="ignore"):  # whole numbers modulo 2**64, as in the kernels
        h = _mixed(np.array([key.seed], np.uint64) + _GOLDEN)
        h = _mixed(h + _GOLDEN * (np.uint64(key.batch) + np.uint64(1)))
        begin = _mixed(h ^ (_GOLDEN * (rows + np.uint64(1))))
        draws = np.arange(1, 12 * count + 1, dtype=np.uint64) * _GOLDEN
        states = _mixed(begin[:, None] + draws)
    uniforms = (states >> _S11).astype(np.float64) * _TO_UNIT
    total = np.full((n, count), -6.0)
    for k in range(12):  # in this order, so that the bits are those of normal
        total += uniforms.reshape(n, count, 12)[:, :, k]
    return total


def _mixed(z: np.ndarray) -> np.ndarray:
    """_mix of arrays."""
    z = (z ^ (z >> _S30)) * _MIX_A
    z = (z ^ (z >> _S27)) * _MIX_B
    return z ^ (z >> _S31)
