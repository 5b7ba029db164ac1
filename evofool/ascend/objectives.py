"""Objectives: scores of images, one score per item, since items climb independently of each other."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from evofool.ascend.hooks import ForwardPass

Score = Callable[[ForwardPass, torch.Tensor, torch.Tensor], torch.Tensor]
"""(forward pass, images (m, C, H, W) on [0, 1], items (m,) int64) -> (m,); items: which items the images belong to."""

_MOST_PRODUCTS = 1 << 22  # dot products that are held at the same time


class Objective:
    """A score and the layers that it reads. Objectives can be added and scaled: class_logit(c) - 0.1 * l2()."""

    def __init__(self, score: Score, layers: Sequence[str] = (), logits: bool = False) -> None:
        self._score = score
        self.layers = tuple(layers)
        self.logits = logits

    def __call__(self, forward: ForwardPass, images: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self._score(forward, images, items)

    def __add__(self, other: "Objective") -> "Objective":
        return Objective(
            lambda *inputs: self(*inputs) + other(*inputs), (*self.layers, *other.layers), self.logits or other.logits
        )

    def __mul__(self, factor: float) -> "Objective":
        return Objective(lambda *inputs: factor * self(*inputs), self.layers, self.logits)

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -1.0 * other


# -- scores of the logits; classes (n,) int64, one for each item. With multi-label targets log_odds and margin are z_c


def class_logit(classes: torch.Tensor) -> Objective:
    """z_c, the class score of Simonyan 2014."""
    return Objective(lambda forward, _, items: _of_class(forward.logits, classes, items), logits=True)


def log_odds(classes: torch.Tensor) -> Objective:
    """log(p_c / (1 - p_c)) = z_c - logsumexp of the other z: still grows where the softmax has reached 1."""

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        z = forward.logits
        own = _of_class(z, classes, items)
        return own if forward.multilabel else own - torch.logsumexp(_others(z, classes, items), 1)

    return Objective(score, logits=True)


def margin(classes: torch.Tensor) -> Objective:
    """z_c - the highest other z."""

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        z = forward.logits
        own = _of_class(z, classes, items)
        return own if forward.multilabel else own - _others(z, classes, items).amax(1)

    return Objective(score, logits=True)


def ratio(classes: torch.Tensor) -> Objective:
    """The margin over the difference of the highest and the third highest z, which a temperature or a shift of the logits
    does not change: the targeted form of Croce & Hein 2020's difference of logits ratio. It needs at least three classes.
    """

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        z = forward.logits
        highest = z.topk(3, dim=1)[0]
        return (_of_class(z, classes, items) - _others(z, classes, items).amax(1)) / (highest[:, 0] - highest[:, 2])

    return Objective(score, logits=True)


def probability(classes: torch.Tensor) -> Objective:
    """The softmax's p_c, as in Nguyen 2015, or the sigmoid's; in float32 it stops growing at 1."""

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        z = forward.logits
        return _of_class(z.sigmoid() if forward.multilabel else z.softmax(1), classes, items)

    return Objective(score, logits=True)


# -- scores of a layer; indices: a channel for each item. With several crops an item's score is the mean over its crops


def unit(layer: str, indices: Sequence[tuple[int, ...]]) -> Objective:
    """One unit's activation: (channel,) of a fully connected layer, or at the middle of a map; or (channel, y, x)."""

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        a = _by_image(forward.layer(layer), items)
        return torch.stack([_unit(a[k], indices[item]).mean() for k, item in enumerate(items.tolist())])

    return Objective(score, (layer,))


def channel(layer: str, indices: Sequence[int]) -> Objective:
    """The mean activation of a channel over its map."""

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        a = _by_image(forward.layer(layer), items)
        return torch.stack([a[k, :, indices[item]].mean() for k, item in enumerate(items.tolist())])

    return Objective(score, (layer,))


