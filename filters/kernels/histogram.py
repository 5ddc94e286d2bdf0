"""Counting scores: into bins by slice, and into sums by group."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, inline="always")
def bin_of(score, edges):  # type: ignore[no-untyped-def]
    """The bin of `edges` (float32[bins + 1], about equally spaced) that holds `score`; the end bins are open."""
    bins = len(edges) - 1
    guess = (score - edges[0]) / (edges[bins] - edges[0]) * bins
    place = np.int64(min(max(guess, 0.0), bins - 1.0))
    # Float arithmetic may be a bin off at a border; the border itself decides.
    while place < bins - 1 and score >= edges[place + 1]:
        place += 1
    while place > 0 and score < edges[place]:
        place -= 1
    return place


@numba.njit(nogil=True, cache=True)
def count_scores(slices, scores, tokens, text_bytes, edges, per_unit, counts, ties, sums, ends):  # type: ignore[no-untyped-def]
    """Add n documents to the histograms of their slices; those with a negative slice are passed over.

    Args:
        slices: int64[n].
        scores: float32[n], none NaN where the slice counts.
        tokens: int64[n].
        text_bytes: int64[n].
        edges: float32[bins + 1].
        per_unit: how many units of `sums` a score of 1 is.
        counts: int64[s, 3, bins], added to: documents, tokens, bytes.
        ties: int64[s, 3, bins + 1], added to: what lies precisely on an edge.
        sums: int64[s, bins], added to: rounded scores in units.
        ends: float64[s, 2], lowest and highest score.
    """
    bins = len(edges) - 1
    for row in range(len(slices)):
        s = slices[row]
        if s < 0:
            continue
        score = scores[row]
        place = bin_of(score, edges)
        counts[s, 0, place] += 1
        counts[s, 1, place] += tokens[row]
        counts[s, 2, place] += text_bytes[row]
        sums[s, place] += np.int64(np.rint(np.float64(score) * per_unit))
        if score == edges[place] or score == edges[bins]:
            border = place if score == edges[place] else bins
            ties[s, 0, border] += 1
            ties[s, 1, border] += tokens[row]
            ties[s, 2, border] += text_bytes[row]
        if score < ends[s, 0]:
            ends[s, 0] = score
        if score > ends[s, 1]:
            ends[s, 1] = score


@numba.njit(nogil=True, cache=True)
def count_groups(groups, survives, keep, scores, tokens, per_unit, sums):  # type: ignore[no-untyped-def]
    """Add n documents to the sums of their groups; those with a negative group are passed over.

    Args:
        groups: int64[n].
        survives: bool[n], documents with a score that may be kept.
        keep: bool[n].
        scores: float32[n].
        tokens: int64[n].
        per_unit: how many units a score of 1 is.
        sums: int64[g, 6], added to: documents, survivors, kept, tokens of survivors, of kept, scores of survivors.
    """
    for row in range(len(groups)):
        g = groups[row]
        if g < 0:
            continue
        sums[g, 0] += 1
        if survives[row]:
            sums[g, 1] += 1
            sums[g, 3] += tokens[row]
            sums[g, 5] += np.int64(np.rint(np.float64(scores[row]) * per_unit))
        if keep[row]:
            sums[g, 2] += 1
            sums[g, 4] += tokens[row]
