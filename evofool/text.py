"""Text from outside, made safe to show: no character of it controls a terminal, a line or the direction of text."""

import html
import json
import math
import re
from typing import Any

# By Unicode's categories: Cc (C0, DEL, C1), Zl, Zp, Cs (lone surrogates) and Cf (bidi controls, zero-width characters, tags)
# except for the signs of Arabic, Syriac and Kaithi that are seen.
_NOT_PRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: object) -> str:
    r"""str(text) on one line: each character that is not printable is replaced by its escape, such as \x1b or \u202e.

    Escaped are control characters with newline and tab, bidirectional controls and the other format characters
    (zero-width ones too), line and paragraph separators, and lone surrogates. All others stay, as do backslashes.
    """
    return _NOT_PRINTABLE.sub(_escape, str(text))


def visible_lines(text: object) -> str:
    """visible, except that newlines stay: for whole files and pages, in whose single texts they do no harm."""
    return "\n".join(map(visible, str(text).split("\n")))


def escaped(text: object) -> str:
    """visible_lines as HTML or SVG text, and as the value of an attribute in quotes."""
    return html.escape(visible_lines(text))


def shortened(text: object, length: int = 80) -> str:
    """str(text), cut to this number of characters, with "..." where it is longer."""
    whole = str(text)
    return whole if len(whole) <= length else f"{whole[: length - 4]} ..."


def whole_number(text: str) -> int | None:
    """The number of a text of at most 18 decimal digits; None for every other text. Python's int refuses 4,301 digits."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def to_json(data: Any) -> str:
    r"""Indented JSON in ASCII, control characters as \uXXXX. Numbers are exact; those that are not finite are null."""
    return ascii_json(_finite(data), indent=2)


def ascii_json(data: Any, indent: int | None = None) -> str:
    r"""JSON in ASCII, control characters as \uXXXX. Numbers are exact; ValueError for those that are not finite."""
    return json.dumps(data, indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
