"""Kernels of the global join: entries scattered by hash, equal keys found, clusters merged, all in flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numba
import numpy as np
import numpy.typing as npt

from filters.kernels.arrays import Int64, UInt32, UInt64

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_BUCKET = 1024
"""Entries of a bucket, on average: its hash table stays in the processor's second-level cache."""
_PAIRS = 1 << 20
"""Pairs handed out at a time, at least."""
_WORD = np.uint64(6)
_BIT = np.uint64(63)
_ONE = np.uint64(1)


def partition_of(keys: UInt64, partitions: int) -> Int64:
    """int64[n]: the hash range each key falls in, of `partitions` equal ranges of 0 to 2^64 (Lemire 2019)."""
    return (((keys >> _HALF) * np.uint64(partitions)) >> _HALF).astype(np.int64)


def scatter(keys: UInt64, rows: UInt32, partitions: int) -> tuple[UInt64, UInt32, Int64]:
    """Order entries by hash range, those of one range as they came.

    Args:
        keys: uint64[n].
        rows: uint32[n].
        partitions: number of equal ranges.

    Returns:
        keys and rows in their new order, and int64[partitions + 1] where each range begins.
    """
    new_keys, new_rows = np.empty_like(keys), np.empty_like(rows)
    offsets = np.zeros(partitions + 1, np.int64)
    _scatter_ranges(np.ascontiguousarray(keys), np.ascontiguousarray(rows), new_keys, new_rows, offsets)
    return new_keys, new_rows, offsets


