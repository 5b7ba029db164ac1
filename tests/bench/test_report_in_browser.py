"""The report in a real browser: no violations of axe's rules, and nothing lost on a narrow screen."""

from pathlib import Path
from typing import Any

import pytest

from evofool.bench.report.bench_report import FIRST, bench_report
from tests.bench.samples import results, summary, tiles
from tests.browser import assert_sound, screen

pytestmark = pytest.mark.slow

ARMS = ["cppn", "per-class", "apgd", "noise"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of five targets, one of them invalid."""
    found = results(5, ARMS, 40)
    root = tmp_path_factory.mktemp("report")
    for path, content in bench_report(found, summary(found), tiles(found)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_violation_and_no_part_is_lost_at_the_side(folder: Path, browser: Any, width: int, scheme: str) -> None:
    context = screen(browser, width, scheme)
    for path in (FIRST, "report/lenet.html"):
        page = context.new_page()
        page.goto((folder / path).as_uri())
        if path == FIRST:
            # What is folded makes the page no longer.
            assert page.evaluate("document.documentElement.scrollHeight") < 12_000
        assert_sound(page)
    context.close()


def test_the_pages_show_their_pictures_under_their_own_policy_and_log_nothing(folder: Path, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto((folder / FIRST).as_uri())
    page.get_by_role("link", name="lenet", exact=True).first.click()
    page.get_by_text("Images of cppn, per-class, apgd and noise").click()
    pictures = page.locator("details[open] img")
    assert pictures.count() == len(ARMS)
    for k in range(len(ARMS)):
        pictures.nth(k).scroll_into_view_if_needed()
        page.wait_for_function(
            "picture => picture.complete && picture.naturalWidth > 0", arg=pictures.nth(k).element_handle()
        )
    page.get_by_role("link", name="All 5 targets").click()
    page.get_by_role("heading", name="How easily 5 classifiers are fooled").wait_for()
    assert said == []
    context.close()
