"""A user's network, returned by a function: python:package.module:factory."""

import difflib
import hashlib
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from evofool.errors import TargetError
from evofool.targets.answer_forms import plain_array
from evofool.targets.arguments import texts
from evofool.targets.classifier import Forward, Target
from evofool.targets.kinds import OUTER
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec, data
from evofool.targets.watched import watch

_FLOAT_OPTIONS = ("scale", "mean", "std", "order", "invert", "transpose", "crops")
"""Options with which a callable gets floats in place of uint8."""


def load(spec: Spec) -> Target:
    """python:package.module:factory: what factory() returns; imported from the current folder first, as by `python -m`.

    A torch module takes float (B, C, H, W), pixel / 255 unless options say otherwise. Any other callable takes uint8
    (B, C, H, W) as NumPy, or floats if scale, mean, std, order, invert, transpose or crops is given, and returns (B, K); it
    may be called by several threads at once. Either may have `shape` = (C, H, W) and `labels`, also by number; else size= is
    needed, and channels= unless 3.
    A Target is used as it is, without options. Only name code that you trust: it is executed.

    timeout=20: a callable, or a Target without a network, is called in a helper process (HelperTarget), at most 20 seconds
    for each batch. black_box=yes: it may change while it is used, and known images are asked again (watched.watch).
    """
    declared = spec.flag("black_box")
    seconds = spec.number("timeout", math.inf)
    if "timeout" in spec.options and not 0 < seconds < math.inf:
        raise TargetError(f"{spec.head}: timeout is {spec.options['timeout']}; it has to be a number of seconds above 0")
    if "timeout" in spec.options:
        from evofool.targets.helper import HelperTarget

        found: Target = HelperTarget(spec, seconds)
    else:
        found = _loaded(spec)
    if declared:
        watch(found)
    return found


def _loaded(spec: Spec) -> Target:
    module, factory = _factory(spec)
    call = spec.name.partition(":")[2] + "()"
    made = _run(factory, f"{spec.head}: {call}")
    if isinstance(made, Target):
        if options := [option for option in spec.options if option not in ("black_box", *OUTER)]:
            raise TargetError(
                f"{spec.head}: {call} returns a Target, which is used as it is; set {', '.join(options)} there"
            )
        made.name, made.set_in_code = spec.text, True
        return made
    if not callable(made) and hasattr(made, "predict_proba"):
        made = _Estimator(made)
    if not callable(made):
        raise TargetError(
            f"{spec.head}: {call} returns a {type(made).__name__}; it has to return a torch module, "
            "a callable on uint8 images (B, C, H, W), or a Target"
        )
    channels, size = _shape(made, spec)
    floats = isinstance(made, nn.Module) or any(option in spec.options for option in _FLOAT_OPTIONS)
    preprocessing, size = spec.preprocessing(Preprocessing(scale=1 / 255 if floats else 1.0), size)
    details = data(file=getattr(module, "__file__", None), source_sha256=_source(module))
    labels, shape = spec.labels(_labels(made, spec)), (channels, *size)
    if isinstance(made, nn.Module):
        return Target.from_module(made, labels, shape, preprocessing, spec.text, spec.device, spec.outputs, details)
    details |= {"backend": f"python {sys.version.split()[0]}", "factory": spec.name}
    found = Target.probed(
        spec.text, _forward(made, preprocessing if floats else None), labels, shape, preprocessing, spec.outputs, details
    )
    # Preprocessing() with scale 1 leaves pixels as they are: then it may take uint8 alone.
    whole = Preprocessing(scale=1.0)
    found.set_refed(lambda other: _forward(made, None if not floats and other.same_input(whole) else other))
    return found


def _factory(spec: Spec) -> tuple[ModuleType, Callable[[], Any]]:
    module_name, _, name = spec.name.partition(":")
    if not module_name or not name:
        raise TargetError(f"{spec.head}: write python:package.module:factory, a function that returns the network")
    # Not removed again, since the code may import further modules later.
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise TargetError(
                f"{spec.head}: there is no module {error.name}, neither in {os.getcwd()} nor installed"
            ) from None
        raise _raised(f"{spec.head}: importing {module_name}", error) from error
    except (Exception, SystemExit) as error:
        raise _raised(f"{spec.head}: importing {module_name}", error) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        near = difflib.get_close_matches(name, [n for n in dir(module) if callable(getattr(module, n))], 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise TargetError(f'{spec.head}: {module_name} has no function "{name}"{hint}')
    return module, factory


def _run(factory: Callable[[], Any], call: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise _raised(call, error) from error


def _raised(action: str, error: BaseException) -> TargetError:
    return TargetError(f"{action} raises {type(error).__name__}: {str(error)[:300]}")


def _shape(made: Any, spec: Spec) -> tuple[int, tuple[int, int]]:
    """Channels, (height, width): from options, else from the object's shape."""
    shape = getattr(made, "shape", None)
    if shape is None:
        return spec.whole("channels", 3) or 3, spec.side()
    try:
        channels, height, width = (int(side) for side in shape)
    except (TypeError, ValueError):
        raise TargetError(f"{spec.head}: its shape is {shape!r}; it has to be (C, H, W)") from None
    return spec.whole("channels", channels) or channels, spec.side((height, width))


def _labels(made: Any, spec: Spec) -> list[str] | None:
    labels = getattr(made, "labels", None)
    if labels is not None and (isinstance(labels, str) or not isinstance(labels, Iterable)):
        raise TargetError(
            f"{spec.head}: its labels are {labels!r}; they have to be a list of names, or a mapping from numbers"
        )
    if isinstance(labels, Mapping):
        return list(texts(spec.head, {key: str(label) for key, label in labels.items()}))
    return None if labels is None else [str(label) for label in labels]


def _forward(made: Callable[[np.ndarray], Any], preprocessing: Preprocessing | None) -> Forward:
    prepare = preprocessing.affine() if preprocessing else None

    def forward(pixels: np.ndarray) -> np.ndarray:
        # A copy, since the callable may write to its argument.
        images = prepare(torch.from_numpy(pixels).float()).numpy() if prepare else pixels.copy()
        answer = plain_array(made(images))
        if not isinstance(answer, np.ndarray):
            raise TargetError(f"it returns a {type(answer).__name__}; it has to return an array of scores (images, classes)")
        # JAX's arrays cannot be written to, of which torch warns.
        return answer if answer.flags.writeable else answer.copy()

    return forward


class _Estimator:
    """A fitted classifier of scikit-learn as a callable: pixels as rows of features, in the order (C, H, W)."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self.shape = getattr(estimator, "shape", None)
        classes = getattr(estimator, "labels", getattr(estimator, "classes_", None))
        self.labels = None if classes is None else [str(each) for each in classes]

    def __call__(self, images: np.ndarray) -> Any:
        return self._estimator.predict_proba(images.reshape(len(images), -1))


@cache
def _source(module: ModuleType) -> str | None:
    """SHA-256 of the factory's file, so that a change is noticed; files that it imports are not included.

    Computed once, since the imported code keeps running when the file changes.
    """
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
