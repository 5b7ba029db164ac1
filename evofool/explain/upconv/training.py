"""Training a decoder: from a layer's outputs to pictures, by the distance of pixels and, if wanted, of features."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from evofool.errors import ScoreError
from evofool.explain.upconv.samples import Codes, Samples
from evofool.targets import Target
from genomes.upconv import Decoder, Layout

_WIDTHS = (128, 96, 64, 32)
_FINE = (32, 32)  # where the code is as fine as the image
_FIRST_GRID = 4  # of a vector's decoder
_DRAWN, _FEWEST, _MOST = 16_000, 3, 50  # pictures drawn, if epochs are not given, and the limits of epochs
_VALIDATED = 0.1  # of the samples, the last ones: they choose the epoch that is kept
_WARM = 0.1  # of the steps, in which the rate rises
_LEAST = 1e-6
_CHUNK = 256
_CROPS_A_VALUE = 5


@dataclass(frozen=True)
class TrainingSettings:
    """How a decoder is trained.

    size: the most pixels of its images' longer side. crops: of each picture, the target's own input included. epochs: 0: as
    many as make about 16,000 drawn pictures, 3 to 50. batch, rate: of Adam, whose rate rises to `rate` and falls to 0 along
    half a cosine. dropout: the share of a vector's values that are at their mean in training, drawn anew for each picture;
    None: half where there are fewer than 5 crops for each value, which a linear layer would fit exactly, else none; the
    codes of maps are whole. feature_weight: of the features' distance beside the pixels' (Dosovitskiy & Brox 2016b); 0: only
    pixels. feature_layer: whose features; "": the inverted layer's own. seed: of the weights, the crops and the order.
    """

    size: int = 64
    crops: int = 4
    epochs: int = 0
    batch: int = 16
    rate: float = 3e-3
    dropout: float | None = None
    feature_weight: float = 0.0
    feature_layer: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        finite = math.isfinite(self.rate) and math.isfinite(self.feature_weight)
        if (
            min(self.size, self.crops, self.batch) < 1
            or self.epochs < 0
            or not (finite and self.rate > 0 and self.feature_weight >= 0)
        ):
            raise ValueError(
                f"size, crops and batch are at least 1, rate is above 0, the others at least 0, and all are finite: {self}"
            )


class Trained(NamedTuple):
    """The decoder after the best epoch, in eval mode, and how many epochs it was trained, of so many: fewer after Ctrl-C."""

    decoder: Decoder
    epochs: int
    of: int


def layout_for(code: tuple[int, ...], image: tuple[int, int, int]) -> Layout:
    """The decoder of such codes: of a map with one stage of its own size, of a vector from a grid of about 4 x 4."""
    is_map = len(code) == 3
    doublings = round(math.log2(max(image[1:]) / (max(code[1:]) if is_map else _FIRST_GRID)))
    if doublings < 1:
        return Layout(code, image, _FINE, transposed=True)
    return Layout(code, image, _WIDTHS[-min(doublings + is_map, len(_WIDTHS)) :], transposed=True)


def train(
    data: Samples,
    settings: TrainingSettings,
    target: Target,
    layer: str,
    *,
    count: Callable[[int, int], None] = lambda _done, _of: None,
) -> Trained:
    """Train a decoder of these samples; the same one for the same samples, settings and number of threads.

    The last tenth of the samples chooses the epoch that is kept: the one with the smallest squared distance of pixels. count
    is called with (pictures done, of all epochs). Ctrl-C ends it with the best of the whole epochs, and is raised where
    there is none. ScoreError if that distance is finite after no epoch. target, layer: for the distance of features, which
    costs a forward and a backward pass of each picture in each epoch; only pixels cost none.
    """
    n, shape = len(data.codes), data.images.shape[1:]
    split = n - max(1, round(_VALIDATED * n))
    with torch.random.fork_rng([]):
        torch.manual_seed(settings.seed % 2**63)
        decoder = Decoder(layout_for(data.codes.shape[1:], (shape[0], shape[1], shape[2])))
    _standardise(decoder, data.codes)
    decoder = decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = math.ceil(split / settings.batch)
    epochs = settings.epochs or min(max(round(_DRAWN / split), _FEWEST), _MOST)
    dropout = settings.dropout
    if dropout is None:
        dropout = 0.5 if split < _CROPS_A_VALUE * math.prod(data.codes.shape[1:]) else 0.0
    optimiser = torch.optim.Adam(decoder.parameters(), lr=settings.rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: _rate(k, steps * epochs))
    features = _FeatureDistance(target, settings.feature_layer or layer, data) if settings.feature_weight else None
    order = np.random.default_rng(settings.seed)
    done, trained, least = 0, 0, math.inf
    kept: dict[str, torch.Tensor] | None = None
    try:
        for epoch in range(epochs):
            for rows in np.array_split(order.permutation(split), steps):
                images = torch.from_numpy(data.images[rows]).float() / 255
                drawn = decoder(_dropped(decoder, torch.from_numpy(data.codes[rows]).float(), dropout, order))
                loss = F.mse_loss(drawn, images)
                if features is not None:
                    loss = loss + settings.feature_weight * features(drawn, images)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                done += len(rows)
                count(done, split * epochs)
            trained = epoch + 1
            if (error := _error(decoder, data, split, settings.batch)) < least:
                least, kept = error, {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    except KeyboardInterrupt:
        if kept is None:
            raise
    finally:
        if features is not None:
            features.close()
    if kept is None:
        raise ScoreError(
            f"the training of the decoder of {layer} diverged: its error is finite after no epoch; learn with a smaller "
            "weight of features or a smaller rate"
        )
    decoder.load_state_dict(kept)
    return Trained(decoder.eval().requires_grad_(False), trained, epochs)


def _dropped(decoder: Decoder, codes: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Vectors with a share of their values at the mean, and the others further from it, so that sums keep their size."""
    if codes.ndim > 2 or not share:
        return codes
    kept = torch.from_numpy(rng.random(codes.shape) >= share)
    return torch.where(kept, decoder.code_mean + (codes - decoder.code_mean) / (1 - share), decoder.code_mean)


