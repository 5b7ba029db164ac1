"""Published ways to an image that a classifier is sure about, with its gradients: each a few lines over ascend/.

A function takes a target and the classes that it is to be fooled into, and gives back an 8-bit image for each. They are what
evolution is compared with; rivals/ has those that need no gradient. All keep the best iterate by `rank` ("log_odds" or
"margin") of the 8-bit image, and stop an item at `stop_at` of it. budget is forward passes per class, restarts and judging
included (0: as published). Every gradient step is a forward and a backward pass.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import torch

from evofool.ascend import objectives
from evofool.ascend.draws import Draws
from evofool.ascend.hooks import refused
from evofool.ascend.loop import AscentResult, Improvement, Tick, ascend
from evofool.ascend.objectives import Objective
from evofool.ascend.params import Coarse, Fourier, Param, Pixels
from evofool.ascend.rules import APGD, Momentum, Normalised, Optimiser, ProgressSteps, StepRule
from evofool.ascend.transforms import Jitter, Transform, robust
from evofool.errors import RecipeError, TargetError
from evofool.targets.target import Target

_MOST = 256  # restarts, or octaves; a restart's draws are keyed class * 256 + restart


class How(TypedDict, total=False):
    """What every method takes beside its own settings; as ascend has it."""

    seed: int
    stop_at: float
    microbatch: int
    streams: int
    tick: Tick | None


class _Setting(NamedTuple):
    """A row of Nguyen 2015's regularisers [code: caffe/ascent]."""

    steps: int
    early: float
    late: float
    decay: float = 0.0
    blur: float = 0.0
    blur_every: int = 1
    small: float = 0.0
    idle: float = 0.0


NGUYEN: dict[str, _Setting] = {
    "plain": _Setting(500, 0.02, 0.1),
    "l2": _Setting(1500, 0.03, 0.02, decay=0.01),
    "blur": _Setting(1000, 0.02, 0.05, decay=0.001, blur=0.4, blur_every=2),
    "sparse": _Setting(1500, 0.02, 0.1, decay=0.001, blur=0.3, small=0.2, idle=0.2),
}


def nguyen(
    target: Target,
    classes: Sequence[int],
    *,
    budget: int = 0,
    rank: str = "log_odds",
    setting: str = "plain",
    early: float = 0.0,
    late: float = 0.0,
    **how: Unpack[How],
) -> AscentResult:
    """Ascent on the softmax's p from normal noise around the mean image, with progress steps (Nguyen 2015, section 2.3).

    setting: "plain", "l2", "blur" or "sparse" (blur, and the smallest and idlest pixels at the mean again). early, late: the
    progress wanted in a step, instead of the setting's. The mean image is what the target's preprocessing takes away, middle
    grey where it takes nothing. The 2015 code gives back its last iterate; here, as everywhere, the best one is kept.
    """
    _one_of("setting", setting, NGUYEN)
    s = NGUYEN[setting]
    centre = mean_image(target)

    def start(draws: Draws) -> torch.Tensor:
        return centre + draws.normal(*target.shape) * (10 / 255)

    rule = ProgressSteps(
        early or s.early, late or s.late, centre=centre, decay=s.decay, blur=s.blur, blur_every=s.blur_every,
        small=s.small, idle=s.idle,
    )  # fmt: skip
    of = torch.tensor(list(classes))
    steps = _steps(budget, s.steps)
    return _climb(target, classes, Pixels(start), objectives.probability(of), rule, steps, rank, **how)


def simonyan(
    target: Target,
    classes: Sequence[int],
    *,
    budget: int = 0,
    rank: str = "log_odds",
    decay: float = 0.01,
    rate: float = 0.0,
    **how: Unpack[How],
) -> AscentResult:
    """The class model: max S_c(I) - decay ||I - mean||^2 from the mean image, S_c the logit (Simonyan 2014, eq. 1).

    I on [0, 1], in the box throughout, since pixels end in 8 bits. rate of the plain steps with momentum 0.9 (0: 0.1 for the
    784 pixels of a digit, in proportion to the square root of their number for others).
    """
    centre = zero_image(target)
    of = torch.tensor(list(classes))
    objective = objectives.class_logit(of) - decay * objectives.l2(centre)
    pixels = int(np.prod(target.shape))
    rule = Momentum([(rate or 0.1 * math.sqrt(pixels / 784), 1)])

    def start(draws: Draws) -> torch.Tensor:
        return centre.expand(len(draws.uniform()), *target.shape).clone()

    return _climb(target, classes, Pixels(start), objective, rule, _steps(budget, 300), rank, **how)


