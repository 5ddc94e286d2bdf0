"""Sets of word shingles, and their true Jaccard similarity."""

from __future__ import annotations

import numba
import numpy as np

from filters.kernels.arrays import Int64, UInt32
from filters.kernels.pairs import find, flatten
from filters.kernels.words import WordHashes, finish

EVERY_PAIR = 64
"""Up to so many documents of a group are compared each with each; of a larger one, each with so many at most."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def shingle_sets(words: WordHashes, *, shingle: int) -> tuple[UInt32, Int64]:
    """The distinct shingles of each text, as the 32-bit hashes that MinHash signatures are made of.

    Two shingles of a page of 1,000 words share a hash with probability 1e-4, so similarities are exact but for that.

    Returns:
        uint32[m], ascending within each text, and int64[n + 1]: text i has `hashes[offsets[i]:offsets[i + 1]]`.
    """
    hashes = np.empty(len(words.hashes), np.uint32)
    offsets = np.zeros(len(words) + 1, np.int64)
    _sets(words.hashes, words.offsets, shingle, hashes, offsets)
    return hashes[: offsets[-1]].copy(), offsets


def verify_stars(hashes: UInt32, offsets: Int64, pairs: Int64, least: float) -> tuple[Int64, Int64, int]:
    """Which documents of candidate pairs belong together, by the Jaccard similarity of their sets.

    Candidates are (centre, other) pairs. The documents of one centre are a group of which any two may belong together:
    each is compared with each, but for those that are in one cluster by then. In a group of more than `EVERY_PAIR`
    documents each is compared with the first documents of the group's clusters so far, `EVERY_PAIR` of them at most.

    Args:
        hashes: as of `shingle_sets`.
        offsets: int64[n + 1].
        pairs: int64[m, 2] of places in 0 to n - 1, sorted, distinct, the centre first and smaller.
        least: similarity from which on two documents belong together.

    Returns:
        int64[k, 2]: pairs that make the clusters, each of which made two clusters one; int64[n]: the cluster of each
        document, as the place of its first; and how many pairs were compared.
    """
    found = np.empty((max(len(offsets) - 2, 0), 2), np.int64)
    parents = np.arange(len(offsets) - 1)
    kept, compared = _verify(hashes, offsets, np.ascontiguousarray(pairs), least, parents, found)
    flatten(parents)
    return found[:kept].copy(), parents, int(compared)


@numba.njit(nogil=True, cache=True)
def _sets(words, bounds, shingle, hashes, offsets):  # type: ignore[no-untyped-def]
    count = 0
    for document in range(len(bounds) - 1):
        start, end = bounds[document], bounds[document + 1]
        first = count
        if end > start:
            width = min(shingle, end - start)
            for position in range(start, end - width + 1):
                h = np.uint64(0)
                for k in range(position, position + width):
                    h = (h + words[k]) * _MULTIPLIER
                hashes[count] = np.uint32(finish(h))
                count += 1
            hashes[first:count].sort()
            distinct = first
            for place in range(first, count):
                if place == first or hashes[place] != hashes[place - 1]:
                    distinct += 1
                    hashes[distinct - 1] = hashes[place]
            count = distinct
        offsets[document + 1] = count


@numba.njit(nogil=True, cache=True)
def _alike(hashes, offsets, one, other, least):  # type: ignore[no-untyped-def]
    """Whether the Jaccard similarity of two sets is at least `least`."""
    a, a_end, b, b_end = offsets[one], offsets[one + 1], offsets[other], offsets[other + 1]
    small, large = min(a_end - a, b_end - b), max(a_end - a, b_end - b)
    if small < least * large:
        return False
    total, common = small + large, 0
    while a < a_end and b < b_end:
        if hashes[a] == hashes[b]:
            common += 1
            a += 1
            b += 1
        elif hashes[a] < hashes[b]:
            a += 1
        else:
            b += 1
    return common >= least * (total - common)


@numba.njit(nogil=True, cache=True)
def _verify(hashes, offsets, pairs, least, parents, found):  # type: ignore[no-untyped-def]
    leaders = np.empty(EVERY_PAIR, np.int64)
    kept = compared = start = 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and pairs[end, 0] == pairs[start, 0]:
            end += 1
        every = end - start < EVERY_PAIR
        leaders[0] = pairs[start, 0]
        count = 1
        for entry in range(start, end):
            other = pairs[entry, 1]
            alone = True
            for place in range(count):
                one = find(parents, leaders[place])
                two = find(parents, other)
                if one == two:
                    alone = False
                    continue
                compared += 1
                if _alike(hashes, offsets, leaders[place], other, least):
                    alone = False
                    parents[max(one, two)] = min(one, two)
                    found[kept, 0], found[kept, 1] = leaders[place], other
                    kept += 1
            if (every or alone) and count < EVERY_PAIR:
                leaders[count] = other
                count += 1
        start = end
    return kept, compared
