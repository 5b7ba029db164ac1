"""Reference rows: which are shipped, and beside which results they are shown."""

import json
from typing import Any

import pytest

from evofool.bench.acceptance import LEVELS
from evofool.bench.headline import PER_CLASS, SUITE
from evofool.bench.reference import FOLDER, reference_copy, reference_rows, reference_sentence
from evofool.bench.result_file import load_result, small_copy
from tests.bench import samples

DIGITS = ["undefended LeNet", "adversarially trained LeNet", "LeNet with outlier exposure"]


def test_all_that_is_shipped_is_small_and_of_this_protocol():
    files = sorted(FOLDER.rglob("*.json"))
    assert files
    for path in files:
        row = load_result(path)
        headline = row["scores"]["headline"]
        assert (headline["arms"], headline["queries_per_class"], headline["left_out"]) == (list(SUITE), PER_CLASS, {})
        assert headline["attack_queries_per_class"] == PER_CLASS
        assert row["protocol"]["levels"] == LEVELS
        assert len(headline["seeds"]) >= 3
        assert path.stem == row["target"]["name"].replace(" ", "-")
        assert path.stat().st_size < 60_000
    assert {path.parent.name for path in files} <= {"digits", "photographs"}


def test_a_result_of_digits_stands_beside_three_networks():
    result = samples.results(1)[0]
    rows = reference_rows(result)
    assert sorted(row["target"]["name"] for row in rows) == sorted(DIGITS), "and not the one trained on these digits"
    shares = [row["scores"]["headline"]["value"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    sentence = reference_sentence(result)
    start = "For scale, by protocol version 2 with canvas, square, apgd, 100 queries a class, the easiest of 3 acceptance "
    assert sentence.startswith(f"{start}scores and 5 seeds: ")
    assert sentence.count(" of 10 classes, ") == 3
    assert all(name in sentence for name in DIGITS)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("target", {"labels": ["shirt", *map(str, range(9))]}),
        ("target", {"shape": [3, 32, 32]}),
        ("target", {"shape": [3, 224, 224]}),
        ("protocol", {"levels": {"tau5": 0.1, "tau50": 0.5}}),
        ("protocol", {"rank": "log_odds"}),
        ("scores", {"headline": None}),
    ],
)
def test_a_result_of_another_kind_or_protocol_stands_alone(part: str, change: dict[str, Any]):
    result = samples.results(1)[0]
    result[part] |= change
    rows = [row["target"]["name"] for row in reference_rows(result)]
    assert not set(rows) & set(DIGITS)
    assert part == "target" or reference_sentence(result) == ""


def test_a_result_of_another_version_or_with_fewer_queries_stands_alone():
    result = samples.results(1)[0]
    assert reference_rows({**result, "version": result["version"] + 1}) == []
    result["scores"]["headline"]["queries_per_class"] = 50
    assert reference_rows(result) == []
    del result["scores"]["headline"]
    assert reference_rows(result) == []


def test_a_row_is_a_small_copy_under_another_name():
    result = samples.results(1)[0]
    row = reference_copy(result, "a name")
    assert row == small_copy(result) | {"target": result["target"] | {"name": "a name"}}
    assert json.loads(json.dumps(row)) == row
