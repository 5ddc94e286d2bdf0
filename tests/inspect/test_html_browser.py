"""The page of a run in a real browser (`make test-browser`). Every test ends without errors, and without a request."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from filters import FilterConfig, run_filter
from filters.inspect.html import write_page
from filters.scores.finished_run import Run
from filters.scores.threshold import Target
from tests.inspect.runs import hostile_pages, make_run, pages
from tests.inspect.synthetic import add_score

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; make test-browser does it")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WEIGHTS = ("documents", "tokens", "bytes")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("real")
    source = str(shared_data / "web" / "unlabelled.parquet")
    columns = {"id_key": "id", "columns": ["url"], "slices": ["topic", "format"]}
    config = {
        "input": {"kind": "parquet", "paths": [source], **columns},
        "language": {},
        "keep": {"min_score": 0.75},
        "output": {"path": str(folder / "run"), "rejected": True},
    }
    run_filter(FilterConfig.model_validate(config))
    run = Run(folder / "run")
    write_page(run, folder / "page.html")
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("made")
    run = make_run(folder, pages(120))
    write_page(run, folder / "page.html")
    return run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("hostile")
    run = make_run(folder, hostile_pages(), min_score=0.0)
    write_page(run, folder / "page.html")
    return run


@pytest.fixture
def opened(browser: Browser) -> Iterator[Any]:
    """Opens the page of a run; afterwards nothing may have gone wrong or left the page."""
    complaints: list[str] = []
    requests: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.on("request", lambda request: requests.append(request.url))

    def open_page(run: Run, **viewport: int) -> Page:
        shown = context.new_page()
        if viewport:
            shown.set_viewport_size({"width": 1280, "height": 900} | viewport)
        shown.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: complaints.append(dialog.message))
        shown.goto((run.path.parent / "page.html").as_uri())
        shown.locator("html[data-ready]").wait_for()
        return shown

    open_page.complaints, open_page.requests = complaints, requests  # type: ignore[attr-defined]
    yield open_page
    assert complaints == []
    assert requests
    assert all(url.startswith("file:///") and url.split("#")[0].endswith("/page.html") for url in requests), requests
    context.close()


def settle(shown: Page) -> None:
    """Two frames, so that what was changed is drawn; and the pause after which lists follow the threshold."""
    shown.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shown.wait_for_timeout(220)


def kept(shown: Page) -> dict[str, int]:
    return {name: int(shown.locator(f"#kept-{name}").get_attribute("data-value") or -1) for name in WEIGHTS}


def threshold(shown: Page) -> float:
    return float(shown.locator("#threshold").input_value())


def solved(run: Run, min_score: float) -> dict[str, int]:
    return vars(run.solve(Target("min_score", min_score)).kept)


def drag(shown: Page, to: float) -> None:
    """Drag the grip to a share of the histogram's width, in steps as a hand does."""
    grip, surface = shown.locator("#handle .grip").bounding_box(), shown.locator(".surface").first.bounding_box()
    assert grip is not None
    assert surface is not None
    height = grip["y"] + grip["height"] / 2
    shown.mouse.move(grip["x"] + grip["width"] / 2, height)
    shown.mouse.down()
    shown.mouse.move(surface["x"] + to * surface["width"], height, steps=12)
    shown.mouse.up()
    settle(shown)


def test_both_thresholds_are_set_where_two_scores_are_clicked(opened: Any, tmp_path: Path) -> None:
    run = Run(add_score(Path(str(make_run(tmp_path, pages(120)).path)), "hq"))
    write_page(run, tmp_path / "page.html")
    shown = opened(run)
    surface = shown.locator("#pairs .surface").first
    box = surface.bounding_box()
    assert box is not None
    surface.click(position={"x": box["width"] * 0.3, "y": box["height"] * 0.7})
    settle(shown)
    rows = run.attributes(["score", "hq", "reason"]).to_pylist()
    rows = [row for row in rows if row["reason"] in (None, "low_score") and row["score"] is not None]
    both = re.match(
        r"([\d,.\s]+) documents? \(.*?score ≥ ([\d.]+) and hq ≥ ([\d.]+);", shown.locator("#pair-answer").inner_text()
    )
    assert both is not None
    count, score, hq = int(re.sub(r"\D", "", both[1])), float(both[2]), float(both[3])
    assert abs(threshold(shown) - score) <= 0.05
    assert float(shown.locator("#other-threshold").input_value()) == hq
    above = sum(row["score"] >= np.float32(score) and row["hq"] >= np.float32(hq) for row in rows)
    assert abs(count - above) <= 1
    shown.locator("#other-threshold").fill("0")
    shown.locator("#other-threshold").press("Enter")
    assert "hq ≥ 0.00" in shown.locator("#pair-answer").inner_text()


