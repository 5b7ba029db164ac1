"""The real images nearest to an image, by a layer's features and by pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evofool.errors import ImageError
from evofool.explain.features import Features
from evofool.image_metrics.neighbours import Neighbours, Space, pixels
from evofool.targets import Target, photos
from evofool.targets.photos import Photograph, open_image, to_input


@dataclass(frozen=True)
class Nearest:
    """The real images nearest to an image in one space, nearest first; at equal distances the first by path.

    space: "pixels", or the layer. files, classes (None where the folder has none), distances: (k,) Euclidean; of pixels on
    [0, 1]. nearest_real_percentile: 0 to 100, the share of sampled real images whose nearest other real image is no further
    away than distances[0]; at 100 the image is at least as far from its nearest as every one of them. images: uint8
    (k, C, H, W). compared: the number of real images; sampled: the number that the percentile is taken over; unreadable:
    files that are not pictures, left out.
    """

    space: str
    files: list[Path]
    classes: list[int | None]
    images: np.ndarray
    distances: np.ndarray
    nearest_real_percentile: float
    compared: int
    sampled: int
    unreadable: list[Path]


def nearest_real(
    target: Target,
    image: np.ndarray,
    folder: Path,
    *,
    layer: str | None = None,
    k: int = 3,
    sample: int = 256,
    batch: int = 32,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[Nearest]:
    """The k real images of a folder that are nearest to image, uint8 (C, H, W): by features, then by pixels.

    Features are the output of `layer`, or the input of the last linear layer (of a network without one, its last
    convolution); several crops' are averaged. For a black box only pixels are compared. Pictures are decoded batch by
    batch, so a folder may be larger than memory; `sample` of them, evenly spaced, are compared with all others for the
    percentile. Classes are those of photos.find_photographs, where it finds any. Unreadable files are left out; ImageError
    if fewer than 2 pictures are left. Costs a forward pass for the image and each picture, and a second one for each of the
    sample and of the k. on_progress is called with (pictures done, of all) after every batch.
    """
    found = real_pictures(folder, target)
    k = min(k, len(found))
    with ExitStack() as stack:
        spaces: dict[str, Space] = {"pixels": pixels}
        if target.differentiable:
            features = stack.enter_context(Features(target, layer))
            name = layer or f"input of {features.name}"
            # Features first, because the classifier depends on them.
            spaces = {name: features, **spaces}
        sampled = evenly_spaced(found, sample, target)
        owners = np.array([-1, *(i for i, _ in sampled)])  # a picture's number, so that it is not a neighbour of itself
        queries = [image, *(real for _, real in sampled)]
        tables = {name: Neighbours(_all_points(space, queries, batch), owners, k) for name, space in spaces.items()}
        readable: set[int] = set()
        for begin in range(0, len(found), batch):
            end = min(begin + batch, len(found))
            part = list(_read(found, range(begin, end), target))
            if part:
                numbers = np.array([i for i, _ in part])
                readable.update(numbers.tolist())
                images = np.stack([pixels_of for _, pixels_of in part])
                for name, space in spaces.items():
                    tables[name].add(space(images), numbers)
            on_progress(end, len(found))
        unreadable = [picture.file for i, picture in enumerate(found) if i not in readable]
        if len(readable) < 2:
            raise ImageError(f"{folder}: {len(readable)} of {len(found)} pictures can be read; at least 2 are needed")
        return [_nearest(name, space, tables[name], image, found, unreadable, target) for name, space in spaces.items()]


def real_pictures(folder: Path, target: Target) -> list[Photograph]:
    """The pictures of a folder by path, with class -1 where the folder has no classes; ImageError if fewer than 2."""
    try:
        found = photos.find_photographs(folder, target.labels)
    except ImageError:
        files = photos.image_files(folder) if folder.is_dir() else []
        if not files:
            raise
        found = [Photograph(file, -1) for file in files]
    if len(found) < 2:
        raise ImageError(f"{folder} has {len(found)} picture(s); at least 2 are needed")
    return found


def some_real(target: Target, folder: Path, count: int) -> np.ndarray:
    """uint8 (n, C, H, W): up to `count` pictures of a folder, evenly spaced by path; unreadable ones are left out."""
    return np.stack([image for _, image in evenly_spaced(real_pictures(folder, target), count, target)])


def evenly_spaced(found: Sequence[Photograph], count: int, target: Target) -> list[tuple[int, np.ndarray]]:
    """Up to `count` of the pictures, ascending and evenly spaced, with their numbers."""
    chosen = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)).tolist()
    read = list(_read(found, chosen, target))
    if not read:
        raise ImageError(f"none of {len(chosen)} real pictures can be read; the first is {found[chosen[0]].file}")
    return read


def _all_points(space: Space, images: Sequence[np.ndarray], batch: int) -> np.ndarray:
    return np.concatenate([space(np.stack(images[k : k + batch])) for k in range(0, len(images), batch)])


def _read(found: Sequence[Photograph], numbers: Iterable[int], target: Target) -> Iterator[tuple[int, np.ndarray]]:
    """The readable ones of these pictures, with their numbers: uint8 (C, H, W) each."""
    for i in numbers:
        try:
            with open_image(found[i].file) as picture:
                image = to_input(picture, target)
        except ImageError:
            continue
        yield i, image


def _nearest(
    name: str,
    space: Space,
    table: Neighbours,
    image: np.ndarray,
    found: Sequence[Photograph],
    unreadable: list[Path],
    target: Target,
) -> Nearest:
    which, read = zip(*_read(found, sorted(i for i in table.which[0].tolist() if i >= 0), target), strict=True)
    images = np.stack(read)
    # Computed again in float64; a layer's output may still differ in its last bits with the batch.
    point = space(image[None])[0].astype(np.float64)
    away = np.linalg.norm(space(images) - point, axis=1)
    away[away < 1e-6 * np.linalg.norm(point)] = 0.0
    order = np.argsort(away, kind="stable")
    near = [found[which[i]] for i in order]
    real_distances = table.distances[1:, 0]
    return Nearest(
        space=name,
        files=[picture.file for picture in near],
        classes=[picture.class_id if picture.class_id >= 0 else None for picture in near],
        images=images[order],
        distances=away[order],
        nearest_real_percentile=100.0 * float((real_distances <= away[order[0]]).mean()),
        compared=len(found) - len(unreadable),
        sampled=len(real_distances),
        unreadable=unreadable,
    )
