"""Boxes to pictures: a z-buffer in numpy, orthographic, with flat shading, and what lies at each pixel."""

from typing import NamedTuple

import numpy as np

from evofool.explain.chairs.styles import boxes_of, colours_of
from evofool.images import quantise

AZIMUTHS, ELEVATIONS = 31, (20.0, 40.0)
"""The views of a chair: 31 azimuths, equally spaced from 0, by two elevations, in degrees."""
PLAIN = (0.0, 0.0, 0.0, 0.0, 0.0)
"""The transformation that changes nothing."""
MOST_SCALE, MOST_ROLL, MOST_COLOUR = 0.15, 20.0, 0.35
_SPAN = 0.85  # from the picture's middle to its edge, in the unit of a chair's lengths
_LIGHT = np.array([-0.35, 0.75, 0.56])  # in the camera's coordinates: from the upper left, towards the viewer
_AMBIENT = 0.5
_CHUNK = 8  # pictures at once: what they need stays in the processor's cache


class Pictures(NamedTuple):
    """images: uint8 (N, 3, S, S), on white. masks: uint8 (N, 1, S, S), 255 where the chair is; both are anti-aliased."""

    images: np.ndarray
    masks: np.ndarray


class Surface(NamedTuple):
    """What is seen at the middle of each pixel. parts: int (S, S), the part's number or -1. places: float64 (S, S, 3), where
    on the part, on [-1, 1] along each half-edge; one of the three is -1 or 1."""

    parts: np.ndarray
    places: np.ndarray


def view_grid() -> np.ndarray:
    """The views as float64 (62, 2), azimuth and elevation in degrees; the azimuth varies last."""
    azimuths = np.arange(AZIMUTHS) * (360.0 / AZIMUTHS)
    return np.array([(azimuth, elevation) for elevation in ELEVATIONS for azimuth in azimuths])


def render(styles: np.ndarray, views: np.ndarray, transforms: np.ndarray | None = None, *, size: int = 64) -> Pictures:
    """Draw chairs: styles (N, 12) on [0, 1]; views (N, 2), azimuth and elevation in degrees.

    transforms: (N, 5) on [-1, 1]: scale (by up to 15%), rotation in the plane (up to 20 degrees), and gain of red, green
    and blue (by up to 35%, down only: -1 is 0.65, 0 and above 1). None changes nothing. The same arguments give the same
    bits on one kind of machine.
    """
    styles, views = np.asarray(styles, float), np.asarray(views, float)
    changes = np.tile(PLAIN, (len(styles), 1)) if transforms is None else np.asarray(transforms, float)
    images = np.empty((len(styles), 3, size, size), np.uint8)
    masks = np.empty((len(styles), 1, size, size), np.uint8)
    for start in range(0, len(styles), _CHUNK):
        rows = slice(start, start + _CHUNK)
        images[rows], masks[rows] = _chunk(styles[rows], views[rows], changes[rows], size)
    return Pictures(images, masks)


def surface(style: np.ndarray, view: np.ndarray, *, size: int = 64) -> Surface:
    """Which part, and where on it, a chair's picture shows: style (12,), view (2,); without a transformation."""
    centre, edges = _in_camera(style[None], view[None], np.array([PLAIN]))
    planes = _planes(centre, edges)
    axis = _pixel_middles(size)
    winner, depth = _nearest(planes, axis)
    inverse = np.linalg.inv(edges[0])
    points = np.stack(np.broadcast_arrays(axis[None, :], axis[::-1, None], depth[0]), -1)
    part = winner[0]
    away = points - centre[0][part]
    places = np.einsum("yxij,yxj->yxi", inverse[part], np.where(part[..., None] >= 0, away, 0.0))
    return Surface(part, places)


def project(style: np.ndarray, view: np.ndarray, parts: np.ndarray, places: np.ndarray, *, size: int = 64) -> np.ndarray:
    """Where points of parts, as `surface` gives them, are in the picture of a chair, hidden or not.

    parts (M,) and places (M, 3) to float64 (M, 2): row and column, in pixels; 0 is the middle of the first.
    """
    centre, edges = _in_camera(style[None], view[None], np.array([PLAIN]))
    points = centre[0][parts] + np.einsum("mij,mj->mi", edges[0][parts], places)
    return np.stack([_SPAN - points[:, 1], points[:, 0] + _SPAN], -1) * (size / (2 * _SPAN)) - 0.5


