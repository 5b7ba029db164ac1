"""Classifiers by name: `target("lenet")`, `target("lenet-caffe?weights=FILE")`."""

import difflib
import inspect
from collections.abc import Callable
from urllib.parse import parse_qsl

from evofool.errors import TargetError
from evofool.targets.lenet import lenet, lenet_caffe
from evofool.targets.target import Preprocessing, Target

__all__ = ["Preprocessing", "Target", "target"]

TARGETS: dict[str, Callable[..., Target]] = {"lenet": lenet, "lenet-caffe": lenet_caffe}


def target(spec: str) -> Target:
    """The classifier that a spec names: NAME or NAME?option=value&option=value. TargetError says what there is."""
    name, _, query = spec.partition("?")
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise TargetError(f'no target is called "{name}"; there are {", ".join(TARGETS)}{hint}')
    # A plain "+" in a file's name must stay one, so only % escapes are undone.
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    allowed = inspect.signature(TARGETS[name]).parameters
    for option in options:
        if option not in allowed:
            raise TargetError(f'{name}: no option "{option}"; there are {", ".join(allowed)}')
    return TARGETS[name](**options)
