"""Sets of 64-bit hashes in open-addressing tables: keys of documents met before, and the n-grams of a benchmark.

Words are those of `filters.kernels.words`, hashed and `widened`; an n-gram is a hash of n in order. Two different
n-grams get the same 64 bits with probability 2^-64: against a set of ten million n-grams, a document of a
thousand words is found by mistake with probability 5e-10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numba
import numpy as np

from filters.arrays import Bool, Int64, UInt64
from filters.kernels import GOLDEN
from filters.kernels.packed import PackedText
from filters.kernels.words import finish, widened, word_hashes

_FIRST_SLOTS = 1 << 16
_EMPTY = np.uint64(0)


class KeySet:
    """Keys that were met, as an open-addressing table of at most two thirds: 12 to 24 bytes a key.

    Keys are hashes: they are spread evenly, and 0 passes for 1.
    """

    def __init__(self) -> None:
        self._slots: UInt64 = np.zeros(_FIRST_SLOTS, np.uint64)
        self._count = 0

    def add(self, keys: UInt64, present: Bool) -> Bool:
        """Enter the keys of n documents, one after the other.

        Args:
            keys: uint64[n, k].
            present: bool[n, k], which of them a document has.

        Returns:
            bool[n]: whether a document has a key that one before it has.
        """
        while 3 * (self._count + keys.size) > 2 * len(self._slots):
            larger = np.zeros(2 * len(self._slots), np.uint64)
            _enter(self._slots, larger)
            self._slots = larger
        seen = np.zeros(len(keys), np.bool_)
        self._count += _add(np.ascontiguousarray(keys), np.ascontiguousarray(present), self._slots, seen)
        return seen


@numba.njit(nogil=True, cache=True, inline="always")
def _place(slots, key):  # type: ignore[no-untyped-def]
    """The slot that has the key, or the empty one it belongs into."""
    mask = np.uint64(len(slots) - 1)
    slot = key & mask
    while slots[slot] != _EMPTY and slots[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def _enter(keys, slots):  # type: ignore[no-untyped-def]
    """Enter keys (uint64[n], 0 is none) into slots of which enough are free."""
    for key in keys:
        if key != _EMPTY:
            slots[_place(slots, key)] = key


@numba.njit(nogil=True, cache=True)
def _add(keys, present, slots, seen):  # type: ignore[no-untyped-def]
    new = 0
    for document in range(len(keys)):
        for column in range(keys.shape[1]):
            if present[document, column]:
                key = max(keys[document, column], np.uint64(1))
                seen[document] |= slots[_place(slots, key)] == key
        for column in range(keys.shape[1]):
            if present[document, column]:
                key = max(keys[document, column], np.uint64(1))
                slot = _place(slots, key)
                new += slots[slot] == _EMPTY
                slots[slot] = key
    return new


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
            words = widened(word_hashes(packed), size)
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
        words = widened(word_hashes(packed), self.size)
        counted = np.zeros(0, np.int64) if counts is None else counts
        return np.asarray(_found(words.hashes, words.offsets, self.size, self.slots, counted, most))

    def tally(self, packed: PackedText, counts: Int64 | None = None) -> Int64:
        """int64[slots]: how many texts have the n-gram of each slot, added to `counts` of other texts."""
        words = widened(word_hashes(packed), self.size)
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
def _found(hashes, offsets, size, slots, counts, most):  # type: ignore[no-untyped-def]
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
            place = _place(slots, wanted)
            if slots[place] == wanted and (len(counts) == 0 or counts[place] <= most):
                found[text] = True
                break
    return found


@numba.njit(nogil=True, cache=True)
def _count(hashes, offsets, size, slots, counts, last):  # type: ignore[no-untyped-def]
    for text in range(len(offsets) - 1):
        for wanted in _ngrams(hashes, offsets[text : text + 2], size):
            place = _place(slots, wanted)
            if slots[place] == wanted and last[place] != text:
                last[place] = text
                counts[place] += 1
