"""What a decoder learns from: pictures of a folder, cropped and mirrored, and a layer's outputs for them."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from evofool.ascend.hooks import Hooks
from evofool.ascend.objectives import LOGITS
from evofool.errors import ImageError, ScoreError, TargetError
from evofool.explain.model_file import by_content
from evofool.images import resized, to_pil
from evofool.targets import Target
from evofool.targets.photos import open_image, to_input

Picture = Path | np.ndarray
"""A file, or uint8 (C, H, W) of the target's shape."""

LEAST = 16
"""The fewest pictures that a decoder is learned from, those held out included."""
MOST = 2000
"""Of a larger folder, so many are taken, evenly spaced by path."""
SMALL = 64
"""Pixels: pictures with a shorter side are not cropped or mirrored, as a mirrored digit is another sign."""
_LEAST_CROP = 0.5  # of both sides of the picture
_BATCH = 16
_MOST_BYTES = 1 << 30  # of codes in memory
_MOST_VECTOR = 8192


class Samples(NamedTuple):
    """n pictures as a decoder sees them. codes: float16 (n, *code), the layer's outputs. images: uint8 (n, C, h, w)."""

    codes: np.ndarray
    images: np.ndarray


def pictures_of(folder: Path) -> dict[str, Picture]:
    """The pictures of a folder by the SHA-256 of their content, in its order; files that do not begin as one are left out.

    ImageError for fewer than 16, and for a path that is not a folder.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder; name one with at least {LEAST} pictures")
    found: dict[str, Picture] = {}
    for digest, file in by_content(folder, MOST).items():
        with suppress(ImageError), open_image(file):
            found[digest] = file
    check_count(len(found), str(folder))
    return found


def check_count(count: int, where: str) -> None:
    """ImageError if there are too few pictures."""
    if count < LEAST:
        raise ImageError(f"{where} has {count} different pictures; a decoder is learned from at least {LEAST}")


def by_pixels(images: np.ndarray) -> dict[str, Picture]:
    """uint8 (n, C, H, W) by the SHA-256 of their pixels, in its order; of equal ones one."""
    found = {hashlib.sha256(image.tobytes()).hexdigest(): image for image in images}
    return {digest: found[digest] for digest in sorted(found)}


def held_out(digests: Sequence[str]) -> list[str]:
    """Those that are not trained on: a tenth, at least two, with the lowest digests. It depends on the content only."""
    return sorted(digests)[: max(2, round(0.1 * len(digests)))]


def inputs(digest: str, picture: Picture, target: Target, crops: int, seed: int) -> np.ndarray:
    """uint8 (crops, C, H, W) of the target's shape: the first is the target's own input, the others are at random.

    A further one is a part of the picture with half to all of its height and width, mirrored or not; drawn by the seed and
    the picture's content.
    """
    rng = np.random.default_rng([seed, int(digest[:16], 16)])
    if isinstance(picture, np.ndarray):
        return _crops(to_pil(picture), target, crops, rng)
    with open_image(picture) as opened:
        return _crops(opened, target, crops, rng)


def _crops(picture: Image.Image, target: Target, crops: int, rng: np.random.Generator) -> np.ndarray:
    images = [to_input(picture, target)]
    for _ in range(crops - 1):
        share = rng.uniform(_LEAST_CROP, 1.0)
        size = (max(1, round(share * picture.width)), max(1, round(share * picture.height)))
        left, top = (int(rng.integers(whole - part + 1)) for whole, part in zip(picture.size, size, strict=True))
        part = picture.crop((left, top, left + size[0], top + size[1]))
        images.append(to_input(ImageOps.mirror(part) if rng.integers(2) else part, target))
    return np.stack(images)


def image_shape(target: Target, size: int) -> tuple[int, int, int]:
    """(C, h, w): the target's, in its proportions, with a longer side of at most `size` pixels."""
    channels, height, width = target.shape
    scale = min(1.0, size / max(height, width))
    return channels, max(1, round(scale * height)), max(1, round(scale * width))


