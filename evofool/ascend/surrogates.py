"""Climbs the gradients of other networks than the target, its surrogates, in the low frequencies of an image's pixels.

Source of the idea: transfer attacks; the target is not asked here. A surrogate of the target's own family helps, one that is
unrelated does not (docs/surrogates.md has the measurements).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import torch
from torch.nn import functional as F

from evofool.ascend.hooks import ForwardPass, Hooks
from evofool.ascend.objectives import log_odds
from evofool.errors import RecipeError, TargetError
from evofool.images import levels
from evofool.targets.classifier import Target
from evofool.targets.labels import matching_classes
from genomes import Encoding, Genomes, Key, PixelEncoding
from genomes.random import integers

_MOMENTUM = 0.6
_JITTER = 10 / 224  # of a side, the largest shift of the image before a pass
_ROWS = 1 << 61  # the rows of the keys of shifts: other ones than those of variation


class Climb(NamedTuple):
    """How an image climbs. steps: on each surrogate. band: the number of cosines along a side of the pixels that steps are
    made of. rate: the root mean square of a step in grey levels."""

    steps: int = 14
    band: int = 28
    rate: float = 2.5


class Surrogates:
    """Networks whose gradients stand in for those of a target.

    costs: (K,) int64, the forward passes that a climb for each class of the target takes, and as many backward ones; 0 where
    no surrogate has the class. notes: what a user should know of them.

    TargetError for a network without gradients, without a class of the target's, with other channels, and for the target
    itself. RecipeError for an encoding whose genomes are no pixels.
    """

    def __init__(self, networks: Sequence[Target], target: Target, encoding: Encoding, climb: Climb) -> None:
        if not hasattr(encoding, "of_pixels"):
            raise RecipeError(
                f"{encoding.name} genomes cannot climb on surrogates, whose gradients move pixels; canvas and direct can"
            )
        self.networks, self.climb = tuple(networks), climb
        self.encoding = cast(PixelEncoding, encoding)
        self._guides = [_Guide(network, target) for network in networks]
        self.costs = climb.steps * np.array([guide.classes >= 0 for guide in self._guides], np.int64).sum(axis=0)
        self.fingerprints = tuple(network.fingerprint() for network in networks)
        self.notes = [note for guide in self._guides for note in guide.notes]

    def children(self, mothers: Genomes, classes: np.ndarray, keys: Sequence[Key]) -> Genomes:
        """A child of each mother, which has climbed the log-odds of its class, (n,) int64; keys: of the children's rows.

        The step is the mean of the surrogates' gradients, each divided by its root mean square, with momentum 0.6. It is
        projected onto the lowest `band` cosines of the discrete cosine transform along each side. Before each pass the image
        is shifted, cyclically, by up to 10/224 of its sides, as the key says. In the end it is rounded to 8 bits.

        Each child climbs in passes of its own, so that it does not depend on the others. The same bits are claimed for one
        kind of CPU with the same number of torch threads. A gradient that is not finite counts as 0.
        """
        pixels = [
            self._climbed(start, int(c), key)
            for start, c, key in zip(self.encoding.pixels(mothers), classes, keys, strict=True)
        ]
        return self.encoding.of_pixels(np.stack(pixels)) if pixels else mothers[:0]

    def classes(self, images: np.ndarray) -> np.ndarray:
        """(surrogates, B) int64: the target's class with each highest logit, of uint8 (B, C, H, W); -1: it has none."""
        x = torch.from_numpy(images).float() / 255.0
        with torch.no_grad():
            return np.stack([guide.of_target[guide.logits(x).argmax(1).cpu().numpy()] for guide in self._guides])

    def _climbed(self, start: np.ndarray, class_id: int, key: Key) -> np.ndarray:
        """uint8 (C, h, w), from such pixels."""
        guides = [guide for guide in self._guides if guide.classes[class_id] >= 0]
        most = [max(1, round(_JITTER * side)) for side in (self.encoding.height, self.encoding.width)]
        drawn = integers(key.at(_ROWS), 1 << 53, self.climb.steps * len(guides) * 2)
        shifts = (drawn.reshape(-1, 2) % (2 * np.array(most) + 1) - most).reshape(self.climb.steps, len(guides), 2).tolist()
        x = torch.tensor(start, dtype=torch.float64)
        lows = [_low_frequencies(side, self.climb.band) for side in x.shape[1:]]
        momentum = torch.zeros_like(x)
        for of_step in shifts:
            gradient = torch.zeros_like(x)
            for guide, shift in zip(guides, of_step, strict=True):
                gradient += _scaled(self._gradient(guide, x, class_id, tuple(shift)))
            momentum = _MOMENTUM * momentum + _scaled(lows[0] @ gradient @ lows[1])
            x = (x + self.climb.rate * _scaled(momentum)).clamp(0.0, 255.0)
        return levels(x / 255.0).to(torch.uint8).numpy()

    def _gradient(self, guide: "_Guide", x: torch.Tensor, class_id: int, shift: tuple[int, ...]) -> torch.Tensor:
        """float64 (C, h, w): of the log-odds of a class of the target, for pixels (C, h, w)."""
        pixels = x.float().requires_grad_()
        with torch.enable_grad():
            images = torch.roll(self.encoding.spread(pixels[None]) / 255.0, shift, (2, 3))
            (gradient,) = torch.autograd.grad(guide.log_odds(images, class_id), pixels)
        return torch.nan_to_num(gradient.double(), 0.0, 0.0, 0.0)


