"""Metrics of images: their distance to real ones, total variation, file size. None of them measures what people see."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from evofool.errors import ImageError, TargetError
from evofool.image_metrics.names import BYTES_PER_PIXEL, FEATURES, HOG, PIXELS, TOTAL_VARIATION
from evofool.image_metrics.spaces import RealPoints, flat, hog
from evofool.images import encode_png
from evofool.targets import Target

MIN_REAL_IMAGES = 50  # with fewer a percentile is not meaningful
CHUNK = 128  # images that are measured together
_HELD_OUT = 500  # real images that the percentile is taken over, unless they are named
_EXAMPLES = 64  # of the held-out images, that are kept as examples


class RealImageSource(Protocol):
    """Real images that can be read several times, in batches, always in the same order."""

    @property
    def source(self) -> str:
        """The name of the source, for messages and records."""

    def __len__(self) -> int: ...

    def batches(self, batch: int = 32) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """uint8 images (B, C, H, W), B <= batch, and their numbers (B,) int64, ascending."""


class FeatureSpace(Protocol):
    """A network that maps uint8 images (B, C, H, W) of any shape to points (B, D) float32."""

    @property
    def network(self) -> Target:
        """The network."""

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class _Space(NamedTuple):
    name: str
    points: Callable[[np.ndarray], np.ndarray]
    reference: RealPoints
    held_out: np.ndarray  # (n,) float64 ascending: the held-out real images' distances to the nearest of the reference


class ImageMetrics:
    """Measures images of one shape, beside real ones. Make an instance with `of`; call it with images.

    names: the metrics. references: by the name of a metric that compares, the key of the real images (and the network) that
    it compares with. reference_details: by key, a description of those images ("real": the key of the real images alone,
    where it is another). compared, held_out: the number of real images of each kind; held_out_rows: the numbers of the
    held-out ones. examples: uint8 (n, C, H, W), up to 64 of the held-out real images, evenly spread; their percentiles are
    even on 0..100 by construction. network: whose features are the third space, or None.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        spaces: Sequence[_Space],
        examples: np.ndarray,
        held_out_rows: np.ndarray,
        references: Mapping[str, str],
        reference_details: Mapping[str, Mapping[str, Any]],
        network: Target | None,
    ) -> None:
        self.shape, self.references, self.reference_details = shape, references, reference_details
        self.examples, self.held_out_rows, self.network = examples, held_out_rows, network
        self._spaces = spaces
        self.names = (*(space.name for space in spaces), TOTAL_VARIATION, BYTES_PER_PIXEL)
        self.compared, self.held_out = len(spaces[0].reference), len(spaces[0].held_out)

    @classmethod
    def of(
        cls,
        target: Target,
        real: RealImageSource,
        *,
        reference_rows: Sequence[int] | np.ndarray | None = None,
        held_out_rows: Sequence[int] | np.ndarray | None = None,
        features: FeatureSpace | None = None,
        batch: int = 32,
        report: Callable[[str], None] | None = None,
    ) -> "ImageMetrics":
        """Read the real images once, as target takes them; the classifier itself is not queried.

        Images are compared with the reference, and their distances with those of the held-out images, a disjoint set.
        By default the held-out ones are up to 500 (half of all at most), evenly spread, and the reference is the rest.
        features: a network other than target, whose features are the third space; None: that space is left out. report is
        called after each batch.

        ImageError for too few images and for one that is in both sets; TargetError if the network is the target.
        """
        network = None if features is None else features.network
        if network is not None and network.fingerprint() == target.fingerprint():
            raise TargetError(
                f"{network.name}: this is the network that was attacked; features have to be those of another one"
            )
        reference, held_out = _split(real, reference_rows, held_out_rows)
        points: dict[str, Callable[[np.ndarray], np.ndarray]] = {PIXELS: flat, HOG: hog}
        if features is not None:
            points[FEATURES] = features
        reference_points, held_out_points = ({name: RealPoints() for name in points} for _ in range(2))
        digests = hashlib.sha256(), hashlib.sha256()
        for images, numbers in real.batches(batch):
            for rows, kept, digest in (
                (reference, reference_points, digests[0]),
                (held_out, held_out_points, digests[1]),
            ):
                part = images[np.isin(numbers, rows)]
                if len(part):
                    digest.update(part.tobytes())
                    for name, space in points.items():
                        kept[name].add(space(part))
            if report:
                report(f"{int(numbers[-1]) + 1:,} of {len(real):,} real images")
        if not len(reference_points[PIXELS]) or not len(held_out_points[PIXELS]):
            raise ImageError(f"{real.source}: none of the real images to compare with could be read")
        spaces = [
            _Space(name, points[name], reference_points[name], _distances(reference_points[name], held_out_points[name]))
            for name in points
        ]
        counts = len(reference_points[PIXELS]), len(held_out_points[PIXELS])
        details: dict[str, Any] = {"images": real.source, "reference": counts[0], "held_out": counts[1]}
        compared = [target.shape, *(digest.hexdigest() for digest in digests)]
        key = _key(compared)
        references, reference_details = dict.fromkeys(points, key), {key: details}
        if network is not None:
            references[FEATURES] = key = _key([*compared, network.fingerprint()])
            reference_details[key] = {**details, "network": network.name, "real": references[PIXELS]}
        chosen = _spread(counts[1], _EXAMPLES)
        examples = np.concatenate([held_out_points[PIXELS].rows(i, 1) for i in chosen.tolist()]).reshape(-1, *target.shape)
        return cls(target.shape, spaces, examples, held_out, references, reference_details, network)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """By name (B,) float64, of uint8 images (B, C, H, W).

        nearest_real_*_percentile: 0..100, the share of held-out real images whose nearest of the reference is no further
        than this image's; 100: it is at least as far from any real image as all of them are. total_variation: see there.
        bytes_per_pixel: of its PNG as evofool writes it, over all channels.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise ImageError(
                f"image metrics are measured of uint8 images (B, {', '.join(map(str, self.shape))}), "
                f"not {images.dtype} {images.shape}"
            )
        found: dict[str, list[np.ndarray]] = {name: [np.zeros(0)] for name in self.names}
        for begin in range(0, len(images), CHUNK):
            part = images[begin : begin + CHUNK]
            for space in self._spaces:
                distances = space.reference.nearest(space.points(part))
                rank = np.searchsorted(space.held_out, distances, "right")
                found[space.name].append(100.0 * rank / len(space.held_out))
            found[TOTAL_VARIATION].append(total_variation(part))
            found[BYTES_PER_PIXEL].append(np.array([len(encode_png(image)) / image[0].size for image in part]))
        return {name: np.concatenate(parts) for name, parts in found.items()}


def total_variation(images: np.ndarray) -> np.ndarray:
    """(B,) float64 on 0..1: the mean absolute difference of neighbours, side by side or one above the other.

    Of uint8 images (B, C, H, W), channel by channel, pixels on [0, 1]. 0: flat; 1/3: uniform noise; 1: a chessboard.
    """
    whole = images.astype(np.int64)
    steps = [np.abs(np.diff(whole, axis=axis)).reshape(len(images), -1) for axis in (2, 3)]
    pairs = sum(step.shape[1] for step in steps)
    return sum((step.sum(axis=1) for step in steps), np.zeros(len(images))) / (255.0 * max(1, pairs))


def _split(
    real: RealImageSource, reference: Sequence[int] | np.ndarray | None, held_out: Sequence[int] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the images to compare with, and of the held-out ones."""
    every = np.arange(len(real))
    if held_out is None:
        free = every if reference is None else np.setdiff1d(every, reference)
        held_out = free[held_out_of(len(free)) if reference is None else _spread(len(free), _HELD_OUT)]
    if reference is None:
        reference = np.setdiff1d(every, held_out)
    both = np.intersect1d(reference, held_out)
    if len(both):
        raise ImageError(
            f"{real.source}: real image {both[0]} cannot be both compared with and held out; {len(both)} are in both sets"
        )
    if not len(reference) or not len(held_out):
        raise ImageError(
            f"{real.source}: {len(reference)} real images to compare with and {len(held_out)} held out; at least one of "
            "each is needed"
        )
    return np.asarray(reference), np.asarray(held_out)


def held_out_of(number: int) -> np.ndarray:
    """Of so many real images the numbers of those that are held out by default: up to 500, half at most, evenly spread."""
    return _spread(number, min(_HELD_OUT, number // 2))


def _spread(number: int, count: int) -> np.ndarray:
    """Up to count numbers, ascending and evenly spread over range(number)."""
    return np.unique(np.linspace(0, number - 1, min(count, number)).round().astype(int))


def _distances(reference: RealPoints, held_out: RealPoints) -> np.ndarray:
    return np.sort(np.concatenate([reference.nearest(block) for _, block in held_out.blocks()]))


def _key(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(["evofool image metrics 1", *parts]).encode()).hexdigest()[:16]
