"""Heat maps, alone or over an image: bright for large values, or red for positive and blue for negative ones."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

_SHARE = 0.6  # opacity of heat over a grey image
_RED, _BLUE = np.array([230, 30, 30]) / 255, np.array([40, 90, 255]) / 255
_SIGNED = 0.85  # opacity of full red or blue over a grey image
_SHARP = 400  # pixels; smaller pictures are enlarged before numbers and lines are drawn into them
_FRAME = 3  # pixels, the width of a box's line
_DIGITS = 20  # pixels, the height of such a number


def heat(values: np.ndarray, image: np.ndarray | None = None, *, signed: bool = False, clip: float = 0.995) -> np.ndarray:
    """A map (H, W) as an RGB picture uint8 (3, H, W): alone, or over a grey version of image, uint8 (C, H, W).

    Unsigned: from the lowest value (dark) to the `clip` quantile (bright), so that a few extremes do not darken the rest.
    Signed: red above 0 and blue below, full at full_scale; 0 is white, or the image in light grey.
    A constant map has one colour.
    """
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map has to be (H, W) and finite, not {values.shape}")
    values = values.astype(np.float64)
    grey = None if image is None else np.broadcast_to(image.mean(0) / 255.0, (3, *values.shape))
    colours = _signed(values, grey, clip) if signed else _unsigned(values, grey, clip)
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def full_scale(values: np.ndarray, clip: float = 0.995) -> float:
    """The magnitude drawn in full red or blue: the `clip` quantile of all magnitudes, or the largest if that is 0."""
    return float(np.quantile(np.abs(values), clip) or np.abs(values).max())


def _signed(values: np.ndarray, grey: np.ndarray | None, clip: float) -> np.ndarray:
    level = np.clip(values / (full_scale(values, clip) or 1.0), -1, 1)
    ground, share = (np.ones((3, *values.shape)), 1.0) if grey is None else (0.35 + 0.5 * grey, _SIGNED)
    end = np.where(level[None] > 0, _RED[:, None, None], _BLUE[:, None, None])
    return ground + (end - ground) * share * np.abs(level)


def _unsigned(values: np.ndarray, grey: np.ndarray | None, clip: float) -> np.ndarray:
    from matplotlib import colormaps

    low, top = values.min(), np.quantile(values, clip)
    top = top if top > low else values.max()
    level = np.clip((values - low) / (top - low), 0, 1) if top > low else np.zeros(values.shape)
    colours = colormaps["inferno"](level)[..., :3].transpose(2, 0, 1)
    return colours if grey is None else grey + (colours - grey) * _SHARE


def painted(image: np.ndarray, masks: Sequence[np.ndarray], numbers: Sequence[int]) -> np.ndarray:
    """The image uint8 (C, H, W) in grey, as RGB, with every mask (H, W) in the colour of its number; later ones on top."""
    from matplotlib import colormaps

    grey = np.broadcast_to(image.mean(0) / 255.0, (3, *image.shape[1:]))
    picture = grey.copy()
    for mask, number in zip(masks, numbers, strict=True):
        colour = np.array(colormaps["tab20"](number % 20)[:3])
        picture[:, mask] = (1 - _SHARE) * grey[:, mask] + _SHARE * colour[:, None]
    return np.rint(picture * 255).astype(np.uint8)


def outlined(picture: np.ndarray, mask: np.ndarray, *, dim: bool = False) -> np.ndarray:
    """A picture uint8 (1 or 3, H, W) as RGB, enlarged by a whole factor, with a white line just inside the mask (H, W).

    Around it is a black line. dim: what is outside the mask is dark.
    """
    large, inside = _enlarged(picture, mask)
    if dim:
        large[:, ~inside] //= 3
    square = np.ones((3, 3))
    # A border of the image is a border of the mask too.
    core = ndimage.binary_erosion(inside, square, 2)
    large[:, ndimage.binary_dilation(inside, square, 2) & ~inside] = 0
    large[:, inside & ~core] = 255
    return large


def framed(picture: np.ndarray, boxes: Sequence[tuple[tuple[int, int, int, int], tuple[int, int, int]]]) -> np.ndarray:
    """A picture uint8 (1 or 3, H, W) as RGB, enlarged by a whole factor, with boxes drawn, each in its colour.

    A box: top, left, bottom, right, the last two exclusive, in pixels of the picture; later ones on top.
    """
    large, _ = _enlarged(picture, np.zeros(picture.shape[1:], bool))
    factor = large.shape[1] // picture.shape[1]
    for (top, left, bottom, right), colour in boxes:
        frame = np.zeros(large.shape[1:], bool)
        frame[top * factor : bottom * factor, left * factor : right * factor] = True
        frame[top * factor + _FRAME : bottom * factor - _FRAME, left * factor + _FRAME : right * factor - _FRAME] = False
        large[:, frame] = np.array(colour, np.uint8)[:, None]
    return large


def _enlarged(picture: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    factor = -(-_SHARP // min(picture.shape[1:]))
    wide = np.broadcast_to(picture, (3, *picture.shape[1:])).repeat(factor, 1).repeat(factor, 2)
    return wide, mask.repeat(factor, 0).repeat(factor, 1)


def numbered(picture: np.ndarray, masks: Mapping[int, np.ndarray]) -> np.ndarray:
    """A picture uint8 (3, H, W), enlarged by a whole factor, with each number written on its mask (H, W)."""
    from PIL import ImageDraw

    from evofool.images import to_pil
    from evofool.pages.sheet import font

    factor = -(-_SHARP // min(picture.shape[1:]))
    canvas = to_pil(picture.repeat(factor, 1).repeat(factor, 2))
    draw = ImageDraw.Draw(canvas)
    taken: list[np.ndarray] = []
    for number, mask in masks.items():
        places = np.argwhere(mask)
        # At the mask's pixel nearest to its centre (a ring's centre is outside it), away from other numbers if possible.
        away = ((places - places.mean(0)) ** 2).sum(1)
        crowded = [(np.abs(places - other) * factor).max(1) < _DIGITS for other in taken]
        free = away if not crowded else np.where(np.any(crowded, 0), away + away.max() + 1, away)
        taken.append(places[free.argmin()])
        row, column = (taken[-1] + 0.5) * factor
        draw.text((column, row), str(number), "white", font(_DIGITS), "mm", stroke_width=2, stroke_fill="black")
    return np.ascontiguousarray(np.asarray(canvas).transpose(2, 0, 1))
