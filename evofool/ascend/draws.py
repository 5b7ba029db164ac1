"""Random draws, one stream for each item: the same whatever shares its batch."""

from collections.abc import Sequence

import numpy as np
import torch

_KEYS = 1 << 40  # items; above them in a stream's key stands the step
_STEPS = 1 << 24


class Draws:
    """What n items draw in one step, keyed (seed, step, item's key): Philox's counter makes streams independent.

    A stream goes on from call to call. Step 0 is for starts. Everything is drawn on the CPU, so a device changes nothing.
    """

    def __init__(self, seed: int, keys: Sequence[int], step: int, device: torch.device | str = "cpu") -> None:
        if not 0 <= step < _STEPS or any(not 0 <= key < _KEYS for key in keys):
            raise ValueError(f"steps lie in 0..{_STEPS - 1} and items' keys in 0..{_KEYS - 1}")
        self._device = device
        self._streams = [
            np.random.Generator(np.random.Philox(key=np.array([seed & (1 << 64) - 1, step << 40 | key], np.uint64)))
            for key in keys
        ]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """(n, *shape) float32, uniform on [low, high)."""
        return self._stack([low + (high - low) * s.random(shape, np.float32) for s in self._streams])

    def normal(self, *shape: int) -> torch.Tensor:
        """(n, *shape) float32, standard normal."""
        return self._stack([s.standard_normal(shape, np.float32) for s in self._streams])

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """(n, *shape) int64, low <= value < high."""
        return self._stack([s.integers(low, high, shape) for s in self._streams])

    def _stack(self, drawn: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.asarray(d) for d in drawn])).to(self._device)
