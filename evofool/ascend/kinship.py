"""How often surrogates and a target agree on the class of an image: whether their gradients may help."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evofool.ascend.surrogates import Climb, Surrogates
from evofool.errors import ImageError
from evofool.targets import Target
from evofool.targets.photos import image_files, open_image, to_input
from evofool.targets.validation import wilson
from genomes import CPPN, Direct, Key

RANDOM_IMAGES = 256
_AT_ONCE = 16


@dataclass(frozen=True)
class Kinship:
    """A surrogate, and how often its highest class is the target's.

    agreement: the share of images; interval: its 95% interval (Wilson 1927); by_chance: the share if both answered with the
    same frequencies, but independently. Of random images both may name one class most of the time.
    """

    surrogate: str
    images: int
    agreement: float
    interval: tuple[float, float]
    by_chance: float


def kinship(target: Target, networks: Sequence[Target], folder: Path | None = None) -> list[Kinship]:
    """Of each of these surrogates, on all images in a folder, or on 256 random CPPN images if there is none.

    The images are the target's input, and each surrogate is given them as in a climb. TargetError for a network that cannot
    be a surrogate, ImageError for a folder without images.
    """
    surrogates = Surrogates(networks, target, Direct(*target.shape), Climb())
    called, of_surrogates = list[np.ndarray](), list[np.ndarray]()
    for images in _random_images(target) if folder is None else _images(folder, target):
        called.append(target.logits(images).argmax(axis=1))
        of_surrogates.append(surrogates.classes(images))
    ours, others = np.concatenate(called), np.concatenate(of_surrogates, axis=1)
    return [agreement(network.name, ours, theirs) for network, theirs in zip(networks, others, strict=True)]


def agreement(name: str, ours: np.ndarray, theirs: np.ndarray) -> Kinship:
    """Of a surrogate, from the highest class of each of n images by the target and by it.

    ours, theirs: (n,) int64, the target's classes; -1 for a class that the target does not have (Surrogates.classes).
    """
    n, same = len(ours), int((ours == theirs).sum())
    found, counts = np.unique(ours, return_counts=True)
    chance = sum(count / n * float((theirs == c).mean()) for c, count in zip(found, counts, strict=True))
    return Kinship(name, n, same / n, wilson(same, n), float(chance))


def _random_images(target: Target) -> Iterator[np.ndarray]:
    channels, height, width = target.shape
    encoding = CPPN(mode="grey" if channels == 1 else "hsv", height=height, width=width)
    for at in range(0, RANDOM_IMAGES, _AT_ONCE):
        yield encoding.render(encoding.random(_AT_ONCE, Key(0, 0, at)))


def _images(folder: Path, target: Target) -> Iterator[np.ndarray]:
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder of pictures")
    files = image_files(folder)
    if not files:
        raise ImageError(f"{folder} has no pictures")
    for at in range(0, len(files), _AT_ONCE):
        images = []
        for file in files[at : at + _AT_ONCE]:
            with open_image(file) as picture:
                images.append(to_input(picture, target))
        yield np.stack(images)
