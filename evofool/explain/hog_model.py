"""What is learned to invert HOG: a ridge regression, a paired dictionary, exemplars; from windows of photographs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from evofool.errors import ImageError
from evofool.explain.hog import CELL, CHANNELS, grey, hog_of
from evofool.explain.input_picture import read_photograph
from evofool.images import from_pil, to_pil

WINDOW = 5
"""Cells, the side of a window."""
SIDE = WINDOW * CELL
"""Pixels, the side of a window."""
FEATURES = WINDOW**2 * CHANNELS
PIXELS = SIDE**2
LEAST_PHOTOGRAPHS = 8
MOST_PHOTOGRAPHS = 2000
"""Of a larger folder, so many are taken, evenly spaced by path."""
FLAT = 0.03
"""A standard deviation of colours of 0 to 1: a window below it shows next to nothing."""
LONGEST = 320
"""Pixels: photographs whose longer side is larger are reduced to it, so that windows show parts of things."""


@dataclass(frozen=True)
class LearningSettings:
    """windows: the most that are learned from. atoms: of the dictionary. penalty: of its codes' sum, with parts of norm 1.

    ridge: the penalty of the regression's weights, over the mean variance of a feature and the number of windows. rank: of
    the regression. seed: of the choice of windows and of the dictionary's start. exemplars: whether the windows are kept,
    which ELDA needs; they are most of a model's bytes.
    """

    windows: int = 8000
    atoms: int = 256
    penalty: float = 0.05
    ridge: float = 0.01
    rank: int = 128
    seed: int = 0
    exemplars: bool = True


@dataclass(frozen=True)
class HogModel:
    """Inverses of HOG for windows of 5 x 5 cells, float32 but for the exemplars.

    mean: (775,) of the windows' features. ridge_in (775, rank), ridge_out (rank, 1600): the regression of patches, of mean
    0 and standard deviation 1, on features less their mean. atoms_hog (K, 775), atoms_grey (K, 1600): the dictionary;
    penalty: of its codes. whitening: (775, 775), the inverse of the covariance of features. exemplars: float16 (n, 775),
    features less their mean, and patches: int8 (n, 1600), in units of 1 / 32; all three have no rows without exemplars.
    photographs, windows: their numbers. source: SHA-256 of what it was learned from.
    """

    mean: np.ndarray
    ridge_in: np.ndarray
    ridge_out: np.ndarray
    atoms_hog: np.ndarray
    atoms_grey: np.ndarray
    whitening: np.ndarray
    exemplars: np.ndarray
    patches: np.ndarray
    penalty: float
    photographs: int
    windows: int
    source: str


PATCH_UNIT = 32.0


def learn(
    images: Sequence[np.ndarray],
    settings: LearningSettings | None = None,
    *,
    source: str = "",
    on_progress: Callable[[str], None] = lambda _line: None,
) -> HogModel:
    """Learn the inverses from photographs, uint8 (C, H, W), of at least 40 x 40 pixels.

    ImageError for photographs with fewer windows that show something than the dictionary has atoms.
    """
    settings = settings or LearningSettings()
    features, patches = sampled_windows(images, settings.windows, settings.seed)
    if len(features) < settings.atoms:
        raise ImageError(
            f"{len(images)} photographs have {len(features)} windows that show something; {settings.atoms} atoms are "
            f"learned from at least {settings.atoms}"
        )
    on_progress(f"{len(features):,} windows of {len(images):,} photographs")
    mean = features.mean(0)
    centred = features - mean
    ridge_in, ridge_out = _ridge(centred, patches, settings)
    on_progress(f"learning a dictionary of {settings.atoms} atoms")
    atoms_hog, atoms_grey = _dictionary(centred, patches, settings)
    kept = slice(None) if settings.exemplars else slice(0)
    return HogModel(
        mean,
        ridge_in,
        ridge_out,
        atoms_hog,
        atoms_grey,
        _whitening(centred)[kept],
        centred[kept].astype(np.float16),
        np.clip(np.rint(patches[kept] * PATCH_UNIT), -127, 127).astype(np.int8),
        settings.penalty,
        len(images),
        len(features),
        source,
    )


def sampled_windows(images: Sequence[np.ndarray], most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 features (n, 775) and standardised patches (n, 1600): up to `most` windows, at random.

    Of each image in turn ceil(most / images), or all that it has, until there are enough: the last images may give none.
    Windows that show next to nothing are left out.
    """
    rng = np.random.default_rng(seed)
    each = math.ceil(most / len(images))
    features, patches = [], []
    for image in images:
        of_image, pixels = windows_of(image)
        shown = np.flatnonzero(pixels.std(1) > FLAT)
        chosen = np.sort(rng.permutation(shown)[:each])
        features.append(of_image[chosen])
        patches.append(standardised(pixels[chosen]))
    return np.concatenate(features)[:most], np.concatenate(patches)[:most]


