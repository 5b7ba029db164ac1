"""Which point of one chair is which of another: carried along a morph by optical flow (Dosovitskiy 2015, section 5.5)."""

import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.ndimage import map_coordinates

from evofool.errors import ImageError
from evofool.explain.chairs.renderer import Surface, project, surface

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601
_ENLARGED = 2  # flow is found on pictures of twice the size
_SAME_PLACE = 0.5  # of a part's half-length; farther away it is another face


def carried(frames: Sequence[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Where points of the first frame are in the last, by TV-L1 flow from each frame to the next (Zach 2007).

    frames: two or more uint8 (3, S, S). points: (M, 2), row and column in pixels, 0 the middle of the first; so is the
    result, float64. ImageError if scikit-image is not installed.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            from skimage.registration import optical_flow_tvl1
            from skimage.transform import resize
    except ModuleNotFoundError as error:
        raise ImageError(f"optical flow needs scikit-image ({error}): pip install 'evofool[bench]'") from None
    grey = [np.tensordot(_LUMA, frame / 255.0, 1) for frame in frames]
    large = [resize(one, (_ENLARGED * one.shape[0], _ENLARGED * one.shape[1]), order=1) for one in grey]
    found = np.asarray(points, float)
    for one, following in pairwise(large):
        flow = optical_flow_tvl1(one, following)
        at = (found + 0.5) * _ENLARGED - 0.5
        moved = [map_coordinates(along, at.T, order=1, mode="nearest") for along in flow]
        found = found + np.stack(moved, 1) / _ENLARGED
    return found


def nearest_patches(
    image: np.ndarray, other: np.ndarray, points: np.ndarray, mask: np.ndarray, reach: int = 4
) -> np.ndarray:
    """For each point of an image the pixel of another whose surroundings are most alike; whole numbers, float64 (M, 2).

    image, other: uint8 (3, S, S). points: (M, 2), whole numbers. mask: (S, S), non-zero at the pixels that are compared.
    Surroundings are 2 reach + 1 pixels wide, compared by squared difference; of equals the first pixel in order is taken.
    """
    side = 2 * reach + 1

    def around(picture: np.ndarray) -> np.ndarray:
        padded = np.pad(picture.astype(np.float32), ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
        return windows.transpose(1, 2, 0, 3, 4).reshape(*picture.shape[1:], -1)

    rows, columns = np.asarray(points, int).T
    wanted, candidates = around(image)[rows, columns], np.argwhere(mask)
    offered = around(other)[tuple(candidates.T)]
    distances = (wanted**2).sum(1)[:, None] - 2 * wanted @ offered.T + (offered**2).sum(1)
    return candidates[distances.argmin(1)].astype(float)


def true_correspondence(style: np.ndarray, other: np.ndarray, view: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a rendered chair whose point is visible in another chair too, int (M, 2), and where, float64 (M, 2).

    style, other: (12,). view: (2,), degrees. A point keeps its part and its place on it.
    """
    seen, there = surface(style, view, size=size), surface(other, view, size=size)
    pixels = np.argwhere(seen.parts >= 0)
    parts, places = _at(seen, pixels)
    where = project(other, view, parts, places, size=size)
    parts_there, places_there = _at(there, np.clip(np.rint(where).astype(int), 0, size - 1))
    visible = (parts_there == parts) & (np.abs(places_there - places).max(1) < _SAME_PLACE)
    return pixels[visible], where[visible]


def _at(found: Surface, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = pixels.T
    return found.parts[rows, columns], found.places[rows, columns]
