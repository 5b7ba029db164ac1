"""Pictures and a model of few windows, for tests of HOG."""

from functools import cache

import numpy as np
from scipy import ndimage

from evofool.explain.hog_model import HogModel, LearningSettings, learn

SMALL = LearningSettings(windows=400, atoms=24, rank=48)


def picture(seed: int, size: tuple[int, int] = (72, 80)) -> np.ndarray:
    """uint8 (1, H, W): a few large patches with sharp edges."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(size), 6, mode="wrap")
    levels = np.digitize(smooth, np.quantile(smooth, (0.3, 0.6)))
    return np.array([40, 120, 210], np.uint8)[levels][None]


@cache
def small_model() -> HogModel:
    return learn([picture(seed) for seed in range(20)], SMALL)
