"""A few hostile inputs of every kind, the same ones each time, and all cases that once broke a rule."""

from typing import Any

import pytest

from tests.fuzz.every_area import AREAS, shares
from tests.fuzz.room import attempt
from tests.fuzz.rows import ROWS
from tests.fuzz.search import draw

pytest.importorskip("httpx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pyarrow")

EXAMPLES = 200


@pytest.fixture(autouse=True, scope="module")
def _prepared() -> None:
    for area in AREAS.values():
        area.prepare()


@pytest.mark.parametrize("name", AREAS)
def test_a_hostile_input_ends_in_one_of_our_errors_or_in_a_result(name: str) -> None:
    area = AREAS[name]
    draw(area, shares(EXAMPLES)[name], None, lambda case: attempt(area, case), shrink=True)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in ROWS.items() for case in cases])
def test_what_once_broke_a_rule_does_not_any_more(name: str, case: Any) -> None:
    attempt(AREAS[name], case)
