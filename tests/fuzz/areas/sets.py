"""Sets of fooling images: set.json, any value in the table, its bytes, and metadata.csv."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

from evofool.bench.sets.image_set import image_set
from evofool.errors import EvofoolError
from evofool.fooling_set.index import INDEX, SetIndex
from evofool.fooling_set.layouts import METADATA, TABLE
from evofool.fooling_set.rows import COLUMNS, Row, matrix_columns
from evofool.fooling_set.write import SetOrigin, write_set
from evofool.images import encode_png
from tests.fuzz.areas.pictures import targets
from tests.fuzz.mutations import STRINGS, apply_bytes, apply_json, as_json, byte_edits, json_edits, values
from tests.fuzz.room import Area, Fault, Room

CLASSIFIERS = ("a", "b")


def _row(name: str, label: int) -> Row:
    """An image of a class by a classifier."""
    every = {**COLUMNS, **matrix_columns(CLASSIFIERS)}
    texts = {"group": "greys", "label_name": f"class {label}", "classifier": name, "arm": "cppn", "genome": "{}"}
    made: dict[str, Any] = dict.fromkeys(every) | {"id": f"{name}/cppn-0/{label}", "label": label}
    made |= (
        {"confidence": 0.5, "margin": 1.0}
        | texts
        | {f"predicted/{other}": label for other in CLASSIFIERS}
        | {"seed": 0, "sha256": f"{name}{label}"}
    )
    return Row(made, encode_png(np.full((1, 8, 8), 20 * label, np.uint8)), f"greys/{label:03d}_class_{label}")


@cache
def sample() -> dict[str, bytes]:
    """By path, the files of a set of two classifiers, three images each."""
    labels = [f"class {number}" for number in range(10)]
    of = {"group": "greys", "spec": "lenet", "fingerprint": "f", "weights_sha256": None, "shape": [1, 8, 8]}
    origin = SetOrigin(
        "fuzzed", "1.0.0", "0", {"title": "Fuzzed"}, dict.fromkeys(CLASSIFIERS, of | {"labels": labels, "notes": []})
    )
    with TemporaryDirectory() as name:
        folder = Path(name) / "set"
        write_set(folder, origin, [[_row(name, label) for label in range(3)] for name in CLASSIFIERS])
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _table(column: int, place: int, value: Any) -> bytes:
    """The table with another value in one cell; its whole column becomes texts where no type has it and the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(sample()[TABLE]))
    at = column % table.num_columns
    cells = table.column(at).to_pylist()
    cells[place % len(cells)] = value
    name = table.column_names[at]
    try:
        array = pa.array(cells)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        array = pa.array([repr(cell)[:100].encode("utf-8", "replace").decode() for cell in cells])
    buffer = io.BytesIO()
    pq.write_table(table.set_column(at, name, array), buffer)
    return buffer.getvalue()


def _metadata(row: int, column: int, text: str) -> bytes:
    """metadata.csv with another text in one cell."""
    rows = [*csv.reader(io.StringIO(sample()[METADATA].decode(), newline=""))]
    rows[row % len(rows)][column % len(rows[0])] = text
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _damaged(case: tuple[Any, ...]) -> tuple[str, bytes]:
    """The path of the file that a case damages, and its content."""
    which, how, change = case
    path = {"index": INDEX, "table": TABLE, "metadata": METADATA}[which]
    if how == "bytes":
        return path, apply_bytes(sample()[path], change)
    if which == "index":
        return path, as_json(apply_json(json.loads(sample()[path]), change)).encode("utf-8", "surrogatepass")
    return path, (_table if which == "table" else _metadata)(*change)


def enter(case: tuple[Any, ...], room: Room) -> None:
    """Read the set, compare it with the whole one, take a sample of it, and read its images."""
    damaged, content = _damaged(case)
    for path, given in sample().items():
        room.give(f"whole/{path}", given)
        room.give(f"set/{path}", content if path == damaged else given)
    whole, folder = room.folder / "given" / "whole", room.folder / "given" / "set"
    if damaged == METADATA:
        found = image_set(folder / "images" / "greys", targets()[0])
        if len(found) != 6 or not all(np.isnan(p) or 0 <= p <= 1 for p in found.confidences):
            raise Fault(f"{len(found)} images, confidences {found.confidences}")
        return
    for given in _readings(folder, whole, room):
        with suppress(EvofoolError):
            given()


def _readings(folder: Path, whole: Path, room: Room) -> Iterator[Any]:
    yield lambda: SetIndex.read(folder)
    yield lambda: room.call("set", "diff", whole, folder)
    yield lambda: room.call("set", "diff", folder, whole, "--json")
    yield lambda: room.call("set", "sample", folder, "--out", room.work / "sample")
    yield lambda: [image_set(folder, targets()[0]).notes()]


def line(case: tuple[Any, ...], room: Room) -> list[str | Path] | None:
    damaged, content = _damaged(case)
    for path, given in sample().items():
        room.give(f"set/{path}", content if path == damaged else given)
    folder = room.folder / "given" / "set"
    return ["set", "sample", folder, "--out", room.work / "sample"]


_PLACE = st.integers(0, 200)
_TEXT = st.one_of(st.sampled_from([text for text in STRINGS if "\x00" not in text]), st.text(max_size=8))
_CELL = st.tuples(_PLACE, _PLACE, st.one_of(values(), st.binary(max_size=8)))
CASES = st.one_of(
    st.tuples(st.just("index"), st.just("json"), json_edits()),
    st.tuples(st.just("index"), st.just("json"), json_edits()),
    st.tuples(st.just("index"), st.just("bytes"), byte_edits()),
    st.tuples(st.just("table"), st.just("bytes"), byte_edits()),
    st.tuples(st.just("table"), st.just("value"), _CELL),
    st.tuples(st.just("table"), st.just("value"), _CELL),
    st.tuples(st.just("metadata"), st.just("cell"), st.tuples(_PLACE, _PLACE, _TEXT)),
    st.tuples(st.just("metadata"), st.just("bytes"), byte_edits()),
)


def prepare() -> None:
    import pyarrow.parquet  # noqa: F401

    sample()
    targets()


AREA = Area("sets", CASES, enter, 4, prepare, line=line)