def erhan(
    target: Target,
    classes: Sequence[int],
    *,
    budget: int = 0,
    rank: str = "log_odds",
    restarts: int = 9,
    norm: float = 0.0,
    rate: float = 0.1,
    **how: Unpack[How],
) -> AscentResult:
    """The class's output unit climbed on the sphere ||I|| = norm from nine random starts (Erhan 2009).

    norm: of images on [0, 1] (0: that of a grey image of a third of full brightness, which is about a digit's); rate: a
    step's length as a share of it. `units` does it for any unit.
    """
    steps = _steps(budget, 200, restarts)
    of = torch.tensor(list(classes)).repeat_interleave(restarts)
    norm = norm or math.sqrt(math.prod(target.shape)) / 3
    objective, rule = objectives.class_logit(of), Normalised(rate * norm)
    param = Pixels(lambda draws: draws.uniform(*target.shape), norm)
    return _climb(target, classes, param, objective, rule, steps, rank, restarts, **how)


def inceptionism(
    target: Target,
    classes: Sequence[int],
    *,
    budget: int = 0,
    rank: str = "log_odds",
    octaves: int = 4,
    scale: float = 1.4,
    variation: float = 0.0,
    rate: float = 2.5 / 255,
    **how: Unpack[How],
) -> AscentResult:
    """Class visualisation from coarse to fine: the logit under jitter, less variation * TV (Mordvintsev 2015, Inceptionism).

    Octave k has pixels scale^(octaves - 1 - k) wide; steps of `rate` times the gradient over its mean absolute value.
    variation weighs the total variation of an image on [0, 1], squared differences summed (0: 1 / sqrt(H * W)). An octave
    begins with the best images of the one before; those that have stop_at, or were stopped, end with it.
    """
    if not 1 <= scale <= 4:
        raise RecipeError(f"scale is what octaves differ by, 1 to 4, not {scale}")
    steps = _steps(budget, 64, octaves, per_step=5 / 4, what="octaves")
    _, height, width = target.shape
    weight = variation or 1.0 / math.sqrt(height * width)
    seed, stop_at, tick = how.get("seed", 0), how.get("stop_at", math.inf), how.get("tick")
    sizes = [scale**octave for octave in reversed(range(octaves))]
    grids = [(max(1, round(height / size)), max(1, round(width / size))) for size in sizes]
    images = (0.5 + 0.1 * Draws(seed, _keys(classes, 1), 0).normal(target.shape[0], *grids[0])).clamp(0.0, 1.0)
    moves = (Jitter(max(1, round(min(height, width) / 14))),)
    on = np.arange(len(classes))
    done: list[tuple[np.ndarray, AscentResult]] = []
    for octave, grid in enumerate(grids):
        here = [classes[int(k)] for k in on]
        objective = objectives.class_logit(torch.tensor(here)) - weight * objectives.total_variation()
        param, rule = Coarse(images, grid, (height, width)), Normalised(rate, by="mean")
        how["tick"] = _part_of(tick, octave, octaves)
        climbs = _climb(
            target, here, param, objective, rule, steps, rank, transforms=moves, select_every=4, first=octave, **how
        )
        done.append((on, climbs))
        going = (climbs.iterations == steps) & (climbs.scores < stop_at)
        if climbs.interrupted or not going.any():
            break
        on, images = on[going], torch.from_numpy(climbs.images[going]).float() / 255
    return _one_after_another(done)


