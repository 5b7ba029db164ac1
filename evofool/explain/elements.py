"""The elements of an image: connected patches of one colour that differ from the background, and which repeat."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.sparse import csgraph
from sklearn.cluster import KMeans

from evofool.errors import ImageError

SMALLEST = 4  # pixels: fewer are a speck, whatever the size of the image
_SAME = 0.7  # two masks that share this much of their union are one element: a shape and the soft edge around it
_COLOUR, _FACTOR = 32.0, 1.3  # how much copies may differ: grey levels in any channel; area, moments, edge


@dataclass(frozen=True)
class Element:
    """A part of an image. Elements of one group have similar size, shape and colour: they are copies of one another.

    mask: bool (H, W), what it encloses included. box: top, left, bottom, right; the last two are outside. colour: its mean,
    one 8-bit number per channel. group: 0 is the group of most copies.
    """

    mask: np.ndarray
    box: tuple[int, int, int, int]
    colour: tuple[int, ...]
    group: int = 0

    @property
    def area(self) -> int:
        return int(self.mask.sum())


def find_elements(
    image: np.ndarray, *, colours: int = 6, least: float = 0.002, most: float = 0.25, limit: int = 48, seed: int = 0
) -> list[Element]:
    """The elements of a uint8 image (C, H, W), group by group (most copies first, then the largest), each in reading order.

    The image is reduced to so many colours by k-means; an element is a connected patch of one of them (neighbours share an
    edge) with what it encloses, of at least `least` and at most `most` of the image. A larger patch is background, but its
    parts that are thinner than an eighth of the image's shorter side are elements too, such as the teeth of a comb.
    The `limit` largest are kept. A gradient, or noise, may have none.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ImageError(f"elements are found in a uint8 image (C, H, W), not {image.dtype} {image.shape}")
    if colours < 2:
        raise ImageError(f"an image is reduced to at least 2 colours, not {colours}")
    size = image.shape[1] * image.shape[2]
    smallest, largest = max(SMALLEST, least * size), most * size
    quantised = _quantised(image, colours, seed)
    masks = [mask for c in range(quantised.max() + 1) for mask in _patches(quantised == c, smallest, largest)]
    masks.sort(key=lambda mask: -int(mask.sum()))
    kept: list[np.ndarray] = []
    for mask in masks:
        if len(kept) < limit and not any((mask & k).sum() > _SAME * (mask | k).sum() for k in kept):
            kept.append(mask)
    return _grouped([_element(image, mask) for mask in kept])


def _quantised(image: np.ndarray, colours: int, seed: int) -> np.ndarray:
    """The number (H, W) of every pixel's colour. k-means over the different colours, each as heavy as it is frequent."""
    pixels = image.reshape(len(image), -1).T
    seen, which, often = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    if len(seen) > colours:
        means = KMeans(colours, n_init=1, random_state=seed).fit(seen.astype(np.float64), sample_weight=often)
        which = means.labels_[which.reshape(-1)]
    return which.reshape(image.shape[1:])


def _patches(where: np.ndarray, smallest: float, largest: float, thin: bool = True) -> list[np.ndarray]:
    """The connected patches of a mask, filled unless that makes one too large. thin: also the thin parts of larger ones."""
    numbers, _ = ndimage.label(where)
    areas = np.bincount(numbers.ravel())
    masks = []
    for number, window in enumerate(ndimage.find_objects(numbers), 1):
        if areas[number] > largest and thin:  # once: a net is thin everywhere and still too large for an element
            masks += _patches(_thin(numbers == number), smallest, largest, thin=False)
        if not smallest <= areas[number] <= largest:
            continue
        patch = numbers[window] == number
        filled = ndimage.binary_fill_holes(patch)
        mask = np.zeros(where.shape, bool)
        mask[window] = filled if filled.sum() <= largest else patch
        masks.append(mask)
    return masks


def _thin(patch: np.ndarray) -> np.ndarray:
    """The pixels of a patch that no square inside it covers, an eighth of the shorter side wide; borders are extended."""
    side = max(2, min(patch.shape) // 8)
    eroded = ndimage.minimum_filter(np.pad(patch, side, "edge"), side)
    # An even square has no middle: its dilation is shifted against its erosion.
    opened = ndimage.maximum_filter(eroded, side, origin=-1 if side % 2 == 0 else 0)
    return patch & ~opened[side:-side, side:-side]


def _element(image: np.ndarray, mask: np.ndarray) -> Element:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Element(mask, box, tuple(int(v) for v in np.rint(image[:, mask].mean(1))))


def _grouped(elements: list[Element]) -> list[Element]:
    if not elements:
        return []
    features = np.array([_features(element) for element in elements])
    # Similarity is transitive: a row of shapes that shrink in small steps is one group.
    similar = (np.abs(features[:, None] - features[None]) <= 1).all(2)
    _, groups = csgraph.connected_components(similar, directed=False)
    sizes = np.bincount(groups)
    areas = np.bincount(groups, weights=[element.area for element in elements])
    ranks = np.empty(len(sizes), np.int64)
    ranks[np.lexsort((-areas, -sizes))] = np.arange(len(sizes))
    found = [replace(element, group=int(ranks[group])) for element, group in zip(elements, groups, strict=True)]
    return sorted(found, key=lambda e: (e.group, e.box))


def _features(element: Element) -> list[float]:
    """Numbers that do not depend on position and rotation: two elements are copies if no number differs by more than 1.

    Area, the two principal second moments per area (how long, how wide), the edge's length, and colour, in units of the
    largest difference between copies.
    """
    y, x = np.nonzero(element.mask)
    spread = np.cov(np.stack([y, x]), bias=True) + np.eye(2) / 12  # a pixel is as wide as one
    moments = np.linalg.eigvalsh(spread) / element.area
    edge = element.mask & ~ndimage.binary_erosion(element.mask)
    shape = np.log([element.area, *moments, edge.sum()]) / np.log(_FACTOR)
    return [*shape.tolist(), *(value / _COLOUR for value in element.colour)]
