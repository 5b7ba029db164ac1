"""What a layer keeps of an image: another image is looked for that the layer answers alike (Mahendran & Vedaldi 2014)."""

from dataclasses import dataclass

import numpy as np
import torch

from evofool.ascend.draws import Draws
from evofool.ascend.hooks import Hooks
from evofool.ascend.loop import Ascent, Tick, ascend
from evofool.ascend.objectives import LOGITS, Objective, alpha_norm, match, total_variation
from evofool.ascend.params import Pixels
from evofool.ascend.rules import Momentum, Optimiser, StepRule
from evofool.errors import ImageError, ScoreError
from evofool.scores import log_odds
from evofool.targets import Preprocessing, Target

# Their sigma, 27098, is the mean norm of their training images: 227 x 227 x 3 pixels on 0..255, the mean image taken off.
_SIDE = 227
_SPREAD = 27098 / 255 / (3 * _SIDE * _SIDE) ** 0.5  # of a pixel on [0, 1]: 0.27
_START = 0.1  # deviation of the noise that an inversion starts from
_RESTART = 1 << 20  # between the keys of an image's restarts


@dataclass(frozen=True)
class Inversion:
    """n images whose answers at a layer are as near as could be found to those of the n images given.

    images: uint8 (n, C, H, W). relative (n,) float64: ||d|| / ||f||, f the features of an image given, d the difference that
    the inversion's have from them. Two errors make layers comparable: squared is ||d||^2 over the mean squared distance of
    pairs of images, as the authors' code has it, unsquared ||d|| over the mean distance, as their text has it: the first is
    about the square of the second. by: "pairs", or "norm" where there were no two different images: then they are
    relative^2 and relative, and not to be compared with the others.

    classes (n,) int64: what the target says to the images given. kept (n,) bool: whether it says so to the inversions too,
    whatever they look like; log_odds (n,) float64: how sure of that class it is then. forwards, backwards: passes spent.
    notes: what was stopped, and why. interrupted: tick said so; the best so far is here.
    """

    layer: str
    images: np.ndarray
    relative: np.ndarray
    squared: np.ndarray
    unsquared: np.ndarray
    by: str
    classes: np.ndarray
    kept: np.ndarray
    log_odds: np.ndarray
    forwards: int
    backwards: int
    notes: list[str]
    interrupted: bool


def invert(
    target: Target,
    images: np.ndarray,
    layer: str,
    *,
    tv: float = 3.0,
    alpha: float = 0.0,
    restarts: int = 1,
    steps: int = 200,
    rate: float = 0.3,
    rule: StepRule | None = None,
    reference: np.ndarray | None = None,
    seed: int = 0,
    microbatch: int = 0,
    streams: int = 1,
    tick: Tick | None = None,
) -> Inversion:
    """For each image the one that minimises ||F(x) - f||^2 / ||f||^2 + [alpha/2 sum x^6 + tv/2 sum (dx^2 + dy^2)] / sigma^2.

    images: uint8 (n, C, H, W). layer: a name of the network's modules, or "logits", its answer. x is what an image differs
    by from the pixel that the network is fed as 0; there it starts, as faint noise. The network sees x in 8 bits. Of the
    restarts of an image, all in one batch, the one with the smallest error is kept. reference: uint8 (m, C, H, W), whose
    features say how far apart different images are; the images themselves unless given. What is inverted of a deep layer
    need look like nothing and still be the class to the network: then it is a fooling image.

    The objective is the paper's, and so are the units of its constants (pixels on 0..255, 227 a side; there tv is 1, 10
    and 100 for early, middle and deep layers, alpha 8e-10), for images of any size. Ours are: the box [0, 1] that holds
    pixels in range, for which alpha may be 0; one tv for all depths; and Adam, its rate falling to 0 along half a cosine.
    rule=paper_rule(shape) with steps=400 are the paper's steps, which end further off (`rate` is not read then).

    Costs `steps` backward passes for each image and restart, up to the layer, and one more forward pass; reading features
    and classes a few more. TargetError for a target without gradients and for a layer that is not there, ImageError for
    images that do not fit, ScoreError where the features of an image given are not finite.
    """
    if restarts < 1 or steps < 1 or tv < 0 or alpha < 0:
        raise ValueError(
            f"restarts {restarts} and steps {steps} have to be at least 1, tv {tv} and alpha {alpha} at least 0"
        )
    before = target.queries
    n = len(images)
    _fits(target, images)
    features = _features(target, images, layer)
    if not torch.isfinite(features).all():
        raise ScoreError(f'{target.name}: layer "{layer}" answers NaN or infinity for an image given; check its weights')
    centre = _zero(target).to(features.device)
    objective = _objective(layer, features.repeat(restarts, 1), target.shape, centre, tv, alpha)

    def start(draws: Draws) -> torch.Tensor:
        return centre + _START * draws.normal(*target.shape).to(centre)

    ascent = Ascent(Pixels(start), objective, _falling(rate, steps) if rule is None else rule, steps)
    keys = [restart * _RESTART + k for restart in range(restarts) for k in range(n)]
    found = ascend(target, ascent, keys, seed=seed, microbatch=microbatch, streams=streams, tick=tick)
    away = (_features(target, found.images, layer) - features.repeat(restarts, 1)).double().norm(dim=1)
    away = torch.where(torch.isfinite(away), away, torch.inf).view(restarts, n)
    best = away.argmin(0)
    chosen = found.images.reshape(restarts, *images.shape)[best.cpu().numpy(), np.arange(n)]
    d, norm = away.amin(0).cpu().numpy(), features.double().norm(dim=1).cpu().numpy().clip(1e-12)
    mean, mean_square = _pairs(features if reference is None else _features(target, reference, layer))
    by = "pairs" if mean > 0 else "norm"
    classes, told = target.logits(images).argmax(1), target.logits(chosen)
    return Inversion(
        layer,
        chosen,
        d / norm,
        d**2 / (mean_square if by == "pairs" else norm**2),
        d / (mean if by == "pairs" else norm),
        by,
        classes,
        told.argmax(1) == classes,
        log_odds(told)[np.arange(n), classes],
        target.queries - before,
        int(found.backwards.sum()),
        [f"image {row % n}, start {row // n}: {words}" for row, words in found.notes],
        found.interrupted,
    )


