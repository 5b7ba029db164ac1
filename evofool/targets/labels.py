"""The classes' names: those of ImageNet, what a user means by one, and those that stand for no thing."""

import difflib
from collections.abc import Sequence
from importlib import resources

from evofool.errors import TargetError
from evofool.targets.digits import NOTHING
from evofool.targets.guarded import REJECTED


def imagenet_labels() -> list[str]:
    """The 1000 names of ILSVRC 2012 in class order, no two the same, as torchvision's weights list them."""
    return resources.files("evofool.targets").joinpath("imagenet.txt").read_text(encoding="utf-8").splitlines()


def class_of(text: str, labels: Sequence[str], who: object) -> int:
    """The class of a label or a number; TargetError, naming who was asked and the nearest labels, if there is none."""
    if text in labels:
        return list(labels).index(text)
    if text.isdecimal() and int(text) < len(labels):
        return int(text)
    near = difflib.get_close_matches(text, labels, 3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise TargetError(f"{who}: no class {text}; it has 0 to {len(labels) - 1}, or by label{hint}")


def is_rejection(label: str) -> bool:
    """Whether a class stands for no thing: what a guard rejects, or what a retrained network was taught to call nothing.

    Such a class has no real images, and an image that is called so fools nobody.
    """
    return label in (NOTHING, REJECTED) or label.startswith(f"{REJECTED} by ")
