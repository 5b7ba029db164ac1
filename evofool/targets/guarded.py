"""A classifier with a detector, as a classifier with one more class, "rejected", for the images that the detector rejects.

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
from evofool.targets.classifier import Target
from evofool.targets.preprocessing import Preprocessing, to_logits
from evofool.targets.spec import Spec
from evofool.targets.weights import read_file
from evofool.whole_file import write_whole

REJECTED = "rejected"
SHAPES = {"middle": ("D",), "project": ("D", "R"), "means": ("C", "R"), "precision": ("R", "R")}
"""The tensors of "mahalanobis": float32. The other detectors have none."""
_FORMAT = "evofool.guard/1"
_NUMBERS = ("threshold", "median", "scale", "temperature")


@dataclass(frozen=True)
class DetectorRule:
    """A fitted detector, as numbers.

    detector: "msp", "max-logit", "energy" or "mahalanobis". threshold, median: the 95% quantile and the median of
    `suspicion` over real images. scale: unit of the base's margins. temperature: fitted to its logits in that unit, or 1.
    layer: the module of the base whose input mahalanobis uses. tensors: those of SHAPES, for mahalanobis.
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
                f"{self.detector}: the 95% quantile of the suspicion of real images, {self.threshold}, is not above "
                f"the median, {self.median}: the detector does not work on this target"
            )
        if self.tensors.keys() != wanted.keys() or bool(self.layer) != bool(wanted):
            raise TargetError(
                f"{self.detector}: has the tensors {sorted(self.tensors)} and the layer {self.layer!r}; it needs "
                + (f"{sorted(wanted)}, and a layer" if wanted else "neither")
            )
        sides: dict[str, int] = {}
        for name, axes in wanted.items():
            tensor = self.tensors[name]
            consistent = len(axes) == tensor.dim() and all(
                sides.setdefault(a, n) == n for a, n in zip(axes, tensor.shape, strict=True)
            )
            if not consistent or tensor.dtype != torch.float32 or not tensor.isfinite().all() or not tensor.numel():
                raise TargetError(
                    f"{self.detector}: {name} is {tensor.dtype} {tuple(tensor.shape)}; it has to be finite float32 "
                    f"({', '.join(axes)})"
                )

    def inside(self, z: torch.Tensor, features: torch.Tensor | None, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B,): distance of each image from the threshold: 1 for the median real image, below 0 if it is rejected.

        z: the base's logits (B, K) divided by scale.
        """
        score = suspicion(self.detector, z / self.temperature, features, tensors)
        return (self.threshold - score) / (self.threshold - self.median)

    def guard(self, z: torch.Tensor, features: torch.Tensor | None, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The guarded logits (B, K + 1) from the base's logits (B, K) and the layer's input (B, D): z / scale, and for
        "rejected" the highest of them minus `inside`. The margin of the highest class is the smaller of its margin in
        z / scale and `inside`.
        """
        z = z / self.scale
        rejected = z.amax(1) - self.inside(z, features, tensors).to(z.dtype)
        return torch.cat([z, rejected[:, None]], 1)


class FittedDetector(Protocol):
    """A fitted detector: evofool.bench.detect.detectors.Detector."""

    @property
    def rule(self) -> DetectorRule: ...


