"""The features of real images in a file, for the cells of a target: images are compared with them while they are scored."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from evofool.bench.acceptance import FeatureScale, unit_rows
from evofool.targets import Target
from evofool.whole_file import write_whole


@dataclass(frozen=True)
class RealFeatures:
    """layer: the last linear one, whose input they are. features: (N, D) float32. classes: (N,) int64. rows: (N,) bool, the
    images that others are compared with. made_for: a text that says of which target and images they are.
    """

    layer: str
    features: np.ndarray
    classes: np.ndarray
    rows: np.ndarray
    made_for: str

    @property
    def scale(self) -> FeatureScale:
        """Compares images with those of `rows`."""
        units = unit_rows(self.features)
        present = np.unique(self.classes[self.rows]).tolist()
        return FeatureScale({c: units[self.rows & (self.classes == c)] for c in present})

    def of_real(self) -> np.ndarray:
        """(N,) float64: the values of the real images, each compared with all others of its class in `rows`."""
        scale, units = self.scale, unit_rows(self.features)
        values = scale(self.features, self.classes)
        for c, known in scale.features.items():
            own = np.flatnonzero(self.rows & (self.classes == c))
            cosines = units[own] @ known.T
            np.fill_diagonal(cosines, -np.inf)
            values[own] = cosines.max(axis=1)
        return values

    def save(self, path: Path) -> None:
        """Write them to a file."""
        from safetensors.numpy import save

        tensors = {"features": self.features, "classes": self.classes, "rows": self.rows}
        write_whole(path, save(tensors, metadata={"layer": self.layer, "made_for": self.made_for}))

    @classmethod
    def load(cls, path: Path) -> "RealFeatures | None":
        """What save wrote; None if there is no such file, or one that is damaged: it can be made again."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                meta = file.metadata()
                features, classes, rows = (file.get_tensor(name) for name in ("features", "classes", "rows"))
            kinds = (features.dtype, classes.dtype, rows.dtype) == (np.float32, np.int64, np.bool_)
            if not kinds or features.ndim != 2 or classes.shape != rows.shape or classes.shape != features.shape[:1]:
                return None
            return cls(meta["layer"], features, classes, rows, meta["made_for"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None


class FeatureProbe:
    """A context that keeps the features of a target's last forward pass, for seen_answers.Similarity.

    It sees passes of the network as given, in float32, and those for gradients; not the copies for other number formats.
    """

    def __init__(self, target: Target, real: RealFeatures) -> None:
        assert target.network is not None
        self._scale = real.scale
        passed = {id(m): m for m in (target.network.module, target.network.gradient_module(target.shape)[0])}
        self._modules = [module.get_submodule(real.layer) for module in passed.values()]
        self._kept: torch.Tensor | None = None

    def __enter__(self) -> "FeatureProbe":
        def keep(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            self._kept = args[0].detach().flatten(1)

        self._hooks = [module.register_forward_pre_hook(keep) for module in self._modules]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def __call__(self, rows: slice, classes: np.ndarray) -> np.ndarray:
        """FeatureScale's values (n,) of these rows of the last pass; NaN if it was not seen. A pass is used once."""
        kept, self._kept = self._kept, None
        if kept is None or kept.shape[0] < rows.stop:
            return np.full(len(classes), np.nan)
        return self._scale(kept[rows].float().cpu().numpy(), classes)
