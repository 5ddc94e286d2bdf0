"""Kernels of deduplication: entries joined by key, bitmaps, and which documents of a graph stay."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np

from filters.arrays import Bool, Int64, UInt8, UInt32, UInt64

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_BUCKET = 1024
"""Entries of a bucket, on average: its hash table stays in the processor's second-level cache."""
_PAIRS = 1 << 20
"""Pairs handed out at a time, at least."""
_BIT = np.uint64(63)
_ONE = np.uint64(1)


def scatter(keys: UInt64, rows: UInt32, partitions: int) -> tuple[UInt64, UInt32, Int64]:
    """Order entries by hash range, those of one range as they came.

    Args:
        keys: uint64[n].
        rows: uint32[n].
        partitions: number of equal ranges of 0 to 2^64 (Lemire 2019).

    Returns:
        keys and rows in their new order, and int64[partitions + 1] where each range begins.
    """
    new_keys, new_rows = np.empty_like(keys), np.empty_like(rows)
    offsets = np.zeros(partitions + 1, np.int64)
    _scatter(np.ascontiguousarray(keys), np.ascontiguousarray(rows), _HALF, new_keys, new_rows, offsets)
    return new_keys, new_rows, offsets


def stars(keys: UInt64, documents: Int64) -> Iterator[Int64]:
    """Join the documents of equal keys, each to the one that came first with the key: chunks of int64[m, 4].

    A row is (first document, later document, key as int64, documents with the key). Entries are scattered into small
    buckets by the low half of their keys, and each bucket goes through a hash table that fits the cache; nothing is
    sorted. A document that has the same key twice makes no pair with itself.

    Args:
        keys: uint64[n].
        documents: int64[n]; those of one key ascending, so that the first is the smallest.
    """
    if not len(keys):
        return
    buckets = 1 << max(0, (len(keys) // _BUCKET).bit_length())
    bounds = np.zeros(buckets + 1, np.int64)
    new_keys, new_documents = np.empty_like(keys), np.empty_like(documents)
    entries = np.ascontiguousarray(keys), np.ascontiguousarray(documents)
    _scatter(*entries, np.uint64(0), new_keys, new_documents, bounds)
    pairs = np.empty((max(_PAIRS, int(np.diff(bounds).max())), 4), np.int64)
    bucket = 0
    size = 4 * _BUCKET
    while bucket < buckets:
        bucket, found, crowded = _pair(new_keys, new_documents, bounds, bucket, size, pairs)
        if found:
            yield pairs[:found].copy()
        if crowded:
            size *= 2


@numba.njit(nogil=True, cache=True)
def _scatter(keys, values, shift, new_keys, new_values, bounds):  # type: ignore[no-untyped-def]
    """Order entries by equal ranges of the half of their keys that begins at bit `shift`; where each range begins."""
    ranges = np.uint64(len(bounds) - 1)
    for key in keys:
        bounds[np.int64((key >> shift & _LOW) * ranges >> _HALF) + 1] += 1
    for number in range(1, len(bounds)):
        bounds[number] += bounds[number - 1]
    place = bounds[:-1].copy()
    for entry in range(len(keys)):
        target = np.int64((keys[entry] >> shift & _LOW) * ranges >> _HALF)
        new_keys[place[target]] = keys[entry]
        new_values[place[target]] = values[entry]
        place[target] += 1


@numba.njit(nogil=True, cache=True)
def _pair(keys, documents, bounds, bucket, size, pairs):  # type: ignore[no-untyped-def]
    """Pairs of the buckets from `bucket` on; (bucket reached, pairs found, whether its table needs more slots)."""
    slots = np.empty(size, np.int64)  # where a key came first
    stamps = np.zeros(size, np.int64)  # the bucket a slot was filled for, from 1
    counts = np.empty(size, np.int64)  # documents with the key of a slot
    mask = np.int64(size - 1)
    found = 0
    while bucket < len(bounds) - 1:
        if found + bounds[bucket + 1] - bounds[bucket] > len(pairs):
            return bucket, found, False
        before, distinct = found, 0
        for entry in range(bounds[bucket], bounds[bucket + 1]):
            key = keys[entry]
            slot = np.int64(key >> _HALF) & mask
            while stamps[slot] == bucket + 1 and keys[slots[slot]] != key:
                slot = (slot + 1) & mask
            if stamps[slot] != bucket + 1:
                distinct += 1
                if 4 * distinct > 3 * size:
                    return bucket, before, True
                stamps[slot] = bucket + 1
                slots[slot] = entry
                counts[slot] = 1
            elif documents[slots[slot]] != documents[entry]:
                counts[slot] += 1
                pairs[found, 0] = documents[slots[slot]]
                pairs[found, 1] = documents[entry]
                pairs[found, 2] = np.int64(key)
                pairs[found, 3] = slot
                found += 1
        for row in range(before, found):
            pairs[row, 3] = counts[pairs[row, 3]]
        bucket += 1
    return bucket, found, False


@numba.njit(nogil=True, cache=True)
def mark(words, documents) -> None:  # type: ignore[no-untyped-def]
    """Set the bits of `documents` (int64[n]) in a bitmap, uint64[ceil(documents / 64)]."""
    for document in documents:
        words[document >> 6] |= _ONE << (np.uint64(document) & _BIT)


@numba.njit(nogil=True, cache=True)
def marked(words, documents):  # type: ignore[no-untyped-def]
    """bool[n]: whether the bits of `documents` (int64[n]) are set."""
    found = np.empty(len(documents), np.bool_)
    for entry, document in enumerate(documents):
        found[entry] = words[document >> 6] >> (np.uint64(document) & _BIT) & _ONE
    return found


UNDECIDED, KEPT, REMOVED = 0, 1, 2


def decide(better: Int64, worse: Int64, open_: Bool, status: UInt8) -> None:
    """Decide every open node of which the edges and the nodes that are decided already leave no doubt, in place.

    A node is removed if a better neighbour is kept, and kept if all its better neighbours are removed. Each edge is
    looked at twice at most, however long the chains are.

    Args:
        better, worse: int64[edges], nodes at the ends of each edge. There are no cycles.
        open_: bool[nodes], nodes that may be decided; all edges towards them from undecided nodes must be given.
        status: uint8[nodes], what is known before and after.
    """
    bounds = np.zeros(len(status) + 1, np.int64)
    np.cumsum(np.bincount(better, minlength=len(status)), out=bounds[1:])
    targets = np.ascontiguousarray(worse[np.argsort(better, kind="stable")])
    _decide(bounds, targets, open_, status)


@numba.njit(nogil=True, cache=True)
def _decide(bounds, targets, open_, status):  # type: ignore[no-untyped-def]
    nodes = len(status)
    waits = np.zeros(nodes, np.int64)
    for target in targets:
        waits[target] += 1
    stack = np.empty(nodes, np.int64)
    top = 0
    for node in range(nodes):
        if status[node] == UNDECIDED and open_[node] and waits[node] == 0:
            status[node] = KEPT
        if status[node] != UNDECIDED:
            stack[top] = node
            top += 1
    while top:
        top -= 1
        node = stack[top]
        for place in range(bounds[node], bounds[node + 1]):
            target = targets[place]
            if status[target] != UNDECIDED or not open_[target]:
                continue
            waits[target] -= 1
            if status[node] == KEPT:
                status[target] = REMOVED
            elif waits[target] == 0:
                status[target] = KEPT
            else:
                continue
            stack[top] = target
            top += 1