def test_the_page_opens_with_what_the_run_kept(real: Run, opened: Any) -> None:
    shown = opened(real)
    assert threshold(shown) == 0.75
    assert kept(shown) == solved(real, 0.75)
    assert kept(shown)["documents"] == real.ledger["total"]["kept"]
    names = ["scores", "solver", "slices", "documents", "duplicates", "ledger", "trust", "lineage"]
    assert [part.get_attribute("id") for part in shown.locator("main > section").all()] == names


@pytest.mark.parametrize("to", [0.15, 0.5, 0.9])
def test_dragging_shows_the_solvers_numbers(real: Run, opened: Any, to: float) -> None:
    shown = opened(real)
    drag(shown, to)
    assert threshold(shown) != 0.75
    assert kept(shown) == solved(real, threshold(shown))
    now = shown.locator("tr.now td")
    assert now.nth(1).inner_text() == f"{kept(shown)['documents']:,}"
    assert f"{kept(shown)['documents']:,}" in (shown.locator("#handle").get_attribute("aria-valuetext") or "")


def test_a_click_and_a_typed_number_set_the_threshold(real: Run, opened: Any) -> None:
    shown = opened(real)
    shown.locator(".surface").nth(1).click(position={"x": 300, "y": 50})
    settle(shown)
    clicked = threshold(shown)
    assert clicked != 0.75
    assert kept(shown) == solved(real, clicked)
    shown.locator("#threshold").fill("1.23")
    shown.locator("#threshold").press("Enter")
    settle(shown)
    assert kept(shown) == solved(real, 1.23)
    shown.get_by_role("button", name="Reset").click()
    settle(shown)
    assert threshold(shown) == 0.75


def test_a_threshold_between_two_borders_is_kept_to_the_last_document(tmp_path: Path, opened: Any) -> None:
    run = make_run(tmp_path, pages(60), min_score=0.3333)
    write_page(run, tmp_path / "page.html")
    shown = opened(run)
    assert threshold(shown) == 0.3333
    assert kept(shown) == solved(run, 0.3333)
    shown.locator("#handle").press("ArrowRight")
    settle(shown)
    assert kept(shown) == solved(run, threshold(shown))
    assert threshold(shown) == 0.34
    shown.locator("#threshold").fill("0.3333")
    shown.locator("#threshold").press("Enter")
    settle(shown)
    assert kept(shown) == solved(run, 0.3333)


def test_the_keyboard_is_enough(real: Run, opened: Any) -> None:
    shown = opened(real)
    # Tab from the top of the page until the handle has the focus.
    for _ in range(40):
        shown.keyboard.press("Tab")
        if shown.evaluate("document.activeElement.id") == "handle":
            break
    handle = shown.get_by_role("slider", name="Threshold")
    assert handle.evaluate("node => node.matches(':focus-visible')")
    ring = handle.evaluate("node => getComputedStyle(node.querySelector('.grip')).strokeWidth")
    assert ring == "3px"
    expected = 0.75
    for key, step in (("ArrowRight", 0.01), ("ArrowLeft", -0.01), ("PageUp", 0.1), ("Shift+ArrowUp", 0.05)):
        shown.keyboard.press(key)
        settle(shown)
        expected = round(expected + step, 2)
        assert threshold(shown) == expected
        assert float(handle.get_attribute("aria-valuenow") or -1) == pytest.approx(expected)
        assert kept(shown) == solved(real, expected)
    shown.keyboard.press("Home")
    settle(shown)
    assert kept(shown)["documents"] == sum(real.histogram().counts[0])
    shown.keyboard.press("End")
    settle(shown)
    assert kept(shown)["documents"] == 0
    playwright.expect(shown.locator("#announce")).to_contain_text("keeps 0 documents")


