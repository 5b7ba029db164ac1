"""A value with the gradient of another one: what a backward pass approximates (BPDA, Athalye, Carlini & Wagner 2018)."""

from typing import Any

import torch


def with_gradient_of(value: torch.Tensor, approximation: torch.Tensor) -> torch.Tensor:
    """`value` to the bit, with the gradient of `approximation`, of the same shape."""
    return _Replaced.apply(value.detach(), approximation.to(value.dtype))


class _Replaced(torch.autograd.Function):
    """The first argument, with the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, approximation: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, gradient