def _chunk(styles: np.ndarray, views: np.ndarray, transforms: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    centre, edges = _in_camera(styles, views, transforms)
    planes = _planes(centre, edges)
    axis = _pixel_middles(2 * size)  # 2 x 2 samples a pixel
    winner, _ = _nearest(planes, axis)
    samples = np.arange(len(styles))[:, None, None]
    # Of the winning box, the face in front is that of the lowest of its three front planes.
    front = planes[samples, winner][..., 0, :, :]
    heights = front[..., 0] + front[..., 1] * axis[:, None] + front[..., 2] * axis[::-1, None, None]
    face = heights.argmin(-1)
    gains = 1 + MOST_COLOUR * np.minimum(transforms[:, None, 2:], 0)
    colours = (colours_of(styles) * gains)[:, :, None] * _shades(edges)[..., None]  # (N, part, face, 3)
    seen = winner >= 0
    picture = np.where(seen[..., None], colours[samples, winner, face], 1.0)
    return quantise(_halved(picture.transpose(0, 3, 1, 2))), quantise(_halved(seen[:, None].astype(float)))


def _in_camera(styles: np.ndarray, views: np.ndarray, transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, P, 3) and half-edges as columns (N, P, 3, 3): x to the right, y upwards, z towards the viewer."""
    azimuth, elevation = np.radians(views).T
    scale, roll = 1 + MOST_SCALE * transforms[:, 0], np.radians(MOST_ROLL * transforms[:, 1])
    zero, one = np.zeros_like(azimuth), np.ones_like(azimuth)
    # At azimuth 0 the viewer looks along y, at the chair's front: its left side, x, is then to the viewer's right.
    turn = _matrix([[np.cos(azimuth), -np.sin(azimuth), zero], [np.sin(azimuth), np.cos(azimuth), zero], [zero, zero, one]])
    s, c = np.sin(elevation), np.cos(elevation)
    lift = _matrix([[one, zero, zero], [zero, s, c], [zero, -c, s]])
    spin = _matrix([[np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one]])
    camera = scale[:, None, None] * (spin @ lift @ turn)
    moved = np.einsum("nij,npkj->npki", camera, boxes_of(styles))
    return moved[:, :, 0], moved[:, :, 1:].swapaxes(2, 3)


def _matrix(rows: list[list[np.ndarray]]) -> np.ndarray:
    return np.moveaxis(np.array(rows), -1, 0)


def _planes(centre: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The depth of the planes of a box's faces over the picture: (N, P, 2, 3, 3), z = p + q x + r y.

    The first three face the viewer, the others away. A ray is within the box between the lowest of the first and the
    highest of the others (Kay & Kajiya 1986, slabs).
    """
    inverse = np.linalg.inv(edges)
    toward = inverse[..., 2]
    # A face parallel to the rays would divide by 0.
    toward = np.where(np.abs(toward) < 1e-9, 1e-9, toward)
    side = np.stack([np.sign(toward), -np.sign(toward)], 2)
    local = -np.einsum("npij,npj->npi", inverse, centre)[:, :, None]
    constant = (side - local) / toward[:, :, None]
    slopes = -inverse[..., :2] / toward[..., None]
    return np.concatenate([constant[..., None], np.broadcast_to(slopes[:, :, None], (*constant.shape, 2))], -1)


def _pixel_middles(size: int) -> np.ndarray:
    return ((np.arange(size) + 0.5) / size * 2 - 1) * _SPAN


def _nearest(planes: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The z-buffer: by sample the number of the nearest box, -1 for none, and its depth; (N, S, S). Ties: the first box."""
    along_x = (planes[..., 1, None] * axis).astype(np.float32)[..., None, :]
    along_y = (planes[..., 0, None] + planes[..., 2, None] * axis[::-1]).astype(np.float32)[..., None]
    shape = (len(planes), len(axis), len(axis))
    depth, winner = np.full(shape, -np.inf, np.float32), np.full(shape, -1)
    for part in range(planes.shape[1]):
        x, y = along_x[:, part], along_y[:, part]
        front = np.minimum(np.minimum(x[:, 0, 0] + y[:, 0, 0], x[:, 0, 1] + y[:, 0, 1]), x[:, 0, 2] + y[:, 0, 2])
        back = np.maximum(np.maximum(x[:, 1, 0] + y[:, 1, 0], x[:, 1, 1] + y[:, 1, 1]), x[:, 1, 2] + y[:, 1, 2])
        nearer = (front >= back) & (front > depth)
        depth[nearer] = front[nearer]
        winner[nearer] = part
    return winner, depth


def _shades(edges: np.ndarray) -> np.ndarray:
    """The brightness of each box's three faces that the viewer can see (N, P, 3): ambient and Lambertian light."""
    inverse = np.linalg.inv(edges)
    normals = inverse / np.linalg.norm(inverse, axis=-1, keepdims=True) * np.sign(inverse[..., 2:])
    return _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ (_LIGHT / np.linalg.norm(_LIGHT)), 0, 1)


def _halved(x: np.ndarray) -> np.ndarray:
    *rest, height, width = x.shape
    return x.reshape(*rest, height // 2, 2, width // 2, 2).mean((-3, -1))