def layer_energy(layer: str) -> Objective:
    """1/2 ||a||^2 of a whole layer: the objective of DeepDream."""

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return 0.5 * _by_image(forward.layer(layer), items).square().flatten(2).sum(2).mean(1)

    return Objective(score, (layer,))


def guide(layer: str, features: torch.Tensor) -> Objective:
    """DeepDream's guide: the sum over positions of the dot product with the guide's best matching position.

    features (1, C, h, w) are the guide's at this layer.
    """
    vectors = features[0].flatten(1)
    # A few positions at a time: shallow layers of large images have tens of thousands on both sides.
    positions = max(1, _MOST_PRODUCTS // vectors.shape[1])

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        a = forward.layer(layer).flatten(2)
        parts = a.detach().split(positions, 2)
        best = torch.cat([torch.einsum("bcp,cq->bpq", part, vectors).argmax(2) for part in parts], 1)
        return _by_image((a * vectors[:, best].transpose(0, 1)).flatten(1).sum(1), items).mean(1)

    return Objective(score, (layer,))


LOGITS = "logits"
"""Can be passed instead of a layer's name, for the network's logits."""


def match(layer: str, features: torch.Tensor) -> Objective:
    """-||a - f||^2 / ||f||^2: the similarity of a layer to features (n, ...), a row per item (Mahendran & Vedaldi 2014).

    An image's crops make one row. layer may be LOGITS.
    """
    wanted = features.flatten(1)
    size = wanted.square().sum(1).clamp_min(1e-12)
    of_logits = layer == LOGITS

    def score(forward: ForwardPass, _: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        a = (forward.logits if of_logits else forward.layer(layer)).reshape(len(items), -1)
        return -(a - wanted[items]).square().sum(1) / size[items]

    return Objective(score, () if of_logits else (layer,), of_logits)


# -- scores of the image alone; centre is the pixel value of zero, a number or (C, 1, 1)


def l2(centre: float | torch.Tensor = 0.0) -> Objective:
    """||I - centre||^2 over all pixels on [0, 1]."""
    return Objective(lambda _, images, items: (images - _like(centre, images)).square().flatten(1).sum(1))


def alpha_norm(alpha: float, centre: float | torch.Tensor = 0.0, unit: float = 1.0) -> Objective:
    """sum |(I - centre) * unit|^alpha (Mahendran & Vedaldi 2014: alpha 6; unit 255 for their pixels)."""
    return Objective(lambda _, images, items: ((images - _like(centre, images)) * unit).abs().pow(alpha).flatten(1).sum(1))


def total_variation(beta: float = 2.0, unit: float = 1.0) -> Objective:
    """sum (dx^2 + dy^2)^(beta / 2) of pixels times unit; differences past the edge are 0 (Mahendran & Vedaldi 2014)."""

    def score(_: ForwardPass, images: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        x = images * unit
        dx = F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))
        dy = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
        both = dx.square() + dy.square()
        if beta != 2.0:
            both = (both + 1e-12).pow(beta / 2)  # the root has no gradient at 0
        return both.flatten(1).sum(1)

    return Objective(score)


def _of_class(z: torch.Tensor, classes: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return z.gather(1, classes.to(z.device)[items].unsqueeze(1))[:, 0]


def _others(z: torch.Tensor, classes: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return z.scatter(1, classes.to(z.device)[items].unsqueeze(1), -torch.inf)


def _like(centre: float | torch.Tensor, images: torch.Tensor) -> float | torch.Tensor:
    return centre.to(images) if isinstance(centre, torch.Tensor) else centre


def _by_image(a: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """(m * crops, ...) of a layer as (m, crops, ...)."""
    return a.unflatten(0, (len(items), -1))


def _unit(a: torch.Tensor, index: tuple[int, ...]) -> torch.Tensor:
    """(crops,) of (crops, ...)."""
    if a.ndim == 4 and len(index) == 1:
        return a[:, index[0], a.shape[2] // 2, a.shape[3] // 2]
    every: tuple[slice | int, ...] = (slice(None), *index)
    return a[every]
