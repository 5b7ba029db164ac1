"""Images from HOG alone, by four methods, and how near they come to the image that the features are of."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from evofool.errors import ImageError
from evofool.explain.hog import CELL, hog
from evofool.explain.hog_model import PATCH_UNIT, PIXELS, SIDE, WINDOW, HogModel, feature_windows, standardised, unit

METHODS = ("paired", "ridge", "elda", "direct")
_BEST = 20  # exemplars that ELDA averages
_STEPS, _RATE, _SMOOTH = 100, 0.03, 0.3
_LEAST = 1e-12  # a divisor, where an image has no edges
_CHUNK = 256  # windows at a time, for memory


def invert(features: np.ndarray, method: str, model: HogModel, *, seed: int = 0) -> np.ndarray:
    """float32 (8 h, 8 w), of mean 0 and standard deviation 1, from features (h, w, 31), h and w at least 5.

    paired: a sparse code of each window's features, with its grey atoms (Vondrick 2013, section 5). ridge: a regression of
    pixels on features. elda: the mean of the 20 learned windows that a linear detector of the features likes best (exemplar
    LDA; Vondrick 2013, section 3). These overlap, weighted by a Gaussian. direct: gradient descent of the pixels, from
    noise, towards an image with these features (section 4 with total variation in place of a basis); seed: of its noise;
    needs no model. ImageError for a smaller grid, and for elda by a model without exemplars.
    """
    rows, columns = features.shape[:2]
    if min(rows, columns) < WINDOW:
        raise ImageError(f"{columns} x {rows} cells are too few: a window has {WINDOW} x {WINDOW}")
    if method == "direct":
        return standardised(direct(features[None], seed).reshape(1, -1)).reshape(rows * CELL, columns * CELL)
    patches = invert_windows(feature_windows(features), method, model)
    return _blended(patches, rows, columns)


def invert_windows(windows: np.ndarray, method: str, model: HogModel) -> np.ndarray:
    """float32 (n, 1600), each of mean 0 and standard deviation 1, from the features of windows (n, 775)."""
    if method == "direct":
        return standardised(direct(windows.reshape(-1, WINDOW, WINDOW, windows.shape[1] // WINDOW**2)).reshape(-1, PIXELS))
    centred = windows - model.mean
    found = _BY_MODEL[method](centred, model)
    return standardised(found)


def direct(features: np.ndarray, seed: int = 0, steps: int = _STEPS) -> np.ndarray:
    """float32 (n, 8 h, 8 w) from features (n, h, w, 31): Adam on the pixels.

    A border of one cell, which may show anything, is optimised too and cut off: the features of a window depend on what is
    around it.
    """
    wanted = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    n, rows, columns = wanted.shape[:3]
    generator = torch.Generator().manual_seed(seed % 2**64)
    size = ((rows + 2) * CELL, (columns + 2) * CELL)
    x = (0.5 + 0.05 * torch.randn((n, *size), generator=generator)).requires_grad_()
    norm = (wanted**2).sum((1, 2, 3)).clamp_min(_LEAST)
    optimiser = torch.optim.Adam([x], _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        error = ((hog(x)[:, 1:-1, 1:-1] - wanted) ** 2).sum((1, 2, 3)) / norm
        roughness = (x[:, 1:] - x[:, :-1]).abs().mean((1, 2)) + (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2))
        (error + _SMOOTH * roughness / x.detach().std((1, 2)).clamp_min(_LEAST)).sum().backward()
        optimiser.step()
        schedule.step()
    return x.detach()[:, CELL:-CELL, CELL:-CELL].numpy()


class Likeness(NamedTuple):
    """Of inverses of windows of 5 x 5 cells and the windows: three arrays (n,).

    ncc: the correlation of pixels, -1 to 1. sharpness: the mean squared gradient over the window's own, both with a standard
    deviation of 1. hog_distance: the norm of the difference of features over the norm of the window's own.
    """

    ncc: np.ndarray
    sharpness: np.ndarray
    hog_distance: np.ndarray

    def typical(self) -> tuple[float, float, float] | None:
        """The mean NCC, the median sharpness (a ratio with a long tail) and the mean HOG distance; None of no windows."""
        if not len(self.ncc):
            return None
        return float(self.ncc.mean()), float(np.median(self.sharpness)), float(self.hog_distance.mean())


def likeness(patches: np.ndarray, originals: np.ndarray) -> Likeness:
    """Of windows, both (n, 1600): three arrays (n,)."""
    if not len(patches):
        return Likeness(*np.empty((3, 0)))
    a, b = (standardised(x).reshape(-1, SIDE, SIDE) for x in (patches, originals))
    sharp = [(np.diff(x, axis=1) ** 2).mean((1, 2)) + (np.diff(x, axis=2) ** 2).mean((1, 2)) for x in (a, b)]
    with torch.no_grad():
        # In colours of 0 to 1, where the features' small constant matters as little as in photographs.
        found, real = (hog(torch.from_numpy(0.5 + 0.2 * x)).flatten(1).numpy() for x in (a, b))
    away = np.linalg.norm(found - real, axis=1) / np.linalg.norm(real, axis=1)
    return Likeness((a * b).mean((1, 2)), sharp[0] / sharp[1], away)


def _paired(centred: np.ndarray, model: HogModel) -> np.ndarray:
    from sklearn.decomposition import sparse_encode

    codes = sparse_encode(
        unit(centred).astype(np.float64),
        model.atoms_hog.astype(np.float64),
        algorithm="lasso_cd",
        alpha=model.penalty,
        positive=True,
        max_iter=200,
    )
    return codes.astype(np.float32) @ model.atoms_grey


def _ridge(centred: np.ndarray, model: HogModel) -> np.ndarray:
    return centred @ model.ridge_in @ model.ridge_out


def _elda(centred: np.ndarray, model: HogModel) -> np.ndarray:
    if not len(model.exemplars):
        raise ImageError("this model has no exemplars, which elda averages: learn one by --train DIR")
    exemplars, patches = model.exemplars.astype(np.float32), model.patches.astype(np.float32) / PATCH_UNIT
    found = []
    for begin in range(0, len(centred), _CHUNK):
        scores = centred[begin : begin + _CHUNK] @ model.whitening @ exemplars.T
        best = np.argpartition(-scores, min(_BEST, scores.shape[1] - 1), axis=1)[:, :_BEST]
        found.append(patches[best].mean(1))
    return np.concatenate(found)


_BY_MODEL: dict[str, Callable[[np.ndarray, HogModel], np.ndarray]] = {"paired": _paired, "ridge": _ridge, "elda": _elda}


def _blended(patches: np.ndarray, rows: int, columns: int) -> np.ndarray:
    away = np.arange(SIDE) - (SIDE - 1) / 2
    bell = np.exp(-0.5 * (away / (SIDE / 5)) ** 2)
    weight = torch.from_numpy((bell[:, None] * bell).astype(np.float32).reshape(-1, 1))
    high, wide = rows - WINDOW + 1, columns - WINDOW + 1
    size = (rows * CELL, columns * CELL)
    stacked = torch.from_numpy(np.ascontiguousarray(patches.reshape(high * wide, PIXELS).T))
    both = [F.fold(x[None], size, SIDE, stride=CELL)[0, 0] for x in (stacked * weight, weight.expand(-1, high * wide))]
    return standardised((both[0] / both[1]).numpy().reshape(1, -1)).reshape(size)
