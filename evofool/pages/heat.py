"""Maps over an image as pictures: what has weight is bright, or red for and blue against."""

from collections.abc import Sequence

import numpy as np

_SHARE = 0.6  # of a colour, where heat lies over a grey image


def heat(values: np.ndarray, image: np.ndarray | None = None, *, signed: bool = False, clip: float = 0.995) -> np.ndarray:
    """A map (H, W) as an RGB picture uint8 (3, H, W): alone, or over a grey version of image, uint8 (C, H, W).

    Unsigned: from the least value (dark) to the `clip` quantile (bright), so that a few extremes do not leave the rest dark.
    Signed: 0 is white, red above, blue below, both to the `clip` quantile of the magnitudes. Flat maps are all one colour.
    """
    from matplotlib import colormaps

    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map is (H, W) and finite, not {values.shape}")
    values = values.astype(np.float64)
    if signed:
        top = np.quantile(np.abs(values), clip) or np.abs(values).max()
        level = 0.5 + 0.5 * np.clip(values / top, -1, 1) if top > 0 else np.full(values.shape, 0.5)
        strength = np.abs(2 * level - 1)
    else:
        low, top = values.min(), np.quantile(values, clip)
        top = top if top > low else values.max()
        level = np.clip((values - low) / (top - low), 0, 1) if top > low else np.zeros(values.shape)
        strength = level
    colours = colormaps["RdBu_r" if signed else "inferno"](level)[..., :3].transpose(2, 0, 1)
    if image is not None:
        grey = np.broadcast_to(image.mean(0) / 255.0, colours.shape)
        colours = (
            (grey * (1 - _SHARE * strength) + colours * _SHARE * strength) if signed else grey + (colours - grey) * _SHARE
        )
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def painted(image: np.ndarray, masks: Sequence[np.ndarray], numbers: Sequence[int]) -> np.ndarray:
    """A grey version of the image, RGB, with every mask (H, W) in the colour of its number; later masks lie on top."""
    from matplotlib import colormaps

    grey = np.broadcast_to(image.mean(0) / 255.0, (3, *image.shape[1:]))
    picture = grey.copy()
    for mask, number in zip(masks, numbers, strict=True):
        colour = np.array(colormaps["tab20"](number % 20)[:3])
        picture[:, mask] = (1 - _SHARE) * grey[:, mask] + _SHARE * colour[:, None]
    return np.rint(picture * 255).astype(np.uint8)


def outlined(image: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The image as RGB, dimmed outside of the mask (H, W), in a box: top, left, bottom, right; the last two are outside."""
    picture = np.array(np.broadcast_to(image, (3, *image.shape[1:])))
    picture[:, ~mask] //= 3
    top, left, bottom, right = box
    frame = np.zeros(image.shape[1:], bool)
    frame[top:bottom, left:right] = True
    frame[top + 1 : bottom - 1, left + 1 : right - 1] = False
    picture[:, frame] = np.array([255, 64, 64], np.uint8)[:, None]
    return picture
