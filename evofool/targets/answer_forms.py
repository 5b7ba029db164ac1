"""Answers of networks and callables in other forms than (B, K), brought into that form.

A target has two classes or more, whose scores come from one softmax. A single output is the second of two classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

_TINY = 1e-38  # about float32's smallest normal number; stands for a probability of 0
_KEYS = ("logits", "out", "output")  # of a mapping that has the scores


class PlainAnswers(nn.Module):
    """A network whose answer is (B, K), K >= 2, float32.

    single: what its one output is, as two_classes has it; "" if it has more.
    """

    def __init__(self, network: nn.Module, single: str) -> None:
        super().__init__()
        self.network = network
        self._single = single

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = main_part(self.network(x))
        if not isinstance(answer, torch.Tensor):
            return answer
        rows = answer.float().reshape(rows_of(tuple(answer.shape)))
        return two_classes(rows, self._single) if self._single else rows


def main_part(answer: Any) -> Any:
    """The scores of an answer: its `logits`, those of a mapping by one of _KEYS, the first of a tuple; or it as it is."""
    if isinstance(answer, Mapping):
        return next((answer[key] for key in _KEYS if key in answer), answer)
    if not isinstance(answer, torch.Tensor | np.ndarray) and hasattr(answer, "logits"):
        return answer.logits
    if isinstance(answer, tuple) and answer and isinstance(answer[0], torch.Tensor | np.ndarray):
        return answer[0]
    return answer


def rows_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of (B,), (B, K, 1) or (B, K, 1, 1) as one of two axes; any other stays as it is."""
    if len(shape) == 1:
        return (*shape, 1)
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape


def single_output(values: np.ndarray | torch.Tensor, outputs: str) -> str:
    """What one output is, from values (B, 1): "probability" or "logit" of the second class; "" if there are more.

    outputs: "logits" or "probabilities"; if it is "auto", values that all lie within [0, 1] are probabilities.
    """
    if len(values.shape) != 2 or values.shape[1] != 1:
        return ""
    if outputs != "auto":
        return "probability" if outputs == "probabilities" else "logit"
    return "probability" if bool(((values >= 0) & (values <= 1)).all()) else "logit"


def two_classes(values: torch.Tensor, single: str) -> torch.Tensor:
    """Logits (B, 2) of one output (B, 1): its own is the second class's. Differentiable."""
    if single == "logit":
        return torch.cat([torch.zeros_like(values), values], 1)
    return torch.cat([1 - values, values], 1).clamp_min(_TINY).log()


def plain_array(answer: Any) -> Any:
    """What a callable returns as a float32 array, if it is a tensor, a list, or an object with logits; else as it is."""
    answer = main_part(answer)
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().float().cpu().numpy()
    elif isinstance(answer, list):
        try:
            answer = np.asarray(answer, np.float32)
        except (TypeError, ValueError):
            return answer
    return answer.astype(np.float32, copy=False) if isinstance(answer, np.ndarray) else answer


def single_note(single: str, label: str) -> str:
    """What is assumed of a network with one output."""
    return (
        f'its one output is taken for the {single} of the second of two classes, "{label}", and the first one is all that '
        "is not; outputs=logits or outputs=probabilities states which it is"
    )