def test_every_control_has_a_name(real: Run, opened: Any) -> None:
    shown = opened(real)
    nameless = """() => [...document.querySelectorAll('button, input, select, [role=slider], [role=region], section')]
      .filter(node => !(node.labels && node.labels.length) && !node.getAttribute('aria-label')
        && !node.getAttribute('aria-labelledby') && !node.textContent.trim())
      .map(node => node.outerHTML.slice(0, 80))"""
    assert shown.evaluate(nameless) == []
    ids = shown.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids))


def test_the_solver_of_the_page_agrees_with_the_real_one(real: Run, opened: Any) -> None:
    shown = opened(real)
    for rule, text, target in (
        ("fraction", "10", Target("fraction", 0.1)),
        ("fraction", "2.5", Target("fraction", 0.025)),
        ("tokens", "500k", Target("tokens", 500_000)),
        ("tokens", "1.2M", Target("tokens", 1_200_000)),
        ("min_score", "1.5", Target("min_score", 1.5)),
    ):
        shown.locator("#rule").select_option(rule)
        shown.locator("#budget").fill(text)
        shown.locator("#use").click()
        settle(shown)
        exact = real.solve(target)
        assert 0 <= threshold(shown) - exact.threshold < 0.01 + 1e-9
        assert kept(shown) == solved(real, threshold(shown))
        if rule != "min_score":
            assert kept(shown)[target.weight] <= target.budget(getattr(exact.total, target.weight))
    shown.locator("#budget").fill("many")
    assert shown.locator("#use").is_disabled()


def test_slices_show_what_they_keep(real: Run, opened: Any) -> None:
    shown = opened(real)
    drag(shown, 0.2)
    for by in ("topic", "format", "host"):
        shown.locator("#slices label", has_text=by).first.click()
        sliced = real.histogram(by, largest=24)
        cards = shown.locator(".multiple")
        assert cards.count() == min(24, len(sliced))
        name = cards.first.locator("b").inner_text()
        histogram = sliced[name]
        share = 100 * histogram.at_least(threshold(shown)) / histogram.total()
        assert cards.first.locator(".number").inner_text() == f"{share:.1f} % kept"


def test_search_finds_marks_and_counts(real: Run, opened: Any) -> None:
    shown = opened(real)
    word = "water"
    shown.locator("#search").fill(word)
    settle(shown)
    data = shown.evaluate("JSON.parse(document.getElementById('data').textContent).samples.items")
    found = [
        item
        for item in data
        if word
        in f"{item['text'] or ''}\n{item['origin']}\n{item['reason'] or 'kept'}\n{item['language'] or ''}".lower()
    ]
    status = shown.locator("#documents p[role=status]").inner_text()
    assert found
    assert status.startswith(f"{len(found)} document")
    marks = shown.locator("#results mark").all_inner_texts()
    assert {mark.lower() for mark in marks} == {word}
    shown.locator("#search").fill("qqqq zzzz")
    settle(shown)
    assert shown.locator("#results article").count() == 0
    shown.locator("#search").fill("")
    shown.locator("#bucket").select_option(index=1)
    settle(shown)
    assert shown.locator("#results article").count() > 0


def test_samples_around_the_threshold_follow_it(real: Run, opened: Any) -> None:
    shown = opened(real)
    drag(shown, 0.4)
    at = threshold(shown)
    below, above = (
        [float(text) for text in shown.locator(f"#results > div:nth-child({side}) header b").all_inner_texts()]
        for side in (1, 2)
    )
    assert below
    assert above
    assert max(below) < at <= min(above) + 0.0005


def test_copies_stand_side_by_side_with_differences_marked(made: Run, opened: Any) -> None:
    shown = opened(made)
    near = shown.locator("#duplicates .list button", has_text="2 documents, with near copies").first
    near.click()
    assert near.get_attribute("aria-pressed") == "true"
    assert shown.locator("#duplicates ins").first.inner_text().split() == ["last", "words", "that", "differ"]
    assert shown.locator("#duplicates del").count() == 0
    shown.locator("#search").fill("host")
    badge = shown.locator("#documents button.badge", has_text="cluster of").first
    badge.click()
    assert shown.locator("#duplicates [aria-pressed=true]").count() == 1


