"""What a layer keeps of an image: a search for another image with the same features (Mahendran & Vedaldi 2014)."""

from dataclasses import dataclass

import numpy as np
import torch

from evofool.ascend.hooks import Hooks
from evofool.ascend.leaky import LeakyGradients
from evofool.ascend.loop import Ascent, Tick, ascend
from evofool.ascend.objectives import LOGITS, Objective, alpha_norm, match, total_variation
from evofool.ascend.params import BoxedFourier, Param, Pixels
from evofool.ascend.rules import Momentum, Optimiser, StepRule
from evofool.errors import ImageError, ScoreError
from evofool.scores import log_odds, margin
from evofool.targets import Preprocessing, Target

# The paper's sigma, 27098, is the mean norm of its training images: 227 x 227 x 3 pixels on 0..255, minus the mean image.
_SIDE = 227
_SPREAD = 27098 / 255 / (3 * _SIDE * _SIDE) ** 0.5  # of a pixel on [0, 1]: 0.27
_FIRST_TV = 30.0  # at the first step
_TV, _MOST_TV = 0.0001, 30.0  # tv at the last step of a layer with as many values as the image, and the most
_LEAK, _MOST_LEAK = 3.3, 0.3  # the values of the image over the layer's at which the first leak is 1, and the most
_STEPS, _FEWEST, _MOST = 820, 50, 200
_MOST_RATE, _PIXEL_RATE = 1.0, 0.3  # of Adam, over Fourier coefficients and over pixels
_DEEP = 16.0  # the values of the image over the layer's from which on the rate falls
_EARLY = 1000.0  # taken from the scores of early steps
_START = 0.05  # standard deviation of the noise at the start of a search over pixels
_SMALL = 64  # pixels; smaller images are searched for over their pixels
_RESTART = 1 << 20  # between the keys of an image's restarts


@dataclass(frozen=True)
class InversionSettings:
    """How an inversion is searched for.

    tv: the weight of total variation at the last step, in the paper's units; the first has 30, or tv if that is more,
    and it falls by the same factor in each step. 0: none at any step. leak: the share of the gradient that inactive
    ReLUs pass on in the first step; it falls linearly to 0. alpha: the weight of the pixels' norm. restarts: starts for
    each image, of which the one with the smallest error is kept. steps, rate: of Adam, whose rate falls to 0 along half
    a cosine. tv, leak, steps and rate follow the layer's size unless given: graded_tv, graded_leak, graded_steps,
    graded_rate. rule: another optimiser, over pixels, with the same tv at each step and without a leak; `rate` is then
    not used. microbatch, streams: as in ascend.
    """

    tv: float | None = None
    leak: float | None = None
    alpha: float = 0.0
    restarts: int = 1
    steps: int | None = None
    rate: float | None = None
    rule: StepRule | None = None
    microbatch: int = 0
    streams: int = 1

    def __post_init__(self) -> None:
        if self.restarts < 1 or (self.steps is not None and self.steps < 1) or (self.tv or 0) < 0 or self.alpha < 0:
            raise ValueError(
                f"restarts {self.restarts} and steps {self.steps} have to be at least 1, tv {self.tv} and alpha "
                f"{self.alpha} at least 0"
            )
        if not 0 <= (self.leak or 0) <= 1:
            raise ValueError(f"leak {self.leak} has to be from 0 to 1")


