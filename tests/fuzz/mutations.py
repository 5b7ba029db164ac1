"""Hostile bytes, values and JSON: strategies that draw edits, and functions that apply them to a sample.

Edits are drawn without knowledge of the sample, so that one strategy serves all samples: places are fractions of it.
"""

import json
import re
from typing import Any

from hypothesis import strategies as st

PLACES = 1 << 16
"""A place in a sample is drawn from 0 to PLACES - 1 and scaled to the sample."""

STRINGS = (
    "",
    " ",
    "a",
    "0",
    "-1",
    "1e999",
    "nan",
    "\x00",
    "\n",
    "\x1b]0;PWN\x07",
    "\x1b[2J",
    "\u202etxt.exe",
    "\u2066x",
    "\x9b31m",
    "=1+1",
    "@SUM(1)",
    "../../x",
    "/etc/passwd",
    "é",
    "\U0001f600",
    "[bold]x[/bold]",
    "[/nope]",
    "%s%n",
    "9" * 5000,
    "x" * 20_000,
    "²",
    "lenet",
    "evolved",
)
"""Texts that have broken readers: control and bidi characters, markup, paths, numbers beyond Python's limit of digits."""

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    256,
    65_535,
    100_000,
    2**31 - 1,
    2**31,
    2**32,
    2**62,
    2**63 - 1,
    -(2**63),
    2**63,
    2**64,
    10**30,
    10**400,
    0.5,
    -0.0,
    1.0,
    28.0,
    1e-320,
    1e18,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
)

DEEP = "@deep@"
"""Stands for 5,000 nested lists, which json.dumps could not write itself."""
DIGITS = "@digits@"
"""Stands for a number of 5,000 digits."""

Edit = tuple[Any, ...]


def values() -> st.SearchStrategy[Any]:
    """Plain JSON values, mostly odd ones."""
    small: list[Any] = [None, True, False, [], {}, [[]], [None], {"": None}, {"a": []}, DEEP, DIGITS]
    leaves = st.one_of(
        st.sampled_from([*small, *NUMBERS, *STRINGS]), st.integers(-300, 300), st.floats(), st.text(max_size=12)
    )
    return st.one_of(leaves, st.lists(leaves, max_size=4), st.dictionaries(st.text(max_size=6), leaves, max_size=3))


def sql_values() -> st.SearchStrategy[Any]:
    """Values that a column of SQLite can have."""
    texts = st.sampled_from([*STRINGS, "\ud800", "{}", "[]", "null", "1.5"]).filter(lambda text: text.isprintable() or text)
    whole = [n for n in NUMBERS if isinstance(n, int) and -(2**63) <= n < 2**63]
    real = [n for n in NUMBERS if isinstance(n, float)]
    return st.one_of(
        st.none(),
        st.sampled_from([*whole, *real]),
        texts,
        st.integers(-300, 300),
        st.binary(max_size=40),
        st.text(max_size=8),
    )


def byte_edits(most: int = 4) -> st.SearchStrategy[list[Edit]]:
    """Edits of bytes, for apply_bytes."""
    place = st.integers(0, PLACES - 1)
    size = st.sampled_from([1, 2, 4, 8, 64, 512, 4096])
    word = st.sampled_from([n.to_bytes(8, "little", signed=True) for n in (0, 1, -1, 127, 255, 65_535, 2**31 - 1, 2**62)])
    edit = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("set"), place, st.integers(0, 255)),
        st.tuples(st.just("word"), place, word, st.sampled_from([1, 2, 4, 8])),
        st.tuples(st.just("zero"), place, size),
        st.tuples(st.just("delete"), place, size),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=24)),
        st.tuples(st.just("copy"), place, place, size),
        st.tuples(st.just("cut"), place),
    )
    return st.lists(edit, min_size=1, max_size=most)


def page_edits(most: int = 4) -> st.SearchStrategy[list[Edit]]:
    """Edits of whole pages of a database, for apply_bytes."""
    place = st.integers(0, PLACES - 1)
    edit = st.one_of(
        st.tuples(st.just("zero page"), place),
        st.tuples(st.just("copy page"), place, place),
        st.tuples(st.just("cut page"), place),
    )
    return st.lists(edit, min_size=1, max_size=most)


