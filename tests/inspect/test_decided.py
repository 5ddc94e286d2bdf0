"""Sentences about a global run say what its manifest says."""

from __future__ import annotations

from typing import Any

from filters.inspect.decided import decided

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
        "host a.org loses 99 of 100 documents as near copies; the largest cluster has 70, of which k stays",
    ]