@dataclass(frozen=True)
class Inversion:
    """n images whose features at a layer are as near as was found to those of n given images.

    images: uint8 (n, C, H, W). relative (n,) float64: ||d|| / ||f||, with f the features of a given image and d the
    difference between its features and the inversion's. Two errors are comparable between layers: squared is ||d||^2 over
    the mean squared distance between pairs of images, as in the authors' code; unsquared is ||d|| over the mean distance, as
    in their text. squared is about the square of unsquared. by: "pairs", or "norm" where no two images differ: then they are
    relative^2 and relative, and not comparable between layers.

    classes (n,) int64: the target's class for each given image. kept (n,) bool: whether the target gives the inversion, in 8
    bits, the same class; log_odds, margins (n,) float64: the inversion's, of that class. Where a margin is positive but
    small the class is kept by little. tv, leak, steps: those that were used. forwards, backwards: passes spent. notes: which
    ascents stopped early, and why. interrupted: tick stopped the search; the best images so far are returned.
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
    margins: np.ndarray
    tv: float
    leak: float
    steps: int
    forwards: int
    backwards: int
    notes: list[str]
    interrupted: bool


def invert(
    target: Target,
    images: np.ndarray,
    layer: str,
    *,
    settings: InversionSettings | None = None,
    reference: np.ndarray | None = None,
    seed: int = 0,
    tick: Tick | None = None,
) -> Inversion:
    """For each image one that minimises ||F(x) - f||^2 / ||f||^2 + [alpha/2 sum x^6 + tv/2 sum (dx^2 + dy^2)] / sigma^2.

    images: uint8 (n, C, H, W). layer: the name of a module of the network, or "logits" for its output. x is the difference
    of an image to the pixel that preprocessing maps to 0; the search starts there, with faint noise, and never from the
    given image. The network gets x in 8 bits. All restarts of all images are in one batch. reference: uint8 (m, C, H, W),
    whose pairs give the distance between features of different images; by default the images themselves. An inversion of a
    deep layer may resemble nothing and still have the class: then it is a fooling image.

    The objective is the paper's, in the units of its constants (pixels on 0..255, 227 a side; there tv is 1, 10 and 100 for
    early, middle and deep layers, alpha 8e-10), for images of any size. Four things differ: pixels are kept in [0, 1],
    which makes alpha unnecessary; tv falls during the search, to a weight that follows the layer's size (graded_tv), so that
    the image is smooth where the layer leaves it free; the optimiser is Adam, over BoxedFourier where the image has at least
    64 pixels a side; and at first inactive ReLUs pass on a share of the gradient (graded_leak, LeakyGradients). The paper's
    optimiser, rule=paper_rule(shape) with steps=400, ends at a larger error. Of the images of the second half of the steps
    the one with the smallest sum, at the last tv, is returned; earlier ones, which are smoother, count only if the search
    ends there.

    Costs `steps` backward passes for each image and restart, up to the layer, one more forward pass, and a few forward
    passes for features and classes. TargetError for a target without gradients and for an unknown layer, ImageError for
    images that do not fit, ScoreError where the features of a given image are not finite.
    """
    settings = settings or InversionSettings()
    restarts = settings.restarts
    before = target.queries
    n = len(images)
    _fits(target, images)
    features = _features(target, images, layer)
    if not torch.isfinite(features).all():
        raise ScoreError(
            f'{target.name}: the output of layer "{layer}" is NaN or infinite for a given image; check its weights'
        )
    centre = _zero(target).to(features.device)
    tv = graded_tv(target.shape, features.shape[1]) if settings.tv is None else settings.tv
    steps = graded_steps(target.shape, features.shape[1]) if settings.steps is None else settings.steps
    leak = settings.leak
    if leak is None:
        leak = graded_leak(target.shape, features.shape[1]) if settings.rule is None else 0.0
    smoothing, gradients = _Smoothing(tv, steps, constant=settings.rule is not None), LeakyGradients(leak)
    wanted = features.repeat(restarts, 1)
    objective = _objective(layer, wanted, target.shape, centre, smoothing, settings.alpha)
    spectral = settings.rule is None and min(target.shape[1:]) >= _SMALL
    rate = graded_rate(target.shape, features.shape[1]) if settings.rate is None else settings.rate
    rule = _falling(rate, steps) if settings.rule is None else settings.rule
    param = _pixels(target.shape, centre, spectral)
    at_last = _objective(layer, wanted, target.shape, centre, _Smoothing(tv, steps, constant=True), settings.alpha)
    ascent = Ascent(param, objective, rule, steps, select_by=_late(at_last, smoothing, steps))

    def after_step(iteration: int, of: int) -> bool:
        smoothing.step = iteration + 1
        gradients.leak = leak * max(0.0, 1 - smoothing.step / steps)
        return tick is not None and tick(iteration, of)

    keys = [restart * _RESTART + k for restart in range(restarts) for k in range(n)]
    found = ascend(
        *(target, ascent, keys),
        seed=seed,
        microbatch=settings.microbatch,
        streams=settings.streams,
        tick=after_step,
        approximation=gradients,
    )
    away = (_features(target, found.images, layer) - wanted).double().norm(dim=1)
    away = torch.where(torch.isfinite(away), away, torch.inf).view(restarts, n)
    best = away.argmin(0)
    chosen = found.images.reshape(restarts, *images.shape)[best.cpu().numpy(), np.arange(n)]
    d, norm = away.amin(0).cpu().numpy(), features.double().norm(dim=1).cpu().numpy().clip(1e-12)
    mean, mean_square = _pairs(features if reference is None else _features(target, reference, layer))
    by = "pairs" if mean > 0 else "norm"
    classes, logits = target.logits(images).argmax(1), target.logits(chosen)
    return Inversion(
        layer,
        chosen,
        d / norm,
        d**2 / (mean_square if by == "pairs" else norm**2),
        d / (mean if by == "pairs" else norm),
        by,
        classes,
        logits.argmax(1) == classes,
        log_odds(logits, target.multilabel)[np.arange(n), classes],
        margin(logits, target.multilabel)[np.arange(n), classes],
        tv,
        leak,
        steps,
        target.queries - before,
        int(found.backwards.sum()),
        [f"image {row % n}, start {row // n}: {note}" for row, note in found.notes],
        found.interrupted,
    )


def graded_tv(shape: tuple[int, int, int], values: int) -> float:
    """The last weight of total variation for a layer with so many values, of images (C, H, W): 0.0001 (C H W / values)^3.

    It is at most 30. It grows from early layers, which determine the image, to deep ones, of which many images have the
    same features; so do the paper's 1, 10 and 100 for AlexNet's layers. It was chosen by the errors that are left: deeper
    layers amplify fine differences, so an early layer has to be matched much more exactly than a deep one for the class to
    be kept.
    """
    return min(_MOST_TV, _TV * (float(np.prod(shape)) / values) ** 3)


def graded_leak(shape: tuple[int, int, int], values: int) -> float:
    """The leak of ReLUs at the first step for a layer with so many values, of images (C, H, W): (3.3 values / (C H W))^3.

    It is at most 0.3, and 0 for images of less than 64 pixels a side. A leak frees an early layer's search from local
    minima, such as regions of a wrong colour, whose units have no gradient. Deep layers come after many ReLUs, whose leaks
    multiply: their gradients would be those of another network.
    """
    return min(_MOST_LEAK, (_LEAK * values / float(np.prod(shape))) ** 3) if min(shape[1:]) >= _SMALL else 0.0


def graded_steps(shape: tuple[int, int, int], values: int) -> int:
    """The steps for a layer with so many values, of images (C, H, W): 820 / (C H W / values)^0.9, from 50 to 200.

    A deep layer has few values, which are soon matched, and each step goes through more of the network.
    """
    return int(np.clip(round(_STEPS / (float(np.prod(shape)) / values) ** 0.9), _FEWEST, _MOST))


def graded_rate(shape: tuple[int, int, int], values: int) -> float:
    """Adam's first rate for a layer with so many values, of images (C, H, W): 1 / (C H W / values / 16)^0.54, at most 1.

    It is 1 for layers with at least a 16th of the image's values, whose high frequencies change slowly at a lower rate, and
    0.3 for a thousand logits of 224 pixels a side: they are so few that at 1 they are matched better than layers before
    them. 0.3 for images of less than 64 pixels a side, which are searched for over pixels.
    """
    if min(shape[1:]) < _SMALL:
        return _PIXEL_RATE
    return min(_MOST_RATE, (_DEEP * values / float(np.prod(shape))) ** 0.54)


def paper_rule(shape: tuple[int, int, int]) -> Momentum:
    """Mahendran & Vedaldi's optimiser for images of this shape (C, H, W): momentum 0.9, reset at each change of rate.

    The rate is 0.004 sigma^2 for 100 steps, a tenth of that for 200, a hundredth for 100. Their pixels had no bounds.
    """
    sigma = _SPREAD**2 * float(np.prod(shape))
    return Momentum([(0.004 * sigma, 100), (0.0004 * sigma, 200), (0.00004 * sigma, 100)], 0.9)


def _objective(
    layer: str, features: torch.Tensor, shape: tuple[int, int, int], centre: torch.Tensor, tv: "_Smoothing", alpha: float
) -> Objective:
    """The objective to ascend: minus the sum to be minimised. A picture's total variation hardly depends on its size."""
    sigma = _SPREAD * float(np.prod(shape)) ** 0.5
    sigma_theirs = _SPREAD * float(shape[0] * _SIDE * _SIDE) ** 0.5
    variation = total_variation()
    smooth = Objective(lambda *inputs: variation(*inputs) * (tv.now / 2 / sigma_theirs**2))
    found = match(layer, features) - smooth
    return found - alpha_norm(6, centre, 255) * (alpha / 2 / (255 * sigma) ** 2) if alpha else found


