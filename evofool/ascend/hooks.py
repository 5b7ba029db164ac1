"""Read a network's layers through forward hooks, which are registered on the named layers only and removed afterwards."""

import difflib
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import nn

from evofool.ascend.approximation import Approximation, Forward
from evofool.errors import TargetError
from evofool.targets.classifier import Target


class _Stop(Exception):
    """The deepest layer that is needed has been reached."""


class ForwardPass:
    """The outputs of one forward pass: those of the named layers, and the logits if the pass went that far.

    multilabel: of the target: whether each logit is that of a sigmoid.
    """

    def __init__(self, logits: torch.Tensor | None, layers: dict[str, torch.Tensor], multilabel: bool = False) -> None:
        self._logits, self._layers, self.multilabel = logits, layers, multilabel

    @property
    def logits(self) -> torch.Tensor:
        """(B, K) float32."""
        assert self._logits is not None, "the forward pass stopped before the logits; pass logits=True"
        return self._logits

    def layer(self, name: str) -> torch.Tensor:
        """(B, ...): the layer's output when it last ran. With several crops (B * crops, ...), an image's crops in a row."""
        return self._layers[name]


class Hooks:
    """A context in which forward(images) returns the outputs of the named layers, with gradients.

    Without logits the pass stops at the deepest named layer. Several threads may call forward at the same time, and several
    contexts may be open at once. All hooks are removed when the context closes. Entering it takes one query, a black image,
    to find out which layer runs last. TargetError for a black box, and for a layer that does not exist or is not used.

    approximation: where the gradients of the logits come from instead of the network; the logits stay the same.
    """

    def __init__(
        self,
        target: Target,
        layers: Sequence[str] = (),
        logits: bool = True,
        approximation: Approximation | None = None,
    ) -> None:
        network = target.network
        if network is None:
            raise no_gradients(target)
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
        self._approximation = approximation
        self._approximate: Forward | None = None

    def __enter__(self) -> "Hooks":
        for name, module in self._modules.items():
            self._hooks.callback(module.register_forward_hook(self._hook(name)).remove)
        try:
            if self._names:
                self._find_last_layer()
            if self._approximation is not None:
                self._approximate = self._hooks.enter_context(self._approximation.attached(self._module))
        except BaseException:
            self._hooks.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.close()

    def forward(self, images: torch.Tensor) -> ForwardPass:
        """One pass of float images (B, C, H, W) on [0, 1], of any size that the layers accept; counts B queries."""
        target, network = self._target, self._network
        self._local.runs, self._local.kept = [], {}
        logits: torch.Tensor | None = None
        try:
            x = network.prepare(images.to(network.device) * 255.0)
            if self._module is not network.module:
                x = x.contiguous(memory_format=torch.channels_last)
            logits = (
                self._finish(self._module(x)) if self._approximate is None else self._approximate(images, x, self._finish)
            )
        except _Stop:
            pass
        finally:
            kept, self._local.kept, self._local.runs = self._local.kept, None, None
        target.count(len(images))
        return ForwardPass(logits, kept, target.multilabel)

    def _finish(self, raw: torch.Tensor) -> torch.Tensor:
        return self._target.combined(raw.float())

    def _find_last_layer(self) -> None:
        with torch.no_grad():
            self._local.runs, self._local.kept = [], {}
            shape = (1, *self._target.shape)
            self._module(self._network.prepare(torch.zeros(shape, device=self._network.device)))
            self._target.count(1)
            runs, self._local.runs, self._local.kept = self._local.runs, None, None
        for name in self._names:
            if name not in runs:
                raise TargetError(f'{self._target.name}: layer "{name}" is not used in the network\'s forward pass')
        if not self._wants_logits:
            self._last = (runs[-1], runs.count(runs[-1]))

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def keep(_module: nn.Module, _args: object, output: object) -> None:
            runs = getattr(self._local, "runs", None)
            if runs is None:  # a pass outside of this context
                return
            if not isinstance(output, torch.Tensor):
                raise TargetError(f'{self._target.name}: layer "{name}" returns a {type(output).__name__}, not a tensor')
            runs.append(name)
            stop = self._last == (name, runs.count(name))
            # A copy, since a later layer may work in place.
            self._local.kept[name] = output if stop else output.clone()
            if stop:
                raise _Stop

        return keep


def layer_names(target: Target) -> list[str]:
    """The layer names that Hooks accepts, as in torch's named_modules(); [] for a black box."""
    return [] if target.network is None else [name for name, _ in target.network.module.named_modules() if name]


def unknown_layer(target: Target, name: str) -> TargetError:
    """The error for a layer that does not exist, with the most similar names."""
    if target.network is not None and target.network.no_layers:
        return no_layers(target)
    names = layer_names(target)
    near = difflib.get_close_matches(name, names, 5, 0.4) or names[:12]
    return TargetError(
        f'{target.name}: no layer "{name}"; there are {len(names)}, the nearest {", ".join(near)}. '
        "`evofool targets show SPEC --layers` lists them"
    )


def no_layers(target: Target) -> TargetError:
    """The error for a network with gradients whose layers cannot be read."""
    assert target.network is not None
    return TargetError(f"{target.name}: its layers cannot be read: {target.network.no_layers}")


def no_gradients(target: Target) -> TargetError:
    """The error for a target without gradients, with what can be used instead."""
    return TargetError(
        f"{target.name}: it has neither gradients nor layers. Use a black-box attack (evofool baseline square, nes, random) "
        "or occlusion (evofool explain)"
    )
