"""A detector of things in photographs: a linear SVM on HOG, slid over positions and sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from evofool.errors import ImageError
from evofool.explain.hog import CELL, hog_of
from evofool.images import from_pil, to_pil

CELLS = 8
"""The side of the detector's window."""
LEAST_PICTURES = 8
"""Of either kind, to learn from."""
_SIDE = CELLS * CELL
_SCALES = 1.25 ** np.arange(7)  # of the short side, in windows: the largest window is the whole short side
_OVERLAP = 0.3  # the most that two detections share, intersection over union
_RANDOM, _HARD = 6, 6  # windows of each photograph without the thing: at random, and the highest wrong ones


@dataclass(frozen=True)
class Detector:
    """weights: float32 (8, 8, 31); a window's score is their sum over its features, plus bias. Above 0 it fires."""

    weights: np.ndarray
    bias: float


class Detection(NamedTuple):
    """A window of a photograph. photograph: its number; left, top, side: in its pixels; features: (8, 8, 31)."""

    photograph: int
    score: float
    left: int
    top: int
    side: int
    features: np.ndarray


def train_detector(
    objects: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    *,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> Detector:
    """Learn from pictures of a thing and photographs without it, uint8 (C, H, W) each.

    Of a picture its central square counts, mirrored too. Negatives are random windows, and then those on which a first
    detector fires or nearly does (Dalal & Triggs 2005, section 4). ImageError for fewer than 8 pictures of either, and if no
    photograph has room for a window.
    """
    for what, given in (("pictures of the thing", objects), ("photographs without it", others)):
        if len(given) < LEAST_PICTURES:
            raise ImageError(f"{len(given)} {what} are too few; a detector is learned from at least {LEAST_PICTURES}")
    rng = np.random.default_rng(seed)
    positives = np.stack([object_features(x).ravel() for image in objects for x in (image, image[:, :, ::-1])])
    negatives = np.concatenate([_random_windows(image, rng) for image in others])
    if not len(negatives):
        raise ImageError(f"no photograph without it has a short side of {_SIDE} pixels or more")
    first = _fit(positives, negatives, seed)
    on_progress(f"looking for hard negatives in {len(others):,} photographs")
    hard = [
        found.features.ravel()
        for number, image in enumerate(others)
        for found in detect(first, image, number, above=-1.0)[:_HARD]
    ]
    return _fit(positives, np.concatenate([negatives, np.array(hard).reshape(len(hard), -1)]), seed) if hard else first


def detect(detector: Detector, image: np.ndarray, number: int = 0, *, above: float = 0.0) -> list[Detection]:
    """The windows of uint8 (C, H, W) whose score is above a limit and which overlap little, highest first."""
    found = []
    for factor, features in _pyramid(image):
        windows = _windows(features)
        scores = np.tensordot(windows, detector.weights, 3) + detector.bias
        for row, column in zip(*np.nonzero(scores > above), strict=True):
            where = (round(column * CELL / factor), round(row * CELL / factor), round(_SIDE / factor))
            found.append(Detection(number, float(scores[row, column]), *where, windows[row, column]))
    found.sort(key=lambda one: -one.score)
    kept: list[Detection] = []
    for one in found:
        if all(_overlap(one, other) < _OVERLAP for other in kept):
            kept.append(one)
    return kept


def object_features(image: np.ndarray) -> np.ndarray:
    """(8, 8, 31): the features of the central square of uint8 (C, H, W), with a reflected cell around it."""
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = from_pil(
        to_pil(image[:, top : top + side, left : left + side]).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    )
    return hog_of(np.pad(square, ((0, 0), (CELL, CELL), (CELL, CELL)), "symmetric"))[1:-1, 1:-1]


def score(detector: Detector, features: np.ndarray) -> float:
    """The score of a window's features (8, 8, 31)."""
    return float((detector.weights * features).sum() + detector.bias)


def _pyramid(image: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """The factor by which the image was resized, and its features, from the largest windows to the smallest."""
    height, width = image.shape[1:]
    for scale in _SCALES:
        factor = _SIDE * scale / min(height, width)
        if factor > 1:
            return  # enlarged photographs show nothing new
        size = (max(_SIDE, round(width * factor)), max(_SIDE, round(height * factor)))
        yield factor, hog_of(from_pil(to_pil(image).resize(size, Image.Resampling.LANCZOS)))


def _windows(features: np.ndarray) -> np.ndarray:
    """(rows, columns, 8, 8, 31)"""
    return sliding_window_view(features, (CELLS, CELLS), (0, 1)).transpose(0, 1, 3, 4, 2)


def _random_windows(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    every = [_windows(features).reshape(-1, CELLS**2 * features.shape[2]) for _, features in _pyramid(image)]
    found = np.concatenate(every) if every else np.empty((0, object_features(image).size), np.float32)
    return found[rng.permutation(len(found))[:_RANDOM]]


def _fit(positives: np.ndarray, negatives: np.ndarray, seed: int) -> Detector:
    from sklearn.svm import LinearSVC

    both = np.concatenate([positives, negatives]).astype(np.float64)
    classes = np.repeat([1, 0], [len(positives), len(negatives)])
    # scikit-learn takes seeds of 32 bits.
    found = LinearSVC(C=0.01, random_state=seed % 2**32, max_iter=5000).fit(both, classes)
    weights = found.coef_[0].astype(np.float32).reshape(CELLS, CELLS, -1)
    return Detector(weights, float(found.intercept_[0]))


def _overlap(a: Detection, b: Detection) -> float:
    wide = min(a.left + a.side, b.left + b.side) - max(a.left, b.left)
    high = min(a.top + a.side, b.top + b.side) - max(a.top, b.top)
    shared = max(wide, 0) * max(high, 0)
    return shared / (a.side**2 + b.side**2 - shared)
