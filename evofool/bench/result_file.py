"""The JSON file of a target's results."""

from pathlib import Path
from typing import Any

from evofool.json_file import read_json

SCHEMA, VERSION = "evofool.bench", 2

_REMEDY = "older results are not converted: measure the target again with this evofool"


def load_result(path: Path) -> dict[str, Any]:
    """The results of a target; StoreError for another file, or one of another version."""
    return read_json(path, SCHEMA, VERSION, _REMEDY)
