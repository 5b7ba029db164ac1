"""The mean of several answers of a target that answers at random: an attack on the expectation (EOT, Athalye 2018)."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from evofool import scores
from evofool.errors import TargetError
from evofool.targets.classifier import Forward, Target
from evofool.targets.photos import drawings, patterns

TOLERANCE = 0.05
"""How far a mean may differ from the next one: the standard deviation of its margins, as a share of that between images."""
MOST = 1000  # answers
_IMAGES, _TIMES = 8, 4  # patterns, and as many drawings; answers to each


def average(target: Target, answers: int) -> None:
    """From now on a target's answer is the mean of so many of its own, each of which counts as a query of the image.

    The mean of logits, or of probabilities where it answers these. So is a network's gradient. TargetError for a target that
    keeps its answers or is watched for changes.
    """
    if not 2 <= answers <= MOST:
        raise TargetError(f"{target.name}: average is {answers}; it has to be from 2 to {MOST:,} answers")
    if target.monitor is not None or target.counts_persist:
        raise TargetError(
            f"{target.name}: average={answers} does not work for a black box. Its answer to an image is kept, so that an "
            "image is asked once and costs nothing when it comes again, and kept answers are asked again to notice that the "
            "model has changed, which random answers look like. Average on the server, or in a callable (python:)"
        )
    if target.network is not None:
        target.network.average(answers)  # its forward function is the network's
    else:
        target.wrap(lambda forward: _mean_of(forward, answers))
    target.queries_per_image *= answers
    target.details |= {"average": answers}


def repeatability(target: Target) -> tuple[float, float]:
    """(noise, spread) of the margins that a target answers, each a root mean square over classes.

    noise: the standard deviation from one answer to the next for one image; spread: that between images, which are patterns
    and drawings, less the part of the noise. They are classified four times. NaN where margins are not finite.
    """
    images = np.concatenate([patterns(target.shape, _IMAGES), drawings(target.shape, _IMAGES)])
    margins = np.stack([scores.margin(target.logits(images), target.multilabel) for _ in range(_TIMES)])
    noise = float(margins.var(axis=0, ddof=1).mean())
    spread = float(margins.mean(axis=0).var(axis=0, ddof=1).mean()) - noise / _TIMES
    return math.sqrt(noise), math.sqrt(max(0.0, spread)) if math.isfinite(spread) else math.nan


def needed(noise: float, spread: float, answers: int = 1) -> int | None:
    """How many answers have a mean that repeats within TOLERANCE, if means of `answers` do not; None if more than MOST.

    Half as many again as by these figures, since they are estimates.
    """
    if not (math.isfinite(noise) and spread > 0):
        return None
    n = math.ceil(1.5 * answers * (noise / (TOLERANCE * spread)) ** 2)
    return max(2, n) if n <= MOST else None


def random_fault(target: Target, twice: float) -> str:
    """Why a target whose answers are random cannot be used, or "". twice: the largest difference of log-odds."""
    answers = int(target.details.get("average", 1))
    noise, spread = repeatability(target)
    if answers > 1 and noise <= TOLERANCE * spread:
        return ""
    enough = needed(noise, spread, answers)
    noisy = f"margins vary by {noise:.3g} from one answer to the next, and by {spread:.3g} between images"
    if enough is None:
        remedy = f"{noisy}, so that even means of {MOST:,} answers would not repeat"
    else:
        remedy = f"{noisy}; average={enough} in its spec repeats within {TOLERANCE:.0%} of that (a mean of {enough} answers)"
    if answers > 1:
        return f"its answers are random, and means of {answers} do not repeat: {remedy}"
    return (
        f"the same images scored twice differ by {twice:.3g} in log-odds; something in it is random: dropout in "
        f"training mode, random crops. If that is meant, as a defence: {remedy}"
    )


def random_note(target: Target) -> str:
    """What the user of a target that answers by means of random answers has to know."""
    answers = target.details["average"]
    return (
        f"its answers are random, and means of {answers} are used ({answers} queries for each image): they repeat within "
        f"{TOLERANCE:.0%} of the spread of margins between images, not to the bit, so that a repeated or resumed run ends "
        "differently, and images that are scored again are compared within a measured tolerance"
    )


def is_random(target: Target, notes: Sequence[str]) -> bool:
    """Whether validation found that answers of a target with average= are random. notes: those of its validation."""
    return "average" in target.details and random_note(target) in notes


def _mean_of(forward: Forward, answers: int) -> Callable[[np.ndarray], np.ndarray]:
    def mean(images: np.ndarray) -> np.ndarray:
        total = forward(images).astype(np.float64)
        for _ in range(answers - 1):
            total += forward(images)
        return (total / answers).astype(np.float32)

    return mean
