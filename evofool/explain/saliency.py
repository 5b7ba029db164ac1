"""Which pixels a class's logit depends on: its gradient by the image (Simonyan 2014), of one image or averaged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from evofool.ascend.draws import Draws
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.targets import Target

_NOISY = ("smooth", "smooth_squared", "variance")
MARGIN = "margin"
AVERAGES = ("none", "crops", *_NOISY)

View = tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]
"""A copy of the images, float (B, C, H, W), and the function that maps its gradient back to the images' pixels."""


def gradient(target: Target, images: np.ndarray, classes: Sequence[int] | np.ndarray, *, microbatch: int = 16) -> np.ndarray:
    """dS_c / dI as float32 (B, C, H, W): S_c: the logit of each image's class, I: the image on [0, 1].

    images: uint8 (B, C, H, W); classes: (B,) ints; microbatch images share a pass, 0 is all of them. Counts B queries: one
    forward and one backward pass an image. Where a network returns probabilities, S_c is a logarithm of a probability.
    Gradients are before the target's preprocessing, so they have the same unit for all networks. TargetError for a target
    without gradients and for an unknown class, ImageError for images that do not fit, ScoreError where a gradient is not
    finite.
    """
    chosen = _checked(target, images, classes)[:, None]
    parts = [
        _class_gradients(target, x, c)[0] for x, c, _ in _batches(target, images, chosen, range(len(images)), microbatch)
    ]
    return torch.cat(parts).cpu().numpy()


@dataclass(frozen=True)
class Averaging:
    """Over which copies of an image gradients are averaged; the maximum over channels is taken last.

    - none: the image alone; one pass an image.
    - crops: ten sub-images (Simonyan 2014, section 3). The image is padded by copies of its edge pixels, `shift` wide (None:
      a 14th of the shorter side, which is 16 of 224 as in ImageNet's ten crops); its four corners and centre are cut out at
      the target's size, and mirrored. Each gradient is mirrored and shifted back, and a pixel has the mean over the
      sub-images that show it. Ten passes an image. Not suited to classes that a mirror image changes, as digits.
    - smooth, smooth_squared, variance: `samples` copies with normal noise of standard deviation `noise` (images on [0, 1],
      not clipped); the mean (Smilkov 2017), the mean of squares (Hooker 2019) or the variance (Adebayo 2018): smoothgrad,
      smoothgrad_sq and vargrad of captum's NoiseTunnel over Saliency. `samples` passes an image.

    signed False averages magnitudes, as captum's Saliency(abs=True) does. True averages signed gradients and takes the
    magnitude of the result, as Smilkov 2017 does.
    """

    kind: str = "none"
    signed: bool = False
    samples: int = 16
    noise: float = 0.1
    shift: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in AVERAGES:
            raise ValueError(f'average "{self.kind}" is none of {", ".join(AVERAGES)}')
        if self.samples < 1 or not self.noise >= 0:
            raise ValueError(f"samples {self.samples} has to be at least 1, and noise {self.noise} at least 0")


def saliency(
    target: Target,
    images: np.ndarray,
    classes: Sequence[int] | np.ndarray,
    *,
    averaging: Averaging | None = None,
    seed: int = 0,
    keys: Sequence[int] | None = None,
    microbatch: int = 16,
) -> np.ndarray:
    """max over channels of |dS_c / dI|, float32 (B, H, W), >= 0 (Simonyan 2014, section 3.1); arguments as in `gradient`.

    averaging: over which copies; by default none. Noise is keyed by seed, the image's key (keys: by default its index) and
    the sample, so it does not depend on the batch.
    """
    averaging = averaging or Averaging()
    return _maps(target, images, [classes], averaging, [averaging.kind], seed, keys, microbatch)[averaging.kind]


