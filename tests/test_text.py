"""What is not printable is shown as its escape, and all else as it is."""

import json
import re
import sys
import unicodedata

import pytest

from evofool.text import ascii_json, shortened, to_json, visible, whole_number

# The signs that are seen although Unicode calls them format characters.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def test_all_of_unicode_is_either_shown_or_escaped_by_its_category() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        escaped = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and code not in SEEN
        shown = visible(character)
        if escaped:
            assert re.fullmatch(r"\\([nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", shown), hex(code)
        elif unicodedata.category(character) != "Cn":
            assert shown == character, hex(code)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;PWN\x07", r"\x1b]0;PWN\x07"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066a\u2069\u200e\u061c", r"\u2066a\u2069\u200e\u061c"),
        ("a\u200bb\u2028c\ufeff", r"a\u200bb\u2028c\ufeff"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("größe 虎鲨 虎　鲨 🦈 नमस्ते שלום C:\\new", "größe 虎鲨 虎　鲨 🦈 नमस्ते שלום C:\\new"),
    ],
)
def test_controls_are_escaped_and_text_stays(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_json_is_ascii_without_controls_and_reads_back() -> None:
    data = {"a\x9b": ["\x1b", "\x7f", "\u202e", "ü", 0.1, None]}
    for text in (to_json(data), ascii_json(data)):
        assert text.replace("\n", "").isprintable()
        assert text.isascii()
        assert json.loads(text) == data
    assert json.loads(to_json({"a": [float("nan"), (float("inf"),)]})) == {"a": [None, [None]]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        ascii_json(float("nan"))


def test_long_text_is_cut() -> None:
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 76 + " ..."


def test_a_whole_number_has_at_most_18_digits() -> None:
    assert [whole_number(text) for text in ("0", "007", "9" * 18)] == [0, 7, 10**18 - 1]
    assert [whole_number(text) for text in ("", "-1", "1.0", "1_0", "x", "²", "9" * 19, "9" * 5000)] == [None] * 8
