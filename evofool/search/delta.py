"""A big genome kept as its difference from its mother's: a child changes few pixels, and noise itself does not compress."""

import zlib

import numpy as np

WORTH = 16_384
"""Bytes from which a packed genome is kept as a difference."""

MOST = 16
"""Differences to go through to a whole genome, at the most: then a whole one is kept again."""


def difference(child: bytes, mother: bytes) -> bytes | None:
    """What turns mother into child, compressed; None if it would not be much shorter than the child itself."""
    if len(child) != len(mother) or len(child) < WORTH:
        return None
    packed = zlib.compress((_array(child) ^ _array(mother)).tobytes(), 1)
    return packed if len(packed) < len(child) // 2 else None


def applied(packed: bytes, mother: bytes) -> bytes:
    """The child; ValueError if packed is no difference from this mother."""
    reader = zlib.decompressobj()
    try:
        changed = reader.decompress(packed, len(mother) + 1)  # never much more than is expected, whatever the file says
    except zlib.error as error:
        raise ValueError(f"a genome's difference from its mother is damaged ({error})") from None
    if len(changed) != len(mother) or not reader.eof:
        raise ValueError(f"a genome's difference from its mother is damaged ({len(changed)} bytes, not {len(mother)})")
    return (_array(changed) ^ _array(mother)).tobytes()


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
