"""Results of known networks, shipped with the program, beside which a figure has a scale.

tests/perf/reference_rows.py makes them anew.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from evofool.bench.comparable import headline_conditions, suite_conditions
from evofool.bench.headline import fooled_text, queries_text, reached_text
from evofool.bench.result_file import VERSION, small_copy
from evofool.images import is_large
from evofool.json_text import parse_json

FOLDER = Path(__file__).with_name("reference_results")
_DIGITS = [str(digit) for digit in range(10)]


def reference_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The reference results beside which this one may be read, those with the most fooled classes first; often none.

    They are of the same kind of images, and measured by the same attacks under the same protocol (suite_conditions of
    bench.comparable). So a target without gradients has none. There are rows of digits, and of
    photographs for images of 64 pixels a side or more. The real images and the acceptance scores may be others, as
    reference_note says. Each is a small copy of a result. The board (bench.board) shows them too, and networks that were
    trained on the images, which are no scale and left out here.
    """
    kind = _kind(result["target"]) if result["scores"].get("headline") else None
    if kind is None:
        return []
    measured = suite_conditions(result)
    rows = [row for row in _shipped(kind) if suite_conditions(row) == measured and not row["images"]["suspected_training"]]

    def order(row: Mapping[str, Any]) -> tuple[float, float]:
        headline = row["scores"]["headline"]
        return -headline["value"], headline["queries"]["value"]

    return sorted(rows, key=order)


def reference_sentence(result: Mapping[str, Any]) -> str:
    """The reference rows of a result as a sentence, with the protocol that they share; "" where there is none."""
    rows = reference_rows(result)
    if not rows:
        return ""
    headlines = {row["target"]["name"]: row["scores"]["headline"] for row in rows}
    first = next(iter(headlines.values()))
    each = "; ".join(
        f"{name}, {fooled_text(row)} of {row['classes']:,} classes, {reached_text(row)} of real images, "
        f"{queries_text(row)} queries"
        for name, row in headlines.items()
    )
    return (
        f"For scale, by protocol version {VERSION} with {', '.join(first['arms'])}, {first['queries_per_class']:,} queries "
        f"a class, the easiest of {len(first['by_score'])} acceptance scores and {len(first['seeds'])} seeds: {each}. "
        f"{reference_note(result)}"
    )


def reference_note(result: Mapping[str, Any]) -> str:
    """On what the reference rows of a result were measured, and what is not as in the result; "" where there is none.

    They are alike among themselves: tests/perf/reference_rows.py measures all of them in one benchmark.
    """
    rows = reference_rows(result)
    if not rows:
        return ""
    first, here = (headline_conditions(each) for each in (rows[0], result))
    images, scores = rows[0]["images"], ", ".join(first["acceptance scores"])
    said = [f"They were measured on {images['number']:,} images of {images['source']}, with the acceptance scores {scores}."]
    if here["real images"] != first["real images"]:
        said.append("This result has other real images, so other thresholds.")
    if here["acceptance scores"] != first["acceptance scores"]:
        said.append(f"This result has the acceptance scores {', '.join(here['acceptance scores'])}.")
    if here["scored classes"] != first["scored classes"]:
        said.append(f"This result scores {len(here['scored classes']):,} classes, they {len(first['scored classes']):,}.")
    if here["budget a class"] != first["budget a class"]:
        budgets = f"{here['budget a class']:,.0f} queries a class in all, and theirs {first['budget a class']:,.0f}"
        said.append(f"The attacks of this result had {budgets}.")
    return " ".join(said)


def reference_copy(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A reference row of a valid result: a small copy of it (result_file.small_copy), under the name that is shown."""
    return small_copy({**result, "target": {**result["target"], "name": name}})


@cache
def _shipped(kind: str) -> list[dict[str, Any]]:
    return [parse_json(path.read_text(encoding="utf-8")) for path in sorted((FOLDER / kind).glob("*.json"))]


def _kind(target: Mapping[str, Any]) -> str | None:
    """The name of the folder of rows of this kind; None where there is none."""
    channels, height, width = target["shape"]
    if is_large((channels, height, width)):
        return "photographs"
    return "digits" if (channels, height, width) == (1, 28, 28) and target["labels"] == _DIGITS else None
