"""Whether an image has the shape of its class: its distance to real digits of that class, once both are normalised.

A measure, not a verdict on what people see. Strong grain, as in the images of gradient methods, and strong stripes hide
strokes from it (docs/measured.md).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from evofool.image_metrics.digit_hog import digit_hog

SIDE = 28
_BOX = 20  # the longer side of the ink, as in MNIST
_EVERY = 5  # of the held-out images of other classes
SAME = 95.0  # an image up to this percentile has the shape of its class, if no other class is nearer


class OwnShape:
    """Measures images of one size, grey, beside labelled real ones.

    Every image is normalised as MNIST's digits are: ink is what is above Otsu's threshold, cropped, its longer side resized
    to 20 pixels, its centre of mass moved to the centre of 28 x 28, as far as the ink stays inside. Then HOG
    (image_metrics.digit_hog: 9 directions, cells of 4 x 4 pixels, blocks of 2 x 2 cells). Real images are dark with light
    ink; of others the negative is taken too, and the nearer one counts. classes: those of the real images, ascending.
    reference: by class the points (N, D) that images are compared with.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, held_out: Sequence[int] | np.ndarray) -> None:
        """Real images uint8 (N, 1, H, W), their classes (N,), and the rows that distances are held against.

        ValueError for a class that is not on both sides.
        """
        self.classes = np.unique(labels)
        rows = np.zeros(len(images), bool)
        rows[np.asarray(held_out)] = True
        points = digit_hog(np.stack([normalised(image) for image in images]))
        self.reference = {c: points[~rows & (labels == c)] for c in self.classes.tolist()}
        self._held_out, self._held_out_points = {}, {}
        for c in self.classes.tolist():
            mine = images[rows & (labels == c)]
            if not len(mine) or not len(self.reference[c]):
                raise ValueError(f"class {c} has {len(mine)} held-out images and {len(self.reference[c])} others")
            self._held_out_points[c] = both_polarities(mine)
            self._held_out[c] = np.sort(self.distances(self._held_out_points[c], c))

    def __call__(self, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of uint8 images (B, 1, H, W), each of the class (B,) that it is an elite of: percentiles and flags.

        Each class has to be one of self.classes. percentiles float64 (B,), 0..100: the share of held-out real images of the
        class that are at most as far from the nearest real image of the class. flags bool (B,): it is at most SAME, and no
        other class is nearer.
        """
        points = both_polarities(images)
        distances = {c: self.distances(points, c) for c in self.classes.tolist()}
        nearest = np.min(list(distances.values()), axis=0) if len(images) else np.zeros(0)
        percentiles, flags = np.zeros(len(images)), np.zeros(len(images), bool)
        for k, c in enumerate(classes.tolist()):
            held_out = self._held_out[c]
            percentiles[k] = 100.0 * np.searchsorted(held_out, distances[c][k], "right") / len(held_out)
            flags[k] = percentiles[k] <= SAME and distances[c][k] == nearest[k]
        return percentiles, flags

    def distances_above(self, percentile: float, others: bool = False) -> dict[int, float]:
        """By class the least distance whose percentile is above this one, which is below 100.

        others: among held-out real images of all other classes, every fifth of each, instead of those of the class.
        """
        found = {}
        for c in self.classes.tolist():
            held_out = self._of_others(c) if others else self._held_out[c]
            percentiles = 100.0 * np.arange(1, len(held_out) + 1) / len(held_out)
            found[c] = float(held_out[np.argmax(percentiles > percentile)])
        return found

    def _of_others(self, c: int) -> np.ndarray:
        """float64, ascending: the distances of other classes' images to a class."""
        others = [points[::_EVERY] for other, points in self._held_out_points.items() if other != c]
        return np.sort(self.distances(np.concatenate(others), c))

    def distances(self, points: np.ndarray, c: int) -> np.ndarray:
        """float64 (B,): of points (B, 2, D) to the nearest of the reference of a class, of the nearer polarity."""
        real = self.reference[c].astype(np.float64)
        # Image by image: a distance must not depend on the others.
        nearest = [[np.square(real - ink).sum(1).min() for ink in image] for image in points.astype(np.float64)]
        return np.sqrt(np.array(nearest).reshape(len(points), -1).min(1)) if len(points) else np.zeros(0)


def both_polarities(images: np.ndarray) -> np.ndarray:
    """HOG float32 (B, 2, D) of images and of their negatives, normalised."""
    if not len(images):
        return np.zeros((0, 2, 1), np.float32)
    inks = np.stack([normalised(ink) for image in images for ink in (image, 255 - image)])
    return digit_hog(inks).reshape(len(images), 2, -1)


def normalised(image: np.ndarray) -> np.ndarray:
    """uint8 (1, 28, 28) of a grey image uint8 (1, H, W): its light ink, in the place and of the size of MNIST's digits.

    The ink's longer side is 20 pixels, its centre of mass in the centre, to a whole pixel, or as near to it as the ink stays
    inside; black around it. An image of one grey level is black.
    """
    grey = image[0]
    out = np.zeros((1, SIDE, SIDE), np.uint8)
    ink = grey > otsu(grey)
    if not ink.any():
        return out
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    part = np.where(ink, grey, 0)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    scale = _BOX / max(part.shape)
    height, width = (max(1, round(side * scale)) for side in part.shape)
    part = np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR))
    weights = part.astype(np.float64)
    total = max(weights.sum(), 1e-9)
    centre = [(weights.sum(1 - axis) * (np.arange(side) + 0.5)).sum() / total for axis, side in enumerate(part.shape)]
    top, left = (max(0, min(round(SIDE / 2 - c), SIDE - side)) for c, side in zip(centre, part.shape, strict=True))
    out[0, top : top + height, left : left + width] = part
    return out


def otsu(grey: np.ndarray) -> int:
    """The grey level that splits pixels, uint8 (H, W), into two classes of the largest variance between them (Otsu 1979).

    Pixels above it are the light class; of equally good levels the lowest. 255 for an image of one level.
    """
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    below, weight = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (weight / below - (weight[-1] - weight) / above) ** 2
    between = np.nan_to_num(between)
    return int(between.argmax()) if between.max() > 0 else 255
