"""The real images that are nearest to one: by a layer's features, as the classifier sees them, and by pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from evofool.ascend.taps import unknown_layer
from evofool.errors import ImageError, TargetError
from evofool.explain.layers import last_layer
from evofool.targets import Target, photos
from evofool.targets.photos import Photograph, as_seen, open_picture

Space = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, C, H, W) to points (B, D) float32."""


@dataclass(frozen=True)
class Nearest:
    """The real images nearest to an image in one space, the nearest first; of equally near ones the first by path.

    space: "pixels", or the layer. files, classes (None where the folder does not tell them), distances: (k,) Euclidean; of
    pixels on [0, 1]. nearest_real_percentile: 0 to 100, the share of real images asked whose own nearest real neighbour is
    no further than distances[0]: at 100 the image is at least as far from its nearest as any of them is from its own.
    images: uint8 (k, C, H, W). compared: how many real images were read; asked: how many the percentile is taken over;
    unreadable: files that are no pictures and were passed over.
    """

    space: str
    files: list[Path]
    classes: list[int | None]
    images: np.ndarray
    distances: np.ndarray
    nearest_real_percentile: float
    compared: int
    asked: int
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
    say: Callable[[str], None] | None = None,
) -> list[Nearest]:
    """The k real images of a folder that are nearest to image, uint8 (C, H, W): by features, then by pixels.

    Features are the output of `layer`, or what the last linear layer is given (of a network without one, its last
    convolution); several crops' are averaged. A black box has none: then by pixels alone. Pictures are decoded batch by
    batch and forgotten, so a folder may be larger than memory; `sample` of them, evenly spread, are compared with all others
    for the percentile. Classes are told as photos.find tells them, if it can. What cannot be read is passed over; ImageError
    if fewer than 2 pictures are left. Costs a forward pass for the image and each picture, and a second one for each of the
    sample and of the k; say is told every tenth.
    """
    found = real_pictures(folder, target)
    k = min(k, len(found))
    with ExitStack() as stack:
        spaces: dict[str, Space] = {"pixels": _pixels}
        if target.differentiable:
            name = layer or f"input of {last_layer(target)}"
            features = stack.enter_context(_Features(target, layer))
            # Features first: they are what the classifier goes by.
            spaces = {name: features, **spaces}
        sampled = _sample(found, sample, target)
        owners = np.array([-1, *(i for i, _ in sampled)])  # which picture each asked one is: none is its own neighbour
        asked = [image, *(one for _, one in sampled)]
        tables = {name: _Table(_all_points(space, asked, batch), owners, k) for name, space in spaces.items()}
        readable: set[int] = set()
        for begin in range(0, len(found), batch):
            end = min(begin + batch, len(found))
            part = list(_read(found, range(begin, end), target))
            if part:
                numbers = np.array([i for i, _ in part])
                readable.update(numbers.tolist())
                images = np.stack([one for _, one in part])
                for name, space in spaces.items():
                    tables[name].add(space(images), numbers)
            if say and end * 10 // len(found) > begin * 10 // len(found):
                say(f"{end:,} of {len(found):,} pictures")
        unreadable = [one.file for i, one in enumerate(found) if i not in readable]
        if len(readable) < 2:
            raise ImageError(f"{folder}: {len(readable)} of {len(found)} pictures can be read; to say what is near needs 2")
        return [_told(name, space, tables[name], image, found, unreadable, target) for name, space in spaces.items()]


def real_pictures(folder: Path, target: Target) -> list[Photograph]:
    """The pictures of a folder by path, of class -1 where it does not tell their classes; ImageError if fewer than 2."""
    try:
        found = photos.find(folder, target.labels)
    except ImageError:
        files = photos.pictures(folder) if folder.is_dir() else []
        if not files:
            raise
        found = [Photograph(file, -1) for file in files]
    if len(found) < 2:
        raise ImageError(f"{folder} holds {len(found)} picture(s); to say what is near needs at least 2")
    return found


def some_real(target: Target, folder: Path, count: int) -> np.ndarray:
    """uint8 (n, C, H, W): up to `count` pictures of a folder, evenly spread over it by path, those that can be read."""
    return np.stack([image for _, image in _sample(real_pictures(folder, target), count, target)])


