"""Indexes of hashes seen so far, in flat arrays with open addressing: who was the first to have this one?"""

from __future__ import annotations

import numba
import numpy as np

from filters.arrays import Bool, Int64, UInt32, UInt64
from filters.kernels.mixing import GOLDEN
from filters.kernels.words import finish

MAX_NUMBER = 2**31 - 2
"""Largest document number an index can hold: they are stored in 31 bits."""

_BAND = np.uint64(0xA24BAED4963EE407)  # so that equal keys of different bands are different entries
_PARTITION_BITS = 15
_PARTITIONS = 1 << _PARTITION_BITS
_PARTITION_SHIFT = np.uint64(64 - _PARTITION_BITS)
_NUMBER_BITS = np.uint64(31)
_NUMBER_MASK = np.uint64(2**31 - 1)
_KEY_BITS = np.uint64(33)
_KEY_MASK = np.uint64(2**33 - 1)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_EMPTY = np.uint64(0)
_LOAD = 0.8
_GROWTH = 1.25


class BandIndex:
    """Clusters of documents that share a band key, in the order they came; the first of a cluster is its root.

    A slot has 8 bytes: 33 bits of the key and the 31-bit number of a root. The top 15 bits of the key choose one of
    32,768 partitions, so a key is told apart by 48 bits: a document whose keys are all new is joined to a stranger
    with probability bands * slots in use / 2^48, which for 14 bands is 7e-7 at 1 million documents and 7e-4 at 1
    billion. Partitions grow together, in place, by a quarter, when four fifths of the slots are in use or one of them
    is full. 14 bands start at 8 MB and cost 150 to 190 bytes per document from 300,000 documents on, 140 to 175 from
    half a million on.

    Args:
        bands: keys per document.
    """

    def __init__(self, bands: int) -> None:
        if bands < 1:
            raise ValueError(f"bands must be at least 1, got {bands}")
        self.bands = bands
        self._capacity = 32
        self._slots: UInt64 = np.zeros(_PARTITIONS * self._capacity, np.uint64)
        self._used: UInt32 = np.zeros(_PARTITIONS, np.uint32)
        self._count = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._slots.nbytes + self._used.nbytes

    def resolve(self, keys: UInt64, valid: Bool, numbers: Int64) -> Int64:
        """Find the cluster of each document and enter the document, row by row; rows of one call see each other.

        Keys of a document that the index does not know yet are entered for the root of its cluster, so what resembles
        a duplicate joins the same cluster. How rows are cut into calls makes no difference.

        Args:
            keys: uint64[n, bands]; the same key in two bands is two keys.
            valid: bool[n]; other rows are neither looked up nor entered.
            numbers: int64[n], 0 to `MAX_NUMBER`.

        Returns:
            int64[n]: the smallest root among those that share a band key; -1 if there is none or the row is not valid.

        Raises:
            ValueError: arrays of wrong shape, or a number out of range.
        """
        keys = np.ascontiguousarray(keys, np.uint64)
        if keys.ndim != 2 or keys.shape[1] != self.bands:
            raise ValueError(f"keys must be uint64[n, {self.bands}], got shape {keys.shape}")
        valid, numbers = _checked(len(keys), valid, numbers)
        roots = np.full(len(keys), -1, np.int64)
        row = 0
        while True:
            limit = int(len(self._slots) * _LOAD)
            row, self._count, full = _resolve_bands(
                keys, valid, numbers, row, self._slots, self._used, self._count, limit, roots
            )
            if not full:
                return roots
            self._grow()

    def _grow(self) -> None:
        capacity = int(self._capacity * _GROWTH) + 1
        # realloc: the operating system moves pages, so old and new slots are never held at the same time
        self._slots.resize(_PARTITIONS * capacity, refcheck=False)
        _spread(self._slots, self._capacity, capacity)
        self._capacity = capacity


