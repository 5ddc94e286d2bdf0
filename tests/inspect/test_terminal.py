"""Terminal views: readable at 80 columns without colour, and safe whatever the page says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console, RenderableType

from filters.inspect.terminal import extremes_view, histogram_view, ledger_view, solution_view, what_if_view
from filters.inspect.whatif import what_if
from filters.scores.finished_run import Extreme
from filters.scores.histogram import Histogram
from filters.scores.threshold import Solution, Target, Weights
from filters.terminal import printable


def shown(view: RenderableType) -> str:
    file = io.StringIO()
    Console(file=file, width=80, highlight=False, markup=False).print(view)
    return file.getvalue()


@pytest.fixture
def histogram() -> Histogram:
    histogram = Histogram()
    scores = np.random.default_rng(3).gamma(2, 0.5, 5000).astype(np.float32)
    histogram.add(scores, tokens=np.full(5000, 100, np.int32), text_bytes=np.full(5000, 420, np.int64))
    return histogram


def test_the_histogram_marks_the_threshold_once(histogram: Histogram) -> None:
    text = shown(histogram_view(histogram, 1.5))
    assert text.count("keep >= 1.5") == 1
    assert "5,000 documents" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_histogram_needs_no_unicode(histogram: Histogram) -> None:
    assert shown(histogram_view(histogram, 1.5, unicode=False)).isascii()


def test_an_empty_histogram_is_shown() -> None:
    assert "0 documents" in shown(histogram_view(Histogram(), 1.5))
    assert "0.0%" in shown(what_if_view(what_if(Histogram(), [1.5]), 1.5))


def test_the_what_if_table_counts_what_lies_at_or_above(histogram: Histogram) -> None:
    row = next(
        line
        for line in shown(what_if_view(what_if(histogram, [1.0, 1.5]), 1.5)).splitlines()
        if line.strip().startswith("1.5")
    )
    assert f"{histogram.at_least(1.5):,}" in row


def test_the_ledger_names_files_reasons_and_causes() -> None:
    account = {"records": 9, "kept": 4, "removed": {"low_score": 3}, "quarantined": {"bad_json": 2}}
    account |= {"skipped": 1, "renamed": 0}
    text = shown(ledger_view({"total": account, "sources": {f"file-{n}.jsonl": account for n in range(12)}}))
    assert "... 4 more input files" in text
    assert "removed: low_score" in text
    assert "quarantined: bad_json" in text


@pytest.mark.parametrize(
    "text", ["\x1b[31mred\x1b[0m", "a\x00b", "\u202egnirts", "[bold]no[/bold]", "x" * 10**6, "a\r\nb", "\ud800"]
)
def test_page_text_cannot_drive_the_terminal(text: str) -> None:
    out = shown(extremes_view("best", [Extreme("id", 1.0, text, text)]))
    assert not set(out) & set("\x1b\x00\r\u202e\ud800")
    assert len(out.splitlines()) <= 5
    assert len(printable(text, 60)) <= 60


def test_markup_in_a_page_is_shown_as_it_is() -> None:
    assert "[bold]no[/bold]" in shown(extremes_view("best", [Extreme("id", 1.0, "x", "[bold]no[/bold]")]))


def test_a_solution_counts_in_words_that_agree() -> None:
    none, some = Weights.of([0, 0, 0]), Weights.of([9, 90, 900])
    target = Target.parse("fraction=0.1")
    one = shown(solution_view(Solution(target, 1.5, some, some, Weights.of([1, 10, 100]), None, True)))
    assert "1 has precisely that score, and is kept" in one
    two = shown(solution_view(Solution(target, 1.5, some, some, Weights.of([2, 10, 100]), None, True)))
    assert "2 have precisely that score, and are kept" in two
    assert "precisely" not in shown(solution_view(Solution(target, 1.5, some, some, none, None, True)))
    assert shown(solution_view(Solution(target, 0.0, none, none, none, None, True))).strip() == (
        "keep fraction=0.1: no document of this run has a score"
    )
