"""How near an inverse is to its picture, and what does without a decoder: the mean picture and a local ridge regression."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from evofool.explain.upconv.samples import Samples

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # over the mean variance of a feature and the number of rows
_ROWS = 20_000  # positions that the regression is learned from
_MOST_FEATURES = 2048
_COLUMNS = 1 << 14


def distances(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n,) float64: the Euclidean distance of each pair of rows, of any shape; uint8 counts as colours of 0 to 1."""
    return np.linalg.norm((_unit(found) - _unit(wanted)).reshape(len(found), -1), axis=1)


def pair_distance(rows: np.ndarray) -> float:
    """The mean Euclidean distance of all pairs of rows, which errors are divided by; at least 1e-12."""
    if len(rows) < 2:
        return 1e-12
    flat = rows.reshape(len(rows), -1)
    squared = torch.zeros(len(rows) * (len(rows) - 1) // 2, dtype=torch.float64)
    for k in range(0, flat.shape[1], _COLUMNS):  # for memory
        squared += torch.pdist(torch.from_numpy(_unit(flat[:, k : k + _COLUMNS]))).square()
    return max(float(squared.sqrt().mean()), 1e-12)


def by_mean(training: Samples, count: int) -> np.ndarray:
    """float32 (count, C, h, w) on [0, 1]: the mean of the training pictures."""
    mean = training.images.mean(0, dtype=np.float64).astype(np.float32) / 255
    return np.repeat(mean[None], count, 0)


def by_ridge(training: Samples, codes: np.ndarray, seed: int = 0) -> np.ndarray:
    """float32 (n, C, h, w) on [0, 1]: a ridge regression of pixels on codes (n, *code).

    Of a map each position's block of pixels, on the codes of 3 x 3 positions, or of the position itself where these are over
    2,048 values; of a vector all pixels on all values. The penalty of five with the smallest error for the last tenth of the
    training pictures is taken.
    """
    shape = training.images.shape[1:]
    x, y = _rows(training.codes, training.images, np.random.default_rng(seed))
    split = round(0.9 * len(x))
    best = min(_PENALTIES, key=lambda penalty: _error(_ridge(x[:split], y[:split], penalty), x[split:], y[split:]))
    weights, mean_x, mean_y = _ridge(x, y, best)
    found = np.empty((len(codes), *shape), np.float32)
    for k in range(len(codes)):  # the features of all pictures at once are gigabytes
        wanted, _ = _rows(codes[k : k + 1], None, None)
        predicted = (wanted - mean_x) @ weights + mean_y
        found[k : k + 1] = _images(predicted, (1, *codes.shape[1:]), (shape[0], shape[1], shape[2])).clip(0, 1)
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / 255.0 if rows.dtype == np.uint8 else rows.astype(np.float64)


def _rows(codes: np.ndarray, images: np.ndarray | None, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """Features (m, D) and, of the images, blocks of pixels (m, P); with rng of some rows, in the order of the pictures."""
    if codes.ndim == 2:
        pixels = np.empty((0, 0)) if images is None else _unit(images).reshape(len(images), -1).astype(np.float32)
        return codes.astype(np.float32), pixels
    n, channels, height, width = codes.shape
    reach = 3 if 9 * channels <= _MOST_FEATURES else 1
    positions = height * width
    each = positions if rng is None else min(positions, math.ceil(_ROWS / n))
    features = np.empty((n * each, channels * reach**2), np.float32)
    block = 0 if images is None else math.prod(_block(images.shape[1:], height, width))
    pixels = np.empty((n * each, block), np.float32)
    for k in range(n):
        chosen = np.arange(positions) if rng is None else np.sort(rng.permutation(positions)[:each])
        code = torch.from_numpy(codes[k : k + 1].astype(np.float32))
        local = F.unfold(code, reach, padding=reach // 2)[0].T.numpy()
        features[k * each : (k + 1) * each] = local[chosen]
        if images is not None:
            pixels[k * each : (k + 1) * each] = _blocks(images[k], height, width)[chosen]
    return features, pixels


def _block(shape: tuple[int, ...], height: int, width: int) -> tuple[int, int, int]:
    """(C, rows, columns) of pixels for each position of a map."""
    return shape[0], -(-shape[1] // height), -(-shape[2] // width)


def _blocks(image: np.ndarray, height: int, width: int) -> np.ndarray:
    _, rows, columns = _block(image.shape, height, width)
    pixels = torch.from_numpy(_unit(image).astype(np.float32))[None]
    pixels = F.interpolate(pixels, (rows * height, columns * width), mode="bilinear", align_corners=False)
    return F.unfold(pixels, (rows, columns), stride=(rows, columns))[0].T.numpy()


def _images(predicted: np.ndarray, code: tuple[int, ...], shape: tuple[int, int, int]) -> np.ndarray:
    n = code[0]
    if len(code) == 2:
        return predicted.reshape(n, *shape).astype(np.float32)
    height, width = code[2:]
    _, rows, columns = _block(shape, height, width)
    blocks = torch.from_numpy(predicted.astype(np.float32)).reshape(n, height * width, -1).transpose(1, 2)
    whole = F.fold(blocks, (rows * height, columns * width), (rows, columns), stride=(rows, columns))
    return F.interpolate(whole, shape[1:], mode="bilinear", align_corners=False, antialias=True).numpy()


_Fit = tuple[np.ndarray, np.ndarray, np.ndarray]


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> _Fit:
    """Weights (D, P) and both means, by the smaller of the two systems of equations."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = x - mean_x, y - mean_y
    gram = a.T @ a if a.shape[1] <= len(a) else a @ a.T
    gram[np.diag_indices_from(gram)] += penalty * max(float((a**2).mean()) * len(a), 1e-9)
    if a.shape[1] <= len(a):
        return np.linalg.solve(gram, a.T @ b), mean_x, mean_y
    return a.T @ np.linalg.solve(gram, b), mean_x, mean_y


def _error(fit: _Fit, x: np.ndarray, y: np.ndarray) -> float:
    weights, mean_x, mean_y = fit
    return float((((x - mean_x) @ weights + mean_y - y) ** 2).mean())
