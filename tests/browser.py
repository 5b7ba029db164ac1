"""What is checked of any page of evofool in a real browser. The fixture `browser` (conftest) is one."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "EVOFOOL_BROWSER"
"""An environment variable: "required" where a browser was installed for the tests, so that none is skipped for its lack."""
_OPEN = "for (const part of document.querySelectorAll('details')) part.open = true"
_SIDEWAYS = """() => [...document.querySelectorAll('main *')].filter(part => {
    const box = part.getBoundingClientRect();
    return box.width > 0 && box.right > innerWidth + 1 && !part.closest('.wide') && !part.closest('nav');
}).map(part => part.outerHTML.slice(0, 80))"""


_LOADED = """() => [...document.images].every(image => image.complete || image.getBoundingClientRect().top > innerHeight)"""


def playwright_and_chromium() -> tuple[Any, str]:
    """playwright's module, and the path of Chromium. The test is skipped without them, or fails if REQUIRED says so."""
    missing = pytest.fail if os.environ.get(REQUIRED) == "required" else pytest.skip
    try:
        import playwright.sync_api as api
    except ImportError:
        missing("playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        missing("no Chromium is installed")
    return api, chromium


def screen(browser: Any, width: int, scheme: str) -> Any:
    """A context of this width, with the colours of this scheme. axe can run in it, which is a script that pages forbid."""
    return browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)


def save_screenshot(page: Any, name: str) -> None:
    """Write what the page shows as NAME.png into the folder of the environment variable EVOFOOL_SCREENSHOTS, if set."""
    if folder := os.environ.get("EVOFOOL_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for _ in range(100):  # a page's policy forbids wait_for_function
            if page.evaluate(_LOADED):
                break
            page.wait_for_timeout(50)
        page.screenshot(path=Path(folder) / f"{name}.png")


def assert_sound(page: Any) -> None:
    """All folded parts opened, nothing is lost at the side, and axe finds no violation of its rules."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.evaluate(_OPEN)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate(_SIDEWAYS) == []
    found = axe.run(page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found] == []
