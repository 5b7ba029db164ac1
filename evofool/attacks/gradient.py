"""Published gradient attacks, each a few lines over ascend/.

An attack takes a target and classes, and returns an 8-bit image for each class that the target should assign to it. Those
that are regularised for recognisable images are in visualisation.py, the black-box attacks in black_box/. All attacks keep
the best iterate by `rank` ("log_odds" or "margin") of the 8-bit image.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch

from evofool.ascend import objectives
from evofool.ascend.draws import Draws
from evofool.ascend.loop import Ascent, AscentResult
from evofool.ascend.params import Pixels
from evofool.ascend.rules import APGD, NO_REGULARISERS, Momentum, Normalised, ProgressSteps, Regularisers
from evofool.attacks.class_ascent import (
    AttackOptions,
    Options,
    check_choice,
    climb,
    keys_of,
    mean_image,
    steps_of,
    zero_image,
)
from evofool.errors import RecipeError
from evofool.targets.classifier import Target


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
    check_choice("setting", setting, NGUYEN)
    chosen = NGUYEN[setting]
    options = AttackOptions(**keywords)
    centre = mean_image(target)

    def start(draws: Draws) -> torch.Tensor:
        return centre + draws.normal(*target.shape) * (10 / 255)

    rule = ProgressSteps(early or chosen.early, late or chosen.late, centre=centre, regularisers=chosen.regularisers)
    objective = objectives.probability(torch.tensor(list(classes)))
    ascent = Ascent(Pixels(start), objective, rule, steps_of(options.budget, chosen.steps))
    return climb(target, classes, rank, ascent, options)


def simonyan(
    target: Target,
    classes: Sequence[int],
    *,
    rank: str = "log_odds",
    decay: float = 0.01,
    rate: float = 0.0,
    blur: float = 0.0,
    **keywords: Unpack[Options],
) -> AscentResult:
    """The class model: max S_c(I) - decay ||I - mean||^2 from the mean image, S_c the logit (Simonyan 2014, eq. 1).

    I stays in [0, 1], since it is saved in 8 bits. rate: of the steps with momentum 0.9 (0: 0.2, or for images of up to
    1,024 pixels 0.1 times the square root of C * H * W / 784). blur: sigma in pixels of a Gaussian that blurs I - mean at
    every second step, a regulariser of Yosinski 2015 (0, the default: none). Without it the pictures of large images are
    hardly smooth (docs/measured.md); blur=1, decay=0.001 and rate=0.4 suit EfficientNet-Lite0.
    """
    options = AttackOptions(**keywords)
    centre = zero_image(target)
    of = torch.tensor(list(classes))
    objective = objectives.class_logit(of) - decay * objectives.l2(centre)
    channels, height, width = target.shape
    usual = 0.1 * math.sqrt(channels * height * width / 784) if height * width <= 1024 else 0.2
    rule = Momentum([(rate or usual, 1)], centre=centre, regularisers=Regularisers(blur=blur, blur_every=2))

    def start(draws: Draws) -> torch.Tensor:
        return centre.expand(len(draws.uniform()), *target.shape).clone()

    ascent = Ascent(Pixels(start), objective, rule, steps_of(options.budget, 300))
    return climb(target, classes, rank, ascent, options)


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
    options = AttackOptions(**keywords)
    steps = steps_of(options.budget, 200, restarts)
    of = torch.tensor(list(classes)).repeat_interleave(restarts)
    norm = norm or math.sqrt(math.prod(target.shape)) / 3
    param = Pixels(lambda draws: draws.uniform(*target.shape), norm)
    ascent = Ascent(param, objectives.class_logit(of), Normalised(rate * norm), steps, restarts=restarts)
    return climb(target, classes, rank, ascent, options)


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
    options = AttackOptions(**keywords)
    steps = steps_of(options.budget, 100, restarts)
    of = torch.tensor(list(classes)).repeat_interleave(restarts)
    names = losses.split("+")
    for name in names:
        check_choice("loss", name, LOSSES)
    if "ratio" in names and len(target.labels) < 3:
        raise RecipeError(f"{target.name}: the loss ratio needs three classes, and it has {len(target.labels)}")
    if "ratio" in names and target.multilabel:
        raise RecipeError(f"{target.name}: the loss ratio compares classes, and its labels do not exclude each other")
    first, *beside = (LOSSES[name](of) for name in names)

    def start(draws: Draws) -> torch.Tensor:
        return 0.5 + draws.normal(*target.shape) * 0.1

    ascent = Ascent(Pixels(start), first, APGD(rate), steps, restarts=restarts, beside=beside)
    return climb(target, classes, rank, ascent, options)


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
    options = AttackOptions(**keywords)
    steps = steps_of(options.budget, 200, restarts)
    of = [index for index in indices for _ in range(restarts)]
    norm = norm or math.sqrt(math.prod(target.shape)) / 3
    param = Pixels(lambda draws: draws.uniform(*target.shape), norm)
    ascent = Ascent(param, objectives.unit(layer, of), Normalised(rate * norm), steps)
    return options.ascend(target, ascent, keys_of(range(len(indices)), restarts))