def fourier(
    target: Target,
    classes: Sequence[int],
    *,
    budget: int = 0,
    rank: str = "log_odds",
    transformed: bool = True,
    rate: float = 0.05,
    **how: Unpack[How],
) -> AscentResult:
    """Modern feature visualisation: the logit in decorrelated Fourier space under robust transforms, by Adam (Olah 2017).

    It is built to be recognisable, and the strongest of these in being believed by other networks. The image itself, without
    transforms, is judged at every eighth step. transformed False leaves the transforms out.
    """
    of = torch.tensor(list(classes))
    moves: tuple[Transform, ...] = robust(*target.shape[1:]) if transformed else ()
    device = target.network.device if target.network else "cpu"
    # An eps that is lost beside any gradient: dividing the logits by a power of two changes no bit of a step.
    rule = Optimiser(lambda params: torch.optim.Adam(params, lr=rate, eps=1e-16))
    steps = _steps(budget, 512, per_step=9 / 8 if transformed else 1)
    every = 8 if transformed else 1
    param = Fourier(target.shape, device=device)
    objective = objectives.class_logit(of)
    return _climb(target, classes, param, objective, rule, steps, rank, transforms=moves, select_every=every, **how)


def apgd(
    target: Target,
    classes: Sequence[int],
    *,
    budget: int = 0,
    rank: str = "log_odds",
    restarts: int = 1,
    rate: float = 0.03,
    **how: Unpack[How],
) -> AscentResult:
    """Auto-PGD on the margin, from noise, in the whole box: the strongest of these (Croce & Hein 2020).

    Their step rule; no image to stay near. rate is the first step of a pixel. 100 steps unless there is a budget. Restarts
    climb side by side, each with its share of the budget.
    """
    steps = _steps(budget, 100, restarts)
    of = torch.tensor(list(classes)).repeat_interleave(restarts)

    def start(draws: Draws) -> torch.Tensor:
        return 0.5 + draws.normal(*target.shape) * 0.1

    return _climb(target, classes, Pixels(start), objectives.margin(of), APGD(rate), steps, rank, restarts, **how)


def units(
    target: Target,
    layer: str,
    indices: Sequence[tuple[int, ...]],
    *,
    budget: int = 0,
    restarts: int = 9,
    norm: float = 0.0,
    rate: float = 0.1,
    **how: Unpack[How],
) -> AscentResult:
    """Erhan 2009 for units of any layer (objectives.unit): `restarts` neighbouring items for each of the indices.

    Scores are activations.
    """
    steps = _steps(budget, 200, restarts)
    of = [index for index in indices for _ in range(restarts)]
    norm = norm or math.sqrt(math.prod(target.shape)) / 3
    param = Pixels(lambda draws: draws.uniform(*target.shape), norm)
    return ascend(
        target,
        param,
        objectives.unit(layer, of),
        rule=Normalised(rate * norm),
        steps=steps,
        keys=_keys(range(len(indices)), restarts),
        **how,
    )


def zero_image(target: Target) -> torch.Tensor:
    """(C, 1, 1) on [0, 1]: the colour that becomes 0 in the target's preprocessing."""
    fed: dict[str, Any] = target.details.get("preprocessing", {})
    mean = torch.tensor(fed.get("mean", (0.0,))).float() / fed.get("scale", 1 / 255) / 255
    mean = mean.flip(0) if fed.get("order") == "BGR" else mean
    return mean.clamp(0.0, 1.0).view(-1, 1, 1).expand(target.shape[0], 1, 1)


def mean_image(target: Target) -> torch.Tensor:
    """zero_image, or middle grey where preprocessing takes no mean away."""
    zero = zero_image(target)
    return zero if bool(zero.any()) else torch.full_like(zero, 0.5)


def _climb(
    target: Target,
    classes: Sequence[int],
    param: Param,
    objective: Objective,
    rule: StepRule,
    steps: int,
    rank: str,
    restarts: int = 1,
    transforms: Sequence[Transform] = (),
    select_every: int = 1,
    first: int = 0,
    **how: Unpack[How],
) -> AscentResult:
    """The ascent of one image per class, the best of its restarts, judged by rank; restarts are keyed from `first` on."""
    if target.network is None:
        raise refused(target)
    _one_of("rank", rank, ("log_odds", "margin"))
    for c in classes:
        if not 0 <= c < len(target.labels):
            raise TargetError(f"{target.name}: no class {c}; it has 0 to {len(target.labels) - 1}")
    of = torch.tensor(list(classes)).repeat_interleave(restarts)
    odds = objectives.log_odds(of)
    climbs = ascend(
        target,
        param,
        objective,
        rule=rule,
        steps=steps,
        keys=_keys(classes, restarts, first),
        together=restarts,
        transforms=transforms,
        select_by=odds if rank == "log_odds" else objectives.margin(of),
        beside=odds,
        select_every=select_every,
        **how,
    )
    return climbs if restarts == 1 else _best_of(climbs, restarts)


