"""A line of descent: the ancestors of an elite, oldest first, with the goal switches between classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from evofool.pages.palette import FAINT, INK, LINE, PAPER
from evofool.pages.sheet import fit, font, thumbnail

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SWITCH = "#d2416b"
_SIDE, _MARGIN, _GAP, _LINE, _FRAME = 112, 28, 30, 17, 4
_ARROW_COLOUR = "#9a9ea6"
_LEGEND = "goal switch: became the elite of a class of which neither parent was an elite or a runner-up"


@dataclass(frozen=True)
class DescentStep:
    """One ancestor: uint8 (C, H, W), its birth, the label of its class or classes, and whether it was a goal switch."""

    image: np.ndarray
    birth: int
    label: str
    note: str = ""
    switched: bool = False


def descent_strip(steps: Sequence[DescentStep], columns: int = 12) -> "Image.Image":
    """The steps by ascending birth, joined by arrows, `columns` to a row; a goal switch has a coloured frame."""
    from PIL import Image, ImageDraw

    if not steps:
        raise ValueError("a descent strip needs at least one step; there are none")
    if columns < 1:
        raise ValueError(f"columns has to be at least 1, not {columns}")
    steps = sorted(steps, key=lambda step: step.birth)
    pictures = [thumbnail(step.image, _SIDE) for step in steps]
    text, small = font(14), font(12)
    columns = min(columns, len(steps))
    rows = -(-len(steps) // columns)
    width = max(64, max(p.width for p in pictures))
    height = max(p.height for p in pictures)
    cell = height + 8 + _LINE * (3 if any(step.note for step in steps) else 2)
    legend = any(step.switched for step in steps)
    inner = columns * (width + _GAP) - _GAP
    if legend:
        inner = max(inner, 20 + math.ceil(small.getlength(_LEGEND)))
    bottom = _MARGIN + rows * (cell + _GAP) - _GAP + (30 if legend else 0)

    strip = Image.new("RGB", (inner + 2 * _MARGIN, bottom + _MARGIN), PAPER)
    draw = ImageDraw.Draw(strip)
    positions = [(_MARGIN + k % columns * (width + _GAP), _MARGIN + k // columns * (cell + _GAP)) for k in range(len(steps))]
    for (x0, y0), (x1, y1) in pairwise(positions):
        start, end = (x0 + width, y0 + height // 2), (x1, y1 + height // 2)
        if y0 == y1:
            _arrow(draw, [start, end])
        else:
            # To the next row without crossing any text: right, back along the gap between the rows, in from the left.
            right, left, gutter = x0 + width + _GAP // 2, x1 - _GAP // 2, y1 - _GAP // 2
            _arrow(draw, [start, (right, start[1]), (right, gutter), (left, gutter), (left, end[1]), end])
    for (x, y), step, picture in zip(positions, steps, pictures, strict=True):
        left, upper = x + (width - picture.width) // 2, y + (height - picture.height) // 2
        around = _FRAME if step.switched else 1
        draw.rectangle(
            (left - around, upper - around, left + picture.width - 1 + around, upper + picture.height - 1 + around),
            SWITCH if step.switched else LINE,
        )
        strip.paste(picture, (left, upper))
        y += height + 7
        draw.text((x, y), fit(step.label, text, width), INK, text)
        draw.text((x, y + _LINE), fit(f"birth {step.birth}", small, width), FAINT, small)
        if step.note:
            draw.text((x, y + 2 * _LINE), fit(step.note, small, width), SWITCH if step.switched else FAINT, small)
    if legend:
        draw.rectangle((_MARGIN, bottom - 13, _MARGIN + 11, bottom - 2), outline=SWITCH, width=3)
        draw.text((_MARGIN + 20, bottom - 15), _LEGEND, FAINT, small)
    return strip


def _arrow(draw: "ImageDraw.ImageDraw", points: list[tuple[int, int]]) -> None:
    """A line through points, with its head 6 pixels before the last one, which it reaches from the left."""
    x, y = points[-1]
    tip = x - 6
    draw.line([*points[:-1], (tip - 2, y)], _ARROW_COLOUR, 2)
    draw.polygon([(tip, y), (tip - 8, y - 5), (tip - 8, y + 5)], _ARROW_COLOUR)
