"""Whether a target's answers change abruptly: noise that depends on the image repeats, so that scoring twice shows nothing.

Noise that is seeded by an image's bytes is another one for the smallest change of the image, and is as large for a small
change as for a large one. A network's answers grow with the change instead; those of a coarse one mostly stay equal.
"""

from typing import NamedTuple

import numpy as np

from evofool.targets.classifier import Target
from evofool.targets.photos import drawings, patterns

LEVELS = 32
"""Grey levels of the larger change."""
LEAST, GROWTH = 0.01, 2.0
"""Changes by one grey level are abrupt from this share of the spread on, if LEVELS levels change less than GROWTH times as
much. Networks of digits and photographs, also rounded or behind JPEG: at most 0.0008, and above 5 or no change at all."""
_IMAGES = 8  # patterns, and as many drawings
_TOGETHER = 16  # images in a pass
_KEY = 0xAB


class Changes(NamedTuple):
    """How much logits change if one value of an image does: medians over images, as shares of the spread between images.

    one: by one grey level; many: by LEVELS.
    """

    one: float
    many: float

    @property
    def abrupt(self) -> bool:
        """Whether the smallest change of an image counts about as much as a large one, and not little."""
        return self.one > LEAST and self.many < GROWTH * self.one

    def note(self) -> str:
        """What a user has to know, "" if nothing is abrupt."""
        if not self.abrupt:
            return ""
        return (
            f"answers change abruptly: noise that depends on the image? One grey level of one pixel changes logits by "
            f"{self.one:.2g} of their spread between images, and {LEVELS} levels by {self.many:.2g}, hardly more. Such "
            "noise repeats to the bit, and misleads searches and gradients: a good score may be due to it"
        )


def measure_changes(target: Target) -> Changes:
    """Classify patterns and drawings, and each again with one value, keyed, changed by one level and by LEVELS: 48 images.

    Logits count less their mean over classes. Zeros where all images get equal answers; NaN where some are not finite.
    """
    images = np.concatenate([patterns(target.shape, _IMAGES), drawings(target.shape, _IMAGES)])
    first, one, many = (_centred(target, _changed(images, by)) for by in (0, 1, LEVELS))
    spread = float(np.sqrt(np.square(first - first.mean(axis=0)).mean()))
    if spread == 0:
        return Changes(0.0, 0.0)
    by_one, by_many = (float(np.median(np.sqrt(np.square(z - first).mean(axis=1)))) for z in (one, many))
    return Changes(by_one / spread, by_many / spread)


def _changed(images: np.ndarray, by: int) -> np.ndarray:
    """Copies with one value of each image raised by so many grey levels, or lowered where it would exceed 255."""
    out = images.reshape(len(images), -1).copy()
    rows, at = np.arange(len(out)), np.random.default_rng([_KEY, *images.shape]).integers(0, out.shape[1], len(out))
    values = out[rows, at].astype(np.int64)
    out[rows, at] = np.where(values + by > 255, values - by, values + by)
    return out.reshape(images.shape)


def _centred(target: Target, images: np.ndarray) -> np.ndarray:
    """(B, K) float64."""
    parts = [target.logits(images[i : i + _TOGETHER]) for i in range(0, len(images), _TOGETHER)]
    logits = np.concatenate(parts).astype(np.float64)
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))
