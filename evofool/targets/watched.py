"""Targets of this process that may change while they are used, such as a callable that queries a service."""

import numpy as np
import torch

from evofool.errors import TargetError
from evofool.targets.classifier import Forward, Target
from evofool.targets.photos import patterns
from evofool.targets.preprocessing import to_logits
from evofool.targets.remote.drift import IMAGES, DriftMonitor, Line, form_of
from evofool.targets.remote.ledger import Ledger


def watch(target: Target) -> None:
    """Treat a target without a network as a black box that may change: from now on known images are asked again.

    A call counts as a request. TargetError for a network, whose weights are hashed.
    """
    if target.network is not None:
        raise TargetError(f"{target.name}: a network of this process is no black box; its weights are hashed instead")
    if target.monitor is None:
        target.wrap(lambda forward: _Watched(target, forward))


class _Watched:
    """The forward function of a target, preceded by a check where one is due."""

    def __init__(self, target: Target, forward: Forward) -> None:
        self._target, self._forward = target, forward
        self._calls = 0
        form = form_of(target.outputs, len(target.labels), None)
        line = Line(target.name, target.labels, self._ask, lambda: self._calls, lambda: form)
        self._monitor = target.monitor = DriftMonitor(Ledger(), line, patterns(target.shape, IMAGES))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self._monitor.before_request()
        raw = self._call(images)
        if raw.shape == (len(images) * self._target.crops, len(self._target.labels)):
            self._monitor.learn(images, self._logits(raw))
        return raw

    def _ask(self, images: np.ndarray) -> np.ndarray:
        self._target.count(len(images))
        return self._logits(self._call(images))

    def _call(self, images: np.ndarray) -> np.ndarray:
        self._calls += 1
        return self._forward(images)

    def _logits(self, raw: np.ndarray) -> np.ndarray:
        return to_logits(torch.from_numpy(raw), self._target.outputs, self._target.crops).numpy()
