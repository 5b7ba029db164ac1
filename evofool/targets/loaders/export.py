"""A program of torch.export in a file (.pt2): a torch network with gradients and its layers."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evofool.errors import TargetError
from evofool.targets.answer_forms import main_part
from evofool.targets.classifier import Target
from evofool.targets.loaders.formats import format_of, opened
from evofool.targets.loaders.image_input import ImageInput
from evofool.targets.loaders.restored import restore
from evofool.targets.network import WithoutLayers
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec

_LOGGERS = ("torch.export", "torch.export.pt2_archive._package", "torch._export.serde.serialize")


def load(spec: Spec) -> Target:
    """export:FILE: one input, images in float32; scores (B, K).

    Images may have every layout of ImageInput, of which this network has the shape. It runs unflattened, so that layers
    have the names that they had in the exported module. A program for a fixed number of images runs several times for a
    batch, and its layers cannot be read. Loading unpickles parts of the file (torch.load(weights_only=False)), and so
    runs code that it may contain: a stored run needs --trust, as for python: targets.
    """
    path, content, digest = opened(spec, "export", "file of torch.export")
    program = _program(content, path, spec)
    images = _images(program, spec)
    preprocessing, size = spec.preprocessing(Preprocessing(), images.size)
    details = {
        "weights_sha256": digest,  # the program is part of the network
        "file": str(path),
        "file_sha256": digest,
        "backend": f"torch {torch.__version__} (torch.export)",
    }
    return Target.from_module(
        _network(program, images),
        spec.labels(),
        (images.channels, *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.outputs,
        details,
    )


def _program(content: bytes, path: Path, spec: Spec) -> torch.export.ExportedProgram:
    if format_of(content) != "export":
        raise TargetError(f"{spec.head}: {path} is not a complete file of torch.export")
    try:
        with _quiet():
            return torch.export.load(io.BytesIO(content))
    except Exception as error:  # torch's errors for damaged files and for those of other versions have no common class
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise TargetError(
            f"{spec.head}: {path} cannot be loaded by torch {torch.__version__} ({type(error).__name__}: {reason}); it is "
            "damaged, or of another version"
        ) from None


def _images(program: torch.export.ExportedProgram, spec: Spec) -> ImageInput:
    """What the program takes."""
    inputs = program.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    found = [values.get(str(name)) for name in inputs]
    takes = ", ".join(
        f"{name} {_type_of(value)} {[str(side) for side in value.shape]}" if isinstance(value, torch.Tensor) else str(name)
        for name, value in zip(inputs, found, strict=True)
    )
    if len(found) != 1 or not isinstance(found[0], torch.Tensor) or found[0].dtype != torch.float32:
        raise TargetError(f"{spec.head}: takes {takes}; it has to take one tensor, images in float32")
    images = ImageInput.of(torch.float32, found[0].shape, spec, takes)
    if images.alpha:
        raise TargetError(f"{spec.head}: takes {takes}; images have 1 or 3 channels")
    return images


def _type_of(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _network(program: torch.export.ExportedProgram, images: ImageInput) -> nn.Module:
    with _quiet():
        network = torch.export.unflatten(program)
    restore(network)
    for part in network.modules():  # tensors without data, which make copies of the network fail
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            for key in ("val", "example_value", "tensor_meta"):
                node.meta.pop(key, None)
    if images.batch is None and images.axes == 4 and not images.last:
        return network
    arranged = _Arranged(network, images)
    if images.batch is None:
        return arranged
    return WithoutLayers(
        arranged,
        f"it was exported for a batch of {images.batch} alone; export it with dynamic_shapes=({{0: Dim.DYNAMIC}},)",
    )


class _Arranged(nn.Module):
    """A network whose images have another layout, or always the same number in a batch."""

    def __init__(self, network: nn.Module, images: ImageInput) -> None:
        super().__init__()
        self.network = network
        self._images = images

    def forward(self, x: torch.Tensor) -> Any:
        if self._images.batch is None:
            return self.network(self._images.arranged(x))
        answers = [main_part(self.network(part)) for part in self._images.parts(self._images.arranged(x))]
        return answers[0][: len(x)] if len(answers) == 1 else torch.cat(answers)[: len(x)]


@contextmanager
def _quiet() -> Iterator[None]:
    """In this context torch.export neither warns nor logs tracebacks of what it tries."""
    loggers = [getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
