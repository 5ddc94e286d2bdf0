"""A run's decisions in words: the threshold, what was written, and which near copies were not compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from filters.scores.rules import rule_line


def decided(manifest: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each decision; none for a run by 0.1 that solved nothing."""
    solution = manifest["keep"].get("solution")
    if solution is None:
        return
    if (ruled := manifest["keep"].get("rule")) is not None:
        yield rule_line(ruled, solution["total"]["documents"])
    by = ruled["by"] if ruled else None
    rule, value = next(iter(solution["target"].items()))
    if "kept" in manifest["keep"].get("buckets", {}):
        yield f"kept are the buckets {', '.join(manifest['keep']['buckets']['kept'])}"
    elif rule != "min_score":
        kept = solution["kept"]
        asked = f"a share of {value:g}" if rule == "fraction" else f"a budget of {value:,.0f} tokens"
        yield (
            f"{asked} gives the threshold {solution['threshold']:.6g}{f' of {by}' * bool(by)}: "
            f"{kept['documents']:,} documents, "
            f"{kept['tokens']:,} tokens"
        )
        if solution["tie"]:
            tie = solution["tie"]
            yield (
                f"next below are {tie['documents']:,} document(s) of score {tie['score']:.6g} with {tie['tokens']:,} "
                "tokens, which would have been too much"
            )
        for name, quota in solution.get("quotas", {}).items():
            yield (
                f"quota of {name}: {quota['documents']:,} documents, {quota['tokens']:,} tokens from score "
                f"{quota['threshold']:.6g}"
            )
    if manifest["documents_written"] != manifest["ledger"]["total"]["kept"]:
        yield f"with repeats, {manifest['documents_written']:,} documents and {manifest['tokens_written']:,} tokens"
    near = manifest["dedup"].get("near")
    if near:
        yield f"near copies: {near['alike']:,} of {near['compared']:,} pairs that share a band are alike"
        if near["crowded_buckets"]:
            yield (
                f"{near['documents_in_crowded_buckets']:,} documents are in {near['crowded_buckets']:,} crowded "
                "buckets, where each was compared with the best only, not with all"
            )
    for loss in manifest["dedup"].get("source_losses", ()):
        yield (
            f"{loss['source']} loses {loss['lost']:,} of {loss['documents']:,} documents as near copies; the largest "
            f"cluster has {loss['size']:,}, of which {loss['kept']} stays"
        )
