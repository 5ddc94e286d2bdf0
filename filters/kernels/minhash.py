"""Word shingles: MinHash signatures, band keys of locality-sensitive hashing, and how alike two sets are.

Two texts whose sets of shingles have Jaccard similarity s agree in each row of the signature with probability s, and
in at least one band with 1 - (1 - s^rows)^bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3).
Permutations are 32-bit multiply-shift functions of one hash per shingle.

A text of one distinct shingle (few words, or one word again and again) would have all of its signature from one 32-bit
hash: among 150,000 of them two that share no word would agree in every row. Its band keys are made of the 64-bit hash
of its shingle instead: they are equal only where the words are.

How alike two texts really are is told by their whole sets of shingles.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from filters.arrays import Bool, Float64, Int64, UInt32, UInt64
from filters.kernels import GOLDEN
from filters.kernels.packed import Ragged
from filters.kernels.words import WordHashes, finish

_MASK = 2**64 - 1
_HALF = np.uint64(32)


def signatures(
    words: WordHashes, *, shingle: int = 5, bands: int = 14, rows: int = 8, seed: int = 1
) -> tuple[UInt32, Bool]:
    """Minimum of each permutation over the shingles of each text.

    A text of 1 to shingle-1 words has one shingle, of all its words.

    Returns:
        uint32[n, bands * rows], and bool[n]: whether the text has a signature, which a text without words has not (its
        row is all ones then).
    """
    multipliers, addends = _permutations(bands * rows, seed)
    minima = np.full((len(words), bands * rows), 0xFFFFFFFF, np.uint32)
    _sign(words.hashes, words.offsets, shingle, multipliers, addends, minima)
    return minima, np.diff(words.offsets) > 0


def band_keys(
    words: WordHashes, *, shingle: int = 5, bands: int = 14, rows: int = 8, seed: int = 1
) -> tuple[UInt64, Bool]:
    """A 64-bit hash of each band of each text's signature; texts that share one are candidates for near duplicates.

    A text of one distinct shingle shares keys only with texts that have the same one and no other.

    Returns:
        uint64[n, bands], and bool[n]: whether the text has a signature (its keys are 0 if not).
    """
    multipliers, addends = _permutations(bands * rows, seed)
    keys = np.zeros((len(words), bands), np.uint64)
    _key(words.hashes, words.offsets, shingle, multipliers, addends, keys)
    return keys, np.diff(words.offsets) > 0


@functools.lru_cache(maxsize=8)
def _permutations(count: int, seed: int) -> tuple[UInt32, UInt32]:
    """Odd multipliers and addends, uint32[count] each, from the SplitMix64 sequence of `seed` (Steele et al. 2014)."""
    state = seed & _MASK
    drawn = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        drawn.append(z ^ (z >> 31))
    values = np.array(drawn, np.uint64)
    return (values >> np.uint64(32)).astype(np.uint32) | np.uint32(1), values.astype(np.uint32)


@numba.njit(nogil=True, cache=True)
def _minima(hashes, start, end, shingle, multipliers, addends, minima):  # type: ignore[no-untyped-def]
    """Lower `minima` (uint32[permutations]) by every shingle of one text; the last one's hash, and if all are that."""
    width = min(shingle, end - start)
    last, alone = np.uint64(0), True
    for first in range(start, end - width + 1):
        h = np.uint64(0)
        for k in range(first, first + width):
            h = (h + hashes[k]) * GOLDEN
        h = finish(h)
        alone &= first == start or h == last
        last = h
        x = np.uint32(h)
        for k in range(len(multipliers)):
            value = np.uint32((x ^ addends[k]) * multipliers[k])
            minima[k] = min(minima[k], value)
    return last, alone


@numba.njit(nogil=True, cache=True)
def _sign(hashes, offsets, shingle, multipliers, addends, minima):  # type: ignore[no-untyped-def]
    for document in range(len(offsets) - 1):
        if offsets[document] < offsets[document + 1]:
            _minima(hashes, offsets[document], offsets[document + 1], shingle, multipliers, addends, minima[document])


@numba.njit(nogil=True, cache=True)
def _key(hashes, offsets, shingle, multipliers, addends, keys):  # type: ignore[no-untyped-def]
    bands = keys.shape[1]
    rows = len(multipliers) // bands
    minima = np.empty(len(multipliers), np.uint32)
    for document in range(len(offsets) - 1):
        if offsets[document] == offsets[document + 1]:
            continue
        minima[:] = 0xFFFFFFFF
        only, alone = _minima(hashes, offsets[document], offsets[document + 1], shingle, multipliers, addends, minima)
        for band in range(bands):
            h = np.uint64(band + 1)
            if alone:
                keys[document, band] = finish((only ^ h) * GOLDEN)
                continue
            for k in range(band * rows, (band + 1) * rows):
                h = finish((h ^ np.uint64(minima[k])) * GOLDEN)
            keys[document, band] = h