def test_themes(made: Run, opened: Any) -> None:
    shown = opened(made)

    def lightness() -> int:
        color: str = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        return int(color.split("(")[1].split(",")[0])

    shown.emulate_media(color_scheme="light")
    assert lightness() > 200
    shown.emulate_media(color_scheme="dark")
    assert lightness() < 60
    shown.locator("#theme").click()
    assert shown.locator("#theme").inner_text() == "Light"
    assert lightness() > 200
    shown.emulate_media(color_scheme="light")
    shown.locator("#theme").click()
    assert lightness() < 60
    shown.emulate_media(media="print")
    assert lightness() > 200


def test_weights_and_scales_redraw(made: Run, opened: Any) -> None:
    shown = opened(made)
    axis = shown.locator("#scores .axis").first
    seen = {axis.text_content()}
    for choice in ("tokens", "text", "log", "documents"):
        shown.locator(".bar label", has_text=choice).first.click()
        settle(shown)
        seen.add(axis.text_content())
    assert len(seen) == 5


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_window_does_not_scroll_sideways(real: Run, hostile: Run, opened: Any, width: int) -> None:
    for run in (real, hostile):
        shown = opened(run, width=width)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_names_on_curves_do_not_cover_each_other(real: Run, opened: Any, width: int) -> None:
    names = opened(real, width=width).locator("text.name").all()
    boxes = sorted((box["x"], box["x"] + box["width"]) for box in (name.bounding_box() for name in names))
    assert len(boxes) == 5
    halo = 4  # the width of the stroke around each, which boxes have in them
    assert [end - halo <= start for (_, end), (start, _) in itertools.pairwise(boxes)] == [True] * 4, boxes


def test_a_threshold_of_few_digits_is_shown_as_it_was_written(tmp_path: Path, opened: Any) -> None:
    run = make_run(tmp_path, pages(60), min_score=0.3)
    write_page(run, tmp_path / "page.html")
    shown = opened(run)
    assert shown.locator("#threshold").input_value() == "0.30"
    assert kept(shown) == solved(run, 0.3)


def test_printing_gives_pages_without_controls(made: Run, opened: Any) -> None:
    shown = opened(made)
    assert len(shown.pdf()) > 10_000
    shown.emulate_media(media="print")
    assert not shown.locator("nav").is_visible()
    assert not shown.locator("#search").is_visible()
    assert shown.locator("#scores svg").first.is_visible()


def test_hostile_pages_do_nothing(hostile: Run, opened: Any) -> None:
    shown = opened(hostile)
    for number in range(shown.locator("#bucket option").count()):
        shown.locator("#bucket").select_option(index=number)
        settle(shown)
    shown.locator("#bucket").select_option(index=0)
    shown.locator("#search").fill("<script>")
    settle(shown)
    assert "<script>window.attacked = 1</script>" in shown.locator("#results").inner_text()
    more = shown.locator("#results button", has_text="more")
    while more.count():
        more.first.click()
    for button in shown.locator("#duplicates .list button").all():
        button.click()
    assert shown.evaluate("window.attacked") is None
    assert shown.evaluate("document.scripts.length") == 3
    assert (
        shown.evaluate("document.querySelectorAll('img, b[onmouseover], iframe, object, a:not([href^=\"#\"])').length")
        == 0
    )
    assert shown.locator("#main").is_visible()
    assert shown.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_policy_stops_a_script_that_got_in(made: Run, opened: Any) -> None:
    shown = opened(made)
    tries = """async () => {
      const outcomes = [];
      const attempt = async (name, what) => {
        try { await what(); outcomes.push(name); } catch (error) { /* as it should be */ }
      };
      await attempt('markup', () => { document.body.innerHTML += '<b>in</b>'; });
      await attempt('script', () => {
        const script = document.createElement('script');
        script.text = 'window.attacked = 1';
        document.body.append(script);
      });
      await attempt('fetch', () => fetch('https://finesieve.invalid/'));
      await attempt('image', () => new Promise((done, fail) => {
        const image = new Image();
        image.onload = done;
        image.onerror = fail;
        image.src = 'https://finesieve.invalid/x.png';
      }));
      return outcomes;
    }"""
    assert shown.evaluate(tries) == []
    assert shown.evaluate("window.attacked") is None
    complaints = opened.complaints
    assert complaints
    assert all("Content Security Policy" in text or "Trusted" in text for text in complaints), complaints
    complaints.clear()
    # Chromium announces a request for the image before its policy blocks it.
    assert set(opened.requests) <= {shown.url, "https://finesieve.invalid/x.png"}
    opened.requests[:] = [shown.url]
