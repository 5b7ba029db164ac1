"""Leaky gradients of ReLUs: where a ReLU is inactive or at its bound, a share of the gradient passes on all the same.

A unit that should respond and does not has no gradient, so an ascent cannot activate it. The backward pass of leaky ReLUs
(Maas, Hannun & Ng 2013) lets it; a leak that falls to 0 leaves the exact gradient at the end.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from evofool.ascend.approximation import Finish, Forward

_RELUS = frozenset({"relu", "relu6", "hardtanh"})


class LeakyGradients:
    """An Approximation whose outputs are the network's, and whose ReLUs pass on the share `leak`, from 0 to 1, of the
    gradient where their output is not their input.

    leak may be changed between passes; at 0 gradients are exact. ReLU, ReLU6 and Hardtanh are changed, as modules and as
    functions; torch.relu_ and compiled networks are not.
    """

    def __init__(self, leak: float) -> None:
        self.leak = leak

    @contextmanager
    def attached(self, module: nn.Module) -> Iterator[Forward]:
        """As in Approximation; several threads may call the forward pass at the same time."""

        def forward(_images: torch.Tensor, x: torch.Tensor, finish: Finish) -> torch.Tensor:
            if not self.leak:
                return finish(module(x))
            with _LeakyMode(self.leak):
                return finish(module(x))

        yield forward


class _LeakyMode(TorchFunctionMode):
    def __init__(self, leak: float) -> None:
        super().__init__()
        self._leak = leak

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        x = args[0] if args else None
        if getattr(func, "__name__", "") not in _RELUS or not isinstance(x, torch.Tensor) or not x.requires_grad:
            return func(*args, **kwargs)
        before = x.detach()
        if not kwargs.get("inplace"):
            value = func(before, *args[1:], **kwargs)
            return _Leaking.apply(x, value, value == before, self._leak)
        value = func(before.clone(), *args[1:], **kwargs)
        passes = value == before
        before.copy_(value)  # a network may use the input that it has changed
        return _Leaking.apply(x, value, passes, self._leak)


class _Leaking(torch.autograd.Function):
    """The second argument, with the gradient of the first: whole where `passes`, else the share `leak`."""

    @staticmethod
    def forward(ctx: Any, _x: torch.Tensor, value: torch.Tensor, passes: torch.Tensor, leak: float) -> torch.Tensor:
        ctx.save_for_backward(passes)
        ctx.leak = leak
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (passes,) = ctx.saved_tensors
        return torch.where(passes, gradient, gradient * ctx.leak), None, None, None
