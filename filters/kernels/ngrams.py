"""Finds texts that share a run of words with a benchmark: its n-grams, looked up in documents.

Words are those of `filters.kernels.words`, lower-cased and hashed; an n-gram is a hash of n of them in order. Two
different n-grams get the same 64 bits with probability 2^-64: against a set of ten million n-grams, a document of a
thousand words is found by mistake with probability 5e-10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numba
import numpy as np

from filters.arrays import Bool, Int64, UInt64
from filters.kernels.mixing import GOLDEN
from filters.kernels.packed import PackedText
from filters.kernels.words import finish, word_hashes

_EMPTY = np.uint64(0)


@dataclass(frozen=True, slots=True)
class NgramSet:
    """The n-grams of some texts, as an open-addressing table of hashes.

    Attributes:
        size: words in an n-gram.
        slots: uint64[2^k], at most half of them used; 0 is empty.
        count: different n-grams.
        too_short: texts with fewer words than `size`, which have none.
        frequent: n-grams that were left out, for too many of the texts have them.
    """

    size: int
    slots: UInt64
    count: int
    too_short: int
    frequent: int = 0

    @classmethod
    def of(cls, texts: Iterable[PackedText], size: int, most: int | None = None) -> Self:
        """Collect the n-grams of all texts.

        Args:
            texts: in batches.
            size: words in an n-gram.
            most: leave out n-grams that occur more often.

        Raises:
            ValueError: `size` is less than 1.
        """
        if size < 1:
            raise ValueError(f"an n-gram has at least one word, got {size}")
        parts: list[tuple[UInt64, Int64]] = []
        too_short = 0
        for packed in texts:
            words = word_hashes(packed)
            too_short += int((np.diff(words.offsets) < size).sum())
            parts.append(np.unique(_ngrams(words.hashes, words.offsets, size), return_counts=True))
        every = np.concatenate([np.zeros(0, np.uint64), *(found for found, _ in parts)])
        hashes, place = np.unique(every, return_inverse=True)
        times = np.bincount(place, np.concatenate([np.zeros(0), *(counts for _, counts in parts)]), len(hashes))
        rare = np.ones(len(hashes), bool) if most is None else times <= most
        frequent, hashes = int((~rare).sum()), hashes[rare]
        slots = np.zeros(1 << max(4, int(2 * len(hashes)).bit_length()), np.uint64)
        _enter(hashes, slots)
        return cls(size, slots, len(hashes), too_short, frequent)

    def found_in(self, packed: PackedText, counts: Int64 | None = None, most: int = 0) -> Bool:
        """bool[n]: which texts contain at least one of the n-grams.

        Args:
            packed: n texts.
            counts: as of `tally`; n-grams counted more than `most` times are passed over.
            most: see `counts`.
        """
        words = word_hashes(packed)
        counted = np.zeros(0, np.int64) if counts is None else counts
        return np.asarray(_found(words.hashes, words.offsets, self.size, self.slots, counted, most))

    def tally(self, packed: PackedText, counts: Int64 | None = None) -> Int64:
        """int64[slots]: how many texts have the n-gram of each slot, added to `counts` of other texts."""
        words = word_hashes(packed)
        counts = np.zeros(len(self.slots), np.int64) if counts is None else counts
        _count(words.hashes, words.offsets, self.size, self.slots, counts, np.full(len(self.slots), -1, np.int64))
        return counts


@numba.njit(nogil=True, cache=True, inline="always")
def _mark(h):  # type: ignore[no-untyped-def]
    """A finished hash that is not the empty slot."""
    h = finish(h)
    return h if h != _EMPTY else np.uint64(1)


@numba.njit(nogil=True, cache=True)
def _ngrams(hashes, offsets, size):  # type: ignore[no-untyped-def]
    """uint64[m]: the n-grams of all texts."""
    total = 0
    for text in range(len(offsets) - 1):
        total += max(offsets[text + 1] - offsets[text] - size + 1, 0)
    found = np.empty(total, np.uint64)
    first = np.uint64(1)  # what the oldest word of a window is multiplied by
    for _ in range(size - 1):
        first *= GOLDEN
    count = 0
    for text in range(len(offsets) - 1):
        start, end = offsets[text], offsets[text + 1]
        h = np.uint64(0)
        for place in range(start, end):
            if place - start >= size:
                h -= hashes[place - size] * first
            h = h * GOLDEN + hashes[place]
            if place - start >= size - 1:
                found[count] = _mark(h)
                count += 1
    return found


@numba.njit(nogil=True, cache=True)
def _enter(hashes, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for h in hashes:
        place = h & mask
        while slots[place] != _EMPTY:
            place = (place + np.uint64(1)) & mask
        slots[place] = h


@numba.njit(nogil=True, cache=True)
def _found(hashes, offsets, size, slots, counts, most):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    found = np.zeros(len(offsets) - 1, np.bool_)
    first = np.uint64(1)
    for _ in range(size - 1):
        first *= GOLDEN
    for text in range(len(found)):
        start, end = offsets[text], offsets[text + 1]
        h = np.uint64(0)
        for word in range(start, end):
            if word - start >= size:
                h -= hashes[word - size] * first
            h = h * GOLDEN + hashes[word]
            if word - start < size - 1:
                continue
            wanted = _mark(h)
            place = wanted & mask
            while slots[place] != _EMPTY and slots[place] != wanted:
                place = (place + np.uint64(1)) & mask
            if slots[place] == wanted and (len(counts) == 0 or counts[place] <= most):
                found[text] = True
                break
    return found


@numba.njit(nogil=True, cache=True)
def _count(hashes, offsets, size, slots, counts, last):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for text in range(len(offsets) - 1):
        for wanted in _ngrams(hashes, offsets[text : text + 2], size):
            place = wanted & mask
            while slots[place] != _EMPTY and slots[place] != wanted:
                place = (place + np.uint64(1)) & mask
            if slots[place] == wanted and last[place] != text:
                last[place] = text
                counts[place] += 1