def _error(decoder: Decoder, data: Samples, begin: int, batch: int) -> float:
    """The mean squared distance of pixels of the samples from `begin` on."""
    total = 0.0
    with torch.no_grad():
        for k in range(begin, len(data.codes), batch):
            drawn = decoder(torch.from_numpy(data.codes[k : k + batch]))
            total += float(F.mse_loss(drawn, torch.from_numpy(data.images[k : k + batch]).float() / 255, reduction="sum"))
    return total


def _rate(step: int, steps: int) -> float:
    warm = max(1.0, _WARM * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1.0, steps - warm))


def _standardise(decoder: Decoder, codes: np.ndarray) -> None:
    """Means and standard deviations of the codes, of each channel of a map; 1 where a value never differs."""
    axes = (0, *range(2, codes.ndim))
    total, squares = (np.zeros(decoder.code_mean.shape) for _ in range(2))
    for part in np.array_split(codes, math.ceil(len(codes) / _CHUNK)):  # for memory
        rows = part.astype(np.float32)
        total += rows.sum(axes, dtype=np.float64, keepdims=True)[0]
        squares += np.square(rows).sum(axes, dtype=np.float64, keepdims=True)[0]
    count = codes.size / total.size
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    decoder.code_mean.copy_(torch.from_numpy(mean))
    decoder.code_scale.copy_(torch.from_numpy(np.where(deviation > _LEAST, deviation, 1.0)))


class _FeatureDistance:
    """The squared distance of features at a layer, over their variance: 1 for features at their mean.

    Both pictures are enlarged to the target's input, so that they differ by what the decoder drew only.
    """

    def __init__(self, target: Target, layer: str, data: Samples) -> None:
        shape = data.images.shape[1:]
        self._layer, self._size = layer, target.shape[1:]
        self._codes = Codes(target, [layer], (shape[0], shape[1], shape[2]))
        self._codes.__enter__()
        try:
            with torch.no_grad():
                found = self._of(torch.from_numpy(data.images[:64]).float() / 255)
        except BaseException:  # the caller has nothing to close
            self.close()
            raise
        self._variance = float(found.var(0).mean().clamp_min(_LEAST))

    def close(self) -> None:
        self._codes.__exit__(None, None, None)

    def __call__(self, drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = self._of(images)
        return (self._of(drawn) - wanted).square().mean() / self._variance

    def _of(self, images: torch.Tensor) -> torch.Tensor:
        if tuple(images.shape[2:]) != self._size:
            images = F.interpolate(images, self._size, mode="bilinear", align_corners=False)
        return self._codes.of(images)[self._layer]
