"""How images look, in figures: how far from real ones, how rough, how many bytes. None of them says what people see."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evofool.ascend.draws import Draws
from evofool.attacks.black_box.random_search import drawn
from evofool.bench.looks.spaces import Elsewhere, RealPoints, flat, hog
from evofool.bench.statistics import AT, quantiles
from evofool.errors import ImageError, TargetError
from evofool.images import encode_png
from evofool.run.store import PERCENTILES
from evofool.targets import Target

if TYPE_CHECKING:
    from evofool.bench.real import RealImages

LEAST = 50  # real images; among fewer a percentile says nothing
AT_ONCE = 128  # images that are looked at together
CONTROLS = ("uniform-noise", "smooth-noise", "real")
PIXELS, HOG, FEATURES = PERCENTILES
_HELD_OUT = 500  # real images that the percentile is taken over, unless they are named
_EXAMPLES = 64  # of them, that are a control


class _Space(NamedTuple):
    name: str
    points: Callable[[np.ndarray], np.ndarray]
    reference: RealPoints
    held_out: np.ndarray  # (n,) float64 ascending: the held-out real images' distances to the nearest of the reference


class Looks:
    """What images of one shape look like beside real ones. Make one with `of`; call it with images.

    names: the figures. references: by the name of a figure that compares, the key of the real images (and the network) that
    it compares with; told: by key, what that stands for ("real": the key of the real images alone, where it is another).
    compared, held_out: how many real images there are of each kind.
    network: whose features are the third space, or None.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        spaces: Sequence[_Space],
        examples: np.ndarray,
        references: Mapping[str, str],
        told: Mapping[str, Mapping[str, Any]],
        network: Target | None,
    ) -> None:
        self.shape, self.references, self.told, self.network = shape, references, told, network
        self._spaces, self._examples = spaces, examples
        self.names = (*(space.name for space in spaces), "total_variation", "bytes_per_pixel")
        self.compared, self.held_out = len(spaces[0].reference), len(spaces[0].held_out)

    @classmethod
    def of(
        cls,
        target: Target,
        real: "RealImages",
        *,
        reference_rows: Sequence[int] | np.ndarray | None = None,
        held_out_rows: Sequence[int] | np.ndarray | None = None,
        network: Target | None = None,
        batch: int = 32,
        say: Callable[[str], None] | None = None,
    ) -> "Looks":
        """Look through the real images once, as target takes them; the classifier itself is asked nothing.

        Images are compared with the reference, and their distances with those of the held-out images, which are other ones;
        left out, the held-out ones are up to 500 (half of all at most), evenly spread, and the reference is the rest.
        network: a classifier other than target, whose features are the third space; None: that space is left out.
        ImageError for too few images and for one that is both, TargetError for a network that is the target or a black box.
        """
        if network is not None and network.fingerprint() == target.fingerprint():
            raise TargetError(f"{network.name}: that is the network that was attacked; features have to be another one's")
        reference, held_out = _split(real, reference_rows, held_out_rows)
        points: dict[str, Callable[[np.ndarray], np.ndarray]] = {PIXELS: flat, HOG: hog}
        if network is not None:
            points[FEATURES] = Elsewhere(network, batch)
        near, own = ({name: RealPoints() for name in points} for _ in range(2))
        digests = hashlib.sha256(), hashlib.sha256()
        for images, at in real.batches(batch):
            for rows, kept, digest in ((reference, near, digests[0]), (held_out, own, digests[1])):
                part = images[np.isin(at, rows)]
                if len(part):
                    digest.update(part.tobytes())
                    for name, space in points.items():
                        kept[name].add(space(part))
            if say:
                say(f"{int(at[-1]) + 1:,} of {len(real):,} real images")
        if not len(near[PIXELS]) or not len(own[PIXELS]):
            raise ImageError(f"{real.source}: none of the real images that were to be compared with is there")
        spaces = [_Space(name, points[name], near[name], _distances(near[name], own[name])) for name in points]
        what: dict[str, Any] = {"images": real.source, "reference": len(near[PIXELS]), "held_out": len(own[PIXELS])}
        compared = [target.shape, *(digest.hexdigest() for digest in digests)]
        key = _key(compared)
        references, told = dict.fromkeys(points, key), {key: what}
        if network is not None:
            references[FEATURES] = key = _key([*compared, network.fingerprint()])
            told[key] = {**what, "network": network.name, "real": references[PIXELS]}
        chosen = _spread(len(own[PIXELS]), _EXAMPLES)
        examples = np.concatenate([own[PIXELS].rows(i, 1) for i in chosen.tolist()]).reshape(-1, *target.shape)
        return cls(target.shape, spaces, examples, references, told, network)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """By name (B,) float64, of uint8 images (B, C, H, W).

        nearest_real_*_percentile: 0..100, the share of held-out real images whose nearest of the reference is no further
        than this image's; 100: it is at least as far from any real image as all of them are. total_variation: see there.
        bytes_per_pixel: of its PNG as evofool writes it, over all channels.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise ImageError(
                f"looks are of uint8 images (B, {', '.join(map(str, self.shape))}), not {images.dtype} {images.shape}"
            )
        found: dict[str, list[np.ndarray]] = {name: [np.zeros(0)] for name in self.names}
        for begin in range(0, len(images), AT_ONCE):
            part = images[begin : begin + AT_ONCE]
            for space in self._spaces:
                away = space.reference.nearest(space.points(part))
                rank = np.searchsorted(space.held_out, away, "right")
                found[space.name].append(100.0 * rank / len(space.held_out))
            found["total_variation"].append(total_variation(part))
            found["bytes_per_pixel"].append(np.array([len(encode_png(image)) / image[0].size for image in part]))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def controls(self, count: int = 64, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
        """The figures of what they are read beside: by kind of control and name (n,).

        count images each of uniform noise and of smooth noise (as `evofool baseline noise` draws them), and up to 64 of the
        held-out real images, evenly spread, whose percentiles are even on 0..100 by construction.
        A space in which noise does not come near 100 says little of elites: on photographs of 224x224 the flat histograms of
        uniform noise are nearer to real ones, by HOG, than real ones are to each other.
        """
        noise = {kind: drawn(kind, Draws(seed, range(count), 0), self.shape) for kind in ("uniform", "smooth")}
        return dict(zip(CONTROLS, (self(images) for images in (*noise.values(), self._examples)), strict=True))


def total_variation(images: np.ndarray) -> np.ndarray:
    """(B,) float64 on 0..1: the mean absolute difference of neighbours, side by side or one above the other.

    Of uint8 images (B, C, H, W), channel by channel, pixels on [0, 1]. 0: flat; 1/3: uniform noise; 1: a chessboard.
    """
    whole = images.astype(np.int64)
    steps = [np.abs(np.diff(whole, axis=axis)).reshape(len(images), -1) for axis in (2, 3)]
    pairs = sum(step.shape[1] for step in steps)
    return sum((step.sum(axis=1) for step in steps), np.zeros(len(images))) / (255.0 * max(1, pairs))


def quantiles_of(figures: Mapping[str, np.ndarray], at: Sequence[int] = AT) -> dict[str, dict[str, float]]:
    """By name, the quantiles of its values (statistics.quantiles); names without values are left out."""
    return {name: quantiles(values, at) for name, values in figures.items() if len(values)}


def _split(
    real: "RealImages", reference: Sequence[int] | np.ndarray | None, held_out: Sequence[int] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    every = np.arange(len(real))
    if held_out is None:
        free = every if reference is None else np.setdiff1d(every, reference)
        number = min(_HELD_OUT, len(free) // 2 if reference is None else len(free))
        held_out = free[_spread(len(free), number)]
    if reference is None:
        reference = np.setdiff1d(every, held_out)
    both = np.intersect1d(reference, held_out)
    if len(both):
        raise ImageError(
            f"{real.source}: real image {both[0]} cannot be compared with and be held out; {len(both)} are both"
        )
    if not len(reference) or not len(held_out):
        raise ImageError(
            f"{real.source}: {len(reference)} real images to compare with and {len(held_out)} held out; there have to be "
            "some of each"
        )
    return np.asarray(reference), np.asarray(held_out)


def _spread(of: int, count: int) -> np.ndarray:
    """Up to count numbers, ascending and evenly spread over range(of)."""
    return np.unique(np.linspace(0, of - 1, min(count, of)).round().astype(int))


def _distances(reference: RealPoints, held_out: RealPoints) -> np.ndarray:
    return np.sort(np.concatenate([reference.nearest(block) for _, block in held_out.blocks()]))


def _key(what: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(["evofool looks 1", *what]).encode()).hexdigest()[:16]
