"""An image's features: the output of a layer, or the input of the last linear layer."""

import numpy as np
import torch
from torch import nn

from evofool.ascend.hooks import no_gradients, unknown_layer
from evofool.errors import TargetError
from evofool.explain.layers import last_layer
from evofool.targets import Target


class Features:
    """A context that maps uint8 images (B, C, H, W) to points (B, D) float32; its hook is removed at the end.

    layer: the layer whose output it is; None: the input of `last_layer`, and finding that costs a forward pass. Outputs are
    flattened, several crops' averaged. name: the layer's. Every call counts B queries. TargetError for a black box, and for
    an unknown layer, or one that is not used in the forward pass.
    """

    def __init__(self, target: Target, layer: str | None = None) -> None:
        if target.network is None:
            raise no_gradients(target)
        self.target, self.network = target, target.network
        modules = dict(self.network.module.named_modules())
        name = layer or last_layer(target)
        if name not in modules:
            raise unknown_layer(target, name)
        self.name, self.module, self.inputs = name, modules[name], layer is None
        self.kept: list[torch.Tensor] = []

    def __enter__(self) -> "Features":
        def keep(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self.kept.append((args[0] if self.inputs else output).flatten(1).float().cpu())

        self.hook = self.module.register_forward_hook(keep)
        return self

    def __exit__(self, *exc: object) -> None:
        self.hook.remove()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.kept.clear()
        with torch.inference_mode():
            self.network.module(self.network.prepare(torch.from_numpy(images).to(self.network.device).float()))
        self.target.count(len(images))
        if not self.kept:
            raise TargetError(f"{self.target.name}: layer {self.name!r} is not used in the network's forward pass")
        return self.kept[-1].unflatten(0, (len(images), -1)).mean(1).numpy()
