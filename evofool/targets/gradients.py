"""Whether a network's gradients can be used, or are masked: absent, zero, not finite, or absurdly large.

Source: Athalye, Carlini & Wagner 2018, "Obfuscated gradients". A defence that masks gradients is not harder to fool.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from evofool.targets.classifier import Target
from evofool.targets.photos import drawings, patterns

REAL = 16  # real images that a check looks at, at most
_EACH = 8  # patterns, and as many drawings
_TOGETHER = 4  # images in a pass
_GREY_LEVELS = 255.0

Logits = Callable[[torch.Tensor], torch.Tensor]
"""float (B, C, H, W) on [0, 1] to logits (B, K), with gradients where there are any."""


@dataclass(frozen=True)
class GradientCheck:
    """How many of some images have a usable gradient. fault: what is wrong if fewer than half of them have one, else ""."""

    images: int
    usable: int
    fault: str = ""


def check_gradients(target: Target, real: np.ndarray | None = None, logits: Logits | None = None) -> GradientCheck:
    """One backward pass for each of 16 patterns and drawings, and of the first 16 real images, uint8 (n, C, H, W).

    Image i climbs the margin of class i modulo K. Its gradient is usable if it is finite, not 0 everywhere, and not so
    large that one grey level of one pixel would change the margin by more than the range of the margins of all images.
    logits: instead of the target's own. Only for a target with a network.
    """
    images = np.concatenate([patterns(target.shape, _EACH), drawings(target.shape, _EACH), _first(real, target.shape)])
    forward = logits or target.logits_float
    margins, gradients = list[torch.Tensor](), list[torch.Tensor]()
    for at in range(0, len(images), _TOGETHER):
        try:
            values, gradient = _backward(target, forward, images[at : at + _TOGETHER], at)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # autograd's, such as of an operation without a derivative
            return GradientCheck(len(images), 0, f"there are none ({str(error).splitlines()[0]})")
        if gradient is None:
            return GradientCheck(len(images), 0, "there are none: the output does not depend on the image for autograd")
        margins.append(values)
        gradients.append(gradient)
    return _judged(torch.cat(margins), torch.cat(gradients).flatten(1))


def _first(real: np.ndarray | None, shape: tuple[int, int, int]) -> np.ndarray:
    return np.zeros((0, *shape), np.uint8) if real is None else real[:REAL]


def _backward(target: Target, forward: Logits, images: np.ndarray, first: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """((B,) margins, their gradient or None where autograd has none) for uint8 images, numbered from `first` on."""
    assert target.network is not None
    x = torch.from_numpy(images).to(target.network.device).float().div(_GREY_LEVELS).requires_grad_()
    with torch.enable_grad():
        z = forward(x).double()
        of = (torch.arange(len(x), device=z.device) + first) % z.shape[1]
        values = z.gather(1, of[:, None])[:, 0]
        if not target.multilabel:
            values = values - z.scatter(1, of[:, None], -torch.inf).amax(1)
        if not values.requires_grad:
            return values.cpu(), None
        (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    return values.detach().cpu(), None if gradient is None else gradient.cpu()


def _judged(margins: torch.Tensor, gradients: torch.Tensor) -> GradientCheck:
    """margins: (n,); gradients: (n, pixels), of images on [0, 1]."""
    finite = torch.isfinite(gradients).all(1)
    largest = gradients.abs().amax(1)
    known = margins[torch.isfinite(margins)]
    span = float(known.max() - known.min()) if len(known) else 0.0
    span = span or torch.inf  # of equal margins no gradient is too large
    zero = finite & (largest == 0)
    exploding = finite & (largest / _GREY_LEVELS > span) & ~zero
    n, usable = len(margins), int((finite & ~zero & ~exploding).sum())
    if 2 * usable >= n:
        return GradientCheck(n, usable)
    counts = {
        "zero everywhere": int(zero.sum()),
        "not finite": int((~finite).sum()),
        "absurdly large (one grey level of one pixel would change the margin by more than the whole range of margins)": int(
            exploding.sum()
        ),
    }
    return GradientCheck(n, usable, ", ".join(f"{what} for {k} of {n} images" for what, k in counts.items() if k))
