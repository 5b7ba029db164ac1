"""Image descriptors, whose bins are the niches of an archive. Others can be registered."""

from collections.abc import Callable, Sequence

import numpy as np

from evofool.images import encode_png

Descriptor = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, C, H, W) to float64 (B,)."""

DESCRIPTORS: dict[str, Descriptor] = {}


def register(name: str) -> Callable[[Descriptor], Descriptor]:
    """Decorator: register a descriptor under this name, for recipes. ValueError if the name is taken."""

    def add(function: Descriptor) -> Descriptor:
        if name in DESCRIPTORS:
            raise ValueError(f'a descriptor called "{name}" is registered already')
        DESCRIPTORS[name] = function
        return function

    return add


@register("png_bytes_per_pixel")
def png_bytes_per_pixel(images: np.ndarray) -> np.ndarray:
    """Length of the image's PNG over H * W: near 0 for flat images, about C for noise. A measure of complexity."""
    return np.array([len(encode_png(image)) / image[0].size for image in images])


@register("mirror_symmetry")
def mirror_symmetry(images: np.ndarray) -> np.ndarray:
    """1 - mean |image - its left-right mirror image| / 255: 1 for a symmetric image, about 0.67 for noise."""
    x = images.astype(np.int16)
    return 1.0 - np.abs(x - x[..., ::-1]).mean(axis=(1, 2, 3)) / 255.0


def bins(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """(B,) int64 in 0..len(edges): how many of the ascending edges are <= value."""
    return np.searchsorted(np.asarray(edges, np.float64), values, side="right")
