"""An explanation in a real browser: no violation of axe's rules, nothing lost on a narrow screen, sizes of pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evofool.explain.page import ExplanationOptions, explain
from tests.bench.test_report_in_browser import CHROMIUM, OPEN, SIDEWAYS, Axe, playwright
from tests.explain.one_patch import one_patch

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = np.random.default_rng(0).integers(0, 60, (1, 32, 32), np.uint8)
    image[:, 3:13, 19:29] = 255
    options = ExplanationOptions(warnings=["a warning"])
    return explain(one_patch(), image, 0, tmp_path_factory.mktemp("out"), source="patch.png", options=options).page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_violation_and_nothing_is_lost_at_the_side(
    page_file: Path, browser: Any, width: int, scheme: str
) -> None:
    # axe itself is a script, which the policy of the page forbids.
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    maps = page.locator("section", has_text="Maps").first.locator("img")
    sizes = [maps.nth(k).bounding_box() for k in range(maps.count())]
    assert len(sizes) == 2
    assert all(round(box["width"]) == 296 for box in sizes)
    assert (sizes[0]["y"] == sizes[1]["y"]) == (width == 1280), "side by side where there is space"
    page.evaluate(OPEN)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(SIDEWAYS) == []
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found] == []
    context.close()
