"""Parts of an image replaced by a fill, and the scores of such images. Needs only scores, so it works for a black box."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from evofool.errors import ScoreError, TargetError
from evofool.scores import log_odds
from evofool.targets import Target

Fill = Literal["mean", "blur"]
FILLS: tuple[Fill, ...] = ("mean", "blur")
_BLUR = 10 / 224  # of the shorter side: the standard deviation of Fong & Vedaldi 2017


class Answers(NamedTuple):
    """log_odds: float64 (n,), of one class. predicted: int64 (n,), the class with the highest score."""

    log_odds: np.ndarray
    predicted: np.ndarray


def answers(
    target: Target,
    images: Iterable[np.ndarray],
    class_id: int,
    *,
    batch: int = 32,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> Answers:
    """The scores of uint8 images (C, H, W), `batch` in a pass; they are made one batch at a time. One query an image.

    on_progress is called with the number of images done after every batch. TargetError for a class that does not exist,
    ScoreError where an answer is not finite.
    """
    if not 0 <= class_id < len(target.labels):
        raise TargetError(f"{target.name}: no class {class_id}; it has 0 to {len(target.labels) - 1}")
    odds: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    done = 0
    for part in _batched(iter(images), batch):
        logits = target.logits(np.stack(part))
        if not np.isfinite(logits).all():
            raise ScoreError(f"{target.name} returned NaN or infinity for a covered image; check its weights")
        odds.append(log_odds(logits, target.multilabel)[:, class_id])
        predicted.append(logits.argmax(1))
        on_progress(done := done + len(part))
    return Answers(np.concatenate(odds), np.concatenate(predicted))


def filled(image: np.ndarray, fill: Fill) -> np.ndarray:
    """What replaces the pixels of a uint8 image (C, H, W), of its shape.

    mean: the image's mean colour. blur: the image under a Gaussian, 10 pixels wide for a shorter side of 224 (Fong &
    Vedaldi 2017); coarse colours remain.
    """
    if fill == "mean":
        return np.broadcast_to(mean_colour(image)[:, None, None], image.shape)
    width = _BLUR * min(image.shape[1:])
    return np.rint(ndimage.gaussian_filter(image.astype(np.float64), (0, width, width), mode="nearest")).astype(np.uint8)


def mean_colour(image: np.ndarray) -> np.ndarray:
    """uint8 (C,): the mean of each channel, rounded."""
    return np.rint(image.mean((1, 2))).astype(np.uint8)


def _batched(images: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while part := list(islice(images, size)):
        yield part
