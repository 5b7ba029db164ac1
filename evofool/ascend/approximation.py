"""Gradients in place of a network's own: the outputs are the network's, the backward pass goes through an approximation."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

STRAIGHT_THROUGH, SUBSTITUTE = "straight-through", "student"  # as results and cells store them

Finish = Callable[[torch.Tensor], torch.Tensor]
"""A network's output to logits (B, K)."""
Forward = Callable[[torch.Tensor, torch.Tensor, Finish], torch.Tensor]
"""(images (B, C, H, W) on [0, 1], the network's input made from them, finish) -> logits (B, K)."""


@dataclass(frozen=True)
class GradientSource:
    """Which Approximation an attack climbs, in plain values.

    kind: STRAIGHT_THROUGH (StraightThrough: start, end, operations) or SUBSTITUTE (train_substitute: queries).
    """

    kind: str
    start: str = ""
    end: str = ""
    operations: bool = False
    queries: int = 0


class Approximation(Protocol):
    """Where the gradients of a network come from instead."""

    def attached(self, module: nn.Module) -> AbstractContextManager[Forward]:
        """A context with a forward pass of the module, whose logits are its own, and whose gradients are approximate."""