def _late(score: Objective, smoothing: "_Smoothing", steps: int) -> Objective:
    """The score, less a constant in the first half of the steps, whose images count only if the search ends there."""
    return Objective(
        lambda *inputs: score(*inputs) - (_EARLY if 2 * smoothing.step < steps else 0.0), score.layers, score.logits
    )


class _Smoothing:
    """The weight of total variation, which falls from step to step to `last`, unless constant."""

    def __init__(self, last: float, steps: int, constant: bool = False) -> None:
        self._last, self._steps, self._constant = last, steps, constant
        self.step = 0

    @property
    def now(self) -> float:
        first = max(_FIRST_TV, self._last)
        return self._last if self._constant or not self._last else first * (self._last / first) ** (self.step / self._steps)


def _pixels(shape: tuple[int, int, int], centre: torch.Tensor, spectral: bool) -> Param:
    """What is searched over; starts are noise around the colour centre."""
    if spectral:
        return BoxedFourier(shape, centre)
    return Pixels(lambda draws: centre + _START * draws.normal(*shape).to(centre))


def _falling(rate: float, steps: int) -> Optimiser:
    def make(leaves: list[torch.Tensor]) -> torch.optim.Optimizer:
        adam = torch.optim.Adam(leaves, lr=rate, betas=(0.9, 0.95))
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
    """(C, 1, 1): the pixel on [0, 1] that preprocessing maps to 0, or the nearest one."""
    return Preprocessing(**target.details["preprocessing"]).zero(target.shape[0])


def _features(target: Target, images: np.ndarray, layer: str, batch: int = 8) -> torch.Tensor:
    """(n, D) float32 on the network's device; several crops of an image are in one row."""
    _fits(target, images)
    logits = layer == LOGITS
    rows = []
    with Hooks(target, [] if logits else [layer], logits=logits) as hooks, torch.no_grad():
        for part in torch.tensor(images).split(batch):
            read = hooks.forward(part.float() / 255)
            rows.append((read.logits if logits else read.layer(layer)).float().reshape(len(part), -1))
    return torch.cat(rows)


def _pairs(features: torch.Tensor) -> tuple[float, float]:
    """Mean and mean squared distance of all pairs of rows; 0 for a single row."""
    apart = torch.pdist(features.double())
    return (float(apart.mean()), float(apart.square().mean())) if len(apart) else (0.0, 0.0)
