"""Deletion and insertion: how the confidence changes while a map's pixels are removed, or put in, highest first (RISE)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from evofool.ascend.draws import Draws
from evofool.errors import ImageError, ScoreError
from evofool.explain.covering import answers, filled
from evofool.scores import confidence
from evofool.targets import Target

STEPS = 20
_STEP = (1 << 20) + 1  # of the draws: other than the copies of a mask


class Curves(NamedTuple):
    """A map's two curves. deletion, insertion: float64 (steps + 1,), the confidence after each step.

    deletion_area, insertion_area: under the curves over the share of pixels, 0 to 1, by the trapezoidal rule. A good map has
    a small deletion area and a large insertion area.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    deletion_area: float
    insertion_area: float


def curves(
    target: Target,
    image: np.ndarray,
    class_id: int,
    maps: Mapping[str, np.ndarray],
    *,
    steps: int = STEPS,
    batch: int = 32,
) -> dict[str, Curves]:
    """The curves of each map, float (H, W), of an image, uint8 (C, H, W), by name. Source: Petsiuk, Das & Saenko 2018.

    After step k of `steps` the round(k / steps * H W) pixels with the highest values are changed; of equal values the first
    in reading order. Deletion starts with the image and replaces pixels by the image's mean colour. Insertion starts with
    the blurred image (Gaussian, 10 pixels wide for a shorter side of 224) and puts in the image's pixels. So the areas
    depend on the map's order alone, not on its scale. Nothing is random.

    Costs 3 + 2 (steps - 1) queries a map: 3 for the ends, which all maps share. ImageError for a map that does not fit the
    image, ScoreError for one that is not finite.
    """
    for name, values in maps.items():
        if values.shape != image.shape[1:]:
            raise ImageError(f'the map "{name}" is {values.shape}, not {image.shape[1:]} as the image')
        if not np.isfinite(values).all():
            raise ScoreError(
                f'the map "{name}" is not finite at {int((~np.isfinite(values)).sum())} of {values.size} pixels'
            )
    if steps < 1:
        raise ValueError(f"curves need at least 1 step, not {steps}")
    empty, blurred = filled(image, "mean"), filled(image, "blur")

    def between() -> Iterator[np.ndarray]:
        yield from (image, empty, blurred)
        for values in maps.values():
            order = np.argsort(-values.ravel(), kind="stable")
            for k in range(1, steps):
                changed = np.zeros(values.size, bool)
                changed[order[: round(k / steps * values.size)]] = True
                yield np.where(changed.reshape(values.shape), empty, image)
                yield np.where(changed.reshape(values.shape), image, blurred)

    found = np.asarray(confidence(answers(target, between(), class_id, batch=batch).log_odds))
    whole, end, start = found[:3]
    inner = found[3:].reshape(len(maps), steps - 1, 2)
    result = {}
    for name, (deleted, inserted) in zip(maps, inner.transpose(0, 2, 1), strict=True):
        deletion, insertion = np.array([whole, *deleted, end]), np.array([start, *inserted, whole])
        result[name] = Curves(deletion, insertion, _area(deletion), _area(insertion))
    return result


def random_map(height: int, width: int, *, patch: int = 1, seed: int = 0) -> np.ndarray:
    """Uniform noise, float32 (H, W), equal within squares of `patch` pixels: the map to compare others with.

    Single pixels removed at random destroy every texture, so a map of patches should be compared with patches.
    """
    rows, columns = -(-height // patch), -(-width // patch)
    noise = Draws(seed, [patch], _STEP).uniform(rows, columns)[0].numpy()
    return noise.repeat(patch, 0).repeat(patch, 1)[:height, :width]


def _area(curve: np.ndarray) -> float:
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))