def smooth_saliency(
    target: Target,
    images: np.ndarray,
    classes: Sequence[int] | np.ndarray,
    *,
    samples: int = 16,
    noise: float = 0.1,
    seed: int = 0,
    keys: Sequence[int] | None = None,
    against: Sequence[int] | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The maps smooth, smooth_squared and variance, each as from `saliency`, of the same noisy copies: the passes of one.

    against: another class for each image, (B,) ints. With it there is also the map margin: as smooth, but of the gradient of
    S_c - S_a, the logit of the image's class less that of the other. It takes the same forward passes, and one more backward
    pass for each.
    """
    averaging = Averaging("smooth", samples=samples, noise=noise)
    if against is None:
        return _maps(target, images, [classes], averaging, _NOISY, seed, keys)
    return _maps(target, images, [classes, against], averaging, (*_NOISY, MARGIN), seed, keys)


def _maps(
    target: Target,
    images: np.ndarray,
    classes: Sequence[Sequence[int] | np.ndarray],
    averaging: Averaging,
    kinds: Sequence[str],
    seed: int,
    keys: Sequence[int] | None,
    microbatch: int = 16,
) -> dict[str, np.ndarray]:
    """By kind float32 (B, H, W). kinds: some that average over the same copies, those of averaging.kind, and MARGIN.

    classes: of each image, and for MARGIN the class that it is compared with.
    """
    side = min(target.shape[1:])
    shift = max(1, round(side / 14)) if averaging.shift is None else averaging.shift
    if not 0 <= shift < side:
        raise ValueError(f"shift {shift} has to be at least 0 and under {side}, the image's shorter side")
    chosen = np.stack([_checked(target, images, each) for each in classes], 1)
    keys = range(len(images)) if keys is None else keys
    if len(keys) != len(images):
        raise ValueError(f"{len(keys)} keys for {len(images)} images")
    maps: dict[str, list[torch.Tensor]] = {kind: [] for kind in kinds}
    for x, c, k in _batches(target, images, chosen, keys, microbatch):
        if averaging.kind == "none":
            views = _as_is(x)
        elif averaging.kind == "crops":
            views = _crops(x, shift)
        else:
            views = _noisy(x, averaging, seed, k)
        (mean, square), *of_margin = _moments(target, x, c, views, averaging.signed)
        averages = {"smooth_squared": square, "variance": (square - mean.square()).clamp_min(0)}
        if of_margin:
            averages[MARGIN] = of_margin[0][0]
        for kind in kinds:
            average = averages.get(kind, mean)
            maps[kind].append(average.abs().amax(1).float().cpu())
    return {kind: torch.cat(parts).numpy() for kind, parts in maps.items()}


def _moments(
    target: Target, x: torch.Tensor, classes: torch.Tensor, views: Iterator[View], signed: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The means of each of _class_gradients and of their squares, float64 (B, C, H, W).

    In float32 a variance would lose precision.
    """
    shown = torch.zeros_like(x, dtype=torch.float64)
    sums = [(torch.zeros_like(shown), torch.zeros_like(shown)) for _ in range(classes.shape[1])]
    for seen, back in views:
        for found, (total, squares) in zip(_class_gradients(target, seen, classes), sums, strict=True):
            gradients = found.double() if signed else found.double().abs()
            total += back(gradients)
            squares += back(gradients.square())
        shown += back(torch.ones_like(shown))
    return [(total / shown, squares / shown) for total, squares in sums]


def _as_is(x: torch.Tensor) -> Iterator[View]:
    yield x, _same


def _crops(x: torch.Tensor, shift: int) -> Iterator[View]:
    height, width = x.shape[2:]
    framed = F.pad(x, (shift,) * 4, mode="replicate")
    for top, left in [(0, 0), (0, 2 * shift), (2 * shift, 0), (2 * shift, 2 * shift), (shift, shift)]:
        part = framed[:, :, top : top + height, left : left + width]
        yield part, partial(_shifted_back, top=top, left=left, shift=shift, mirrored=False)
        yield part.flip(3), partial(_shifted_back, top=top, left=left, shift=shift, mirrored=True)


def _shifted_back(g: torch.Tensor, top: int, left: int, shift: int, mirrored: bool) -> torch.Tensor:
    """A sub-image's gradient at the image's pixels; the part on the padding is cut off."""
    height, width = g.shape[2:]
    framed = F.pad(g.flip(3) if mirrored else g, (left, 2 * shift - left, top, 2 * shift - top))
    return framed[:, :, shift : shift + height, shift : shift + width]


def _noisy(x: torch.Tensor, averaging: Averaging, seed: int, keys: Sequence[int]) -> Iterator[View]:
    for sample in range(averaging.samples):
        yield x + averaging.noise * Draws(seed, keys, sample, x.device).normal(*x.shape[1:]), _same


def _same(g: torch.Tensor) -> torch.Tensor:
    return g


def _class_gradients(target: Target, x: torch.Tensor, classes: torch.Tensor) -> list[torch.Tensor]:
    """Gradients by the images, float32 (B, C, H, W) each; in eval mode the images of a batch are independent.

    classes: (B, 1), of each image's logit; or (B, 2), of the first class's logit, and of it less the second's.
    """
    with torch.enable_grad():
        seen = x.detach().requires_grad_()
        logits = target.logits_float(seen).gather(1, classes)
        scores = [logits[:, 0].sum()]
        if classes.shape[1] == 2:
            scores.append((logits[:, 0] - logits[:, 1]).sum())
        # Only for the images, so that no gradients accumulate in the network's parameters.
        found = [
            torch.autograd.grad(score, seen, allow_unused=True, retain_graph=score is not scores[-1])[0]
            if score.requires_grad
            else None
            for score in scores
        ]
    gradients = [gradient for gradient in found if gradient is not None]
    if len(gradients) < len(found):
        raise TargetError(f"{target.name}: no gradient reaches the image; its network leaves torch or detaches somewhere")
    for gradient in gradients:
        if not gradient.isfinite().all():
            bad = sorted({int(c) for c in classes[~gradient.flatten(1).isfinite().all(1), 0]})
            raise ScoreError(f"{target.name}: the gradient of class {', '.join(map(str, bad))} is not finite")
    return gradients


def _batches(
    target: Target, images: np.ndarray, classes: np.ndarray, keys: Sequence[int], microbatch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, Sequence[int]]]:
    assert target.network is not None
    device = target.network.device
    step = microbatch or len(images)
    for begin in range(0, len(images), step):
        part = slice(begin, begin + step)
        x = torch.from_numpy(np.ascontiguousarray(images[part])).to(device).float() / 255.0
        yield x, torch.from_numpy(classes[part]).to(device), keys[part]


def _checked(target: Target, images: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
    """The classes as int64 (B,)."""
    if target.network is None:
        raise TargetError(
            f"{target.name}: a target without gradients has no saliency. Occlusion (evofool explain) and the black-box "
            "attacks (evofool baseline square, nes, random) need no gradients"
        )
    if images.dtype != np.uint8 or images.shape[1:] != target.shape or len(images) == 0:
        raise ImageError(
            f"{target.name}: takes uint8 images (B, {', '.join(map(str, target.shape))}), not {images.dtype} {images.shape}"
        )
    chosen = np.asarray(classes, dtype=np.int64)
    if chosen.shape != (len(images),):
        raise TargetError(f"{target.name}: {len(images)} images need as many classes, not {chosen.shape}")
    count = len(target.labels)
    for c in chosen:
        if not 0 <= c < count:
            raise TargetError(f"{target.name}: no class {c}; there are {count}, 0 ({target.labels[0]}) to {count - 1}")
    return chosen