def stars(keys: UInt64, documents: Int64) -> Iterator[Int64]:
    """Join the documents of equal keys, each to the one that came first with the key: chunks of int64[m, 2].

    A pair is (first document, later document). Entries are scattered into small buckets by the low half of their
    keys, and each bucket goes through a hash table that fits the cache; nothing is sorted. A document that has the
    same key twice makes no pair with itself.

    Args:
        keys: uint64[n].
        documents: int64[n]; those of one key ascending, so that the first is the smallest.
    """
    if not len(keys):
        return
    buckets = 1 << max(0, (len(keys) // _BUCKET).bit_length())
    bounds = np.zeros(buckets + 1, np.int64)
    new_keys, new_documents = np.empty_like(keys), np.empty_like(documents)
    _scatter_low(np.ascontiguousarray(keys), np.ascontiguousarray(documents), new_keys, new_documents, bounds)
    pairs = np.empty((max(_PAIRS, int(np.diff(bounds).max())), 2), np.int64)
    bucket = 0
    size = 4 * _BUCKET
    while bucket < buckets:
        bucket, found, crowded = _pair(new_keys, new_documents, bounds, bucket, size, pairs)
        if found:
            yield pairs[:found].copy()
        if crowded:
            size *= 2


@numba.njit(nogil=True, cache=True)
def _scatter_ranges(keys, rows, new_keys, new_rows, offsets):  # type: ignore[no-untyped-def]
    partitions = np.uint64(len(offsets) - 1)
    for key in keys:
        offsets[np.int64(((key >> _HALF) * partitions) >> _HALF) + 1] += 1
    for partition in range(1, len(offsets)):
        offsets[partition] += offsets[partition - 1]
    place = offsets[:-1].copy()
    for entry in range(len(keys)):
        target = np.int64(((keys[entry] >> _HALF) * partitions) >> _HALF)
        new_keys[place[target]] = keys[entry]
        new_rows[place[target]] = rows[entry]
        place[target] += 1


@numba.njit(nogil=True, cache=True)
def _scatter_low(keys, documents, new_keys, new_documents, bounds):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(bounds) - 2)
    for key in keys:
        bounds[np.int64(key & mask) + 1] += 1
    for bucket in range(1, len(bounds)):
        bounds[bucket] += bounds[bucket - 1]
    place = bounds[:-1].copy()
    for entry in range(len(keys)):
        target = np.int64(keys[entry] & mask)
        new_keys[place[target]] = keys[entry]
        new_documents[place[target]] = documents[entry]
        place[target] += 1


@numba.njit(nogil=True, cache=True)
def _pair(keys, documents, bounds, bucket, size, pairs):  # type: ignore[no-untyped-def]
    """Pairs of the buckets from `bucket` on; (bucket reached, pairs found, whether its table needs more slots)."""
    slots = np.empty(size, np.int64)  # where a key came first
    stamps = np.zeros(size, np.int64)  # the bucket a slot was filled for, from 1
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
            elif documents[slots[slot]] != documents[entry]:
                pairs[found, 0] = documents[slots[slot]]
                pairs[found, 1] = documents[entry]
                found += 1
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


@numba.njit(nogil=True, cache=True, inline="always")
def _ones(word):  # type: ignore[no-untyped-def]
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def ranks(words):  # type: ignore[no-untyped-def]
    """int64[ceil(words / 8) + 1]: set bits before each block of eight words, and their number at the end."""
    blocks = np.zeros((len(words) + 7) // 8 + 1, np.int64)
    total = 0
    for word in range(len(words)):
        if word % 8 == 0:
            blocks[word // 8] = total
        total += _ones(words[word])
    blocks[-1] = total
    return blocks


@numba.njit(nogil=True, cache=True, inline="always")
def _rank(words, blocks, document):  # type: ignore[no-untyped-def]
    """Set bits before that of `document`."""
    word = document >> 6
    count = blocks[word >> 3]
    for earlier in range(word & ~7, word):
        count += _ones(words[earlier])
    return count + _ones(words[word] & ((_ONE << (np.uint64(document) & _BIT)) - _ONE))


@numba.njit(nogil=True, cache=True)
def members(words, count):  # type: ignore[no-untyped-def]
    """int64[count]: the documents whose bits are set, ascending."""
    found = np.empty(count, np.int64)
    place = 0
    for word in range(len(words)):
        bits = words[word]
        while bits:
            lowest = bits & (~bits + _ONE)
            found[place] = word * 64 + _ones(lowest - _ONE)
            place += 1
            bits ^= lowest
    return found


@numba.njit(nogil=True, cache=True, inline="always")
def find(parents, node):  # type: ignore[no-untyped-def]
    """The smallest node of the set `node` is in; paths are halved on the way."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = np.int64(parents[node])
    return node


@numba.njit(nogil=True, cache=True)
def unite(parents, words, blocks, pairs) -> None:  # type: ignore[no-untyped-def]
    """Merge the sets of the two documents of each pair (int64[n, 2]); the smaller root stays the root."""
    for entry in range(len(pairs)):
        one = find(parents, np.int64(_rank(words, blocks, pairs[entry, 0])))
        other = find(parents, np.int64(_rank(words, blocks, pairs[entry, 1])))
        if one < other:
            parents[other] = one
        elif other < one:
            parents[one] = other


@numba.njit(nogil=True, cache=True)
def flatten(parents) -> None:  # type: ignore[no-untyped-def]
    """Let every node point to its root: a parent is never larger than its node, so one pass is enough."""
    for node in range(len(parents)):
        parents[node] = parents[parents[node]]


@numba.njit(nogil=True, cache=True)
def sizes_of(parents):  # type: ignore[no-untyped-def]
    """Nodes of each root's set, in the type of `parents` (flattened); 0 for what is no root."""
    sizes = np.zeros(len(parents), parents.dtype)
    for parent in parents:
        sizes[parent] += 1
    return sizes


@numba.njit(nogil=True, cache=True)
def has_others(parents):  # type: ignore[no-untyped-def]
    """bool[n]: for each root, whether its set has more than one node (`parents` is flattened)."""
    found = np.zeros(len(parents), np.bool_)
    for node in range(len(parents)):
        if parents[node] != node:
            found[parents[node]] = True
    return found


def smallest_by_root(
    parents: npt.NDArray[np.integer], words: UInt64, blocks: Int64, pairs: Iterable[Int64]
) -> tuple[Int64, Int64]:
    """(roots, ascending; the smallest value paired with any member of each) of pairs (document, value)."""
    roots, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for chunk in pairs:
        roots.append(roots_of(parents, words, blocks, np.ascontiguousarray(chunk[:, 0])))
        values.append(chunk[:, 1])
    root, value = np.concatenate(roots), np.concatenate(values)
    order = np.lexsort((value, root))
    found, first = np.unique(root[order], return_index=True)
    return found, value[order][first]


@numba.njit(nogil=True, cache=True)
def roots_of(parents, words, blocks, documents):  # type: ignore[no-untyped-def]
    """int64[n]: roots of documents whose bits are set (`parents` is flattened)."""
    found = np.empty(len(documents), np.int64)
    for entry in range(len(documents)):
        found[entry] = parents[_rank(words, blocks, documents[entry])]
    return found