def _keys(items: Sequence[int], restarts: int, first: int = 0) -> list[int]:
    return [item * _MOST + first + restart for item in items for restart in range(restarts)]


def _steps(budget: int, default: int, climbs: int = 1, per_step: float = 1, what: str = "restarts") -> int:
    """Gradient steps of each of the climbs (`what`) that share so many forward passes; the last pass of each one judges.

    per_step: passes for a step, judging included.
    """
    if not 1 <= climbs <= _MOST:
        raise RecipeError(f"{what} lie in 1..{_MOST}, not {climbs}")
    if not budget:
        return default
    steps = int((budget // climbs - 1) / per_step)  # a pass belongs to one climb
    if steps < 1:
        least = climbs * math.ceil(1 + per_step)
        shared = f" for {climbs} {what}" if climbs > 1 else ""
        raise RecipeError(f"a budget of {budget} forward passes is too small{shared}: {least} are the least")
    return steps


def _part_of(tick: Tick | None, part: int, parts: int) -> Tick | None:
    """tick for one of several ascents of equally many steps, told how far all of them are."""
    return tick and (lambda step, steps: tick(part * (steps + 1) + step, parts * (steps + 1) - 1))


def _best_of(climbs: AscentResult, restarts: int) -> AscentResult:
    """One item for each `restarts` neighbours: the best, the first of equals, with the passes of them all."""
    best = climbs.scores.reshape(-1, restarts).argmax(1) + np.arange(0, len(climbs.scores), restarts)
    total = {name: getattr(climbs, name).reshape(-1, restarts).sum(1) for name in ("iterations", "forwards", "backwards")}
    rises: list[Improvement] = []
    highest: dict[int, float] = {}
    # They climb side by side: by the time that one has spent n passes, each other one has too, unless it has ended.
    for found in climbs.improvements:
        item = found.item // restarts
        if found.score > highest.get(item, -math.inf):
            highest[item] = found.score
            rows = range(item * restarts, (item + 1) * restarts)
            forwards = sum(min(found.forwards, int(climbs.forwards[row])) for row in rows)
            backwards = sum(min(found.backwards, int(climbs.backwards[row])) for row in rows)
            rises.append(Improvement(item, forwards, backwards, found.score, found.beside))
    states = None if climbs.states is None else climbs.states[torch.from_numpy(best)]
    return AscentResult(climbs.images[best], states, climbs.scores[best], **total, improvements=rises,
                  notes=[(item // restarts, f"start {item % restarts}: {words}") for item, words in climbs.notes],
                  interrupted=climbs.interrupted,
                  moved=None if climbs.moved is None else np.any(climbs.moved.reshape(-1, restarts), axis=1))  # fmt: skip


def _one_after_another(done: Sequence[tuple[np.ndarray, AscentResult]]) -> AscentResult:
    """Ascents with the items that each was of: all of them the first, later ones those that went on from its images.

    The best image of any, with the passes of them all.
    """
    out = done[0][1]
    for items, climbs in done[1:]:
        for found in climbs.improvements:
            item = int(items[found.item])
            if found.score > out.scores[item]:
                passes = int(out.forwards[item]) + found.forwards, int(out.backwards[item]) + found.backwards
                out.improvements.append(Improvement(item, *passes, found.score, found.beside))
        better = climbs.scores > out.scores[items]
        out.images[items[better]], out.scores[items[better]] = climbs.images[better], climbs.scores[better]
        for name in ("iterations", "forwards", "backwards"):
            getattr(out, name)[items] += getattr(climbs, name)
        out.notes += [(int(items[item]), words) for item, words in climbs.notes]
        out.interrupted = climbs.interrupted
        if out.moved is not None and climbs.moved is not None:
            out.moved[items] |= climbs.moved
    out.states = None
    return out


def _one_of(what: str, name: str, known: Sequence[str] | dict[str, Any]) -> None:
    if name not in known:
        raise RecipeError(f'there is no {what} "{name}"; there are {", ".join(known)}')
