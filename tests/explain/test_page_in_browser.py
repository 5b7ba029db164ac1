"""An explanation in a real browser: no violation of axe's rules, nothing lost on a narrow screen, sizes of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.explain.options import ExplanationOptions
from evofool.explain.page import explain
from tests.browser import assert_sound, screen
from tests.explain.one_patch import one_patch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = np.random.default_rng(0).integers(0, 60, (1, 32, 32), np.uint8)
    image[:, 3:13, 19:29] = 255
    options = ExplanationOptions(warnings=["a warning"])
    return explain(one_patch(), image, 0, tmp_path_factory.mktemp("out"), source="patch.png", options=options).page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_violation_and_nothing_is_lost_at_the_side(
    page_file: Path, browser: Any, width: int, scheme: str
) -> None:
    context = screen(browser, width, scheme)
    page = context.new_page()
    page.goto(page_file.as_uri())
    maps = page.locator("section", has_text="Maps").first.locator("img")
    sizes = [maps.nth(k).bounding_box() for k in range(maps.count())]
    assert len(sizes) == 3
    assert all(round(box["width"]) == 296 for box in sizes)
    assert (sizes[0]["y"] == sizes[1]["y"]) == (width == 1280), "side by side where there is space"
    assert_sound(page)
    context.close()