def paper_rule(shape: tuple[int, int, int]) -> Momentum:
    """Mahendran & Vedaldi's steps for images of this shape (C, H, W): momentum 0.9, dropped at each change of rate.

    0.004 sigma^2 along the gradient for 100 steps, a tenth of that for 200, a hundredth for 100. Their pixels had no bounds.
    """
    sigma = _SPREAD**2 * float(np.prod(shape))
    return Momentum([(0.004 * sigma, 100), (0.0004 * sigma, 200), (0.00004 * sigma, 100)], 0.9)


def _objective(
    layer: str, features: torch.Tensor, shape: tuple[int, int, int], centre: torch.Tensor, tv: float, alpha: float
) -> Objective:
    """What is climbed: minus the sum to be minimised. Sums of squared differences of a picture hardly depend on its size."""
    sigma = _SPREAD * float(np.prod(shape)) ** 0.5
    sigma_theirs = _SPREAD * float(shape[0] * _SIDE * _SIDE) ** 0.5
    found = match(layer, features) - total_variation() * (tv / 2 / sigma_theirs**2)
    return found - alpha_norm(6, centre, 255) * (alpha / 2 / (255 * sigma) ** 2) if alpha else found


def _falling(rate: float, steps: int) -> Optimiser:
    def make(leaves: list[torch.Tensor]) -> torch.optim.Optimizer:
        adam = torch.optim.Adam(leaves, lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        adam.register_step_post_hook(lambda *_: schedule.step())
        return adam

    return Optimiser(make)


def _fits(target: Target, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != target.shape or not len(images):
        raise ImageError(
            f"{target.name}: takes uint8 images (n, {', '.join(map(str, target.shape))}), not {images.dtype} {images.shape}"
        )


def _zero(target: Target) -> torch.Tensor:
    """(C, 1, 1): the pixel on [0, 1] that the network is fed as 0, or the nearest to it."""
    fed = Preprocessing(**target.details["preprocessing"])
    mean = torch.tensor(fed.mean).expand(target.shape[0])
    return ((mean.flip(0) if fed.order == "BGR" else mean) / (fed.scale * 255)).clamp(0, 1).view(-1, 1, 1)


def _features(target: Target, images: np.ndarray, layer: str, batch: int = 8) -> torch.Tensor:
    """(n, D) float32 on the network's device, several crops of an image in one row."""
    _fits(target, images)
    logits = layer == LOGITS
    rows = []
    with Hooks(target, [] if logits else [layer], logits=logits) as hooks, torch.no_grad():
        for part in torch.tensor(images).split(batch):
            read = hooks.forward(part.float() / 255)
            rows.append((read.logits if logits else read.layer(layer)).float().reshape(len(part), -1))
    return torch.cat(rows)


def _pairs(features: torch.Tensor) -> tuple[float, float]:
    """Mean and mean squared distance of all pairs of rows; 0 of a single one."""
    apart = torch.pdist(features.double())
    return (float(apart.mean()), float(apart.square().mean())) if len(apart) else (0.0, 0.0)
