"""Published gradient attacks, each a few lines over ascend/.

An attack takes a target and classes, and returns an 8-bit image for each class that the target should assign to it. The
black-box attacks are in black_box/. All attacks keep the best iterate by `rank` ("log_odds" or "margin") of the 8-bit image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import torch

from evofool.ascend import objectives
from evofool.ascend.approximation import Approximation
from evofool.ascend.draws import Draws
from evofool.ascend.hooks import no_gradients
from evofool.ascend.loop import Ascent, AscentResult, Improvement, OnAnswers, Tick, ascend
from evofool.ascend.params import Coarse, Fourier, Pixels
from evofool.ascend.rules import APGD, NO_REGULARISERS, Momentum, Normalised, Optimiser, ProgressSteps, Regularisers
from evofool.ascend.transforms import Jitter, Transform, robust
from evofool.errors import RecipeError, TargetError
from evofool.targets.classifier import Target

_MAX_RESTARTS = 256  # or octaves; the draws of a restart are keyed class * 256 + restart


class Options(TypedDict, total=False):
    """Keywords that all attacks of this file take.

    budget: forward passes per class, restarts and selection included (0, the default: as published). Each gradient step is
    one forward and one backward pass. stop_at: a class is done at this score. on_answers: as in Ascent; items are the
    classes, and restarts count as climbing at the same time. The others: as in ascend.
    """

    budget: int
    seed: int
    stop_at: float
    microbatch: int
    streams: int
    tick: Tick | None
    approximation: Approximation | None
    on_answers: OnAnswers | None


@dataclass(frozen=True)
class _Options:
    """Options with their defaults."""

    budget: int = 0
    seed: int = 0
    stop_at: float = math.inf
    microbatch: int = 0
    streams: int = 1
    tick: Tick | None = None
    approximation: Approximation | None = None
    on_answers: OnAnswers | None = None

    def ascend(self, target: Target, ascent: Ascent, keys: Sequence[int]) -> AscentResult:
        ascent = replace(ascent, stop_at=self.stop_at, on_answers=self._of_classes(ascent.restarts))
        return ascend(
            target,
            ascent,
            keys,
            seed=self.seed,
            microbatch=self.microbatch,
            streams=self.streams,
            tick=self.tick,
            approximation=self.approximation,
        )

    def _of_classes(self, restarts: int) -> OnAnswers | None:
        """on_answers for an ascent of so many items for each class."""
        report = self.on_answers
        if report is None or restarts == 1:
            return report
        return lambda items, forwards, logits: report(items // restarts, forwards * restarts, logits)


class _Setting(NamedTuple):
    """One of the four settings of Nguyen 2015 [code: caffe/ascent]."""

    steps: int
    early: float
    late: float
    regularisers: Regularisers = NO_REGULARISERS


NGUYEN: dict[str, _Setting] = {
    "plain": _Setting(500, 0.02, 0.1),
    "l2": _Setting(1500, 0.03, 0.02, Regularisers(decay=0.01)),
    "blur": _Setting(1000, 0.02, 0.05, Regularisers(decay=0.001, blur=0.4, blur_every=2)),
    "sparse": _Setting(1500, 0.02, 0.1, Regularisers(decay=0.001, blur=0.3, small=0.2, idle=0.2)),
}


def nguyen(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    setting: str = "plain",
    early: float = 0.0,
    late: float = 0.0,
    **keywords: Unpack[Options],
) -> AscentResult:
    """Ascent on the softmax's p from normal noise around the mean image, with progress steps (Nguyen 2015, section 2.3).

    setting: "plain", "l2", "blur", or "sparse", which blurs too, and resets the smallest pixels and those that contribute
    the least to the mean. early, late: the progress wanted per step, instead of the setting's (0: the setting's). The mean
    image is the one that the target's preprocessing subtracts, or middle grey. The 2015 code returns the last iterate; here
    the best one is returned.
    """
    _check_choice("setting", setting, NGUYEN)
    chosen = NGUYEN[setting]
    options = _Options(**keywords)
    centre = mean_image(target)

    def start(draws: Draws) -> torch.Tensor:
        return centre + draws.normal(*target.shape) * (10 / 255)

    rule = ProgressSteps(early or chosen.early, late or chosen.late, centre=centre, regularisers=chosen.regularisers)
    objective = objectives.probability(torch.tensor(list(classes)))
    ascent = Ascent(Pixels(start), objective, rule, _steps(options.budget, chosen.steps))
    return _climb(target, classes, rank, ascent, options)


def simonyan(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    decay: float = 0.01,
    rate: float = 0.0,
    **keywords: Unpack[Options],
) -> AscentResult:
    """The class model: max S_c(I) - decay ||I - mean||^2 from the mean image, S_c the logit (Simonyan 2014, eq. 1).

    I stays in [0, 1], since it is saved in 8 bits. rate: of the steps with momentum 0.9 (0: 0.1 for 784 pixels, otherwise in
    proportion to the square root of the number of pixels).
    """
    options = _Options(**keywords)
    centre = zero_image(target)
    of = torch.tensor(list(classes))
    objective = objectives.class_logit(of) - decay * objectives.l2(centre)
    pixels = int(np.prod(target.shape))
    rule = Momentum([(rate or 0.1 * math.sqrt(pixels / 784), 1)])

    def start(draws: Draws) -> torch.Tensor:
        return centre.expand(len(draws.uniform()), *target.shape).clone()

    ascent = Ascent(Pixels(start), objective, rule, _steps(options.budget, 300))
    return _climb(target, classes, rank, ascent, options)


def erhan(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    restarts: int = 9,
    norm: float = 0.0,
    rate: float = 0.1,
    **keywords: Unpack[Options],
) -> AscentResult:
    """Activation maximisation of the class's output unit on the sphere ||I|| = norm, from nine random starts (Erhan 2009).

    norm: of images on [0, 1] (0: that of a grey image at a third of full brightness, about the norm of a digit). rate: the
    length of a step as a share of norm. `units` does this for any unit.
    """
    options = _Options(**keywords)
    steps = _steps(options.budget, 200, restarts)
    of = torch.tensor(list(classes)).repeat_interleave(restarts)
    norm = norm or math.sqrt(math.prod(target.shape)) / 3
    param = Pixels(lambda draws: draws.uniform(*target.shape), norm)
    ascent = Ascent(param, objectives.class_logit(of), Normalised(rate * norm), steps, restarts=restarts)
    return _climb(target, classes, rank, ascent, options)


def inceptionism(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    octaves: int = 4,
    scale: float = 1.4,
    variation: float = 0.0,
    rate: float = 2.5 / 255,
    **keywords: Unpack[Options],
) -> AscentResult:
    """Class visualisation from coarse to fine: the logit under jitter minus variation * TV (Mordvintsev 2015, Inceptionism).

    Pixels of octave k are scale^(octaves - 1 - k) wide. A step is `rate` times the gradient over its mean absolute value.
    variation: the weight of the total variation of an image on [0, 1], the sum of squared differences (0: 1 / sqrt(H * W)).
    An octave starts from the best images of the one before; items that reached stop_at, or were stopped, do not continue.
    """
    if not 1 <= scale <= 4:
        raise RecipeError(f"scale, the ratio of the sizes of octaves, has to lie in [1, 4], not {scale}")
    options = _Options(**keywords)
    steps = _steps(options.budget, 64, octaves, per_step=5 / 4, what="octaves")
    _, height, width = target.shape
    weight = variation or 1.0 / math.sqrt(height * width)
    sizes = [scale**octave for octave in reversed(range(octaves))]
    grids = [(max(1, round(height / size)), max(1, round(width / size))) for size in sizes]
    images = (0.5 + 0.1 * Draws(options.seed, _keys(classes, 1), 0).normal(target.shape[0], *grids[0])).clamp(0.0, 1.0)
    jitter = (Jitter(max(1, round(min(height, width) / 14))),)
    active = np.arange(len(classes))
    done: list[tuple[np.ndarray, AscentResult]] = []
    for octave, grid in enumerate(grids):
        active_classes = [classes[int(k)] for k in active]
        objective = objectives.class_logit(torch.tensor(active_classes)) - weight * objectives.total_variation()
        param, rule = Coarse(images, grid, (height, width)), Normalised(rate, by="mean")
        ascent = Ascent(param, objective, rule, steps, transforms=jitter, select_every=4)
        part = replace(options, tick=_part_of(options.tick, octave, octaves))
        result = _climb(target, active_classes, rank, ascent, part, first_key=octave)
        done.append((active, result))
        going = (result.iterations == steps) & (result.scores < options.stop_at)
        if result.interrupted or not going.any():
            break
        active, images = active[going], torch.from_numpy(result.images[going]).float() / 255
    return _merged_octaves(done)


def fourier(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    transformed: bool = True,
    rate: float = 0.05,
    **keywords: Unpack[Options],
) -> AscentResult:
    """Feature visualisation: the logit in decorrelated Fourier space under robust transforms, by Adam (Olah 2017).

    It is designed for recognisable images, and of these attacks its images transfer best to other networks. The image
    without transforms is scored at every eighth step. transformed=False leaves the transforms out.
    """
    options = _Options(**keywords)
    of = torch.tensor(list(classes))
    transforms: tuple[Transform, ...] = robust(*target.shape[1:]) if transformed else ()
    device = target.network.device if target.network else "cpu"
    # eps is negligible beside any gradient, so that scaling the logits by a power of two does not change a step.
    rule = Optimiser(lambda params: torch.optim.Adam(params, lr=rate, eps=1e-16))
    steps = _steps(options.budget, 512, per_step=9 / 8 if transformed else 1)
    param = Fourier(target.shape, device=device)
    every = 8 if transformed else 1
    ascent = Ascent(param, objectives.class_logit(of), rule, steps, transforms=transforms, select_every=every)
    return _climb(target, classes, rank, ascent, options)


LOSSES = {
    "margin": objectives.margin,
    "logit": objectives.class_logit,
    "log_odds": objectives.log_odds,
    "ratio": objectives.ratio,
}
"""What apgd climbs, by name. log_odds: the cross-entropy without its saturation; a temperature changes its gradient's
direction, and that of no other."""


def apgd(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    restarts: int = 1,
    rate: float = 0.03,
    losses: str = "margin",
    **keywords: Unpack[Options],
) -> AscentResult:
    """Auto-PGD on the margin, from noise, in the whole box [0, 1]: the strongest of these attacks (Croce & Hein 2020).

    It uses their step rule, without a source image to stay close to. rate: the first step size of a pixel. 100 steps without
    a budget. Restarts share the budget and climb at the same time. losses: one of LOSSES, or several, as in "margin+logit":
    each step follows the sum of their gradients, each scaled to the same length (Ascent.beside), so that they share the
    forward pass; the first one decides when steps become smaller.
    """
    options = _Options(**keywords)
    steps = _steps(options.budget, 100, restarts)
    of = torch.tensor(list(classes)).repeat_interleave(restarts)
    names = losses.split("+")
    for name in names:
        _check_choice("loss", name, LOSSES)
    if "ratio" in names and len(target.labels) < 3:
        raise RecipeError(f"{target.name}: the loss ratio needs three classes, and it has {len(target.labels)}")
    first, *beside = (LOSSES[name](of) for name in names)

    def start(draws: Draws) -> torch.Tensor:
        return 0.5 + draws.normal(*target.shape) * 0.1

    ascent = Ascent(Pixels(start), first, APGD(rate), steps, restarts=restarts, beside=beside)
    return _climb(target, classes, rank, ascent, options)


def units(
    target: Target,
    layer: str,
    indices: Sequence[tuple[int, ...]],
    *,
    restarts: int = 9,
    norm: float = 0.0,
    rate: float = 0.1,
    **keywords: Unpack[Options],
) -> AscentResult:
    """Erhan 2009 for units of any layer (objectives.unit), each from `restarts` starts.

    The items of the result are the starts: those of the first index, then those of the second, and so on; all starts use
    their whole budget. Scores are activations.
    """
    options = _Options(**keywords)
    steps = _steps(options.budget, 200, restarts)
    of = [index for index in indices for _ in range(restarts)]
    norm = norm or math.sqrt(math.prod(target.shape)) / 3
    param = Pixels(lambda draws: draws.uniform(*target.shape), norm)
    ascent = Ascent(param, objectives.unit(layer, of), Normalised(rate * norm), steps)
    return options.ascend(target, ascent, _keys(range(len(indices)), restarts))


def zero_image(target: Target) -> torch.Tensor:
    """(C, 1, 1) on [0, 1]: the colour that the target's preprocessing maps to 0."""
    preprocessing: dict[str, Any] = target.details.get("preprocessing", {})
    mean = torch.tensor(preprocessing.get("mean", (0.0,))).float() / preprocessing.get("scale", 1 / 255) / 255
    mean = mean.flip(0) if preprocessing.get("order") == "BGR" else mean
    return mean.clamp(0.0, 1.0).view(-1, 1, 1).expand(target.shape[0], 1, 1)