def apply_bytes(sample: bytes, edits: list[Edit], page: int = 4096) -> bytes:
    """The sample after all edits, in order."""
    data = bytearray(sample)
    for name, place, *more in edits:
        if not data:
            data += b"\0"
        at = _scaled(place, len(data))
        start = at // page * page
        if name == "flip":
            data[at] ^= 1 << more[0]
        elif name == "set":
            data[at] = more[0]
        elif name == "word":
            data[at : at + more[1]] = more[0][: more[1]]
        elif name == "zero":
            data[at : at + more[0]] = bytes(len(data[at : at + more[0]]))
        elif name == "delete":
            del data[at : at + more[0]]
        elif name == "insert":
            data[at:at] = more[0]
        elif name == "copy":
            source = _scaled(more[0], len(data))
            data[at : at + more[1]] = data[source : source + more[1]]
        elif name == "cut":
            del data[at:]
        elif name == "zero page":
            data[start : start + page] = bytes(len(data[start : start + page]))
        elif name == "copy page":
            source = _scaled(more[0], len(data)) // page * page
            data[start : start + page] = data[source : source + page]
        elif name == "cut page":
            del data[start:]
    return bytes(data)


def json_edits(most: int = 3) -> st.SearchStrategy[list[Edit]]:
    """Edits of JSON, for apply_json."""
    place = st.integers(0, PLACES - 1)
    key = st.sampled_from(["", "extra", "kind", "\x1b[31m", "__class__", "x" * 300])
    edit = st.one_of(
        st.tuples(st.just("replace"), place, values()),
        st.tuples(st.just("replace"), place, values()),
        st.tuples(st.just("delete"), place),
        st.tuples(st.just("add"), place, key, values()),
        st.tuples(st.just("double"), place),
        st.tuples(st.just("wrap"), place),
        st.tuples(st.just("swap"), place, place),
    )
    return st.lists(edit, min_size=1, max_size=most)


def apply_json(sample: Any, edits: list[Edit]) -> Any:
    """A copy of the sample after all edits, in order. A place counts all values in it, the outermost first."""
    root = [_copy(sample)]
    for name, place, *more in edits:
        holders = list(_holders(root))
        holder, key = holders[_scaled(place, len(holders))]
        value = holder[key]
        if name == "replace":
            holder[key] = _copy(more[0])
        elif name == "delete" and holder is not root:
            del holder[key]
        elif name == "add" and isinstance(value, dict):
            value[more[0]] = _copy(more[1])
        elif name == "add" and isinstance(value, list):
            value.append(_copy(more[1]))
        elif name == "double" and isinstance(value, list):
            value += _copy(value)
        elif name == "wrap":
            holder[key] = [value]
        elif name == "swap":
            other, there = holders[_scaled(more[0], len(holders))]
            holder[key], other[there] = _copy(other[there]), _copy(value)
    return root[0]


def as_json(value: Any) -> str:
    """JSON, with NaN and infinities as Python writes them, and the values that DEEP and DIGITS stand for."""
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).replace(f'"{DIGITS}"', "9" * 5000)


def as_toml(data: dict[str, Any]) -> str:
    """TOML with one line for each key; None, which TOML lacks, becomes a text."""
    text = "".join(f"{_toml_key(key)} = {_toml(value)}\n" for key, value in data.items())
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).replace(f'"{DIGITS}"', "9" * 5000)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    if isinstance(value, float):
        return repr(value) if "e" not in repr(value) else f"{value:e}"
    return json.dumps("none" if value is None else value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _scaled(place: int, size: int) -> int:
    """A place as an index of a sample. Hypothesis prefers low numbers, so places are spread first."""
    return (place * 40_503 + 7_919) % PLACES * size // PLACES


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value


def _holders(root: list[Any]) -> Any:
    """(container, key) of every value, the outermost first."""
    waiting: list[tuple[Any, Any]] = [(root, 0)]
    while waiting:
        holder, key = waiting.pop()
        yield holder, key
        value = holder[key]
        if isinstance(value, dict):
            waiting += [(value, inner) for inner in value]
        elif isinstance(value, list):
            waiting += [(value, inner) for inner in range(len(value))]
