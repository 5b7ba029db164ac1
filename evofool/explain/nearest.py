"""The real images that are nearest to one: by a layer's features, as the classifier sees them, and by pixels."""

from collections.abc import Callable, Iterator, Sequence
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
from evofool.targets.photos import Photograph, photographs

Space = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, C, H, W) to points (B, D) float32."""


@dataclass(frozen=True)
class Nearest:
    """The real images nearest to an image in one space, the nearest first; of equally near ones the first by path.

    space: "pixels", or the layer. files, classes (None where the folder does not tell them), distances: (k,) Euclidean; of
    pixels on [0, 1]. nearest_real_percentile: 0 to 100, the share of real images whose own nearest real neighbour is no
    further than distances[0]: at 100 the image is further from the real ones than any real one that was asked about.
    images: uint8 (k, C, H, W). compared: how many real images there are; asked: how many the percentile is taken over.
    """

    space: str
    files: list[Path]
    classes: list[int | None]
    images: np.ndarray
    distances: np.ndarray
    nearest_real_percentile: float
    compared: int
    asked: int


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
    for the percentile. Classes are told as photos.find tells them, if it can. Costs a forward pass for the image and each
    picture, and a second one for each of the sample and of the k; say is told every tenth.
    """
    found = _pictures(folder, target)
    if len(found) < 2:
        raise ImageError(f"{folder} holds {len(found)} picture(s); to say what is near needs at least 2")
    k = min(k, len(found))
    with ExitStack() as stack:
        spaces: dict[str, Space] = {"pixels": _pixels}
        if target.differentiable:
            name = layer or f"input of {last_layer(target)}"
            features = stack.enter_context(_Features(target, layer))
            # Features first: they are what the classifier goes by.
            spaces = {name: features, **spaces}
        chosen = _spread(len(found), sample)
        asked = [image, *_decoded([found[i] for i in chosen], target, batch)]
        owners = np.array([-1, *chosen])  # which picture each asked one is: none is its own neighbour
        tables = {name: _Table(_all_points(space, asked, batch), owners, k) for name, space in spaces.items()}
        begin = 0
        for images, _, _ in photographs(found, target, batch):
            for name, space in spaces.items():
                tables[name].add(space(images), begin)
            begin += len(images)
            if say and begin * 10 // len(found) > (begin - len(images)) * 10 // len(found):
                say(f"{begin:,} of {len(found):,} pictures")
        return [_told(name, space, tables[name], image, found, target) for name, space in spaces.items()]


def some_real(target: Target, folder: Path, count: int) -> np.ndarray:
    """uint8 (n, C, H, W): up to `count` pictures of a folder, evenly spread over it by path."""
    found = _pictures(folder, target)
    return np.stack(list(_decoded([found[i] for i in _spread(len(found), count)], target, count)))


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

    def add(self, points: np.ndarray, begin: int) -> None:
        """points (B, D) are the pictures from number `begin` on."""
        number = np.arange(begin, begin + len(points))
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


def _spread(n: int, count: int) -> np.ndarray:
    """Up to `count` of 0 to n - 1, ascending and evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(count, n)).round().astype(int))


def _all_points(space: Space, images: Sequence[np.ndarray], batch: int) -> np.ndarray:
    return np.concatenate([space(np.stack(images[k : k + batch])) for k in range(0, len(images), batch)])


def _decoded(found: Sequence[Photograph], target: Target, batch: int) -> Iterator[np.ndarray]:
    for images, _, _ in photographs(found, target, batch):
        yield from images


def _told(name: str, space: Space, table: _Table, image: np.ndarray, found: Sequence[Photograph], target: Target) -> Nearest:
    which = sorted(int(i) for i in table.which[0])
    images = np.stack(list(_decoded([found[i] for i in which], target, len(which))))
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
        compared=len(found),
        asked=len(own),
    )


def _pictures(folder: Path, target: Target) -> list[Photograph]:
    """Of class -1 where the folder does not tell their classes."""
    try:
        return photos.find(folder, target.labels)
    except ImageError:
        files = photos.pictures(folder) if folder.is_dir() else []
        if not files:
            raise
        return [Photograph(file, -1) for file in files]