class Codes:
    """A context that maps images of the target's shape to their codes at some layers.

    A code is the output of a layer, or the logits for "logits": a map (C, h, w), averaged to the decoder's image, `shape`
    (C, h, w), where it is finer, or a vector (D,). Every image is a query, up to the deepest layer, and entering is one.
    TargetError for a black box, an unknown layer, several crops an image, and an output of another kind or over 8192 values
    without positions.
    """

    def __init__(self, target: Target, layers: Sequence[str], shape: tuple[int, int, int]) -> None:
        self._hooks = Hooks(target, [layer for layer in layers if layer != LOGITS], logits=LOGITS in layers)
        self._target, self._layers, self._shape = target, layers, shape
        if target.rows_per_image > 1:
            raise TargetError(
                f"{target.name}: its answer is made of those to {target.rows_per_image} crops or pipelines, and a decoder "
                "inverts one"
            )

    def __enter__(self) -> "Codes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._hooks.__exit__(None, None, None)

    def __call__(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        """Of uint8 (B, C, H, W): float32 (B, *code) by layer, on the CPU."""
        with torch.no_grad():
            return {layer: codes.cpu() for layer, codes in self.of(torch.from_numpy(images).float() / 255).items()}

    def of(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of float images (B, C, H, W) on [0, 1], with gradients, on the network's device."""
        read = self._hooks.forward(images)
        return {
            layer: self._code(layer, (read.logits if layer == LOGITS else read.layer(layer)).float())
            for layer in self._layers
        }

    def _code(self, layer: str, found: torch.Tensor) -> torch.Tensor:
        if found.ndim == 4:
            height, width = (min(pair) for pair in zip(found.shape[2:], self._shape[1:], strict=True))
            return found if (height, width) == found.shape[2:] else F.adaptive_avg_pool2d(found, (height, width))
        if found.ndim != 2 or found.shape[1] > _MOST_VECTOR:
            raise TargetError(
                f'{self._target.name}: the output of "{layer}" is {" x ".join(map(str, found.shape[1:]))}; a decoder '
                f"inverts maps (channels x rows x columns) and vectors of up to {_MOST_VECTOR:,} values"
            )
        return found


def code_shape(target: Target, layer: str, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Of the layer's codes. Two queries."""
    with Codes(target, [layer], shape) as codes:
        return tuple(codes(np.zeros((1, *target.shape), np.uint8))[layer].shape[1:])


def fitting(pictures: int, code: Sequence[int], wanted: int) -> tuple[int, int]:
    """How many pictures, and how many crops of each, have codes that fit in 1 GiB.

    All pictures with at most `wanted` crops; if they do not fit with one crop, fewer pictures.
    """
    room = _MOST_BYTES // (2 * math.prod(code))
    return min(pictures, room), max(1, min(wanted, room // pictures))


def samples(
    target: Target,
    layers: Sequence[str],
    pictures: Mapping[str, Picture],
    shape: tuple[int, int, int],
    crops: int = 1,
    *,
    seed: int = 0,
    count: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, Samples]:
    """By layer the samples of all crops of the pictures, in their order; unreadable pictures are left out.

    shape: (C, h, w) of the decoder's images. A query for each crop, and one more. count is called with (pictures done, of
    all). ScoreError for codes that are NaN or infinite in float16.
    """
    most = crops * len(pictures)
    codes: dict[str, np.ndarray] = {}
    images, known = np.empty((most, *shape), np.uint8), 0
    waiting: list[np.ndarray] = []
    with Codes(target, layers, shape) as of:

        def read() -> None:
            nonlocal known
            after = known + sum(map(len, waiting))
            for layer, found in of(np.concatenate(waiting)).items():
                half = found.numpy().astype(np.float16)
                if not np.isfinite(half).all():
                    raise ScoreError(f'{target.name}: the output of "{layer}" is NaN or beyond 65,504; check its weights')
                if layer not in codes:
                    codes[layer] = np.empty((most, *half.shape[1:]), np.float16)
                codes[layer][known:after] = half
            images[known:after] = [resized(image, shape) for found in waiting for image in found]
            known = after
            waiting.clear()

        for done, (digest, picture) in enumerate(pictures.items(), 1):
            try:
                found = inputs(digest, picture, target, crops, seed)
            except ImageError:
                continue
            waiting.append(found)
            if sum(map(len, waiting)) >= _BATCH:
                read()
                count(done, len(pictures))
        if waiting:
            read()
            count(len(pictures), len(pictures))
    if not known:
        raise ImageError("none of the pictures can be read")
    return {layer: Samples(codes[layer][:known], images[:known]) for layer in layers}