JACCARD, CONTAINMENT = 0, 1

_FEWEST_BITS = 4
_SHORT = 16
_STRIDE = 32
"""Steps between two looks at whether a pair can still be similar enough."""


def shingle_sets(words: WordHashes, *, shingle: int) -> Ragged:
    """The distinct shingles of each of n texts: uint32 hashes, ascending within a text.

    A text of at most `shingle` words is the set of its words. A hash is the half of a shingle's 64 bits that MinHash
    does not look at, so that what meets there by accident does not meet here as well. Two different shingles of two
    pages of 1,000 words share a hash with probability 2e-4, which moves their similarity by a thousandth.
    """
    hashes = np.empty(len(words.hashes), np.uint32)
    offsets = np.zeros(len(words) + 1, np.int64)
    _sets(words.hashes, words.offsets, shingle, hashes, offsets)
    return Ragged(hashes[: offsets[-1]].copy(), offsets)


def similarities(sets: Ragged, better: Int64, worse: Int64, measure: int = JACCARD) -> Float64:
    """float64[m]: similarity of the sets of each pair; `CONTAINMENT` is the share of `worse` that is in `better`."""
    found = np.empty(len(better), np.float64)
    _similarities(sets.values, sets.offsets, better, worse, measure, found)
    return found


def alike_in_buckets(
    sets: Ragged,
    order: Int64,
    groups: Int64,
    members: Int64,
    masks: UInt64,
    buckets: Ragged,
    least: float,
    measure: int,
    sure: Bool,
) -> tuple[Int64, Int64, Float64, int]:
    """The pairs that share a bucket and are alike.

    A pair that shares several buckets is compared once: in the first of them. For that, buckets come in groups, within
    which the k-th bucket is bit k of its members' masks; a pair of two groups is compared in each.

    A document that is like one which surely stays goes, so it removes nobody: once that is known, it is compared with
    no worse document that comes after it.

    Args:
        sets: of all documents.
        order: int64[documents]; of two documents the one with the lower number is better.
        groups: int64[buckets], number of each bucket in its group.
        members: int64[m], document of each member of a group. A document whose `order` is negative is compared with
            none of its kind.
        masks: uint64[m, words], the buckets it is in.
        buckets: rows of `members`; where any document is `sure`, from best to worst.
        least: lowest similarity.
        measure: `JACCARD` or `CONTAINMENT`.
        sure: bool[documents], whether it is known to stay.

    Returns:
        better and worse document and similarity of each pair, and how many pairs were compared.
    """
    capacity = 1 << 16
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    gone = np.zeros(len(sets), np.bool_)
    bucket = compared = 0
    while bucket < len(buckets):
        room = max(capacity, int(buckets.lengths[bucket]) ** 2)
        better, worse, found = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
        bucket, count, tried = _in_buckets(
            sets.values, sets.offsets, order, groups, members, masks, buckets.values, buckets.offsets, bucket, least,
            measure, sure, gone, better, worse, found,
        )  # fmt: skip
        compared += tried
        parts.append((better[:count].copy(), worse[:count].copy(), found[:count].copy()))
    better, worse, found = (np.concatenate(column) for column in zip(*parts, strict=True))
    return better, worse, found, compared


