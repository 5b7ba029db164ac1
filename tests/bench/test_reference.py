"""Reference rows: which are shipped, and beside which results they are shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evofool.bench.acceptance import LEVELS
from evofool.bench.headline import PER_CLASS, SUITE
from evofool.bench.reference import FOLDER, reference_copy, reference_note, reference_rows, reference_sentence
from evofool.bench.result_file import load_result, small_copy
from tests.bench import samples

ROOT = Path(__file__).parents[2]
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
        assert path.stat().st_size < (60_000 if path.parent.name == "digits" else 90_000)  # of 10 and of 1,000 labels
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


def test_what_is_not_as_in_the_reference_rows_is_said():
    result = samples.results(1)[0]
    (row, *_) = reference_rows(result)
    known = "They were measured on 2,500 images of digits, with the acceptance scores features, margin, pair."
    budget = "The attacks of this result had 1,000 queries a class in all, and theirs 100."
    images = "This result has other real images, so other thresholds."
    assert reference_note(result) == f"{known} {images} This result has the acceptance scores margin. {budget}"
    assert reference_sentence(result).endswith(reference_note(result))
    result["images"]["content_sha256"] = row["images"]["content_sha256"]
    result["scores"]["headline"] |= {key: row["scores"]["headline"][key] for key in ("by_score", "attack_queries_per_class")}
    assert reference_note(result) == known
    result["images"]["classes_left_out"] = ["3"]
    assert reference_note(result) == f"{known} This result scores 9 classes, they 10."


def test_the_protocol_says_which_kinds_are_shipped():
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    assert ("None of photographs is shipped yet." in text) == (not (FOLDER / "photographs").exists())


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["target"].update(average=16),
        lambda r: r["target"].update(views=8),
        lambda r: r["scores"]["headline"].update(arms=["canvas", "square"]),
        lambda r: r["scores"]["arms"]["apgd"].update(gradients="student"),
        lambda r: r["protocol"].update(settings={"apgd": ["losses=margin"]}),
        lambda r: r["protocol"].update(format="bfloat16"),
    ],
)
def test_a_result_of_other_attacks_or_other_answers_stands_alone(change: Callable[[dict[str, Any]], None]):
    result = samples.results(1)[0]
    assert reference_rows(result)
    change(result)
    assert (reference_rows(result), reference_sentence(result), reference_note(result)) == ([], "", "")


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
