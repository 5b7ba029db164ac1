"""A classifier behind a detector, as a classifier with one more class: what the detector rejects is called "rejected".

The detector's score is then part of every margin, and an ordinary search is the adaptive attack on both (Carlini & Wagner
2017, "Adversarial examples are not easily detected"; arXiv 2209.15246).
"""

import copy
import hashlib
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from evofool.errors import TargetError
from evofool.targets.preprocessing import Preprocessing, to_logits
from evofool.targets.spec import Spec
from evofool.targets.target import Target
from evofool.targets.weights import read_file

REJECTED = "rejected"
SHAPES = {"middle": ("D",), "project": ("D", "R"), "means": ("C", "R"), "precision": ("R", "R")}
"""The tensors of "mahalanobis": float32. The other detectors have none."""
_FORMAT = "evofool.guard/1"
_NUMBERS = ("threshold", "median", "scale", "temperature")


@dataclass(frozen=True)
class DetectorRule:
    """A fitted detector, as numbers.

    detector: "msp", "max-logit", "energy" or "mahalanobis". threshold: what 95% of real images do not exceed, median: what
    half of them do not, both of `suspicion`. scale: the unit of the base's margins; temperature: fitted to its logits in
    that unit, or 1. layer: whose input mahalanobis looks at, a name of the base network's modules; tensors: what it looks
    with.
    """

    detector: str
    threshold: float
    median: float
    scale: float
    temperature: float
    layer: str = ""
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        wanted = SHAPES if self.detector == "mahalanobis" else {}
        if self.detector not in DETECTORS:
            raise TargetError(f'there is no detector "{self.detector}"; there are {", ".join(DETECTORS)}')
        if not all(map(math.isfinite, numbers.values())) or min(self.scale, self.temperature) <= 0:
            raise TargetError(
                f"{self.detector}: its numbers have to be finite, scale and temperature above 0, not {numbers}"
            )
        if not self.threshold > self.median:
            raise TargetError(
                f"{self.detector}: 95% of the real images are as suspicious as half of them ({self.threshold} and "
                f"{self.median}): it tells nothing apart on this target"
            )
        if self.tensors.keys() != wanted.keys() or bool(self.layer) != bool(wanted):
            raise TargetError(
                f"{self.detector}: has the tensors {sorted(self.tensors)} and the layer {self.layer!r}; it needs "
                + (f"{sorted(wanted)}, and a layer" if wanted else "none of either")
            )
        sides: dict[str, int] = {}
        for name, axes in wanted.items():
            tensor = self.tensors[name]
            known = len(axes) == tensor.dim() and all(
                sides.setdefault(a, n) == n for a, n in zip(axes, tensor.shape, strict=True)
            )
            if not known or tensor.dtype != torch.float32 or not tensor.isfinite().all() or not tensor.numel():
                raise TargetError(
                    f"{self.detector}: {name} is {tensor.dtype} {tuple(tensor.shape)}; it has to be finite float32 "
                    f"({', '.join(axes)})"
                )

    def inside(self, z: torch.Tensor, features: torch.Tensor | None, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B,): how far each image is inside the threshold. 1 for the median real image, 0 at the threshold, below 0 beyond.

        z: the base's logits (B, K) divided by scale.
        """
        score = suspicion(self.detector, z / self.temperature, features, tensors)
        return (self.threshold - score) / (self.threshold - self.median)

    def guard(self, z: torch.Tensor, features: torch.Tensor | None, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The base's logits (B, K) and the layer's input (B, D) to the guarded logits (B, K + 1): z / scale, and of
        "rejected" the highest of them less `inside`. A called class's margin is the lower of its own one and `inside`.
        """
        z = z / self.scale
        rejected = z.amax(1) - self.inside(z, features, tensors).to(z.dtype)
        return torch.cat([z, rejected[:, None]], 1)


class Fitted(Protocol):
    """What has a rule: evofool.bench.detect.detectors.Detector."""

    @property
    def rule(self) -> DetectorRule: ...


