"""The images of a report: a few within the page, and contact sheets beside it."""

import io
from collections.abc import Callable, Mapping, Sequence

from evofool.pages.html_page import Picture
from evofool.pages.sheet import Tile, confidence_text, contact_sheet, small_png

Tiles = Mapping[str, Mapping[str, Callable[[], Sequence[Tile]]]]
"""By target and arm, a function that reads the best images of one seed, in the order of classes."""

_SIDES = (84, 56)  # pixels, of an image within a page; the largest at which all fit
_TILE, _COLUMNS = 84, 4  # of a sheet, which a phone shows without making it smaller than its text allows


def within_page(tiles: Sequence[Tile], room: int, sides: Sequence[int] = _SIDES) -> list[Picture]:
    """The images as pictures of a page, of at most `room` bytes: smaller if they do not fit, then only the first ones."""
    for side in sides:
        pictures = [Picture(tile.label, small_png(tile.image, side), _caption(tile), side) for tile in tiles]
        if sum(len(picture.png) for picture in pictures) <= room:
            return pictures
    kept = []
    for picture in pictures:
        room -= len(picture.png)
        if room < 0:
            break
        kept.append(picture)
    return kept


def sheet(tiles: Sequence[Tile]) -> bytes:
    """A contact sheet, a PNG."""
    buffer = io.BytesIO()
    contact_sheet(tiles, columns=min(_COLUMNS, len(tiles)), tile=_TILE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _caption(tile: Tile) -> str:
    return "" if tile.confidence is None else confidence_text(tile.confidence)
