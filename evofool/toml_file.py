"""TOML that nobody has checked: what would take long, or nests deeply, is refused before it is parsed."""

import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from evofool.errors import RecipeError
from evofool.text import shortened

MAX_BYTES = 200_000
"""Of a file: hundreds of times a recipe, and what tomllib reads in a second."""
MAX_DEPTH = 16
"""Of arrays and inline tables within each other, and of the parts of a key. tomllib recurses into the former, and its time
for the latter is quadratic."""
MAX_BITS = 1024
"""Of a whole number."""

# A string ends where tomllib ends it; one that never ends takes the rest. So each character is read once.
_TOKEN = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}|\Z)'''
    r"""|'''.*?(?:'{3,5}|\Z)"""
    r"""|"(?:[^"\\\n]|\\.)*"?"""
    r"""|'[^'\n]*'?"""
    r"""|\#[^\n]*|[A-Za-z0-9_-]+|[ \t]+|.""",
    re.DOTALL,
)
_PART_OR_SPACE = re.compile(r"""["'A-Za-z0-9_ \t-]""")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. RecipeError where it cannot be read, is no ordinary file, or is too large or too deep."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise RecipeError(f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'device or a pipe'}, not a TOML file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path}: not a recipe: it is longer than {MAX_BYTES:,} bytes")
    try:
        return _parsed(content.decode(), str(path))
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{path}: not TOML ({shortened(error, 200)})") from None


def value_of(text: str, where: str) -> Any:
    """The value in KEY=text: TOML, or the text itself where it is none. RecipeError, naming `where`, if it is too deep."""
    try:
        found = _parsed(f"v = {text}", where)
    except RecipeError:
        raise
    except ValueError:
        return text.strip()
    return found["v"] if len(found) == 1 else text.strip()


def _parsed(text: str, where: str) -> dict[str, Any]:
    """The tables of a text; RecipeError if it is too deep, another ValueError if it is not TOML."""
    _refuse_deep(text, where)
    found = tomllib.loads(text)
    _refuse_large_numbers(found, where)
    return found


def _refuse_deep(text: str, where: str) -> None:
    depth = dots = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == ".":
            dots += 1
        elif not _PART_OR_SPACE.match(token):
            dots = 0
            depth = depth + 1 if token in "[{" else max(0, depth - 1) if token in "]}" else depth
        if depth > MAX_DEPTH:
            raise RecipeError(f"{where}: arrays or tables are nested more than {MAX_DEPTH} deep")
        if dots >= MAX_DEPTH:
            raise RecipeError(f"{where}: a key has more than {MAX_DEPTH} parts")


def _refuse_large_numbers(value: Any, where: str) -> None:
    """RecipeError for a number that Python cannot print in a message: one of over 4,300 digits, written in base 16."""
    if isinstance(value, dict):
        for part in value.values():
            _refuse_large_numbers(part, where)
    elif isinstance(value, list):
        for part in value:
            _refuse_large_numbers(part, where)
    elif isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise RecipeError(f"{where}: a whole number of more than {MAX_BITS} bits")
