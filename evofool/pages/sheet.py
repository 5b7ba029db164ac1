"""A contact sheet: every elite with its label and its confidence."""

import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING

import numpy as np

from evofool.images import encode_png, to_pil
from evofool.pages.palette import FAINT, INK, LINE, PAPER
from evofool.text import visible

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

LEVELS = (
    (0.5, "< 50%", "#b4b9c1"),
    (0.9, "50 - 90%", "#f0bc45"),
    (0.99, "90 - 99%", "#ee8444"),
    (0.999, "99 - 99.9%", "#d2416b"),
    (math.inf, "99.9% or more", "#70298d"),
)
"""Confidence below the first value is shown in that colour."""

_MARGIN, _GAP, _BAR = 24, 14, 4
_MANY = 200  # above this number tiles are smaller, so that a sheet of 1000 classes stays below 6000 pixels
_TITLE_LINE = 26  # pixels
_NARROWEST_TITLE = 480  # pixels that a title may be wide on a sheet of few tiles
_SWATCH = 9
_SATURATED = ">99.9999%"


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet: uint8 (C, H, W), its label, and the confidence in it, 0..1, None if it has none.

    log_odds: of the same class; shown where the confidence alone would read >99.9999%.
    """

    image: np.ndarray
    label: str
    confidence: float | None = None
    note: str = ""
    log_odds: float | None = None


def contact_sheet(
    tiles: Sequence[Tile], columns: int | None = None, tile: int | None = None, title: str = ""
) -> "Image.Image":
    """The tiles in reading order, each over its label and confidence, as an RGB picture. Without any confidence in the
    tiles there is no legend.

    tile is the longest side that a picture may have, in pixels: smaller pictures are enlarged by a whole factor,
    without smoothing, and larger ones reduced. By default it is 140, or 160 if a picture has more than 70 pixels a
    side, or 112 on a sheet of more than 200 tiles. columns are chosen for a sheet of about 4:3. A long title is wrapped.
    """
    from PIL import Image, ImageDraw

    if not tiles:
        raise ValueError("a contact sheet needs at least one tile; there are none")
    for name, value in (("columns", columns), ("tile", tile)):
        if value is not None and value < 1:
            raise ValueError(f"{name} has to be at least 1, not {value}")
    side = tile or _side(tiles)
    pictures = [thumbnail(t.image, side) for t in tiles]
    big = side >= 128
    text, small, head = font(14 if big else 12), font(12 if big else 11), font(20)
    line = 18 if big else 15

    # At least as wide as the longest confidence, so that no number is cut.
    width = max(max(p.width for p in pictures), math.ceil(small.getlength(_SATURATED)))
    scored = any(t.confidence is not None for t in tiles)
    height = max(p.height for p in pictures)
    cell = height + _BAR + 6 + line * (1 + scored + any(t.note for t in tiles))
    columns = min(len(tiles), columns or _columns(len(tiles), width + _GAP, cell + _GAP))
    rows = -(-len(tiles) // columns)
    inner = columns * (width + _GAP) - _GAP
    legend = scored and _legend_width(small) <= inner
    if title:
        inner = max(inner, min(_NARROWEST_TITLE, math.ceil(head.getlength(to_ascii(title)))))
    title_lines = wrapped(title, head, inner)
    top = _MARGIN + (12 + _TITLE_LINE * len(title_lines) if title_lines else 0)
    bottom = top + rows * (cell + _GAP) - _GAP + (30 if legend else 0)

    sheet = Image.new("RGB", (inner + 2 * _MARGIN, bottom + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for k, title_line in enumerate(title_lines):
        draw.text((_MARGIN, _MARGIN - 4 + k * _TITLE_LINE), title_line, INK, head)
    for k, (t, picture) in enumerate(zip(tiles, pictures, strict=True)):
        x = _MARGIN + k % columns * (width + _GAP)
        y = top + k // columns * (cell + _GAP)
        left, upper = x + (width - picture.width) // 2, y + (height - picture.height) // 2
        draw.rectangle((left - 1, upper - 1, left + picture.width, upper + picture.height), outline=LINE)
        sheet.paste(picture, (left, upper))
        y += height + 3
        if t.confidence is not None:
            score = score_text(t.confidence, t.log_odds, small, width)
            draw.rectangle((x, y, x + width - 1, y + _BAR - 1), LINE)
            # Rounded down, but at least one pixel: only 1.0 has a full bar.
            draw.rectangle((x, y, x + max(1, int(t.confidence * width)) - 1, y + _BAR - 1), color(t.confidence))
            draw.text((x, y + _BAR + 3 + line), score, FAINT, small)
        y += _BAR + 3
        draw.text((x, y), fit(t.label, text, width), INK, text)
        if t.note:
            draw.text((x, y + (1 + scored) * line), fit(t.note, small, width), FAINT, small)
    if legend:
        _draw_legend(draw, _MARGIN, bottom - 14, small)
    return sheet


def score_text(p: float, log_odds: float | None, font: "ImageFont.FreeTypeFont", width: int) -> str:
    """A confidence; above 99.9999% with its log-odds, or those alone where both do not fit into `width` pixels."""
    percent = confidence_text(p)
    if log_odds is None or percent != _SATURATED:
        return percent
    both = f">99.99%, log-odds {log_odds:.1f}"
    return both if font.getlength(both) <= width else f"log-odds {log_odds:.1f}"


def confidence_text(p: float) -> str:
    """p in 0..1 as a percentage, rounded down, with as many decimals (1 to 4) as distinguish it from 100%.

    0.123 is 12.3%, 0.99997 is 99.997%, and what is above 0.999999, or above 0 and below 0.001, is >99.9999% or <0.1%.
    """
    p = float(p)
    if not 0 <= p <= 1:
        raise ValueError(f"a confidence is between 0 and 1, not {p}")
    percent = Decimal(repr(p)) * 100  # from the shortest decimal form of p, so that 0.29 is 29.0% and not 28.9%
    if percent > Decimal("99.9999"):
        return _SATURATED
    if 0 < percent < Decimal("0.1"):
        return "<0.1%"
    for digits in range(1, 5):
        step = Decimal(1).scaleb(-digits)
        shown = percent.quantize(step, ROUND_FLOOR)
        if 100 - shown > step or shown == percent:
            break
    return f"{shown}%"


def color(confidence: float) -> str:
    """The colour of LEVELS that a confidence is shown in."""
    return next(shade for below, _, shade in LEVELS if confidence < below)


def small_png(image: np.ndarray, side: int) -> bytes:
    """The PNG of uint8 (C, H, W) itself if it has no side above `side`, which a page enlarges; else of the image reduced."""
    if max(image.shape[1:]) <= side:
        return encode_png(image)
    buffer = io.BytesIO()
    thumbnail(image, side).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def thumbnail(image: np.ndarray, side: int) -> "Image.Image":
    """uint8 (C, H, W) in RGB, of at most side pixels: enlarged by a whole factor, without smoothing, or reduced."""
    from PIL import Image

    picture = to_pil(image).convert("RGB")
    longest = max(picture.size)
    if longest <= side:
        factor = side // longest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(picture.width * side / longest)), max(1, round(picture.height * side / longest)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def font(size: int) -> "ImageFont.FreeTypeFont":
    """Pillow's default scalable font; it has ASCII and little more (see to_ascii)."""
    from PIL import ImageFont

    found = ImageFont.load_default(size=size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def fit(text: str, font: "ImageFont.FreeTypeFont", width: int) -> str:
    """text as the font can draw it, cut with an ellipsis to at most width pixels; empty if not even that fits."""
    text = to_ascii(text)
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept and font.getlength(text[:kept].rstrip() + "…") > width:
        kept -= 1
    ellipsis = text[:kept].rstrip() + "…"
    return ellipsis if font.getlength(ellipsis) <= width else ""


def wrapped(text: str, font: "ImageFont.FreeTypeFont", width: int) -> list[str]:
    """text as the font can draw it, in lines of at most width pixels, broken between words; a longer word is cut."""
    lines: list[str] = []
    for word in to_ascii(text).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(fit(word, font, width))
    return lines


def to_ascii(text: str) -> str:
    """text in the characters that Pillow's font has: no accents, dashes as hyphens, anything else as a question mark.

    What is not printable is escaped, as in evofool.text.visible.
    """
    text = visible(" ".join(text.translate(_ASCII).split()))
    bare = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in "·°" else "?" for c in bare)


