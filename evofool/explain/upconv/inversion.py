"""Inverting a layer by its decoder, and how near an inverse is to its image, in pixels and in features."""

import time
from typing import NamedTuple

import numpy as np

from evofool.errors import ImageError
from evofool.explain.upconv.errors import distances
from evofool.explain.upconv.model import LayerInverse
from evofool.explain.upconv.samples import Codes
from evofool.images import quantise, resized
from evofool.scores import log_odds
from evofool.targets import Target


class Inverses(NamedTuple):
    """n inverses of n images.

    pictures: uint8 (n, C, h, w). image_errors, code_errors (n,) float64: distances of pixels, at the decoder's size, and of
    codes, over the mean distance between two held-out pictures. classes (n,) int64, odds (n,) float64: of the inverse,
    enlarged to the target's input. seconds: of one core, for each image, from its code.
    """

    pictures: np.ndarray
    image_errors: np.ndarray
    code_errors: np.ndarray
    classes: np.ndarray
    odds: np.ndarray
    seconds: float


def invert(target: Target, images: np.ndarray, model: LayerInverse) -> Inverses:
    """The decoder's inverses of uint8 (n, C, H, W) of the target's shape. 3 queries for each image, and 2 more."""
    codes = codes_of(target, images, model)
    began = time.process_time()
    pictures = quantise(model.draw(codes))
    return compared(target, images, pictures, model, (time.process_time() - began) / len(images))


def codes_of(target: Target, images: np.ndarray, model: LayerInverse) -> np.ndarray:
    """float32 (n, *code) of uint8 (n, C, H, W) of the target's shape. A query for each image, and one more."""
    if images.dtype != np.uint8 or images.shape[1:] != target.shape or not len(images):
        raise ImageError(
            f"{target.name}: takes uint8 images (n, {', '.join(map(str, target.shape))}), not {images.dtype} {images.shape}"
        )
    with Codes(target, [model.layer], model.decoder.layout.image) as codes:
        return np.concatenate([codes(part)[model.layer].numpy() for part in _parts(images)])


def compared(target: Target, images: np.ndarray, pictures: np.ndarray, model: LayerInverse, seconds: float) -> Inverses:
    """Any uint8 pictures (n, C, h, w) as inverses of images. Two queries for each image, and 2 more."""
    shape = model.decoder.layout.image
    small, wanted = (np.stack([resized(image, shape) for image in rows]) for rows in (pictures, images))
    enlarged = np.stack([resized(picture, target.shape) for picture in pictures])
    codes = [codes_of(target, rows, model) for rows in (enlarged, images)]
    odds = log_odds(target.logits(enlarged), target.multilabel)
    classes = odds.argmax(1)
    return Inverses(
        pictures,
        distances(small, wanted) / model.image_unit,
        distances(*codes) / model.code_unit,
        classes,
        odds[np.arange(len(odds)), classes],
        seconds,
    )


def _parts(images: np.ndarray, batch: int = 16) -> list[np.ndarray]:
    return [images[k : k + batch] for k in range(0, len(images), batch)]
