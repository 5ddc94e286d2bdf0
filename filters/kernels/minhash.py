"""MinHash signatures over word shingles, and the band keys of locality-sensitive hashing.

Two texts whose sets of shingles have Jaccard similarity s agree in each row of the signature with probability s, and
in at least one band with 1 - (1 - s^rows)^bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3).
Permutations are 32-bit multiply-shift functions of one hash per shingle.

A text of one distinct shingle (few words, or one word again and again) would have all of its signature from one 32-bit
hash: among 150,000 of them two that share no word would agree in every row. Its band keys are made of the 64-bit hash
of its shingle instead: they are equal only where the words are.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

from filters.arrays import Bool, UInt32, UInt64
from filters.kernels.mixing import GOLDEN
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