class _Features:
    """Points of a layer's output, or of the last layer's input; its hook lasts as long as the with block."""

    def __init__(self, target: Target, layer: str | None) -> None:
        assert target.network is not None
        self.target, self.network = target, target.network
        modules = dict(self.network.module.named_modules())
        name = layer or last_layer(target)
        if name not in modules:
            raise unknown_layer(target, name)
        self.name, self.module, self.inputs = name, modules[name], layer is None
        self.kept: list[torch.Tensor] = []

    def __enter__(self) -> "_Features":
        def keep(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self.kept.append((args[0] if self.inputs else output).flatten(1).float().cpu())

        self.hook = self.module.register_forward_hook(keep)
        return self

    def __exit__(self, *exc: object) -> None:
        self.hook.remove()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.kept.clear()
        with torch.inference_mode():
            self.network.module(self.network.prepare(torch.from_numpy(images).to(self.network.device).float()))
        self.target.count(len(images))
        if not self.kept:
            raise TargetError(f"{self.target.name}: layer {self.name!r} takes no part in the network's answer")
        return self.kept[-1].unflatten(0, (len(images), -1)).mean(1).numpy()


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


class _Table:
    """The k nearest of a stream of points, for each point asked about; distances to about 1e-5 of themselves."""

    def __init__(self, asked: np.ndarray, owners: np.ndarray, k: int) -> None:
        # Round their own middle, so that float32 loses less.
        self.middle = asked.mean(0)
        self.asked, self.owners = asked - self.middle, owners
        self.squares = np.einsum("ij,ij->i", self.asked, self.asked)
        self.distances = np.full((len(asked), k), np.inf, np.float32)
        self.which = np.full((len(asked), k), -1)

    def add(self, points: np.ndarray, number: np.ndarray) -> None:
        """points (B, D) are the pictures of these numbers (B,), ascending and higher than all before."""
        distances = self._distances(points - self.middle)
        distances[self.owners[:, None] == number] = np.inf
        both = np.concatenate([self.distances, distances], 1)
        numbers = np.concatenate([self.which, np.broadcast_to(number, distances.shape)], 1)
        # Stable, and earlier pictures stand first: they win ties.
        best = np.argsort(both, axis=1, kind="stable")[:, : self.which.shape[1]]
        self.distances, self.which = np.take_along_axis(both, best, 1), np.take_along_axis(numbers, best, 1)

    def _distances(self, points: np.ndarray) -> np.ndarray:
        scale = self.squares[:, None] + np.einsum("ij,ij->i", points, points)
        squared = scale - 2 * (self.asked @ points.T)
        return np.sqrt(np.where(squared < 4e-6 * scale, 0.0, squared))  # what is within the error is equal


def _sample(found: Sequence[Photograph], count: int, target: Target) -> list[tuple[int, np.ndarray]]:
    """Up to `count` of the pictures, ascending and evenly spread, with their numbers."""
    chosen = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)).tolist()
    read = list(_read(found, chosen, target))
    if not read:
        raise ImageError(f"none of {len(chosen)} real pictures can be read; the first is {found[chosen[0]].file}")
    return read


def _all_points(space: Space, images: Sequence[np.ndarray], batch: int) -> np.ndarray:
    return np.concatenate([space(np.stack(images[k : k + batch])) for k in range(0, len(images), batch)])


def _read(found: Sequence[Photograph], numbers: Iterable[int], target: Target) -> Iterator[tuple[int, np.ndarray]]:
    """Those of the pictures that can be read, with their numbers: uint8 (C, H, W) each."""
    for i in numbers:
        try:
            with open_picture(found[i].file) as picture:
                image = as_seen(picture, target)
        except ImageError:
            continue
        yield i, image


def _told(
    name: str,
    space: Space,
    table: _Table,
    image: np.ndarray,
    found: Sequence[Photograph],
    unreadable: list[Path],
    target: Target,
) -> Nearest:
    which, read = zip(*_read(found, sorted(i for i in table.which[0].tolist() if i >= 0), target), strict=True)
    images = np.stack(read)
    # Again, and exactly; but a layer's answer to an image differs in its last bits by what is in the batch.
    point = space(image[None])[0].astype(np.float64)
    away = np.linalg.norm(space(images) - point, axis=1)
    away[away < 1e-6 * np.linalg.norm(point)] = 0.0
    order = np.argsort(away, kind="stable")
    near = [found[which[i]] for i in order]
    own = table.distances[1:, 0]
    return Nearest(
        space=name,
        files=[one.file for one in near],
        classes=[one.class_id if one.class_id >= 0 else None for one in near],
        images=images[order],
        distances=away[order],
        nearest_real_percentile=100.0 * float((own <= away[order[0]]).mean()),
        compared=len(found) - len(unreadable),
        asked=len(own),
        unreadable=unreadable,
    )
