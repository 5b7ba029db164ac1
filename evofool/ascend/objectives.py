"""What is climbed: scores of images, one per item and never their sum: items are stopped, stepped and kept apart."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from evofool.ascend.hooks import Read

Score = Callable[[Read, torch.Tensor, torch.Tensor], torch.Tensor]
"""(read, images (m, C, H, W) on [0, 1], rows (m,) int64) to (m,): rows say which items the images are of."""


class Objective:
    """A score with the layers that it reads. Objectives add up and can be scaled: class_logit(c) - 0.1 * l2()."""

    def __init__(self, score: Score, layers: Sequence[str] = (), logits: bool = False) -> None:
        self._score = score
        self.layers = tuple(layers)
        self.logits = logits

    def __call__(self, read: Read, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self._score(read, images, rows)

    def __add__(self, other: "Objective") -> "Objective":
        return Objective(
            lambda *given: self(*given) + other(*given), (*self.layers, *other.layers), self.logits or other.logits
        )

    def __mul__(self, factor: float) -> "Objective":
        return Objective(lambda *given: factor * self(*given), self.layers, self.logits)

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -1.0 * other


# -- of the answer; classes (n,) int64, one for each item


def class_logit(classes: torch.Tensor) -> Objective:
    """z_c, the class score of Simonyan 2014."""
    return Objective(lambda read, _, rows: _of_class(read.logits, classes, rows), logits=True)


def log_odds(classes: torch.Tensor) -> Objective:
    """log(p_c / (1 - p_c)) = z_c - logsumexp of the others: grows where a softmax has reached 1."""

    def score(read: Read, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        z = read.logits
        return _of_class(z, classes, rows) - torch.logsumexp(_others(z, classes, rows), 1)

    return Objective(score, logits=True)


def margin(classes: torch.Tensor) -> Objective:
    """z_c - the highest other z."""

    def score(read: Read, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        z = read.logits
        return _of_class(z, classes, rows) - _others(z, classes, rows).amax(1)

    return Objective(score, logits=True)


def probability(classes: torch.Tensor) -> Objective:
    """The softmax's p_c, what Nguyen 2015 climbs; float32 ends at 1."""
    return Objective(lambda read, _, rows: _of_class(read.logits.softmax(1), classes, rows), logits=True)


# -- of a layer; indices, one for each item, count channels. Where a target looks at several crops, the mean over them


def unit(layer: str, indices: Sequence[tuple[int, ...]]) -> Objective:
    """One unit's activation: (channel,) of a fully connected layer or, in a map, its middle; (channel, y, x) anywhere."""

    def score(read: Read, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        a = _by_image(read.layer(layer), rows)
        return torch.stack([_unit(a[k], indices[row]).mean() for k, row in enumerate(rows.tolist())])

    return Objective(score, (layer,))


def channel(layer: str, indices: Sequence[int]) -> Objective:
    """The mean activation of a channel over its map."""

    def score(read: Read, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        a = _by_image(read.layer(layer), rows)
        return torch.stack([a[k, :, indices[row]].mean() for k, row in enumerate(rows.tolist())])

    return Objective(score, (layer,))


def layer_energy(layer: str) -> Objective:
    """1/2 ||a||^2 of a whole layer: what DeepDream climbs."""

    def score(read: Read, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return 0.5 * _by_image(read.layer(layer), rows).square().flatten(2).sum(2).mean(1)

    return Objective(score, (layer,))


def guide(layer: str, features: torch.Tensor) -> Objective:
    """DeepDream's guide: the sum over positions of the dot product with the guide's best matching position.

    features (1, C, h, w) are the guide's at this layer.
    """
    vectors = features[0].flatten(1)

    def score(read: Read, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        a = read.layer(layer).flatten(2)
        best = torch.einsum("bcp,cq->bpq", a.detach(), vectors).argmax(2)
        return _by_image((a * vectors[:, best].transpose(0, 1)).flatten(1).sum(1), rows).mean(1)

    return Objective(score, (layer,))


LOGITS = "logits"
"""What stands for a layer's name where the network's answer is meant."""


def match(layer: str, features: torch.Tensor) -> Objective:
    """-||a - f||^2 / ||f||^2: how near a layer is to features (n, ...), a row for each item (Mahendran & Vedaldi 2014).

    Several crops of an image are one row. layer may be LOGITS.
    """
    wanted = features.flatten(1)
    size = wanted.square().sum(1).clamp_min(1e-12)
    answer = layer == LOGITS

    def score(read: Read, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        a = (read.logits if answer else read.layer(layer)).reshape(len(rows), -1)
        return -(a - wanted[rows]).square().sum(1) / size[rows]

    return Objective(score, () if answer else (layer,), answer)


# -- of the image alone; centre is the pixel value that counts as nothing, a number or (C, 1, 1)


def l2(centre: float | torch.Tensor = 0.0) -> Objective:
    """||I - centre||^2 over all pixels on [0, 1]."""
    return Objective(lambda _, images, rows: (images - _there(centre, images)).square().flatten(1).sum(1))


def alpha_norm(alpha: float, centre: float | torch.Tensor = 0.0, unit: float = 1.0) -> Objective:
    """sum |(I - centre) * unit|^alpha (Mahendran & Vedaldi 2014: alpha 6; unit 255 for their pixels)."""
    return Objective(lambda _, images, rows: ((images - _there(centre, images)) * unit).abs().pow(alpha).flatten(1).sum(1))


def total_variation(beta: float = 2.0, unit: float = 1.0) -> Objective:
    """sum (dx^2 + dy^2)^(beta / 2) of pixels times unit; differences past the edge are 0 (Mahendran & Vedaldi 2014)."""

    def score(_: Read, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        x = images * unit
        dx = F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))
        dy = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
        both = dx.square() + dy.square()
        if beta != 2.0:
            both = (both + 1e-12).pow(beta / 2)  # a root has no slope at 0
        return both.flatten(1).sum(1)

    return Objective(score)


def _of_class(z: torch.Tensor, classes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return z.gather(1, classes.to(z.device)[rows].unsqueeze(1))[:, 0]


def _others(z: torch.Tensor, classes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return z.scatter(1, classes.to(z.device)[rows].unsqueeze(1), -torch.inf)


def _there(centre: float | torch.Tensor, images: torch.Tensor) -> float | torch.Tensor:
    return centre.to(images) if isinstance(centre, torch.Tensor) else centre


def _by_image(a: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(m * crops, ...) of a layer as (m, crops, ...)."""
    return a.unflatten(0, (len(rows), -1))


def _unit(a: torch.Tensor, index: tuple[int, ...]) -> torch.Tensor:
    """(crops,) of (crops, ...)."""
    if a.ndim == 4 and len(index) == 1:
        return a[:, index[0], a.shape[2] // 2, a.shape[3] // 2]
    every: tuple[slice | int, ...] = (slice(None), *index)
    return a[every]
