"""Terminal views: readable at 80 columns without colour, and safe whatever the page says."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from filters.inspect.samples import ShownDocument
from filters.inspect.terminal import decided, extremes_view, histogram_view, ledger_view, solution_view, what_if_view
from filters.inspect.thresholds import what_if
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
    ledger = {"total": account, "sources": {f"file-{n}.jsonl": account for n in range(12)}}
    text = shown(ledger_view({"ledger": ledger, "model": {}}))
    assert "... 4 more input files" in text
    assert "removed: low_score" in text
    assert "quarantined: bad_json" in text


@pytest.mark.parametrize(
    "text", ["\x1b[31mred\x1b[0m", "a\x00b", "\u202egnirts", "[bold]no[/bold]", "x" * 10**6, "a\r\nb", "\ud800"]
)
def test_page_text_cannot_drive_the_terminal(text: str) -> None:
    out = shown(extremes_view("best", [ShownDocument("id", text, 1.0, None, None, None, None, text, False)]))
    assert not set(out) & set("\x1b\x00\r\u202e\ud800")
    assert len(out.splitlines()) <= 5
    assert len(printable(text, 60)) <= 60


def test_markup_in_a_page_is_shown_as_it_is() -> None:
    assert "[bold]no[/bold]" in shown(
        extremes_view("best", [ShownDocument("id", "x", 1.0, None, None, None, None, "[bold]no[/bold]", False)])
    )


def test_a_solution_counts_in_words_that_agree() -> None:
    none, some = Weights.of([0, 0, 0]), Weights.of([9, 90, 900])
    target = Target.parse("fraction=0.1")
    one = shown(solution_view(Solution(target, 1.5, some, some, Weights.of([1, 10, 100]), None)))
    assert "1 has precisely that score, and is kept" in one
    two = shown(solution_view(Solution(target, 1.5, some, some, Weights.of([2, 10, 100]), None)))
    assert "2 have precisely that score, and are kept" in two
    assert "precisely" not in shown(solution_view(Solution(target, 1.5, some, some, none, None)))
    assert shown(solution_view(Solution(target, 0.0, none, none, none, None))).strip() == (
        "keep fraction=0.1: no document of this run has a score"
    )


SOLUTION: dict[str, Any] = {
    "target": {"tokens": 1000.0},
    "threshold": 1.5,
    "kept": {"documents": 10, "tokens": 990, "bytes": 4000},
    "tie": {"score": 1.25, "documents": 2, "tokens": 20, "bytes": 90},
}
MANIFEST: dict[str, Any] = {
    "keep": {"min_score": 1.5, "solution": SOLUTION},
    "ledger": {"total": {"kept": 10}},
    "documents_written": 10,
    "tokens_written": 990,
    "dedup": {"pairs": {}, "clusters": 0},
}


def test_a_streaming_run_decided_nothing() -> None:
    assert list(decided({"keep": {"min_score": 1.5}})) == []


def test_a_given_threshold_needs_no_words() -> None:
    given = SOLUTION | {"target": {"min_score": 1.5}, "tie": None}
    assert list(decided(MANIFEST | {"keep": {"min_score": 1.5, "solution": given}})) == []


def test_a_budget_its_tie_and_its_quotas() -> None:
    assert list(decided(MANIFEST)) == [
        "a budget of 1,000 tokens gives the threshold 1.5: 10 documents, 990 tokens",
        "next below are 2 document(s) of score 1.25 with 20 tokens, which would have been too much",
    ]
    quotas = {"da": {"threshold": 2.5, "documents": 3, "tokens": 70, "bytes": 1}}
    share = SOLUTION | {"target": {"fraction": 0.25}, "tie": None, "quotas": quotas}
    assert list(decided(MANIFEST | {"keep": {"solution": share}})) == [
        "a share of 0.25 gives the threshold 1.5: 10 documents, 990 tokens",
        "quota of da: 3 documents, 70 tokens from score 2.5",
    ]


def test_buckets_repeats_and_near_copies() -> None:
    keep = {"solution": SOLUTION | {"target": {"min_score": 0.0}}, "buckets": {"kept": ["good", "best"]}}
    near = {"compared": 50, "alike": 7, "crowded_buckets": 0, "documents_in_crowded_buckets": 0}
    found = MANIFEST | {"keep": keep, "documents_written": 25, "dedup": {"near": near}}
    assert list(decided(found)) == [
        "kept are the buckets good, best",
        "with repeats, 25 documents and 990 tokens",
        "near copies: 7 of 50 pairs that share a band are alike",
    ]


def test_what_was_not_compared_and_what_sources_lose_is_said() -> None:
    near = {"compared": 50, "alike": 7, "crowded_buckets": 2, "documents_in_crowded_buckets": 1500}
    loss = {"source": "host a.org", "lost": 99, "documents": 100, "size": 70, "kept": "k", "one": "a", "other": "b"}
    keep = {"solution": SOLUTION | {"target": {"min_score": 0.0}}}
    assert list(decided(MANIFEST | {"keep": keep, "dedup": {"near": near, "source_losses": [loss]}}))[1:] == [
        "1,500 documents are in 2 crowded buckets, where each was compared with the best only, not with all",
        "host a.org loses 99 of 100 documents as near copies; the largest cluster has 70, of which document k stays",
    ]
