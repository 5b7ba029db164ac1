"""Where there is no browser, its tests are skipped, unless one was installed for them."""

import pytest

from tests.browser import REQUIRED, playwright_and_chromium


def test_a_browser_that_is_required_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("playwright.sync_api")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        playwright_and_chromium()
    monkeypatch.setenv(REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        playwright_and_chromium()