def windows_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 features (n, 775) and grey pixels (n, 1600) of all windows of uint8 (C, H, W), by rows."""
    features = hog_of(image)
    rows, columns = features.shape[:2]
    pixels = sliding_window_view(grey(image)[: rows * CELL, : columns * CELL], (SIDE, SIDE))[::CELL, ::CELL]
    return feature_windows(features), pixels.reshape(-1, PIXELS)


def feature_windows(features: np.ndarray) -> np.ndarray:
    """(n, 775): all windows of features (h, w, 31), by rows."""
    return sliding_window_view(features, (WINDOW, WINDOW), (0, 1)).transpose(0, 1, 3, 4, 2).reshape(-1, FEATURES)


def standardised(patches: np.ndarray) -> np.ndarray:
    """Each row with mean 0 and standard deviation 1; a constant row becomes 0."""
    centred = patches - patches.mean(1, keepdims=True)
    return centred / np.maximum(centred.std(1, keepdims=True), 1e-6)


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row over its norm; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def training_photographs(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """uint8 (1, H, W): the grey values of photographs, reduced to 320 pixels; unreadable and small ones are left out."""
    for file in files:
        try:
            image, _ = read_photograph(file, 1)
        except ImageError:
            continue
        image = reduced(image)
        if min(image.shape[1:]) >= SIDE:
            yield image


def reduced(image: np.ndarray) -> np.ndarray:
    """uint8 (C, H, W) with a longer side of at most 320 pixels, in its proportions."""
    scale = LONGEST / max(image.shape[1:])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[2] * scale)), max(1, round(image.shape[1] * scale)))
    return from_pil(to_pil(image).resize(size, Image.Resampling.LANCZOS))


def _ridge(centred: np.ndarray, patches: np.ndarray, settings: LearningSettings) -> tuple[np.ndarray, np.ndarray]:
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += settings.ridge * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, centred.T @ patches)
    # The regression of lower rank whose predictions are nearest to these, by the main directions of the predictions.
    of_predictions = np.linalg.cholesky(gram).T @ weights
    squares, vectors = np.linalg.eigh(of_predictions @ of_predictions.T)
    main = vectors[:, ::-1][:, : settings.rank] / np.sqrt(np.maximum(squares[::-1][: settings.rank], 1e-12))
    directions = (main.T @ of_predictions).astype(np.float32)
    return (weights @ directions.T).astype(np.float32), directions


def _dictionary(centred: np.ndarray, patches: np.ndarray, settings: LearningSettings) -> tuple[np.ndarray, np.ndarray]:
    """Vondrick 2013, section 5: both parts of a window, each of norm 1, share one sparse code."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    both = np.concatenate([unit(centred), unit(patches)], 1).astype(np.float64)
    found = MiniBatchDictionaryLearning(
        settings.atoms,
        alpha=settings.penalty,
        max_iter=4,
        fit_algorithm="cd",
        batch_size=128,
        positive_code=True,
        random_state=settings.seed,
        max_no_improvement=None,
    ).fit(both)
    atoms = found.components_.astype(np.float32)
    return atoms[:, :FEATURES].copy(), atoms[:, FEATURES:].copy()


def _whitening(centred: np.ndarray) -> np.ndarray:
    covariance = centred.T @ centred / len(centred)
    covariance[np.diag_indices_from(covariance)] += 0.01 * np.trace(covariance) / len(covariance)
    return np.linalg.inv(covariance).astype(np.float32)
