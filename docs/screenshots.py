"""Take the pictures of docs/: a run's page (light, dark, narrow), an evaluation, and the documentation itself.

    make demo docs test-browser
    .venv/bin/finesieve inspect runs/demo --html runs/demo.html
    .venv/bin/finesieve evaluate --config configs/train-edu-en.yaml --set annotations=my-labels.parquet \\
        --html runs/report.html
    PYTHONPATH=.venv-browser .venv/bin/python docs/screenshots.py runs/demo.html runs/report.html site

They show the run of `make demo`, whose texts are the documentation of installed packages, and the part of a report that
shows no page's text. "-" leaves out one of the three.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
COLOURS = 96
"""Colours of a picture of the documentation, which keep it small."""
RUN_SHOTS = (
    ("inspect-light", "light", 1280, 1000, ""),
    ("inspect-dark", "dark", 1280, 1000, "duplicates"),
    ("inspect-slices", "light", 1280, 1000, "slices"),
    ("inspect-narrow", "light", 390, 844, ""),
)
"""Pictures of a run's page: name, colour scheme, width, height, section."""
SITE_SHOTS = (
    ("docs-light", "light", 1280, 900, "index.html"),
    ("docs-reference-dark", "dark", 1280, 900, "reference/filter.html#dedup"),
    ("docs-narrow", "light", 390, 844, "dedup.html"),
)
"""Pictures of the documentation: name, colour scheme, width, height, page."""


def opened(browser: Browser, address: str, colours: str, width: int, height: int) -> Page:
    """A page in a window of this size (pixels) and colour scheme."""
    page = browser.new_context(color_scheme=colours, reduced_motion="reduce").new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.goto(address)
    return page


def main(run: Path | None, report: Path | None, site: Path | None) -> None:
    """Take all pictures."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if report is not None:
            page = opened(browser, report.resolve().as_uri(), "light", 1280, 1000)
            page.get_by_role("heading", name="Curves").locator("..").screenshot(path=HERE / "evaluate.png")
        for name, colours, width, height, section in RUN_SHOTS if run is not None else ():
            address = run.resolve().as_uri() + (f"#{section}" if section else "")
            page = opened(browser, address, colours, width, height)
            page.locator("html[data-ready]").wait_for()
            page.wait_for_timeout(300)
            page.screenshot(path=HERE / f"{name}.png")
        for name, colours, width, height, place in SITE_SHOTS if site is not None else ():
            page = opened(browser, f"{site.resolve().as_uri()}/{place}", colours, width, height)
            page.wait_for_timeout(600)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS)
            picture.save(HERE / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main(*(None if given == "-" else Path(given) for given in sys.argv[1:4]))
