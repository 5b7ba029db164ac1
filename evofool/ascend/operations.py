"""Operations that mask gradients, with those of the identity instead: a mode for a forward pass that is written in Python.

Source: the straight-through estimator (Bengio, Leonard & Courville 2013).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from evofool.targets.replaced_gradient import with_gradient_of

_STEPS = frozenset({"round", "floor", "ceil", "trunc", "fix", "sign", "sgn"})
_CASTS = frozenset({"to", "type", "int", "long", "short", "byte", "char", "bool"})
_RISING, _FALLING = frozenset({"gt", "ge", "greater", "greater_equal"}), frozenset({"lt", "le", "less", "less_equal"})


class StraightOperations(TorchFunctionMode):
    """Within it, rounding, signs, comparisons, casts to integers and detach pass gradients on, and no_grad does nothing.

    The values stay the same, but those of comparisons and casts are floats, so that a network which counts or indexes with
    them may fail or answer differently. Operations in place and compiled networks are not changed.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            return None
        x = args[0] if args else None
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return func(*args, **(kwargs or {}))
        if name == "detach":
            return x
        found = func(*args, **(kwargs or {}))
        if not isinstance(found, torch.Tensor):
            return found
        if name in _STEPS or (name in _CASTS and not found.is_floating_point()):
            return with_gradient_of(found.to(x.dtype), x)
        if name in _RISING:
            return with_gradient_of(found.to(x.dtype), x - args[1])
        if name in _FALLING:
            return with_gradient_of(found.to(x.dtype), args[1] - x)
        return found
