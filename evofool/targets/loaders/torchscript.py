"""A TorchScript program in a file, as torch.jit.save writes it: gradients, but no layers."""

import io
import warnings
from pathlib import Path
from typing import Any

import torch

from evofool.errors import TargetError
from evofool.targets.classifier import Target
from evofool.targets.loaders.formats import opened
from evofool.targets.network import WithoutLayers
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec

_NO_LAYERS = "they run inside a TorchScript program; torch.export keeps them (export:FILE)"


def load(spec: Spec) -> Target:
    """torchscript:FILE: float (B, C, H, W), pixel / 255 unless options say otherwise, to scores (B, K).

    The file does not say what images it takes: size= is needed, and channels= unless the first convolution has the images'
    1 or 3 channels. Loading runs the program's own code (its `__setstate__` methods), which can write files by aten::save
    and read them by aten::from_file; its tensors are read by torch's C++ unpickler, which calls no Python. So a stored run
    needs --trust, as for python: targets.
    """
    path, content, digest = opened(spec, "torchscript", "TorchScript file")
    module = _program(content, path, spec)
    preprocessing, size = spec.preprocessing(Preprocessing(), spec.side())
    channels = spec.whole("channels", _first_channels(module)) or 3
    details = {
        "weights_sha256": digest,  # the program is part of the network, and frozen programs have their weights in it
        "file": str(path),
        "file_sha256": digest,
        "backend": f"torch {torch.__version__} (TorchScript)",
    }
    return Target.from_module(
        WithoutLayers(module, _NO_LAYERS),
        spec.labels(),
        (channels, *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.outputs,
        details,
    )


def _program(content: bytes, path: Path, spec: Spec) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # that TorchScript is deprecated
            return torch.jit.load(io.BytesIO(content), map_location="cpu")
    except Exception as error:  # torch's errors for damaged files have no common class
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise TargetError(f"{spec.head}: {path} is not a complete TorchScript file ({reason})") from None


def _first_channels(module: Any) -> int:
    """1 if the first convolution takes one channel, else 3."""
    for tensor in module.state_dict().values():
        if tensor.ndim == 4:
            return 1 if tensor.shape[1] == 1 else 3
    return 3