def mean_image(target: Target) -> torch.Tensor:
    """zero_image, or middle grey if the preprocessing subtracts no mean."""
    zero = zero_image(target)
    return zero if bool(zero.any()) else torch.full_like(zero, 0.5)


def _climb(
    target: Target, classes: Sequence[int], rank: str, ascent: Ascent, options: _Options, first_key: int = 0
) -> AscentResult:
    """The ascent of one image per class, selected by rank: the best of its restarts, which are keyed from first_key on."""
    if target.network is None:
        raise no_gradients(target)
    _check_choice("rank", rank, ("log_odds", "margin"))
    for c in classes:
        if not 0 <= c < len(target.labels):
            raise TargetError(f"{target.name}: no class {c}; it has 0 to {len(target.labels) - 1}")
    of = torch.tensor(list(classes)).repeat_interleave(ascent.restarts)
    odds = objectives.log_odds(of)
    ascent = replace(ascent, select_by=odds if rank == "log_odds" else objectives.margin(of), secondary=odds)
    result = options.ascend(target, ascent, _keys(classes, ascent.restarts, first_key))
    return result if ascent.restarts == 1 else _best_restarts(result, ascent.restarts)


def _keys(items: Sequence[int], restarts: int, first: int = 0) -> list[int]:
    return [item * _MAX_RESTARTS + first + restart for item in items for restart in range(restarts)]