# Dashes, the minus sign, the multiplication sign and the German sharp s, which NFKD does not change.
_ASCII = dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-") | {0xD7: "x", 0xDF: "ss"}


def _side(tiles: Sequence[Tile]) -> int:
    if len(tiles) > _MANY:
        return 112
    return 140 if max(max(t.image.shape[1:]) for t in tiles) <= 70 else 160


def _columns(n: int, width: int, height: int) -> int:
    """The number of columns whose sheet is nearest to 4:3 and has few empty places."""

    def cost(columns: int) -> float:
        rows = -(-n // columns)
        return abs(math.log(columns * width / (rows * height) * 3 / 4)) + 2 * (1 - n / (columns * rows))

    return min(range(1, n + 1), key=cost)


def _legend_width(small: "ImageFont.FreeTypeFont") -> int:
    return math.ceil(sum(_SWATCH + 5 + small.getlength(name) + 14 for _, name, _ in LEVELS))


def _draw_legend(draw: "ImageDraw.ImageDraw", x: float, y: int, small: "ImageFont.FreeTypeFont") -> None:
    for _, name, shade in LEVELS:
        draw.rectangle((x, y + 3, x + _SWATCH - 1, y + 3 + _SWATCH - 1), shade)
        draw.text((x + _SWATCH + 5, y), name, FAINT, small)
        x += _SWATCH + 5 + small.getlength(name) + 14
