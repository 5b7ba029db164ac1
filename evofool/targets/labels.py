"""Names of classes: ImageNet's labels, classes by label or number, and rejection classes."""

import difflib
from collections.abc import Sequence
from importlib import resources

import numpy as np

from evofool.errors import TargetError
from evofool.targets.digits import NOTHING
from evofool.targets.guarded import REJECTED
from evofool.text import whole_number


def imagenet_labels() -> list[str]:
    """The 1000 names of ILSVRC 2012 in class order, all different, as in torchvision's weights."""
    return resources.files("evofool.targets").joinpath("imagenet.txt").read_text(encoding="utf-8").splitlines()


def class_of(text: str, labels: Sequence[str], who: object) -> int:
    """The class of a label or a number; TargetError, naming `who` and the nearest labels, if there is none."""
    if text in labels:
        return list(labels).index(text)
    number = whole_number(text)
    if number is not None and number < len(labels):
        return number
    # Numbers that look similar are not what a number out of range was meant to be.
    near = [] if text.lstrip("-").isdecimal() else difflib.get_close_matches(text, labels, 3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise TargetError(f"{who}: no class {text}; its classes are 0 to {len(labels) - 1}, by number or by label{hint}")


def matching_classes(labels: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """(K,) int64: for each class with one of `labels` the class of another target: the same number if all labels are equal,
    else the class with the same label; -1 for none."""
    if list(labels) == list(others):
        return np.arange(len(labels))
    number = {label: c for c, label in enumerate(others)}
    return np.array([number.get(label, -1) for label in labels], np.int64)


def is_rejection(label: str) -> bool:
    """Whether a class is a rejection class: a guard's "rejected", or a retrained network's class of fooling images.

    Such a class has no real images, and an image in it does not fool the classifier.
    """
    return label in (NOTHING, REJECTED) or label.startswith(f"{REJECTED} by ")
