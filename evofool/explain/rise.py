"""RISE: which pixels a score depends on, from random masks. Needs only scores, so it works for a black box."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional as F

from evofool.ascend.draws import Draws
from evofool.explain.covering import answers, filled
from evofool.scores import confidence
from evofool.targets import Target

MASKS = 1000
_CELLS = 7
_STEP = (1 << 20) + 2  # of the draws: other than the copies of a mask and random maps


def rise(
    target: Target,
    image: np.ndarray,
    class_id: int,
    *,
    masks: int = MASKS,
    cells: int = _CELLS,
    keep: float = 0.5,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> np.ndarray:
    """How the confidence of a class goes with each pixel's visibility, float32 (H, W). image: uint8 (C, H, W).

    The image is shown through `masks` random masks (random_masks), blended with its mean colour and rounded to 8 bits. A
    pixel's value is the covariance of the confidence and of the pixel's visibility, over the mean visibility. That is eq. 6
    of Petsiuk, Das & Saenko 2018 with the mean confidence subtracted from each. This subtracts a constant in expectation,
    and with few masks it lowers the noise. The paper has 4,000 to 8,000 masks of 7 x 7 cells, and black instead of the mean
    colour. Costs a query a mask.
    """
    if masks < 2:
        raise ValueError(f"RISE needs at least 2 masks, not {masks}")
    height, width = image.shape[1:]
    other = filled(image, "mean").astype(np.float32)

    def shown() -> Iterator[np.ndarray]:
        for k in range(masks):
            visible = random_masks(height, width, [k], cells=cells, keep=keep, seed=seed)[0]
            yield np.rint(other + visible * (image - other)).astype(np.uint8)

    odds = answers(target, shown(), class_id, on_progress=lambda done: on_progress(done, masks)).log_odds
    p = np.asarray(confidence(odds))
    weights = p - p.mean()
    total = np.zeros((height, width))
    # Drawn again: masks of a whole image are larger than the image.
    for k in np.flatnonzero(weights):
        total += weights[k] * random_masks(height, width, [int(k)], cells=cells, keep=keep, seed=seed)[0]
    return (total / (masks * keep)).astype(np.float32)


def random_masks(
    height: int, width: int, keys: list[int], *, cells: int = _CELLS, keep: float = 0.5, seed: int = 0
) -> np.ndarray:
    """Smooth random masks, float32 (n, height, width) in 0..1, one for each key (Petsiuk 2018, section 3.2).

    cells x cells cells are visible with probability `keep` each, enlarged bilinearly to (cells + 1) times the cell's size,
    and shifted at random by up to a cell. Each is keyed by the seed and its key.
    """
    if cells < 1 or not 0 < keep < 1:
        raise ValueError(f"cells {cells} has to be at least 1, and keep {keep} between 0 and 1")
    high, wide = -(-height // cells), -(-width // cells)
    draws = Draws(seed, keys, _STEP)
    visible = (draws.uniform(cells, cells) < keep).float()
    rows, columns = draws.integers(0, high), draws.integers(0, wide)
    large = F.interpolate(visible[:, None], ((cells + 1) * high, (cells + 1) * wide), mode="bilinear")[:, 0].clamp_(0, 1)
    return torch.stack(
        [
            mask[row : row + height, column : column + width]
            for mask, row, column in zip(large, rows.tolist(), columns.tolist(), strict=True)
        ]
    ).numpy()
