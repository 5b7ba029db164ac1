"""What a network's layers answer: hooks on the named ones alone, gone when the call is over."""

import difflib
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import nn

from evofool.errors import TargetError
from evofool.targets.preprocessing import to_logits
from evofool.targets.target import Target


class _Stop(Exception):
    """The deepest layer that was asked for has answered."""


class Read:
    """One forward pass, read: the logits, if the pass went so far, and what the named layers answered."""

    def __init__(self, logits: torch.Tensor | None, layers: dict[str, torch.Tensor]) -> None:
        self._logits, self._layers = logits, layers

    @property
    def logits(self) -> torch.Tensor:
        """(B, K) float32."""
        assert self._logits is not None, "the forward pass was stopped before the logits: ask for them by logits=True"
        return self._logits

    def layer(self, name: str) -> torch.Tensor:
        """(B, ...) what the layer answered when it last ran; with several crops (B * crops, ...), those of an image
        neighbours."""
        return self._layers[name]


class Hooks:
    """A context in which the target's network is read at the named layers, with gradients.

    read(images) takes float images (B, C, H, W) on [0, 1], of any size that the layers take, and counts B queries. Without
    logits the pass stops at the deepest named layer. Several threads may read at once; hooks are this context's alone, so
    two contexts do not disturb each other, and none is left when it closes. One image, a black one, is read to find out
    which layer runs last. TargetError for a black box, and for a layer that is not there or takes no part.
    """

    def __init__(self, target: Target, layers: Sequence[str] = (), logits: bool = True) -> None:
        network = target.network
        if network is None:
            raise refused(target)
        self._target, self._network = target, network
        self._names, self._wants_logits = tuple(dict.fromkeys(layers)), logits
        self._module, fused = network.gradient_module(target.shape)
        if fused & set(self._names):
            self._module = network.module
        modules = dict(self._module.named_modules())
        for name in self._names:
            if not name or name not in modules:
                raise unknown_layer(target, name)
        self._modules: dict[str, nn.Module] = {name: modules[name] for name in self._names}
        self._local = threading.local()
        self._hooks = ExitStack()
        self._last: tuple[str, int] | None = None  # the layer that the pass stops at, and at which of its runs

    def __enter__(self) -> "Hooks":
        for name, module in self._modules.items():
            self._hooks.callback(module.register_forward_hook(self._hook(name)).remove)
        try:
            if self._names:
                self._look()
        except BaseException:
            self._hooks.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.close()

    def read(self, images: torch.Tensor) -> Read:
        target, network = self._target, self._network
        self._local.runs, self._local.kept = [], {}
        raw: torch.Tensor | None = None
        try:
            x = network.prepare(images.to(network.device) * 255.0)
            if self._module is not network.module:
                x = x.contiguous(memory_format=torch.channels_last)
            raw = self._module(x)
        except _Stop:
            pass
        finally:
            kept, self._local.kept, self._local.runs = self._local.kept, None, None
        target.count(len(images))
        logits = None if raw is None else to_logits(raw.float(), target.outputs, target.crops)
        return Read(logits, kept)

    def _look(self) -> None:
        with torch.no_grad():
            self._local.runs, self._local.kept = [], {}
            shape = (1, *self._target.shape)
            self._module(self._network.prepare(torch.zeros(shape, device=self._network.device)))
            self._target.count(1)
            runs, self._local.runs, self._local.kept = self._local.runs, None, None
        for name in self._names:
            if name not in runs:
                raise TargetError(f'{self._target.name}: layer "{name}" takes no part in the network\'s answer')
        if not self._wants_logits:
            self._last = (runs[-1], runs.count(runs[-1]))

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def keep(_module: nn.Module, _args: object, output: object) -> None:
            runs = getattr(self._local, "runs", None)
            if runs is None:  # somebody else's pass through the same network
                return
            if not isinstance(output, torch.Tensor):
                raise TargetError(f'{self._target.name}: layer "{name}" answers a {type(output).__name__}, no tensor')
            runs.append(name)
            stop = self._last == (name, runs.count(name))
            # A copy, since a later layer may work in place.
            self._local.kept[name] = output if stop else output.clone()
            if stop:
                raise _Stop

        return keep


def layer_names(target: Target) -> list[str]:
    """The names that Hooks takes, as torch's named_modules() has them; none of a black box."""
    return [] if target.network is None else [name for name, _ in target.network.module.named_modules() if name]


def unknown_layer(target: Target, name: str) -> TargetError:
    """The error for a layer that is not there, with the nearest names."""
    names = layer_names(target)
    near = difflib.get_close_matches(name, names, 5, 0.4) or names[:12]
    return TargetError(f'{target.name}: no layer "{name}"; there are {len(names)}, the nearest {", ".join(near)}')


def refused(target: Target) -> TargetError:
    """The error for a target without gradients: what it can still be asked."""
    return TargetError(
        f"{target.name}: it has neither gradients nor layers. Black-box rivals need none (evofool baseline square, nes, "
        "random), nor does occlusion (evofool explain)"
    )