def suspicion(
    detector: str, z: torch.Tensor, features: torch.Tensor | None, tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """A detector's score of each image, (B,), higher = more suspicious, from calibrated logits (B, K); with gradients.

    Images are ordered as by pytorch-ood's detector of the same name (a test compares them), which cannot be used here: it
    is an optional dependency and has no gradients. "msp" is the negated log-odds of the highest probability, since the
    probability itself is 1.0 for every image that a search is interested in.
    """
    if detector == "mahalanobis":
        if features is None or features.shape[1] != len(tensors["middle"]):
            count = None if features is None else features.shape[1]
            raise TargetError(f"mahalanobis: fitted to {len(tensors['middle'])} features, but there are {count}")
        x = (features - tensors["middle"]) @ tensors["project"]
        means, precision = tensors["means"], tensors["precision"]
        squared = ((x @ precision) * x).sum(1, keepdim=True)
        distances = squared - 2 * (x @ precision @ means.T) + ((means @ precision) * means).sum(1)
        return 0.5 * distances.amin(1)
    return _OF_LOGITS[detector](z)


def _msp(z: torch.Tensor) -> torch.Tensor:
    top, at = z.max(1, keepdim=True)
    return torch.logsumexp(z.scatter(1, at, -torch.inf), 1) - top[:, 0]


_OF_LOGITS = {"msp": _msp, "max-logit": lambda z: -z.amax(1), "energy": lambda z: -torch.logsumexp(z, 1)}
DETECTORS = (*_OF_LOGITS, "mahalanobis")
"""Names of detectors; bench.detect.detectors describes them."""


class _Guarded(nn.Module):
    """float (B, C, H, W), preprocessed for the base, to the guarded logits (B, K + 1)."""

    def __init__(self, base: nn.Module, outputs: str, rule: DetectorRule) -> None:
        super().__init__()
        self.base = _copy_for_hooks(base, rule.detector) if rule.layer else base
        self.outputs, self.rule = outputs, rule
        for name, tensor in rule.tensors.items():
            self.register_buffer(name, tensor)
        self._features: dict[int, torch.Tensor] = {}  # by thread: several may call at once
        if rule.layer:
            self.base.get_submodule(rule.layer).register_forward_pre_hook(self._keep_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            z = to_logits(self.base(x), self.outputs, 1)
        finally:
            features = self._features.pop(threading.get_ident(), None)
        return self.rule.guard(z, features, {name: getattr(self, name) for name in self.rule.tensors})

    # A method, so that a copy of this module gets a separate hook.
    def _keep_features(self, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._features[threading.get_ident()] = args[0].flatten(1)


def _copy_for_hooks(base: nn.Module, detector: str) -> nn.Module:
    """A copy of a module that shares its tensors, so that hooks on its layers do not affect the original."""
    tensors = {id(t): t for part in base.modules() for t in vars(part).values() if isinstance(t, torch.Tensor)}
    tensors |= {id(t): t for t in (*base.parameters(), *base.buffers())}
    try:
        return copy.deepcopy(base, dict(tensors))  # the memo: these tensors are not copied
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's module may raise any error
        raise TargetError(
            f"{type(base).__name__} cannot be copied ({type(error).__name__}: {error}), and {detector} needs a copy for its "
            "hooks; the detectors that use only logits do not"
        ) from None


def guard(target: Target, detector: FittedDetector, path: Path) -> str:
    """Write a detector that was fitted to a target to path (.safetensors), and return the spec of the guarded target.

    The target has to have a spec, which the file refers to. TargetError for targets that cannot be guarded: a server (its
    requests are counted for one run), several crops, a guarded target. StoreError for a file that cannot be written.
    """
    from safetensors.torch import save

    _check_base_spec(target.name, target.name)
    _check_base(target, detector.rule, target.name)
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
    write_whole(path, save({name: tensor.contiguous() for name, tensor in rule.tensors.items()}, metadata=meta))
    return Spec("guarded", str(path), {}).text


def load(spec: Spec) -> Target:
    """guarded:FILE.safetensors: the classifier that the file refers to, with the detector in the file.

    Its labels are the base's and "rejected" ("rejected by DETECTOR" if the base has that label). Its probabilities have
    another temperature than the base's, whose logits are divided by the rule's scale. It has no options: they belong to the
    base. Differentiable if the base is. TargetError if the base has changed since.
    """
    from evofool.targets import target

    if not spec.name:
        raise TargetError("guarded: write guarded:FILE.safetensors")
    path = Path(spec.name)
    digest = hashlib.sha256(read_file(path, spec.head, "guard")).hexdigest()
    base_spec, fingerprint, rule = _read(path, spec.head)
    _check_base_spec(base_spec, spec.head)
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
    """A target with a detector that was fitted to it: logits (B, K + 1) as DetectorRule.guard describes.

    They are the base's divided by rule.scale, so probabilities have another temperature than the base's. The base's tensors
    are shared, not copied. TargetError for a rule that does not fit the base.
    """
    _check_base(base, rule, name)
    extra = REJECTED if REJECTED not in base.labels else f"{REJECTED} by {rule.detector}"
    labels = [*base.labels, extra]
    preprocessing = Preprocessing(**base.details.get("preprocessing", {}))
    numbers = {f.name: getattr(rule, f.name) for f in fields(rule) if f.name != "tensors"}
    guard_details = {"base": base.fingerprint(), "guard": numbers, **(details or {})}
    if base.network is not None:
        module = _Guarded(base.network.module, base.outputs, rule)
        return Target.from_module(
            module, labels, base.shape, preprocessing, name, base.network.device, "logits", guard_details
        )

    def forward(images: np.ndarray) -> np.ndarray:
        return rule.guard(torch.from_numpy(base.logits(images)), None, {}).numpy()

    guard_details |= {key: base.details[key] for key in ("backend", "device") if key in base.details}
    found = Target.probed(name, forward, labels, base.shape, preprocessing, "logits", guard_details)
    found.streams = base.streams
    return found


def base_of(path: Path) -> str:
    """The spec of the base that a guard's file refers to; TargetError if it is another file."""
    return _read(path, f"guarded:{path}")[0]


def _read(path: Path, who: str) -> tuple[str, str, DetectorRule]:
    """The base's spec and fingerprint, and the rule."""
    from safetensors import SafetensorError, safe_open

    read_file(path, who, "guard")
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
    except (SafetensorError, OSError) as error:
        raise TargetError(f"{who} is not a complete safetensors file ({error})") from None
    wanted = {"format", "base", "base_fingerprint", "detector", "layer", *_NUMBERS}
    if meta.get("format") != _FORMAT or meta.keys() != wanted:
        raise TargetError(
            f'{who} is not a guard that this evofool supports: its format is "{meta.get("format")}", not "{_FORMAT}"'
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


def _check_base_spec(base: str, who: str) -> None:
    """TargetError for a spec that cannot be that of a base."""
    from evofool.targets.kinds import server_kind
    from evofool.targets.spec import parse

    if server_kind(base):
        raise TargetError(f"{who}: {base} is a server, whose requests are counted for one run; servers cannot be guarded")
    try:
        kind = parse(base).kind
    except TargetError as error:
        raise TargetError(
            f"{who}: a guard's file refers to its base by a spec, and {base} is not a spec ({error})"
        ) from None
    if kind == "guarded":
        raise TargetError(f"{who}: {base} is guarded itself; guard its base")


def _check_base(base: Target, rule: DetectorRule, who: str) -> None:
    if base.crops > 1:
        raise TargetError(
            f"{who}: a guard needs one row of logits for an image, and its base has {base.crops} crops; leave crops out"
        )
    if base.through is not None:
        raise TargetError(f"{who}: its base has through=; leave it out there, and write guarded:FILE?through=...")
    if base.multilabel:
        raise TargetError(f"{who}: a guard's base has classes that exclude each other, and its outputs are {base.outputs}")
    if base.queries_per_image > 1:
        raise TargetError(f"{who}: its base answers by several answers (average=, views=), which no detector is fitted to")
    if base.top_k < len(base.labels):
        raise TargetError(f"{who}: its base returns only the top {base.top_k} classes; a detector needs all")
    if rule.layer:
        if base.network is None:
            raise TargetError(f"{who}: {rule.detector} uses features, and its base is a black box")
        if rule.layer not in dict(base.network.module.named_modules()):
            raise TargetError(f'{who}: its base has no layer "{rule.layer}"')