@numba.njit(nogil=True, cache=True)
def _sets(words, bounds, shingle, hashes, offsets):  # type: ignore[no-untyped-def]
    longest = 0
    for document in range(len(bounds) - 1):
        longest = max(longest, bounds[document + 1] - bounds[document])
    unordered = np.empty(longest, np.uint32)
    ends = np.empty(max(2 * longest, 1 << _FEWEST_BITS) + 1, np.int32)
    count = 0
    for document in range(len(bounds) - 1):
        start, end = bounds[document], bounds[document + 1]
        first = count
        if end > start:
            width = shingle if end - start > shingle else 1
            found = end - start - width + 1
            # Hashes are spread evenly: by their first bits, about one comes into each slot.
            bits = _FEWEST_BITS
            while 1 << bits < found:
                bits += 1
            slots, shift = 1 << bits, np.uint32(32 - bits)
            ends[: slots + 1] = 0
            h, oldest = np.uint64(0), np.uint64(1)  # what the first word of a shingle is multiplied by
            for k in range(width):
                h = (h + words[start + k]) * GOLDEN
                oldest *= GOLDEN
            for place in range(found):
                if place > 0:
                    h = (h - words[start + place - 1] * oldest + words[start + place + width - 1]) * GOLDEN
                unordered[place] = np.uint32(finish(h) >> _HALF)
                ends[np.int64(unordered[place] >> shift) + 1] += 1
            most = np.int32(0)
            for slot in range(slots):
                most = max(most, ends[slot + 1])
                ends[slot + 1] += ends[slot]
            for place in range(found):
                mine = np.int64(unordered[place] >> shift)
                hashes[first + ends[mine]] = unordered[place]
                ends[mine] += 1
            if most > _SHORT:  # a text that repeats itself, perhaps made to take long
                hashes[first : first + found].sort()
            else:
                _sort(hashes, first, first + found)
            count = first + 1
            for place in range(first + 1, first + found):
                hashes[count] = hashes[place]
                count += hashes[place] != hashes[count - 1]
        offsets[document + 1] = count


@numba.njit(nogil=True, cache=True, inline="always")
def _sort(hashes, begin, end):  # type: ignore[no-untyped-def]
    """Sort what is nearly sorted."""
    for place in range(begin + 1, end):
        moved = hashes[place]
        before = place - 1
        while before >= begin and hashes[before] > moved:
            hashes[before + 1] = hashes[before]
            before -= 1
        hashes[before + 1] = moved


@numba.njit(nogil=True, cache=True)
def _similarity(hashes, offsets, better, worse, measure, least):  # type: ignore[no-untyped-def]
    """Similarity of two sets; -1 as soon as it is sure to be below `least`."""
    part = offsets[worse + 1] - offsets[worse]
    total = offsets[better + 1] - offsets[better] + part
    # Indices without a sign are not looked at for being negative.
    a, a_end = np.uint64(offsets[better]), np.uint64(offsets[better + 1])
    b, b_end = np.uint64(offsets[worse]), np.uint64(offsets[worse + 1])
    if total == 0 or part == 0:
        return 1.0 if total == 0 else 0.0
    # A hair less than what is needed: whether it is enough is decided by the quotient at the end.
    needed = (part * least if measure == CONTAINMENT else total * least / (1 + least)) - 1e-6
    common = 0
    while a < a_end and b < b_end:
        if common + np.int64(min(a_end - a, b_end - b)) < needed:
            return -1.0
        # Without branches, which would be mispredicted; no step goes further than one in each.
        for _ in range(min(np.uint64(_STRIDE), a_end - a, b_end - b)):
            one, other = hashes[a], hashes[b]
            common += one == other
            a += np.uint64(one <= other)
            b += np.uint64(other <= one)
    return common / part if measure == CONTAINMENT else common / (total - common)


@numba.njit(nogil=True, cache=True)
def _similarities(hashes, offsets, better, worse, measure, found):  # type: ignore[no-untyped-def]
    for pair in range(len(better)):
        found[pair] = _similarity(hashes, offsets, better[pair], worse[pair], measure, 0.0)


@numba.njit(nogil=True, cache=True)
def _in_buckets(  # type: ignore[no-untyped-def]
    hashes,
    offsets,
    order,
    groups,
    members,
    masks,
    rows,
    bounds,
    bucket,
    least,
    measure,
    sure,
    gone,
    better,
    worse,
    found,
):
    count = compared = 0
    while bucket < len(bounds) - 1:
        start, end = bounds[bucket], bounds[bucket + 1]
        if count + (end - start) * (end - start) > len(better):
            break
        word, bit = groups[bucket] >> 6, np.uint64(groups[bucket] & 63)
        below = (np.uint64(1) << bit) - np.uint64(1)
        for i in range(start, end):
            for j in range(i + 1, end):
                if gone[members[rows[i]]]:
                    break
                one, other = rows[i], rows[j]
                shared = masks[one, word] & masks[other, word] & below
                for earlier in range(word):
                    shared |= masks[one, earlier] & masks[other, earlier]
                if shared != np.uint64(0):
                    continue
                a, b = members[one], members[other]
                if order[a] < 0 and order[b] < 0:
                    continue
                if order[b] < order[a]:
                    a, b = b, a
                compared += 1
                similarity = _similarity(hashes, offsets, a, b, measure, least)
                if similarity >= least:
                    better[count], worse[count], found[count] = a, b, similarity
                    count += 1
                    gone[b] |= sure[a]
        bucket += 1
    return bucket, count, compared
