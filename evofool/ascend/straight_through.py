"""Straight-through gradients: the backward pass skips the beginning or the end of the network, or single operations.

Source: backward pass differentiable approximation, BPDA (Athalye, Carlini & Wagner 2018, section 4.1).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from evofool.ascend.approximation import Finish, Forward
from evofool.ascend.hooks import Hooks
from evofool.ascend.operations import StraightOperations
from evofool.targets.classifier import Target
from evofool.targets.gradients import check_gradients
from evofool.targets.photos import patterns
from evofool.targets.replaced_gradient import with_gradient_of

_TRIED = 3  # layers at each end
_COMPARED = 8


class StraightThrough:
    """A backward pass that skips what comes before the layer `start` and what comes after the layer `end` ("": nothing).

    The gradient at the input of `start`, in its first call of a pass, becomes that of the network's input, resized if their
    sizes differ. The gradient of the logits goes to the output of `end`, in its last call of a pass. operations: also skip
    single operations that mask gradients, wherever they are (StraightOperations).
    """

    def __init__(self, start: str = "", end: str = "", operations: bool = False) -> None:
        self.start, self.end, self.operations = start, end, operations

    @contextmanager
    def attached(self, module: nn.Module) -> Iterator[Forward]:
        """As in Approximation; several threads may call the forward pass at the same time."""
        local = threading.local()

        def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            x, local.x = getattr(local, "x", None), None
            if x is None:  # not the first time, or a pass outside of this context
                return None
            return with_gradient_of(args[0], _resized(x, args[0].shape)), *args[1:]

        def leave(_module: nn.Module, _args: object, output: torch.Tensor) -> None:
            local.output = output

        def forward(_images: torch.Tensor, x: torch.Tensor, finish: Finish) -> torch.Tensor:
            local.x, local.output = x, None
            with StraightOperations() if self.operations else nullcontext():
                logits = finish(module(x))
            local.x = None
            output, local.output = local.output, None
            return with_gradient_of(logits, output) if output is not None else logits

        layers = dict(module.named_modules())
        with ExitStack() as hooks:
            if self.start:
                hooks.callback(layers[self.start].register_forward_pre_hook(enter).remove)
            if self.end:
                hooks.callback(layers[self.end].register_forward_hook(leave).remove)
            yield forward


def find_straight_through(target: Target, real: np.ndarray | None = None) -> StraightThrough | None:
    """The first straight-through approximation that has usable gradients (check_gradients); None if none has.

    These are tried: skip what comes after one of the last layers whose output has the shape of the logits; what comes
    before one of the first layers that take images with the target's channels; both; and single operations, provided that
    the logits of some patterns stay the same. Layers that skip less are tried first.
    """
    starts, ends = _layers(target)
    pairs = [*product([""], ends), *product(starts, ["", *ends])]
    tried = [*(StraightThrough(start, end) for start, end in pairs), StraightThrough(operations=True)]
    return next((each for each in tried if _works(each, target, real)), None)


def _works(approximation: StraightThrough, target: Target, real: np.ndarray | None) -> bool:
    """Whether it has usable gradients and, where it changes operations, the target's own logits."""
    try:
        with Hooks(target, approximation=approximation) as hooks:
            if approximation.operations:
                assert target.network is not None
                x = torch.from_numpy(patterns(target.shape, _COMPARED)).to(target.network.device).float() / 255.0
                if not torch.equal(hooks.forward(x).logits.detach(), target.logits_float(x).detach()):
                    return False
            return not check_gradients(target, real, lambda x: hooks.forward(x).logits).fault
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a network that cannot do with floats in place of booleans may raise any error
        if not approximation.operations:
            raise
        return False


def _layers(target: Target) -> tuple[list[str], list[str]]:
    """(names of the first layers that take images, first one first; of the last ones that return logits, last one first)."""
    network = target.network
    assert network is not None
    module, _ = network.gradient_module(target.shape)
    with torch.no_grad():
        x = network.prepare(torch.zeros((1, *target.shape), device=network.device))
    starts, ends = list[str](), list[str]()

    def entered(name: str, args: Sequence[object]) -> None:
        taken = args[0] if args else None
        if isinstance(taken, torch.Tensor) and taken.is_floating_point() and taken.ndim == 4:
            starts.extend([name] * (taken.shape[:2] == x.shape[:2]))

    def left(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.shape == (1, len(target.labels)):
            ends.append(name)

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in module.named_modules():
            if name:
                hooks.callback(layer.register_forward_pre_hook(lambda _m, args, name=name: entered(name, args)).remove)
                hooks.callback(layer.register_forward_hook(lambda _m, _args, output, name=name: left(name, output)).remove)
        module(x)
    target.count(1)
    return list(dict.fromkeys(starts))[:_TRIED], list(dict.fromkeys(reversed(ends)))[:_TRIED]


def _resized(x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return x if x.shape == shape else F.interpolate(x, shape[2:], mode="bilinear", antialias=True).expand(shape)
