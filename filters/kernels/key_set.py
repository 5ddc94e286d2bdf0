"""A set of 64-bit keys that grows, for telling whether anything like a document was seen before."""

from __future__ import annotations

import numba
import numpy as np

from filters.arrays import Bool, UInt64

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