def suspicion(
    detector: str, z: torch.Tensor, features: torch.Tensor | None, tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """How suspicious an image is to a detector, (B,), higher = more, from calibrated logits (B, K); with gradients.

    The order is that of pytorch-ood's detector of this name (a test holds them together), which a target cannot call: it
    comes with an extra, and cuts gradients. Of "msp" it is the log-odds of the highest probability, negated, and not the
    probability, which is 1.0 for every image that a search is interested in.
    """
    if detector == "mahalanobis":
        if features is None or features.shape[1] != len(tensors["middle"]):
            given = None if features is None else features.shape[1]
            raise TargetError(f"mahalanobis: fitted to {len(tensors['middle'])} features, given are {given}")
        x = (features - tensors["middle"]) @ tensors["project"]
        means, precision = tensors["means"], tensors["precision"]
        own = ((x @ precision) * x).sum(1, keepdim=True)
        away = own - 2 * (x @ precision @ means.T) + ((means @ precision) * means).sum(1)
        return 0.5 * away.amin(1)
    return _OF_LOGITS[detector](z)


def _msp(z: torch.Tensor) -> torch.Tensor:
    top, at = z.max(1, keepdim=True)
    return torch.logsumexp(z.scatter(1, at, -torch.inf), 1) - top[:, 0]


_OF_LOGITS = {"msp": _msp, "max-logit": lambda z: -z.amax(1), "energy": lambda z: -torch.logsumexp(z, 1)}
DETECTORS = (*_OF_LOGITS, "mahalanobis")
"""Their names; bench.detect.detectors has what they are."""


class _Guarded(nn.Module):
    """float (B, C, H, W), preprocessed for the base, to the guarded logits (B, K + 1)."""

    def __init__(self, base: nn.Module, outputs: str, rule: DetectorRule) -> None:
        super().__init__()
        self.base = _apart(base, rule.detector) if rule.layer else base
        self.outputs, self.rule = outputs, rule
        for name, tensor in rule.tensors.items():
            self.register_buffer(name, tensor)
        self._seen: dict[int, torch.Tensor] = {}  # by thread: several may call at once
        if rule.layer:
            self.base.get_submodule(rule.layer).register_forward_pre_hook(self._see)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            z = to_logits(self.base(x), self.outputs, 1)
        finally:
            features = self._seen.pop(threading.get_ident(), None)
        return self.rule.guard(z, features, {name: getattr(self, name) for name in self.rule.tensors})

    # A method, so that a copy of this module has a hook of its own.
    def _see(self, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._seen[threading.get_ident()] = args[0].flatten(1)


def _apart(base: nn.Module, detector: str) -> nn.Module:
    """A copy of a module with the same tensors: a hook on one of its layers is on none of the module's own."""
    tensors = {id(t): t for part in base.modules() for t in vars(part).values() if isinstance(t, torch.Tensor)}
    tensors |= {id(t): t for t in (*base.parameters(), *base.buffers())}
    try:
        return copy.deepcopy(base, dict(tensors))  # which takes what it is given here for copied
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever somebody's own module holds
        raise TargetError(
            f"{type(base).__name__} cannot be copied ({type(error).__name__}: {error}), and {detector} needs that to look "
            "into it; the detectors that look at logits alone do not"
        ) from None


def guard(target: Target, detector: Fitted, path: Path) -> str:
    """Write a detector that was fitted to a target to path (.safetensors), and return the spec of the guarded target.

    The target has to have a spec, by which the file names it. TargetError for what cannot be guarded: a server (its answers
    are billed to one run), several crops, another guard.
    """
    from safetensors.torch import save

    _refuse(target.name, target.name)
    _refuse_answers(target, detector.rule, target.name)
    rule = detector.rule
    meta = {
        "format": _FORMAT,
        "base": target.name,
        "base_fingerprint": target.fingerprint(),
        "detector": rule.detector,
        "layer": rule.layer,
        **{name: repr(float(getattr(rule, name))) for name in _NUMBERS},
    }
    path = path.absolute()
    if path.suffix != ".safetensors":
        raise TargetError(f"{path}: a guard's file ends in .safetensors")
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_bytes(save({name: tensor.contiguous() for name, tensor in rule.tensors.items()}, metadata=meta))
        draft.replace(path)
    except OSError as error:
        raise TargetError(f"the guard {path} cannot be written ({error.strerror})") from None
    return Spec("guarded", str(path), {}).text


def load(spec: Spec) -> Target:
    """guarded:FILE.safetensors: the classifier that the file names, behind the detector that it holds.

    It has the base's labels, and "rejected" ("rejected by DETECTOR" if the base has one of its own). Its probabilities have
    another temperature than the base's, whose logits are divided by the rule's scale. No option is taken: they belong to the
    base. Differentiable if the base is. TargetError if the base is no longer the one that was guarded.
    """
    from evofool.targets import target

    if not spec.name or spec.options:
        raise TargetError(f"{spec.head}: write guarded:FILE.safetensors; options belong to the base that the file names")
    path = Path(spec.name)
    digest = hashlib.sha256(read_file(path, spec.head, "guard")).hexdigest()
    base_spec, fingerprint, rule = _read(path, spec.head)
    _refuse(base_spec, spec.head)
    try:
        base = target(base_spec)
    except TargetError as error:
        raise TargetError(f"{spec.head}: its base cannot be loaded: {error}") from None
    if base.fingerprint() != fingerprint:
        raise TargetError(
            f"{spec.head}: its base {base_spec} has changed since (fingerprint {base.fingerprint()[:12]}, guarded was "
            f"{fingerprint[:12]}); fit the detector again"
        )
    return guarded(base, rule, spec.text, {"file": str(path), "file_sha256": digest})


def guarded(base: Target, rule: DetectorRule, name: str, details: Mapping[str, Any] | None = None) -> Target:
    """A target behind a detector that was fitted to it: logits (B, K + 1) as DetectorRule.guard has them.

    They are the base's divided by rule.scale, so probabilities have another temperature than the base's. The base's tensors
    are shared, not copied. TargetError for a rule that does not fit it.
    """
    _refuse_answers(base, rule, name)
    extra = REJECTED if REJECTED not in base.labels else f"{REJECTED} by {rule.detector}"
    labels = [*base.labels, extra]
    preprocessing = Preprocessing(**base.details.get("preprocessing", {}))
    numbers = {f.name: getattr(rule, f.name) for f in fields(rule) if f.name != "tensors"}
    told = {"base": base.fingerprint(), "guard": numbers, **(details or {})}
    if base.network is not None:
        module = _Guarded(base.network.module, base.outputs, rule)
        return Target.from_module(module, labels, base.shape, preprocessing, name, base.network.device, "logits", told)

    def forward(images: np.ndarray) -> np.ndarray:
        return rule.guard(torch.from_numpy(base.logits(images)), None, {}).numpy()

    told |= {key: base.details[key] for key in ("backend", "device") if key in base.details}
    found = Target.probed(name, forward, labels, base.shape, preprocessing, "logits", told)
    found.streams = base.streams
    return found


def base_of(path: Path) -> str:
    """The spec of the base that a guard's file names; TargetError if it is no such file."""
    return _read(path, f"guarded:{path}")[0]


def _read(path: Path, who: str) -> tuple[str, str, DetectorRule]:
    """The base's spec and fingerprint, and the rule."""
    from safetensors import SafetensorError, safe_open

    read_file(path, who, "guard")
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise TargetError(f"{who} is no whole safetensors file ({error})") from None
    wanted = {"format", "base", "base_fingerprint", "detector", "layer", *_NUMBERS}
    if meta.get("format") != _FORMAT or meta.keys() != wanted:
        raise TargetError(
            f'{who} is no guard of this evofool: its format is "{meta.get("format")}", not "{_FORMAT}"'
            + (f", or it lacks {sorted(wanted - meta.keys())}" if wanted - meta.keys() else "")
        )
    try:
        numbers = {name: float(meta[name]) for name in _NUMBERS}
        return (
            meta["base"],
            meta["base_fingerprint"],
            DetectorRule(meta["detector"], layer=meta["layer"], tensors=tensors, **numbers),
        )
    except ValueError as error:
        raise TargetError(f"{who} is damaged: {error}") from None


def _refuse(base: str, who: str) -> None:
    """TargetError for a spec that cannot be a base's."""
    from evofool.targets import KINDS
    from evofool.targets.spec import parse

    if base.startswith(("http://", "https://")):
        raise TargetError(f"{who}: {base} is a server, whose answers are billed to one run; none can be guarded")
    try:
        kind = parse(base, KINDS, ()).kind
    except TargetError as error:
        raise TargetError(f"{who}: a guard's file names its base by a spec, and {base} is none ({error})") from None
    if kind == "guarded":
        raise TargetError(f"{who}: {base} is guarded itself; guard its base")


def _refuse_answers(base: Target, rule: DetectorRule, who: str) -> None:
    if base.crops > 1:
        raise TargetError(f"{who}: a guard looks at one image, and its base at {base.crops} crops; leave crops out")
    if base.top_k < len(base.labels):
        raise TargetError(f"{who}: its base tells the {base.top_k} highest classes alone; a detector needs all")
    if rule.layer:
        if base.network is None:
            raise TargetError(f"{who}: {rule.detector} looks at features, and its base is a black box")
        if rule.layer not in dict(base.network.module.named_modules()):
            raise TargetError(f'{who}: its base has no layer "{rule.layer}"')
