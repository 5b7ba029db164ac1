"""Large genomes stored as differences from their mothers': a child changes few pixels, and noise does not compress."""

import zlib

import numpy as np

MIN_BYTES = 16_384
"""From this size in bytes on a packed genome is stored as a difference."""

MAX_STEPS = 16
"""The most differences between a genome and a whole one; the next one is stored whole."""


def difference(child: bytes, mother: bytes) -> bytes | None:
    """The compressed difference between mother and child; None if it is not much shorter than the child itself."""
    if len(child) != len(mother) or len(child) < MIN_BYTES:
        return None
    packed = zlib.compress((_array(child) ^ _array(mother)).tobytes(), 1)
    return packed if len(packed) < len(child) // 2 else None


def apply_difference(packed: bytes, mother: bytes) -> bytes:
    """The child; ValueError if packed is not a difference from this mother."""
    reader = zlib.decompressobj()
    try:
        changed = reader.decompress(packed, len(mother) + 1)  # never much more than expected, even from a forged file
    except zlib.error as error:
        raise ValueError(f"a genome's difference from its mother is damaged ({error})") from None
    if len(changed) != len(mother) or not reader.eof:
        raise ValueError(f"a genome's difference from its mother is damaged ({len(changed)} bytes, not {len(mother)})")
    return (_array(changed) ^ _array(mother)).tobytes()


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
