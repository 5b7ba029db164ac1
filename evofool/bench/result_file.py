"""The JSON file of a target's results, and small copies of it, to be published or committed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evofool.json_file import read_json
from evofool.json_text import parse_json

SCHEMA, VERSION = "evofool.bench", 2

STRIPPED = ("scores.arms.*.curve", "scores.detectors.*.curve", "scores.image_metrics")
"""What a small copy lacks; everything that the board, `bench compare` and `gate --against` read is kept."""

_REMEDY = "older results are not converted: measure the target again with this evofool"


def load_result(path: Path) -> dict[str, Any]:
    """The results of a target; StoreError for another file, or one of another version."""
    return read_json(path, SCHEMA, VERSION, _REMEDY)


def is_other_file(path: Path) -> bool:
    """Whether a file is JSON of another schema, or of none; what is not JSON may be a damaged result."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return not isinstance(data, dict) or data.get("schema") != SCHEMA


def small_copy(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its largest parts, which the key "stripped" lists. A copy of a small copy is equal to it."""
    scores = result["scores"]
    return {
        **result,
        "scores": {
            **scores,
            "arms": {name: _without(arm, "curve") for name, arm in scores["arms"].items()},
            "detectors": [_without(row, "curve") for row in scores["detectors"]],
            "image_metrics": {},
        },
        "stripped": list(STRIPPED),
    }


def _without(part: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != key}