class HashIndex:
    """The first document number of each hash.

    A slot has 12 bytes: 64 bits of the hash and a 32-bit number; 15 to 22 bytes per document. Two of n different
    texts get the same 64 bits with probability n^2 / 2^65: 3e-8 at 1 million, 3 % at 1 billion documents.
    """

    def __init__(self) -> None:
        self._keys: UInt64 = np.zeros(1024, np.uint64)
        self._numbers: UInt32 = np.zeros(1024, np.uint32)  # number + 1; 0 is an empty slot
        self._count = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._keys.nbytes + self._numbers.nbytes

    def resolve(self, hashes: UInt64, valid: Bool, numbers: Int64) -> Int64:
        """Find the first document with each hash and enter the hash if it is new, row by row.

        Args:
            hashes: uint64[n], or uint64[n, 2] for hashes of 128 bits.
            valid: bool[n]; other rows are neither looked up nor entered.
            numbers: int64[n], 0 to `MAX_NUMBER`.

        Returns:
            int64[n]: the number of the first document with this hash; -1 if it is new or the row is not valid.

        Raises:
            ValueError: arrays of wrong shape, or a number out of range.
        """
        hashes = np.asarray(hashes, np.uint64)
        if hashes.ndim == 2 and hashes.shape[1] == 2:
            hashes = hashes[:, 0] ^ hashes[:, 1]
        if hashes.ndim != 1:
            raise ValueError(f"hashes must be uint64[n] or uint64[n, 2], got shape {hashes.shape}")
        hashes = np.ascontiguousarray(hashes)
        valid, numbers = _checked(len(hashes), valid, numbers)
        found = np.full(len(hashes), -1, np.int64)
        row = 0
        while True:
            limit = int(len(self._keys) * _LOAD)
            row, self._count = _resolve_hashes(
                hashes, valid, numbers, row, self._keys, self._numbers, self._count, limit, found
            )
            if row == len(hashes):
                return found
            self._grow()

    def _grow(self) -> None:
        capacity = int(len(self._keys) * 1.4)
        keys, numbers = np.zeros(capacity, np.uint64), np.zeros(capacity, np.uint32)
        _rehash(self._keys, self._numbers, keys, numbers)
        self._keys, self._numbers = keys, numbers


def _checked(rows: int, valid: Bool, numbers: Int64) -> tuple[Bool, Int64]:
    valid, numbers = np.ascontiguousarray(valid, np.bool_), np.ascontiguousarray(numbers, np.int64)
    if valid.shape != (rows,) or numbers.shape != (rows,):
        raise ValueError(f"valid and numbers must have {rows} rows like the keys, got {valid.shape}, {numbers.shape}")
    if valid.any() and not 0 <= numbers[valid].min() <= numbers[valid].max() <= MAX_NUMBER:
        raise ValueError(f"document numbers must be between 0 and {MAX_NUMBER}")
    return valid, numbers


@numba.njit(nogil=True, cache=True, inline="always")
def _find(slots, first, capacity, remainder):  # type: ignore[no-untyped-def]
    """The slot of `remainder` in the partition at `first`, or the empty slot where it belongs; -1 if it is full."""
    position = np.int64((remainder * np.uint64(capacity)) >> _KEY_BITS)
    for _ in range(capacity):
        slot = slots[first + position]
        if slot == _EMPTY or slot >> _NUMBER_BITS == remainder:
            return first + position
        position += 1
        if position == capacity:
            position = np.int64(0)
    return -1


