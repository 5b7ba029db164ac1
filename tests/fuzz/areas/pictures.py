"""Picture files, folders of pictures, and tables of pictures."""

import io
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from evofool.bench.sets.image_set import image_set
from evofool.errors import ImageError
from evofool.explain.input_picture import read_picture
from evofool.images import decode_png, encode_png
from evofool.targets import Target
from evofool.targets.photos import find_photographs, photographs
from tests.fuzz.mutations import STRINGS, apply_bytes, byte_edits, values
from tests.fuzz.room import Area, Fault, Room
from tests.synthetic import fake

MODES = ("L", "RGB", "RGBA", "P", "1", "LA", "I;16", "CMYK", "I", "F", "YCbCr")
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "ppm": "PPM", "tif": "TIFF"}


@cache
def targets() -> tuple[Target, Target]:
    return fake(shape=(1, 8, 8)), fake(shape=(3, 8, 8))


@cache
def picture(suffix: str, mode: str, side: int) -> bytes:
    """A picture of noise, of another mode where the format lacks this one."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side + 1, 3), np.uint8)
    buffer = io.BytesIO()
    for each in (mode, "RGB", "L"):
        try:
            Image.fromarray(noise).convert(each).save(buffer, FORMATS[suffix])
            break
        except (OSError, ValueError, KeyError):
            buffer = io.BytesIO()
    return buffer.getvalue()


def table(rows: list[Any], columns: tuple[str, str]) -> bytes:
    """A Parquet table of these (image, label) rows, or of texts where they have no common type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    arrays = []
    for which in (0, 1):
        column = [row[which] for row in rows]
        try:
            arrays.append(pa.array(column))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            arrays.append(pa.array([repr(value)[:100].encode("utf-8", "replace").decode() for value in column]))
    pq.write_table(pa.table(dict(zip(columns, arrays, strict=True))), buffer)
    return buffer.getvalue()


def enter(case: tuple[Any, ...], room: Room) -> None:
    how, *given = case
    if how == "file":
        suffix, mode, side, edits = given
        content = apply_bytes(picture(suffix, mode, side), edits)
        path = room.give(f"pictures/3_x.{suffix}", content)
        for target in targets():
            for read in (_read, _decode, _photograph, _of_set):
                try:
                    image = read(path, content, target)
                except ImageError:
                    continue
                if image.dtype != np.uint8 or (read is not _decode and image.shape != target.shape):
                    raise Fault(f"an image of {image.dtype} {image.shape}")
    elif how == "names":
        for name in given[0]:
            with suppress(OSError, ValueError):  # no file can have this name
                room.give(f"pictures/{name}", picture("png", "L", 8))
        found = image_set(room.folder / "given" / "pictures", targets()[0])
        [found.image(k) for k in range(len(found))]
    elif how == "table":
        rows, columns, edits = given
        whole = [({"bytes": encode_png(np.zeros((1, 8, 8), np.uint8)), "path": "x"}, "class 1"), *rows]
        path = room.give("table.parquet", apply_bytes(table(whole, columns), edits))
        found = image_set(path, targets()[0])
        [found.image(k) for k in range(len(found))]


def _read(path: Any, _: bytes, target: Target) -> np.ndarray:
    return read_picture(path, target)[0]


def _decode(_: Any, content: bytes, target: Target) -> np.ndarray:
    return decode_png(content)


def _photograph(path: Any, _: bytes, target: Target) -> np.ndarray:
    ((images, _classes, _files),) = photographs(find_photographs(path.parent, target.labels), target)
    return images[0]


def _of_set(path: Any, _: bytes, target: Target) -> np.ndarray:
    return image_set(path.parent, target).image(0)


_CLASSES = ["0", "1", "class 1", "class_2", "²", "٣", "9" * 50, "", "n01440764"]
_FOLDERS = ["0", "class 3", "class_4", "\x1b[2J", "²"]
_NAMES = st.one_of(
    st.builds(lambda a, b: f"{a}_{b}.png", st.sampled_from(_CLASSES), st.text(max_size=4)),
    st.builds(lambda a, b: f"{a}/{b}.png", st.sampled_from(_FOLDERS), st.sampled_from(["x", "é"])),
    st.builds(lambda a: f"{a}.png", st.sampled_from([s for s in STRINGS if "/" not in s])),
)
_CELL = st.one_of(
    values(),
    st.builds(lambda b: {"bytes": b, "path": "y"}, st.binary(max_size=30)),
    st.builds(lambda v: {"bytes": v, "path": v}, values()),
)
_ROWS = st.lists(st.tuples(_CELL, st.one_of(values(), st.just("class 2"), st.sampled_from(STRINGS))), max_size=3)
_COLUMNS = st.sampled_from([("image", "label_name")] * 5 + [("image", "label"), ("image", "\x1b[2J")])
_SIZES = st.sampled_from([1, 8, 8, 9, 40])
CASES = st.one_of(
    st.tuples(st.just("file"), st.sampled_from(sorted(FORMATS)), st.sampled_from(MODES), _SIZES, byte_edits()),
    st.tuples(st.just("file"), st.just("png"), st.sampled_from(MODES), _SIZES, byte_edits()),
    st.tuples(st.just("names"), st.lists(_NAMES, min_size=1, max_size=6)),
    st.tuples(st.just("table"), _ROWS, _COLUMNS, st.just([])),
    st.tuples(st.just("table"), st.just([]), st.just(("image", "label_name")), byte_edits()),
)


def prepare() -> None:
    import pyarrow.parquet  # noqa: F401

    targets()


def line(case: tuple[Any, ...], room: Room) -> list[str | Path] | None:
    if case[0] != "file":
        return None
    _, suffix, mode, side, edits = case
    path = room.give(f"pictures/3_x.{suffix}", apply_bytes(picture(suffix, mode, side), edits))
    options = ["--target", "lenet", "--class", "3", "--parts", "occlusion"]
    return ["explain", path, *options, "--out", room.work / "page"]


AREA = Area("pictures", CASES, enter, 5, prepare, line=line)
