"""Screenshots of a run's page, light, dark and narrow, and of an evaluation: the pictures in this folder.

    make demo test-browser
    .venv/bin/finesieve inspect runs/demo --html runs/demo.html
    .venv/bin/finesieve evaluate --config configs/train-edu-en.yaml --set annotations=my-labels.parquet \\
        --html runs/report.html
    PYTHONPATH=.venv-browser .venv/bin/python docs/screenshots.py runs/demo.html runs/report.html

They show the run of `make demo`, whose texts are the documentation of installed packages, and the part of a report that
shows no page's text. Either file may be left out with "-".
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
SHOTS = (
    ("inspect-light", "light", 1280, 1000, ""),
    ("inspect-dark", "dark", 1280, 1000, "duplicates"),
    ("inspect-slices", "light", 1280, 1000, "slices"),
    ("inspect-narrow", "light", 390, 844, ""),
)
"""Name, colours, width, height, section."""


def main(page: Path | None, report: Path | None) -> None:
    """Take all of them."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if report is not None:
            shown = browser.new_page(color_scheme="light", viewport={"width": 1280, "height": 1000})
            shown.goto(report.resolve().as_uri())
            figures = shown.get_by_role("heading", name="Curves").locator("..")
            figures.screenshot(path=HERE / "evaluate.png")
        for name, colours, width, height, section in SHOTS if page is not None else ():
            context = browser.new_context(color_scheme=colours, reduced_motion="reduce")
            shown = context.new_page()
            shown.set_viewport_size({"width": width, "height": height})
            shown.goto(page.resolve().as_uri() + (f"#{section}" if section else ""))
            shown.locator("html[data-ready]").wait_for()
            shown.wait_for_timeout(300)
            shown.screenshot(path=HERE / f"{name}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    main(*(None if given == "-" else Path(given) for given in sys.argv[1:3]))
