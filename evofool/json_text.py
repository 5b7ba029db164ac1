"""JSON from files that may come from anyone: strict, of a limited depth and length."""

import json
from typing import Any

MOST_DEPTH = 32
"""The most lists and objects inside one another; what evofool writes has fewer than ten."""
MOST_CHARACTERS = 1 << 22
"""The longest text. The most crafted one takes two seconds and 60 times its length in memory."""


def parse_json(text: object, most: int = MOST_CHARACTERS) -> Any:
    """The value of a JSON text.

    ValueError for what is no text, too long or too deep, for a number that is not finite (NaN, Infinity, 1e999), and for a
    key that an object has twice, and for a lone surrogate.
    """
    if not isinstance(text, str):
        raise ValueError(f"a {type(text).__name__} in place of a JSON text")
    if len(text) > most:
        raise ValueError(f"a JSON text of {len(text):,} characters; {most:,} are the most that is read")
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_refuse_twice
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _refuse_depth(value)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # fails for a lone surrogate, which nothing written later could hold
    return value


def json_text(value: Any) -> str:
    """The JSON text of a value, on one line, with sorted keys: one that parse_json reads. ValueError if there is none."""
    _refuse_depth(value)
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"its JSON text has {len(text):,} characters; {MOST_CHARACTERS:,} are the most that is read")
    return text


_TOO_DEEP = f"lists or objects more than {MOST_DEPTH} inside one another"
_NESTS = (dict, list, tuple)
_MOST_DIGITS = 400  # a float has up to 309 digits before its point; int() takes quadratic time


def _refuse_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [
        part
        for whole in level
        if isinstance(whole, _NESTS)
        for part in (whole.values() if isinstance(whole, dict) else whole)
    ]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(_TOO_DEEP)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits is too large")
    return int(text)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} stands there twice")
    return found