def _steps(budget: int, default: int, parts: int = 1, per_step: float = 1, what: str = "restarts") -> int:
    """Gradient steps of each of the parts (`what`) that share the budget. Each part ends with a pass that scores it.

    per_step: forward passes per step, selection included.
    """
    if not 1 <= parts <= _MAX_RESTARTS:
        raise RecipeError(f"{what} has to lie in 1..{_MAX_RESTARTS}, not {parts}")
    if not budget:
        return default
    steps = int((budget // parts - 1) / per_step)  # no pass is shared between parts
    if steps < 1:
        least = parts * math.ceil(1 + per_step)
        shared = f" for {parts} {what}" if parts > 1 else ""
        raise RecipeError(f"a budget of {budget} forward passes is too small{shared}; it has to be at least {least}")
    return steps


def _part_of(tick: Tick | None, part: int, parts: int) -> Tick | None:
    """tick for one of several ascents of equally many steps; it is called with the progress of all of them."""
    return tick and (lambda step, steps: tick(part * (steps + 1) + step, parts * (steps + 1) - 1))


def _best_restarts(result: AscentResult, restarts: int) -> AscentResult:
    """One item for each group of restarts: the best one (of equal ones the first), with the passes of the whole group."""
    best = result.scores.reshape(-1, restarts).argmax(1) + np.arange(0, len(result.scores), restarts)
    total = {name: getattr(result, name).reshape(-1, restarts).sum(1) for name in ("iterations", "forwards", "backwards")}
    rises: list[Improvement] = []
    highest: dict[int, float] = {}
    # Restarts climb at the same time: when one has used n passes, so has each other one that has not ended.
    for found in result.improvements:
        item = found.item // restarts
        if found.score > highest.get(item, -math.inf):
            highest[item] = found.score
            rows = range(item * restarts, (item + 1) * restarts)
            forwards = sum(min(found.forwards, int(result.forwards[row])) for row in rows)
            backwards = sum(min(found.backwards, int(result.backwards[row])) for row in rows)
            rises.append(Improvement(item, forwards, backwards, found.score, found.secondary))
    states = None if result.states is None else result.states[torch.from_numpy(best)]
    return AscentResult(
        result.images[best],
        states,
        result.scores[best],
        **total,
        improvements=rises,
        notes=[(item // restarts, f"start {item % restarts}: {text}") for item, text in result.notes],
        interrupted=result.interrupted,
        moved=None if result.moved is None else np.any(result.moved.reshape(-1, restarts), axis=1),
    )


def _merged_octaves(done: Sequence[tuple[np.ndarray, AscentResult]]) -> AscentResult:
    """The results of the octaves, each with its items, as one: the best image of each item, with all passes.

    The first octave has all items; a later one has those that continued from its images.
    """
    out = done[0][1]
    for items, result in done[1:]:
        for found in result.improvements:
            item = int(items[found.item])
            if found.score > out.scores[item]:
                passes = int(out.forwards[item]) + found.forwards, int(out.backwards[item]) + found.backwards
                out.improvements.append(Improvement(item, *passes, found.score, found.secondary))
        better = result.scores > out.scores[items]
        out.images[items[better]], out.scores[items[better]] = result.images[better], result.scores[better]
        for name in ("iterations", "forwards", "backwards"):
            getattr(out, name)[items] += getattr(result, name)
        out.notes += [(int(items[item]), text) for item, text in result.notes]
        out.interrupted = result.interrupted
        if out.moved is not None and result.moved is not None:
            out.moved[items] |= result.moved
    out.states = None
    return out


def _check_choice(what: str, name: str, known: Sequence[str] | dict[str, Any]) -> None:
    if name not in known:
        raise RecipeError(f'there is no {what} "{name}"; there are {", ".join(known)}')
