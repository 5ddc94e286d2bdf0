"""The documentation in a real browser (`make docs test-browser`), opened as files: it asks nothing of the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; make test-browser does it")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SITE = Path(__file__).resolve().parents[1] / "site"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = ("index", "filter", "reference/filter", "results/quality", "results/speed", "architecture", "contributing")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built; make docs does it")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (390, "dark")])
def test_a_page_fits_its_window_and_loads_nothing_from_elsewhere(
    browser: Browser, name: str, width: int, colours: str
) -> None:
    page = browser.new_context(color_scheme=colours, viewport={"width": width, "height": 900}).new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((SITE / f"{name}.html").as_uri())
    page.wait_for_load_state("networkidle")
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) <= 0
    scheme = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
    assert scheme == {"light": "default", "dark": "slate"}[colours]


def test_the_search_finds_a_key(browser: Browser) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto((SITE / "index.html").as_uri())
    page.keyboard.press("s")
    page.locator("input.md-search__input").press_sequentially("max_source_loss")
    page.locator(".md-search-result__meta", has_text="matching document").wait_for()
    assert page.locator(".md-search-result__item").count() >= 2
