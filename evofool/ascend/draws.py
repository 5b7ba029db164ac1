"""Random draws, one stream per item, so that an item's draws do not depend on the items beside it."""

from collections.abc import Sequence

import numpy as np
import torch

_KEYS = 1 << 40  # exclusive bound of items' keys; the step is in the bits above
_STEPS = 1 << 24


class Draws:
    """The draws of n items in one step: independent Philox streams, keyed by (seed, step, the item's key).

    A stream continues from call to call. Step 0 is for starts. Values are drawn on the CPU, whatever the device.
    """

    def __init__(self, seed: int, keys: Sequence[int], step: int, device: torch.device | str = "cpu") -> None:
        if not 0 <= step < _STEPS or any(not 0 <= key < _KEYS for key in keys):
            numbers = f"{step} and {list(keys)[:12]}"
            raise ValueError(f"steps have to lie in 0..{_STEPS - 1} and items' keys in 0..{_KEYS - 1}, not {numbers}")
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
