"""A page of tables that can be sorted and filtered, in a real browser, with and without JavaScript."""

import re
from pathlib import Path
from typing import Any

import pytest

from evofool.pages.sortable_page import SortableCell, SortableTable, sortable_page

HEADS = ("name", "place", "share")
ROWS = [
    [SortableCell("a", "first", "a"), SortableCell("1-3", key=1.0), SortableCell("0.05", key=0.05)],
    [SortableCell("b", "", "b"), SortableCell("1-3", key=1.000001), SortableCell("0.50", key=0.5)],
    [SortableCell("c <i>", "", "c"), SortableCell("10", key=10.0), SortableCell()],
    [SortableCell("d", "first", "d"), SortableCell("2-3", key=2.0), SortableCell("<0.01", key=1e-7)],
]
PAGE = sortable_page(
    "A title",
    "A sentence.",
    [SortableTable("One", HEADS, ROWS, ["Text."], 0), SortableTable("Two", HEADS[:1], [ROWS[0][:1]])],
)


def test_every_cell_stands_in_the_page_and_texts_are_escaped() -> None:
    assert '<th scope="row" data-key="c">c &lt;i&gt;</th>' in PAGE
    assert PAGE.count("<tr>") == 7
    assert 'data-key="1e-07"' in PAGE, "numbers are exact"
    assert '<th scope="col" aria-sort="ascending">name</th>' in PAGE
    assert 'id="controls" hidden' in PAGE, "without JavaScript there is no field that does nothing"
    assert "http" not in PAGE.replace("http-equiv", "")


def test_only_its_own_script_may_run() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', PAGE)
    assert re.fullmatch(r"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)


def opened(browser: Any, tmp_path: Path, **options: Any) -> Any:
    file = tmp_path / "page.html"
    file.write_text(PAGE, encoding="utf-8")
    page = browser.new_context(**options).new_page()
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(file.as_uri())
    return page


def names(page: Any) -> list[str]:
    return [text[0] for text in page.locator("table >> nth=0").locator("tbody tr:visible th").all_inner_texts()]


def test_without_javascript_the_tables_are_complete(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, java_script_enabled=False)
    assert names(page) == ["a", "b", "c", "d"]
    assert not page.locator("#controls").is_visible()
    assert page.locator("button").count() == 0


def test_heads_sort_and_words_filter_by_keyboard(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, tmp_path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("FIRST")
    assert names(page) == ["a", "d"]
    assert page.locator("#shown").inner_text() == "3 of 5 rows"
    page.keyboard.type(" <0")
    assert names(page) == ["d"]
    page.locator("#filter").fill("")
    assert names(page) == ["a", "b", "c", "d"]
    page.locator("#filter").focus()
    for _ in range(4):  # the table's box, then the heads
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "share"
    page.keyboard.press("Enter")
    assert names(page) == ["d", "a", "b", "c"], "by numbers; what is unknown comes last"
    head = page.locator("th", has=page.locator("button", has_text="share"))
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.locator("[aria-sort]").count() == 1
    page.keyboard.press("Space")
    assert names(page) == ["b", "a", "d", "c"]
    assert head.get_attribute("aria-sort") == "descending"
    page.locator("button", has_text="place").click()
    assert names(page) == ["a", "b", "d", "c"]
    assert page.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_width_and_has_no_accessibility_fault(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(browser, tmp_path, viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
