"""A network's layers: its blocks, the defaults of an explanation and of a dream, and the order in which layers run."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import nn

from evofool.ascend.hooks import no_gradients, no_layers
from evofool.ascend.objectives import LOGITS
from evofool.errors import TargetError
from evofool.targets import Target


def blocks(target: Target) -> list[str]:
    """The blocks of a network, in the order in which they run. Costs one forward pass.

    A block is a module that is used in the forward pass, contains weights and is not inside another block. A Sequential is
    not a block, but its modules may be.
    """
    found: list[str] = []
    modules, ran = _ran(target)
    for name in ran:
        parents = [".".join(name.split(".")[:k]) for k in range(1, name.count(".") + 1)]
        inside = any(other in ran and not isinstance(modules[other], nn.Sequential) for other in parents)
        has_weights = any(p.dim() > 1 for p in modules[name].parameters())
        if has_weights and not inside and not isinstance(modules[name], nn.Sequential):
            found.append(name)
    if not found:
        raise TargetError(f"{target.name}: no block with weights is used in its forward pass; name a layer")
    return found


def evenly(target: Target, count: int = 5) -> list[str]:
    """Up to `count` blocks, evenly spread over the network's depth: the first and the last, and some between."""
    found = blocks(target)
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[k] for k in chosen]


def dream_layer(target: Target) -> str:
    """The layer that a dream enhances unless another is named: a block at 62% of the depth, and not a linear layer.

    In networks for ImageNet these layers respond to eyes and animals. Costs two forward passes.
    """
    modules, _ = _ran(target)
    found = blocks(target)
    found = [name for name in found if not isinstance(modules[name], nn.Linear)] or found
    return found[round(0.62 * (len(found) - 1))]


def layer_rows(target: Target) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, type, shape of its output for one image) of all layers, in the order in which they run. A forward pass."""
    modules, ran = _ran(target)
    return [(name, type(modules[name]).__name__, shape) for name, shape in ran.items()]


def in_order(target: Target, layers: Sequence[str]) -> list[str]:
    """Each of the layers once, as they run: the deepest last, and after it "logits". Costs one forward pass.

    Layers that are not used in the forward pass come before LOGITS, in the given order.
    """
    _, ran = _ran(target)
    position = {name: k for k, name in enumerate([*ran, *(name for name in layers if name not in (*ran, LOGITS)), LOGITS])}
    return sorted(set(layers), key=position.__getitem__)


def last_layer(target: Target) -> str:
    """The last linear layer that is used in the forward pass; without one, the last convolution. Costs one forward pass."""
    modules, ran = _ran(target)
    for kind in (nn.Linear, nn.Conv2d):
        found = [name for name in ran if isinstance(modules[name], kind)]
        if found:
            return found[-1]
    raise TargetError(f"{target.name}: has neither a linear layer nor a convolution; name a layer")


def last_spatial(target: Target) -> tuple[str, tuple[int, int]]:
    """The layer that runs last of those whose output has several positions, and its rows and columns. One forward pass.

    TargetError that says why, where there is none, or where layers after it have lost the positions' order: sequences of
    tokens, and maps whose channels come last.
    """
    if target.rows_per_image > 1:
        raise TargetError(f"{target.name}: its answer is made of those to {target.rows_per_image} crops or pipelines")
    height, width = target.shape[1:]
    for name, shape in reversed(_ran(target, last=True)[1].items()):
        if len(shape) == 2:
            raise TargetError(f"{target.name}: {name} works on a sequence of {shape[0]} tokens")
        if len(shape) == 3 and shape[1] * shape[2] > 1:
            if abs(shape[1] * width - shape[2] * height) > max(height, width):
                sizes = " x ".join(map(str, shape))
                raise TargetError(f"{target.name}: the output of {name}, {sizes}, is not a map of the image")
            return name, (shape[1], shape[2])
    raise TargetError(f"{target.name}: no layer's output has positions")


def _ran(target: Target, last: bool = False) -> tuple[dict[str, nn.Module], dict[str, tuple[int, ...]]]:
    """All modules by name; and the shapes of the outputs, by name, of those that return a tensor for a black image.

    The latter are in the order in which they first run, or with `last` in that in which they last run; the shapes are those
    of their last run, without the batch.
    """
    network = target.network
    if network is None:
        raise no_gradients(target)
    if network.no_layers:
        raise no_layers(target)
    modules = dict(network.module.named_modules())
    ran: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack, torch.inference_mode():
        for name, module in modules.items():
            if name:
                stack.callback(module.register_forward_hook(partial(_note, name, ran, last)).remove)
        network.module(network.prepare(torch.zeros(1, *target.shape, device=network.device)))
    target.count(1)
    return modules, ran


def _note(name: str, ran: dict[str, tuple[int, ...]], last: bool, _module: nn.Module, _args: object, output: object) -> None:
    if isinstance(output, torch.Tensor):
        if last:
            ran.pop(name, None)
        ran[name] = tuple(output.shape[1:])
