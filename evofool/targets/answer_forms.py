"""Answers of networks and callables in other forms than (B, K), brought into that form.

A target has two classes or more, whose scores come from one softmax, or from a sigmoid each where labels do not exclude each
other (multi-label). A single output is the second of two classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from evofool.targets.arguments import texts
from evofool.targets.preprocessing import TINY

_SHOWN = 8  # images of rectangles
_SURE = 0.02  # a sigmoid that is trained is as near to 0 or 1 for some image
_STEPS = (*(10.0**-d for d in range(1, 6)), 1 / 255, 1 / 256, 1 / 32768, 1 / 65535, 1 / 65536)  # of rounded probabilities
_KEYS = ("logits", "out", "output")  # of a mapping that has the scores

_Forward = Callable[[np.ndarray], np.ndarray]


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

    outputs: one of classifier.OUTPUTS; if it is "auto", values that all lie within [0, 1] are probabilities.
    """
    if len(values.shape) != 2 or values.shape[1] != 1:
        return ""
    if outputs != "auto":
        return "probability" if outputs.endswith("probabilities") else "logit"
    return "probability" if bool(((values >= 0) & (values <= 1)).all()) else "logit"


def are_sigmoids(values: np.ndarray) -> bool:
    """Whether answers (B, K) to noise are plainly probabilities of labels that do not exclude each other.

    They lie in [0, 1] and are not all equal, and some row sums to another number than 1, by more than rounding explains.
    Zeros among numbers that are not rounded come from a ReLU, as SqueezeNet ends with one.
    """
    if not ((values >= 0) & (values <= 1)).all() or np.ptp(values) == 0:
        return False
    step = _step(values)
    if not step and (values == 0).any():
        return False
    return bool((np.abs(values.sum(axis=1) - 1) > 0.02 + step / 2 * values.shape[1]).any())


def softmax_step(values: np.ndarray) -> float:
    """The step to which answers (B, K), probabilities of one softmax, were plainly rounded; 0 if they were not, or are none.

    They are multiples of a step (decimals, or 8 or 16 bits), and each row sums to 1 within half a step for each class.
    """
    if not ((values >= 0) & (values <= 1)).all() or (values.max(axis=1) == 0).any():
        return 0.0
    step = _step(values)
    within = np.abs(values.sum(axis=1) - 1) <= step / 2 * values.shape[1] + 1e-6
    return step if within.all() else 0.0


def of_steps(p: np.ndarray, step: float) -> np.ndarray:
    """Probabilities (B, K) rounded to a step as float32 probabilities with a sum of 1: zeros share half a step."""
    zeros = p <= 0
    share = step / 2 / np.maximum(zeros.sum(axis=1, keepdims=True), 1)
    p = np.where(zeros, share, p)
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def steps_note(step: float, divided: bool = True) -> str:
    """What rounding to a step means for scores. divided: whether they are as of_steps makes them."""
    half = step / 2
    note = (
        f"its probabilities are in steps of 1/{round(1 / step)}: confidences above "
        f"{1 - half:.{math.floor(-math.log10(step)) + 1}f} cannot be distinguished from 1"
    )
    if divided:
        limit = math.log((1 - half) / half)
        note += f", log-odds are limited to +-{limit:.1f}, and classes with probability 0 share half a step"
    return note


def _step(values: np.ndarray) -> float:
    """The first of _STEPS of which all are multiples, up to float32's rounding; 0 if there is none."""
    exact = values.astype(np.float64)
    return next((step for step in _STEPS if (np.abs(exact - np.round(exact / step) * step) <= 1e-7).all()), 0.0)


def two_classes(values: torch.Tensor, single: str) -> torch.Tensor:
    """Logits (B, 2) of one output (B, 1): its own is the second class's. Differentiable."""
    if single == "logit":
        return torch.cat([torch.zeros_like(values), values], 1)
    return torch.cat([1 - values, values], 1).clamp_min(TINY).log()


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


def sigmoids_note(outputs: str, stated: bool) -> str:
    """What scores mean for a target of kind `outputs`, multi-label; and that this was inferred, unless it was stated."""
    said = (
        "its labels do not exclude each other: an image's score for a label is the label's own log-odds, a confidence is "
        "the label's own sigmoid, and several labels may have a high one"
    )
    if outputs == "multilabel-probabilities":
        said += "; log-odds end at 16.6, where a float32 probability reaches 1"
    if not stated:
        said += (
            ". This is taken from its answers to noise, which lie between 0 and 1 and do not sum to 1; "
            "outputs=multilabel-probabilities states it, and outputs=logits says that they are logits of one softmax"
        )
    return said


def two_labels(name: str, labels: Sequence[str] | None) -> list[str]:
    """The labels of two classes; of one label, for the second one, the first is all that is not."""
    found = ["0", "1"] if labels is None else list(texts(name, labels))
    return [f"not {found[0]}", found[0]] if len(found) == 1 else found


def reform_of(answer: object, outputs: str) -> tuple[_Forward | None, str]:
    """What brings answers like this one into the form (B, K), None if they have it; and what a single output is."""
    if not isinstance(answer, np.ndarray) or answer.ndim == 0:
        return None, ""
    rows = rows_of(answer.shape)
    single = single_output(answer.reshape(rows), outputs)
    if not single and rows == answer.shape:
        return None, ""

    def reform(values: np.ndarray) -> np.ndarray:
        found = values.reshape(rows_of(values.shape))
        return two_classes(torch.from_numpy(np.ascontiguousarray(found)), single).numpy() if single else found

    return reform, single


def inferred_outputs(answer: np.ndarray, is_p: bool, forward: _Forward, shape: tuple[int, int, int]) -> str:
    """What answers (B, K) to noise are: "probabilities" (is_p: rows sum to 1), "multilabel-probabilities" or "logits".

    Sigmoids may be saturated by noise, and by chance one label is as good as certain for all of it; and small logits may all
    lie in [0, 1]. So other images are asked where it may be so, and sigmoids have to be sure of something.
    """
    kind = "probabilities" if is_p else "logits"
    saturated = is_p and bool((answer.max(axis=1) > 0.99).all())
    if not saturated and not are_sigmoids(answer):
        return kind
    seen = np.concatenate([answer, forward(_rectangles(shape))])
    sure = bool(((seen < _SURE) | (seen > 1 - _SURE)).any())
    return "multilabel-probabilities" if sure and are_sigmoids(seen) else kind


def _rectangles(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (_SHOWN, C, H, W): bright rectangles on dark grounds, from one to as many as there are images."""
    draw, (channels, height, width) = np.random.default_rng(1), shape
    images = np.empty((_SHOWN, *shape), np.uint8)
    for k, image in enumerate(images):
        image[:] = draw.integers(0, 64, (channels, 1, 1))
        for _ in range(k + 1):
            top, left = draw.integers(0, height), draw.integers(0, width)
            rows, columns = (slice(at, at + max(1, side // 4)) for at, side in ((top, height), (left, width)))
            image[:, rows, columns] = draw.integers(128, 256, (channels, 1, 1))
    return images
