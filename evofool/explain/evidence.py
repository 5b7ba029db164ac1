"""Evidence in the last layer: what each channel of the pooled features adds to a class's logit, and where."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from evofool.ascend.hooks import no_gradients
from evofool.errors import TargetError
from evofool.explain.nearest import evenly_spaced, real_pictures
from evofool.targets import Target

_EQUAL = 1e-4  # of the largest value: the error of float32 that a sum may have
_CROP = 0.4  # of the shorter side


class LastLayer(NamedTuple):
    """A last layer whose logits are weight @ mean of the features over positions + bias.

    linear: the name of the linear layer. place: the layer whose output is pooled; rectified: values below 0 count as 0.
    weight: float64 (K, D); bias: (K,).
    """

    linear: str
    place: str
    rectified: bool
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What the channels add to the logits of two classes for one image.

    features: float64 (D, h, w), what is pooled. logits: (2,) of the linear layer, of the class and of the other one.
    """

    last: LastLayer
    classes: tuple[int, int]
    features: np.ndarray
    logits: tuple[float, float]

    @property
    def of_class(self) -> np.ndarray:
        """float64 (D,): weight times mean activation. Their sum and the bias are the class's logit."""
        return self._contributions(self.last.weight[self.classes[0]])

    @property
    def of_other(self) -> np.ndarray:
        return self._contributions(self.last.weight[self.classes[1]])

    @property
    def of_margin(self) -> np.ndarray:
        """float64 (D,): positive for a channel that speaks for the class, negative for one that speaks for the other."""
        return self.of_class - self.of_other

    @property
    def margin(self) -> float:
        return self.logits[0] - self.logits[1]

    @property
    def bias(self) -> tuple[float, float]:
        first, other = self.classes
        return float(self.last.bias[first]), float(self.last.bias[other])

    @property
    def residual(self) -> float:
        """How far sum and bias are from the logit, of the two classes the larger: an error of float32."""
        sums = (self.of_class.sum() + self.bias[0], self.of_other.sum() + self.bias[1])
        return float(max(abs(total - logit) for total, logit in zip(sums, self.logits, strict=True)))

    def map_of_class(self, size: tuple[int, int]) -> np.ndarray:
        """float32 `size`: what each position adds to the class's logit (Zhou 2016), times the number of positions."""
        return self._map(self.last.weight[self.classes[0]], size)

    def map_of_margin(self, size: tuple[int, int]) -> np.ndarray:
        """float32 `size`: the same of the margin, positive where the image speaks for the class."""
        return self._map(self.last.weight[self.classes[0]] - self.last.weight[self.classes[1]], size)

    def map_of_channel(self, channel: int, size: tuple[int, int]) -> np.ndarray:
        """float32 `size`: the activation of a channel."""
        return _enlarged(self.features[channel], size)

    def strongest(self, count: int) -> tuple[list[int], list[int]]:
        """Up to `count` channels that add most to the margin, and up to `count` that take most from it, largest first.

        Of equal ones the first.
        """
        for_class = np.argsort(-self.of_margin, kind="stable")[:count]
        for_other = np.argsort(self.of_margin, kind="stable")[:count]
        return (
            [int(channel) for channel in for_class if self.of_margin[channel] > 0],
            [int(channel) for channel in for_other if self.of_margin[channel] < 0],
        )

    def classes_of(self, channel: int, count: int = 3) -> list[int]:
        """The classes for which a channel has the largest weights, largest first; of equal ones the first."""
        return np.argsort(-self.last.weight[:, channel], kind="stable")[:count].tolist()

    def _contributions(self, weights: np.ndarray) -> np.ndarray:
        return weights * self.features.mean((1, 2))

    def _map(self, weights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return _enlarged(np.tensordot(weights, self.features, 1), size)


class Crop(NamedTuple):
    """The part of a real image that excites a channel. pixels: uint8 (C, s, s). peak: the channel's largest activation."""

    file: Path
    pixels: np.ndarray
    peak: float


def evidence(target: Target, image: np.ndarray, class_id: int, against: int) -> Evidence:
    """The contributions w_k mean(a_k) of the channels k to the logits of two classes, image uint8 (C, H, W). One query.

    Zhou et al. 2016, "Learning deep features for discriminative localization", eq. 1 and 2: where the last layer is linear
    over features that are averaged over positions, a logit is a sum over channels, or over positions. Whether it is so is
    found out by what the network computes for the image. TargetError that says why not, for other networks.
    """
    network = target.network
    if network is None:
        raise no_gradients(target)
    if target.rows_per_image > 1:
        raise TargetError(f"{target.name}: its answer is made of those to {target.rows_per_image} crops or pipelines")
    seen = _Seen([m.in_features for m in network.module.modules() if isinstance(m, nn.Linear)])
    with ExitStack() as stack, torch.inference_mode():
        for name, module in network.module.named_modules():
            stack.callback(module.register_forward_hook(partial(seen.note, name)).remove)
        raw = network.module(network.prepare(torch.from_numpy(image[None].copy()).to(network.device).float()))
    target.count(1)
    logits = target.combined(raw.float())
    if seen.last is None:
        raise TargetError(f"{target.name}: it has no linear layer")
    linear, module, pooled, output = seen.last
    # Logarithms of probabilities are logits less a constant.
    apart = (logits - output).flatten() if output.shape == logits.shape else torch.tensor([0.0, torch.inf])
    if not float(apart.max() - apart.min()) <= _EQUAL * float(1 + logits.abs().max()):
        raise TargetError(f"{target.name}: its logits are not the output of {linear}, its last linear layer")
    place, rectified, features = seen.pooled(target, linear, pooled)
    weight = module.weight.detach().double().cpu().numpy()
    bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().double().cpu().numpy()
    both = output[0, [class_id, against]].double().tolist()
    last = LastLayer(linear, place, rectified, weight, bias)
    return Evidence(last, (class_id, against), features.double().cpu().numpy(), (both[0], both[1]))


def exciting(
    target: Target,
    last: LastLayer,
    folder: Path,
    channels: Sequence[int],
    *,
    each: int = 3,
    sample: int = 256,
    batch: int = 16,
) -> tuple[dict[int, list[Crop]], int]:
    """The crops of real pictures that excite each channel most, at most `each`, largest first; and the pictures compared.

    Up to `sample` pictures of the folder are compared, evenly spaced by path; unreadable ones are left out. A picture counts
    by its largest activation, of equal ones the first; the crop, 40% of the shorter side wide, is centred where that is, but
    within the picture. Costs a query for each picture.
    """
    found = real_pictures(folder, target)
    pictures = evenly_spaced(found, sample, target)
    peaks, places = np.empty((2, len(pictures), len(channels)))
    grid = (1, 1)
    for begin in range(0, len(pictures), batch):
        images = np.stack([pixels for _, pixels in pictures[begin : begin + batch]])
        with torch.inference_mode():
            x = torch.from_numpy(images).float() / 255
            features = target.activations(x if target.network is None else x.to(target.network.device), last.place)
        grid = (features.shape[2], features.shape[3])
        top = features[:, list(channels)].flatten(2).max(2)
        values = top.values.clamp_min(0) if last.rectified else top.values
        peaks[begin : begin + len(images)] = values.cpu().numpy()
        places[begin : begin + len(images)] = top.indices.cpu().numpy()
    crops: dict[int, list[Crop]] = {}
    for k, channel in enumerate(channels):
        crops[channel] = []
        for i in np.argsort(-peaks[:, k], kind="stable")[:each].tolist():
            number, pixels = pictures[i]
            row, column = divmod(int(places[i, k]), grid[1])
            centre = (row + 0.5) / grid[0], (column + 0.5) / grid[1]
            crops[channel].append(Crop(found[number].file, _cropped(pixels, centre), float(peaks[i, k])))
    return crops, len(pictures)


class _Seen:
    """What runs in a forward pass: the last linear layer, and outputs that may be pooled, in the order of their last run."""

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = set(widths)
        self._spatial: dict[str, torch.Tensor] = {}
        self.last: tuple[str, nn.Linear, torch.Tensor, torch.Tensor] | None = None

    def note(self, name: str, module: nn.Module, args: tuple[torch.Tensor, ...], output: object) -> None:
        if not isinstance(output, torch.Tensor):
            return
        if isinstance(module, nn.Linear):
            self.last = (name, module, args[0].float().clone(), output.float().clone())
        self._spatial.pop(name, None)
        if name and output.ndim == 4 and output.shape[1] in self._widths and output.shape[2] * output.shape[3] > 1:
            self._spatial[name] = output.clone()  # a later layer may work in place

    def pooled(self, target: Target, linear: str, pooled: torch.Tensor) -> tuple[str, bool, torch.Tensor]:
        """The layer whose output has these means over positions (1, D), whether rectified, and its output (D, h, w)."""
        for place, output in reversed(self._spatial.items()):
            for rectified in (False, True):
                features = output[0].float().clamp_min(0) if rectified else output[0].float()
                means = features.mean((1, 2))[None]
                if means.shape == pooled.shape and float((means - pooled).abs().max()) <= _EQUAL * float(pooled.abs().max()):
                    return place, rectified, features
        raise TargetError(
            f"{target.name}: the input of {linear}, its last linear layer, is not the mean over positions of a layer's "
            "output"
        )


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 `size`, bilinear."""
    return F.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear")[0, 0].float().numpy()


def _cropped(pixels: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """A square of a picture (C, H, W) about a point, given in shares of height and width."""
    side = max(1, round(_CROP * min(pixels.shape[1:])))
    top, left = (
        int(np.clip(round(at * length - side / 2), 0, length - side))
        for at, length in zip(centre, pixels.shape[1:], strict=True)
    )
    return pixels[:, top : top + side, left : left + side]