def lacks_gradients(name: str) -> TargetError:
    """The error for a surrogate without gradients."""
    return TargetError(
        f"{name} cannot be a surrogate: it has no gradients; name a network that runs in PyTorch (search.surrogate.targets)"
    )


class _Guide:
    """One surrogate, for images of the target's size. classes: (K,) int64, its class for each of the target's; -1: none."""

    def __init__(self, network: Target, target: Target) -> None:
        if not network.differentiable:
            raise lacks_gradients(network.name)
        if network.fingerprint() == target.fingerprint():
            raise TargetError(
                f"{network.name} is the target itself, not a surrogate; its own gradients are used by evofool polish and "
                "evofool baseline"
            )
        if network.shape[0] != target.shape[0]:
            raise TargetError(
                f"{network.name}: a surrogate of {target.name} has to take images of {target.shape[0]} channels, not "
                f"{network.shape[0]}"
            )
        self.classes = matching_classes(target.labels, network.labels)
        self.notes: list[str] = []
        missing = int((self.classes < 0).sum())
        if missing == len(self.classes):
            raise TargetError(
                f"{network.name} has no class of {target.name}: its labels are {', '.join(network.labels[:3])} ..., the "
                f"target's {', '.join(target.labels[:3])} ...; if they are the same classes, give them the same names: "
                "labels=FILE in a target's spec"
            )
        if missing:
            self.notes.append(f"the surrogate {network.name} lacks {missing} of the {len(self.classes)} classes")
        self.of_target = np.full(len(network.labels), -1)  # the target's class for each of its own
        self.of_target[self.classes[self.classes >= 0]] = np.flatnonzero(self.classes >= 0)
        self._hooks = Hooks(network)
        self._fit = self._size(network, target)
        self._check(network, target)

    def log_odds(self, images: torch.Tensor, class_id: int) -> torch.Tensor:
        """The log-odds of a class of the target, for images (1, C, H, W) on [0, 1] of the target's size."""
        forward = self._forward(images)
        item = torch.zeros(1, dtype=torch.int64, device=forward.logits.device)
        return log_odds(torch.tensor([self.classes[class_id]]))(forward, images, item).sum()

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(B, its own classes), for images (B, C, H, W) on [0, 1] of the target's size."""
        return self._forward(images).logits

    def _forward(self, images: torch.Tensor) -> ForwardPass:
        if self._fit is not None:
            images = self._fit[0] @ images @ self._fit[1].T
        return self._hooks.forward(images)

    def _size(self, network: Target, target: Target) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The matrices that resize the target's images to the network's; None if it takes them as they are."""
        if network.shape == target.shape:
            return None
        try:
            with torch.no_grad():
                if self._hooks.forward(torch.zeros(1, *target.shape)).logits.shape == (1, len(network.labels)):
                    return None
        except Exception:  # a network that takes its own size alone may raise any error
            pass
        height, width = (_resizing(*sides) for sides in zip(target.shape[1:], network.shape[1:], strict=True))
        return height, width

    def _check(self, network: Target, target: Target) -> None:
        """TargetError if it gives no gradient."""
        image = torch.from_numpy(np.random.default_rng(0).random((1, *target.shape), np.float32)).requires_grad_()
        first = int(np.flatnonzero(self.classes >= 0)[0])
        try:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.log_odds(image, first), image)
        except RuntimeError as error:
            raise TargetError(f"{network.name}: gives no gradients ({str(error).splitlines()[0]})") from None
        if not torch.isfinite(gradient).all():
            raise TargetError(f"{network.name}: its gradient is NaN or infinite for an image of noise; check its weights")


def _scaled(x: torch.Tensor) -> torch.Tensor:
    """x divided by its root mean square; 0 if that is 0."""
    size = x.square().mean().sqrt()
    return x / size if size > 0 else x


@lru_cache(maxsize=16)
def _low_frequencies(side: int, band: int) -> torch.Tensor:
    """float64 (side, side): the projection onto the lowest `band` vectors of the orthonormal DCT-II."""
    k, place = np.arange(min(band, side))[:, None], (np.arange(side) + 0.5) / side
    cosines = np.cos(np.pi * k * place) * np.sqrt(np.where(k == 0, 1.0, 2.0) / side)
    return torch.from_numpy(cosines.T @ cosines)


def _resizing(length: int, wanted: int) -> torch.Tensor:
    """float32 (wanted, length): bilinear resizing of one side, averaging where it shrinks."""
    rows = torch.eye(length)[:, None, None, :]
    return F.interpolate(rows, (1, wanted), mode="bilinear", antialias=True)[:, 0, 0].T.contiguous()