@numba.njit(nogil=True, cache=True)
def _resolve_bands(keys, valid, numbers, row, slots, used, count, limit, roots):  # type: ignore[no-untyped-def]
    """Resolve from `row` on; (row reached, slots in use, whether it stopped because the index must grow)."""
    bands = keys.shape[1]
    capacity = len(slots) // _PARTITIONS
    hashes = np.empty(bands, np.uint64)
    loaded = np.empty(bands, np.uint64)
    while row < len(keys):
        if not valid[row]:
            row += 1
            continue
        if count + bands > limit:
            return row, count, True
        # The first slots are loaded by a loop of its own: its loads, from all over memory, overlap.
        for band in range(bands):
            h = finish((keys[row, band] ^ (np.uint64(band) * _BAND)) * GOLDEN)
            hashes[band] = h
            first = np.int64(h >> _PARTITION_SHIFT) * capacity
            loaded[band] = slots[first + np.int64(((h & _KEY_MASK) * np.uint64(capacity)) >> _KEY_BITS)]
        root = np.int64(-1)
        for band in range(bands):
            h = hashes[band]
            partition = np.int64(h >> _PARTITION_SHIFT)
            if used[partition] + bands > capacity:
                needed = 1
                for earlier in range(band):
                    needed += np.int64(hashes[earlier] >> _PARTITION_SHIFT) == partition
                if used[partition] + needed > capacity:
                    return row, count, True
            slot = loaded[band]
            if slot != _EMPTY and slot >> _NUMBER_BITS != h & _KEY_MASK:
                slot = slots[_find(slots, partition * capacity, capacity, h & _KEY_MASK)]
            if slot != _EMPTY:
                known = np.int64(slot & _NUMBER_MASK) - 1
                if root < 0 or known < root:
                    root = known
        roots[row] = root
        owner = np.uint64((root if root >= 0 else numbers[row]) + 1)
        for band in range(bands):
            h = hashes[band]
            partition = np.int64(h >> _PARTITION_SHIFT)
            position = _find(slots, partition * capacity, capacity, h & _KEY_MASK)
            if slots[position] == _EMPTY:
                slots[position] = ((h & _KEY_MASK) << _NUMBER_BITS) | owner
                used[partition] += 1
                count += 1
        row += 1
    return row, count, False


@numba.njit(nogil=True, cache=True)
def _spread(slots, old, new):  # type: ignore[no-untyped-def]
    """Move partitions of `old` slots apart to `new` slots each, in place, the last one first."""
    kept = np.empty(old, np.uint64)
    for reverse in range(_PARTITIONS):
        partition = _PARTITIONS - 1 - reverse
        for position in range(old):
            kept[position] = slots[partition * old + position]
        for position in range(partition * new, (partition + 1) * new):
            slots[position] = _EMPTY
        for slot in kept:
            if slot != _EMPTY:
                slots[_find(slots, partition * new, new, slot >> _NUMBER_BITS)] = slot


@numba.njit(nogil=True, cache=True, inline="always")
def _place(keys, numbers, h):  # type: ignore[no-untyped-def]
    """The slot of `h`, or the empty slot where it belongs."""
    capacity = np.uint64(len(keys))
    mixed = finish(h * GOLDEN)
    # fastrange (Lemire 2019) on the top 32 bits, refined by the lower ones where a table has more slots than that
    position = np.int64(((mixed >> _HALF) * capacity + (((mixed & _LOW) * capacity) >> _HALF)) >> _HALF)
    while numbers[position] != 0 and keys[position] != h:
        position += 1
        if position == len(keys):
            position = np.int64(0)
    return position


@numba.njit(nogil=True, cache=True)
def _resolve_hashes(hashes, valid, numbers, row, keys, stored, count, limit, found):  # type: ignore[no-untyped-def]
    """Resolve from `row` on; (row reached, slots in use)."""
    while row < len(hashes):
        if valid[row]:
            if count >= limit:
                return row, count
            position = _place(keys, stored, hashes[row])
            if stored[position] != 0:
                found[row] = np.int64(stored[position]) - 1
            else:
                keys[position] = hashes[row]
                stored[position] = np.uint32(numbers[row] + 1)
                count += 1
        row += 1
    return row, count


@numba.njit(nogil=True, cache=True)
def _rehash(keys, numbers, new_keys, new_numbers):  # type: ignore[no-untyped-def]
    for position in range(len(keys)):
        if numbers[position] != 0:
            target = _place(new_keys, new_numbers, keys[position])
            new_keys[target] = keys[position]
            new_numbers[target] = numbers[position]
