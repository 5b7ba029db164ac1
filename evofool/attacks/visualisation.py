"""Published methods of feature visualisation, as attacks. Their regularisation is meant to show the class to people."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import torch

from evofool.ascend import objectives
from evofool.ascend.draws import Draws
from evofool.ascend.loop import Ascent, AscentResult, Improvement, Tick
from evofool.ascend.params import Coarse, Fourier, Phases
from evofool.ascend.rules import Normalised, Optimiser, Regularisers
from evofool.ascend.spectrum import photograph_magnitude
from evofool.ascend.transforms import Crops, Jitter, Noise, Transform, robust
from evofool.attacks.class_ascent import AttackOptions, Options, climb, keys_of, steps_of
from evofool.errors import RecipeError
from evofool.targets.classifier import Target


def inceptionism(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    octaves: int = 4,
    scale: float = 2.0,
    variation: float = 0.0,
    blur: float = 0.7,
    rate: float = 2.5 / 255,
    **keywords: Unpack[Options],
) -> AscentResult:
    """Class visualisation from coarse to fine: the logit under jitter minus variation * TV (Mordvintsev 2015, Inceptionism).

    Pixels of octave k are scale^(octaves - 1 - k) wide. A step is `rate` times the gradient over its mean absolute value.
    variation: the weight of the total variation of an image on [0, 1], the sum of squared differences (0: 0.1, or for images
    of up to 1,024 pixels 1 / sqrt(H * W)). blur: sigma of a Gaussian that blurs the image after each step, in pixels of a
    finished image of 224 pixels a side, and in proportion for others: it acts on the last octaves of large images.
    An octave starts from the best images of the one before; items that reached stop_at, or were stopped, do not continue.
    """
    if not 1 <= scale <= 4:
        raise RecipeError(f"scale, the ratio of the sizes of octaves, has to lie in [1, 4], not {scale}")
    options = AttackOptions(**keywords)
    steps = steps_of(options.budget, 64, octaves, per_step=5 / 4, what="octaves")
    _, height, width = target.shape
    weight = variation or (1.0 / math.sqrt(height * width) if height * width <= 1024 else 0.1)
    sizes = [scale**octave for octave in reversed(range(octaves))]
    grids = [(max(1, round(height / size)), max(1, round(width / size))) for size in sizes]
    images = (0.5 + 0.1 * Draws(options.seed, keys_of(classes, 1), 0).normal(target.shape[0], *grids[0])).clamp(0.0, 1.0)
    jitter = (Jitter(max(1, round(min(height, width) / 14))),)
    active = np.arange(len(classes))
    done: list[tuple[np.ndarray, AscentResult]] = []
    for octave, (grid, size) in enumerate(zip(grids, sizes, strict=True)):
        active_classes = [classes[int(k)] for k in active]
        objective = objectives.class_logit(torch.tensor(active_classes)) - weight * objectives.total_variation()
        smooth = Regularisers(blur=blur * min(height, width) / 224 / size)
        param, rule = Coarse(images, grid, (height, width)), Normalised(rate, "mean", smooth)
        ascent = Ascent(param, objective, rule, steps, transforms=jitter, select_every=4)
        part = replace(options, tick=_part_of(options.tick, octave, octaves))
        result = climb(target, active_classes, rank, ascent, part, first_key=octave)
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

    It is meant to make recognisable images, and of these attacks its images transfer best to other networks. The image
    without transforms is scored at every eighth step. transformed=False leaves the transforms out.
    """
    options = AttackOptions(**keywords)
    of = torch.tensor(list(classes))
    transforms: tuple[Transform, ...] = robust(*target.shape[1:]) if transformed else ()
    device = target.network.device if target.network else "cpu"
    # eps is negligible beside any gradient, so that scaling the logits by a power of two does not change a step.
    rule = Optimiser(lambda params: torch.optim.Adam(params, lr=rate, eps=1e-16))
    steps = steps_of(options.budget, 512, per_step=9 / 8 if transformed else 1)
    param = Fourier(target.shape, device=device)
    every = 8 if transformed else 1
    ascent = Ascent(param, objectives.class_logit(of), rule, steps, transforms=transforms, select_every=every)
    return climb(target, classes, rank, ascent, options)


def maco(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    crop: float = 0.5,
    noise: float = 0.04,
    rate: float = 0.1,
    **keywords: Unpack[Options],
) -> AscentResult:
    """Feature visualisation by the phases of a Fourier spectrum alone, whose magnitude is that of photographs (Fel 2023).

    The network sees a random crop at each step, a share of the sides between `crop` and 1, with normal noise of standard
    deviation `noise` on [0, 1]; Adam follows the gradient of the logit, by at most about `rate` radians a step. The whole
    image is scored at every eighth step. Each of the 256 steps takes one crop, and 32 in the paper.
    """
    if not 0 < crop <= 1:
        raise RecipeError(f"crop, the smallest share of the sides that is shown, has to lie in (0, 1], not {crop}")
    options = AttackOptions(**keywords)
    device = target.network.device if target.network else "cpu"
    magnitude = torch.from_numpy(photograph_magnitude(*target.shape))
    param = Phases(magnitude, target.shape, device=device)
    rule = Optimiser(lambda params: torch.optim.Adam(params, lr=rate, eps=1e-16))
    steps = steps_of(options.budget, 256, per_step=9 / 8)
    objective = objectives.class_logit(torch.tensor(list(classes)))
    transforms = (Crops(crop, 1.0), Noise(noise))
    ascent = Ascent(param, objective, rule, steps, transforms=transforms, select_every=8)
    return climb(target, classes, rank, ascent, options)


def _part_of(tick: Tick | None, part: int, parts: int) -> Tick | None:
    """tick for one of several ascents of equally many steps; it is called with the progress of all of them."""
    return tick and (lambda step, steps: tick(part * (steps + 1) + step, parts * (steps + 1) - 1))


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
