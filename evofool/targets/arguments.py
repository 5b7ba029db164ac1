"""Checks of what users pass to a target: each error names the argument, its value, and what it has to be."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.images import shape_fault
from evofool.text import whole_number


def refuse(who: str, argument: str, value: object, wanted: str) -> NoReturn:
    """Raise the TargetError for an argument of the wrong kind."""
    raise TargetError(f"{who}: {argument} is {value!r:.80} ({type(value).__name__}); it has to be {wanted}")


def texts(who: str, labels: Iterable[str] | Mapping[Any, str]) -> tuple[str, ...]:
    """The labels as a tuple; TargetError unless they are a list of texts, or a mapping from the numbers 0 to K - 1 to texts.

    The numbers may be texts, as in the id2label of a JSON file.
    """
    if isinstance(labels, Mapping):
        by_id = {whole_number(str(key)): label for key, label in labels.items()}
        if by_id.keys() != set(range(len(labels))):
            shown = ", ".join(map(repr, list(labels)[:5]))
            raise TargetError(f"{who}: labels by number need the numbers 0 to {len(labels) - 1}; they have {shown}")
        labels = [by_id[c] for c in range(len(labels))]
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        refuse(who, "labels", labels, "a list of texts")
    found = tuple(labels)
    for k, label in enumerate(found):
        if not isinstance(label, str):
            refuse(who, f"label {k}", label, "a text")
    return found


def label_names(who: str, labels: Iterable[str]) -> tuple[str, ...]:
    """The labels as a tuple; TargetError unless they are at least two different printable texts."""
    found = texts(who, labels)
    for label in found:
        if not label.isprintable():  # a terminal may interpret it
            raise TargetError(f"{who}: the label {label!r} has characters that cannot be printed")
    if len(found) < 2 or len(set(found)) != len(found):
        raise TargetError(f"{who}: labels have to be at least two different names, not {found[:12]}")
    return found


def image_shape(who: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape (C, H, W) as whole numbers of Python; TargetError for any that no image can have."""
    try:
        sides = tuple(operator.index(side) for side in shape)
    except TypeError:
        refuse(who, "shape", shape, "(1 or 3, H, W) in whole numbers")
    if fault := shape_fault(sides):
        raise TargetError(f"{who}: {fault}")
    channels, height, width = sides
    return channels, height, width


def pixel_images(who: str, images: object, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 images (B, *shape), B >= 1, without negative strides, which torch does not take; TargetError for others."""
    wanted = f"takes uint8 images (B, {', '.join(map(str, shape))})"
    if not isinstance(images, np.ndarray):
        hint = "; pass image[None] for one image" if isinstance(images, torch.Tensor) and images.ndim == 3 else ""
        raise TargetError(f"{who}: {wanted} as a NumPy array, not a {type(images).__name__}{hint}")
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        hint = "; pass image[None] for one image" if images.shape == shape else ""
        raise TargetError(f"{who}: {wanted}, not {images.dtype} {images.shape}{hint}")
    return images if all(stride >= 0 for stride in images.strides) else np.ascontiguousarray(images)


def float_images(who: str, images: Any, shape: tuple[int, int, int]) -> torch.Tensor:
    """A torch tensor of floats (B, C, H, W), B >= 1, C as in shape; TargetError for anything else."""
    wanted = f"takes float images (B, {shape[0]}, H, W) on [0, 1]"
    if not isinstance(images, torch.Tensor):
        raise TargetError(f"{who}: {wanted} as a torch tensor, not a {type(images).__name__}")
    if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != shape[0] or not len(images):
        raise TargetError(f"{who}: {wanted}, not {images.dtype} {tuple(images.shape)}")
    return images
