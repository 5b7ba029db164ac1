"""The inverses of layers by decoders that were learned before, for the inversion part of an explanation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evofool.explain.part_result import fault_of
from evofool.explain.phrases import three_decimals
from evofool.explain.upconv.inversion import compared, invert
from evofool.explain.upconv.model import kept_inverse
from evofool.images import encode_png
from evofool.pages.html_page import Picture, Section, Table
from evofool.targets import Target

_TEXT = (
    "For these layers a decoder is kept that was trained to draw a picture from the layer's output (evofool invert LAYER). "
    "It draws at once what pictures with this output look like on average, while the search finds one image that has this "
    "output. Errors are over the mean distance between two pictures that the decoder was not trained on."
)


class Searched(NamedTuple):
    """A layer, and its inverse by search, uint8 (C, H, W)."""

    layer: str
    picture: np.ndarray


def decoders_section(target: Target, image: np.ndarray, searched: Sequence[Searched]) -> tuple[Section | None, list[str]]:
    """The inverses of uint8 (C, H, W) by the kept decoders of these layers, None where there are none; and the failures."""
    pictures, rows, faults = [], [], []
    for one in searched:
        try:
            if (model := kept_inverse(target, one.layer)) is None:
                continue
            by_decoder = invert(target, image[None], model)
            by_search = compared(target, image[None], one.picture[None], model, 0.0)
        except Exception as error:  # a failed decoder must not lose the searches
            faults.append(f"The decoder of {one.layer} failed: {fault_of(error)}")
            continue
        figures = [
            three_decimals(float(value))
            for by in (by_decoder, by_search)
            for value in (by.image_errors[0], by.code_errors[0])
        ]
        called = [target.labels[int(by.classes[0])] for by in (by_decoder, by_search)]
        caption = f"image error {figures[0]}; {called[0]}"
        pictures.append(Picture(f"Decoded from {one.layer}", encode_png(by_decoder.pictures[0]), caption, width=224))
        rows.append([one.layer, figures[0], figures[2], figures[1], figures[3], *called])
    if not rows:
        return None, faults
    heads = ["layer", "image error, decoder", "search", "feature error, decoder", "search", "class, decoder", "search"]
    return Section("By a decoder", [_TEXT], "Dosovitskiy & Brox 2016.", pictures, [Table(heads, rows)]), faults
