"""`finesieve inspect --html` on a run of 20 million documents: seconds of one core, megabytes, and how the page feels.

    make test-browser        # once: installs playwright into .venv-browser
    PYTHONPATH=.venv-browser .venv/bin/python benchmarks/page.py FOLDER

FOLDER takes the synthetic run (about 2 GB; it is made once). The page is written by a process of its own that may use
one core; its processor time is what counts, as other work on the machine does not add to it. The browser's figures are
medians of several loads and drags in headless Chromium: when the page can be used after navigation began (histogram
drawn, threshold ready to be dragged), when its last section is there, and frames per second while the threshold is
dragged, from requestAnimationFrame's time stamps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus import machine
from synthetic_run import build

if TYPE_CHECKING:
    from playwright.sync_api import Page

RESULTS = Path(__file__).parent / "results" / "page.json"
LOADS = 7
COUNT_FRAMES = """() => {
  window.frames_ = [];
  const tick = (now) => { window.frames_.push(now); window.frame_ = requestAnimationFrame(tick); };
  window.frame_ = requestAnimationFrame(tick);
}"""


def write(run: Path, page: Path) -> dict[str, float]:
    """Write the page in a process of its own on one core."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        sys.executable,
        "-c",
        "from filters.cli.main import main; main()",
        "inspect",
        str(run),
        "--html",
        str(page),
    ]
    core = {min(os.sched_getaffinity(0))}
    subprocess.run(command, check=True, preexec_fn=lambda: os.sched_setaffinity(0, core), stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_seconds": time.perf_counter() - start,
        "peak_memory_mb": after.ru_maxrss / 1000,
        "megabytes": page.stat().st_size / 1e6,
    }


def look(page: Path) -> dict[str, Any]:
    """Load the page and drag its threshold, several times."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("no Chromium here; on Debian: apt-get install chromium")
    loads, rates, slowest = [], [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for _ in range(LOADS):
            shown = browser.new_page(viewport={"width": 1280, "height": 900})
            shown.goto(page.as_uri())
            shown.locator("html[data-ready]").wait_for()
            usable, done = (
                float(shown.locator("html").get_attribute(f"data-{k}") or "nan") for k in ("usable", "ready")
            )
            loads.append((max(usable, first_drawn(shown)), done))
            rate, worst = drag(shown)
            rates.append(rate)
            slowest.append(worst)
            shown.close()
        version = browser.version
        browser.close()
    return {
        "chromium": version,
        "interactive_ms": statistics.median(usable for usable, _ in loads),
        "interactive_ms_all": [round(usable) for usable, _ in loads],
        "every_section_ms": statistics.median(done for _, done in loads),
        "every_section_ms_all": [round(done) for _, done in loads],
        "frames_per_second": statistics.median(rates),
        "frames_per_second_all": [round(rate, 1) for rate in rates],
        "slowest_frame_ms": statistics.median(slowest),
    }


def first_drawn(shown: Page) -> float:
    """Milliseconds from the start of the navigation to the first contentful paint."""
    paints: list[float] = shown.evaluate(
        """() => new Promise(done => {
          const seen = () => performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime);
          const wait = () => (seen().length ? done(seen()) : setTimeout(wait, 5));
          wait();
        })"""
    )
    return paints[0]


def drag(shown: Page) -> tuple[float, float]:
    """(frames per second, longest frame in milliseconds) while the threshold goes to and fro."""
    box = shown.locator(".surface").first.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    shown.mouse.move(box["x"] + 0.3 * box["width"], y)
    shown.mouse.down()
    shown.evaluate(COUNT_FRAMES)
    for end in (0.9, 0.05, 0.6, 0.2):
        shown.mouse.move(box["x"] + end * box["width"], y, steps=40)
    stamps: list[float] = shown.evaluate("() => { cancelAnimationFrame(window.frame_); return window.frames_; }")
    shown.mouse.up()
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    return 1000 * len(gaps) / (stamps[-1] - stamps[0]), max(gaps)


def rounded(value: Any) -> Any:
    """Figures with two digits after the point."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 2) if isinstance(value, float) else value


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=20_000_000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    run = build(arguments.folder, arguments.documents)
    page = (arguments.folder / "page.html").resolve()
    write(run, page)  # compiles the kernels, warms the disk's cache
    writes = [write(run, page) for _ in range(3)]
    written = {key: statistics.median(one[key] for one in writes) for key in writes[0]}
    results = {"machine": machine(), "documents": arguments.documents, "write": written, "page": look(page)}
    text = json.dumps(rounded(results), indent=2)
    arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
