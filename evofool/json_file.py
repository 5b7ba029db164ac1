"""JSON files with a schema and a version, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evofool.errors import StoreError
from evofool.json_text import parse_json
from evofool.text import ascii_json
from evofool.whole_file import write_whole

_MOST_CHARACTERS = 1 << 26  # results with every elite of thousands of classes


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Readable JSON, whole or not at all; numbers are exact. StoreError if it cannot be written."""
    write_whole(path, ascii_json(data, indent=1) + "\n")


def read_json(path: Path, schema: str, version: int, remedy: str) -> dict[str, Any]:
    """What write_json has written; StoreError for another schema or version. remedy: what to do about another version."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"), _MOST_CHARACTERS)
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise StoreError(f"{path} is not a JSON file ({error})") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found != schema:
        raise StoreError(f"{path} is not a file of schema {schema} (its schema is {found!r})")
    assert isinstance(data, dict)
    if data.get("version") != version:
        raise StoreError(f"{path} has version {data.get('version')}; this evofool reads version {version}; {remedy}")
    return data
