"""The network that draws a chair from style, view and transformation (Dosovitskiy 2015, section 3)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from evofool.explain.chairs.renderer import PLAIN, Pictures
from evofool.images import quantise
from genomes.upconv import Decoder, Layout

_SLOPE = 0.2
_CHUNK = 64  # pictures at once


@dataclass(frozen=True)
class GeneratorLayout:
    """styles: how many chairs are known. size: pixels. code: numbers in a chair's code. wide: channels of the fully
    connected layers, even. widths: of the decoder, as in genomes.upconv.Layout. seed: of the styles. ValueError for
    numbers that are not whole or out of range."""

    styles: int = 100
    size: int = 64
    code: int = 24
    wide: int = 256
    widths: tuple[int, ...] = (96, 64, 32, 16)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        for name, most in (("styles", 1 << 16), ("size", 1024), ("code", 4096), ("wide", 4096), ("seed", 1 << 62)):
            value, least = getattr(self, name), 0 if name == "seed" else 2
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} has to be a whole number from {least} to {most}, not {value}")
        if self.wide % 2:  # view and transformation have half of it each
            raise ValueError(f"wide has to be even, not {self.wide}")


class ChairGenerator(nn.Module):
    """Images and masks of chairs.

    A chair's code is a row of `codes`: the paper's first layer on a one-hot class. The stream of the class makes of it the
    chair's features, which may be mixed, added and subtracted. Features, view and transformation are joined by fully
    connected layers; then comes the decoder of genomes/upconv.py with its mask. Weights are drawn from torch's global
    generator (He et al. 2015).
    """

    def __init__(self, layout: GeneratorLayout) -> None:
        super().__init__()
        self.layout = layout
        half = layout.wide // 2
        self.codes = nn.Parameter(torch.randn(layout.styles, layout.code))
        self.style = nn.ModuleList([nn.Linear(layout.code, layout.wide)])
        self.view = nn.ModuleList([nn.Linear(4, half), nn.Linear(half, half)])
        self.transform = nn.ModuleList([nn.Linear(len(PLAIN), half), nn.Linear(half, half)])
        self.join = nn.ModuleList([nn.Linear(2 * layout.wide, layout.wide), nn.Linear(layout.wide, layout.wide)])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, _SLOPE)
                nn.init.zeros_(module.bias)
        self.decoder = Decoder(Layout((layout.wide,), (3, layout.size, layout.size), layout.widths, mask=True))
        with torch.no_grad():
            # The pictures begin nearly white, and empty.
            for head, value in ((self.decoder.to_image, 2.0), (self.decoder.to_mask, -1.5)):
                assert head is not None
                assert head.bias is not None
                head.bias.fill_(value)

    def forward(
        self, codes: torch.Tensor, views: torch.Tensor, transforms: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 3, S, S) and masks (B, 1, S, S), float on [0, 1].

        codes: float (B, D). views: (B, 2), azimuth and elevation in degrees. transforms: (B, 5), as of renderer.render.
        """
        return self._decoded(_through(self.style, codes), views, transforms)

    def features(self) -> np.ndarray:
        """The features of every chair, float32 (styles, wide): the output of the stream of the class."""
        with torch.inference_mode():
            return _through(self.style, self.codes).numpy()

    def draw(self, features: np.ndarray, views: np.ndarray, transforms: np.ndarray | None = None) -> Pictures:
        """Pictures as renderer.render's, of features (N, wide) instead of styles."""
        changes = np.tile(PLAIN, (len(features), 1)) if transforms is None else transforms
        drawn = []
        with torch.inference_mode():
            for start in range(0, len(features), _CHUNK):
                rows = [torch.as_tensor(x[start : start + _CHUNK], dtype=torch.float32) for x in (features, views, changes)]
                drawn.append([quantise(part.numpy()) for part in self._decoded(*rows)])
        return Pictures(*map(np.concatenate, zip(*drawn, strict=True)))

    def _decoded(
        self, features: torch.Tensor, views: torch.Tensor, transforms: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = torch.deg2rad(views)
        view, transform = (
            _through(self.view, torch.cat([angles.sin(), angles.cos()], 1)),
            _through(self.transform, transforms),
        )
        return self.decoder(_through(self.join, torch.cat([features, view, transform], 1)))


def _through(layers: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = F.leaky_relu(layer(x), _SLOPE)
    return x
