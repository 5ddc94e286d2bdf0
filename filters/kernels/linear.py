"""Linear models over hashed word and character n-grams: their features for training, and fused scoring.

The feature of an n-gram is its hash modulo a power of two (Weinberger et al. 2009, without signs). `hashed_features`
gives scikit-learn what it needs to train; `score_hashed` scores without ever storing features, and agrees with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np

from filters.arrays import Float32, Int64, UInt32
from filters.errors import ModelError
from filters.kernels import GOLDEN
from filters.kernels.canonical import in_nfc
from filters.kernels.packed import PackedText
from filters.kernels.unicode import CLUSTER, IGNORED, SINGLE, WORD, class_of, decode, tables
from filters.kernels.words import finish

MAX_BITS = 28
"""Largest table: 2^28 weights."""

_START = np.uint64(0xCBF29CE484222325)
_WORD_CHAIN = np.uint64(0xA24BAED4963EE407)
_CHARACTER_START = np.uint64(0x2545F4914F6CDD1D)
_BOUNDARY = np.uint64(32)
_ZERO = np.uint64(0)
_TERM_FREQUENCIES = ("count", "log", "binary")
_NORMS = ("none", "l2")


@dataclass(frozen=True, slots=True)
class HashedFeatures:
    """Features of n texts as a sparse matrix; text i has the entries from `offsets[i]` to `offsets[i + 1]`.

    `scipy.sparse.csr_matrix((counts, indices, offsets), shape=(n, 2**bits))` is that matrix.

    Attributes:
        indices: uint32[nnz], each once per text, in the order of first occurrence.
        counts: uint32[nnz], how often it occurs.
        offsets: int64[n + 1].
    """

    indices: UInt32
    counts: UInt32
    offsets: Int64


def hashed_features(
    packed: PackedText,
    *,
    bits: int,
    word_ngrams: int = 2,
    char_ngrams: tuple[int, int] | None = None,
    max_characters: int | None = None,
) -> HashedFeatures:
    """Hashed n-grams of each text, counted.

    Args:
        packed: n texts.
        bits: the table has 2**bits entries.
        word_ngrams: word n-grams of 1 to this many lower-cased words; 0 for none.
        char_ngrams: (shortest, longest) character n-gram of each word with a space on either side; None for none.
        max_characters: how much of each text is read; None for all.

    Raises:
        ValueError: an option is out of range.
    """
    _check(bits, word_ngrams, char_ngrams)
    shortest, longest = char_ngrams or (1, 0)
    packed = in_nfc(packed)
    if max_characters is not None:
        packed = packed.head(max_characters)
    classes, lower = tables()
    counted = np.zeros(len(packed) + 1, np.int64)
    # A text has at most as many words and characters (two more with each word's ends) as bytes.
    per_byte = word_ngrams + 3 * max(0, longest - shortest + 1)
    room = int(packed.lengths.sum()) * per_byte
    indices, counts = np.empty(room, np.uint32), np.empty(room, np.uint32)
    _features(
        packed.data, packed.offsets, classes, lower, bits, word_ngrams, shortest, longest, indices, counts, counted
    )
    end = counted[-1]
    return HashedFeatures(indices[:end].copy(), counts[:end].copy(), counted)


def score_hashed(
    packed: PackedText,
    weights: Float32,
    *,
    word_ngrams: int = 2,
    char_ngrams: tuple[int, int] | None = None,
    max_characters: int | None = None,
    tf: Literal["count", "log", "binary"] = "log",
    norm: Literal["none", "l2"] = "l2",
    idf: Float32 | None = None,
    intercept: float = 0.0,
) -> Float32:
    """intercept + sum of tf * idf * weight over the features of each text: float32[n].

    Args:
        packed: n texts.
        weights: float32[2**bits].
        word_ngrams, char_ngrams, max_characters: as for `hashed_features`.
        tf: "count", "log" for 1 + ln(count), or "binary" for 1.
        norm: "l2" divides by the length of the text's vector of tf * idf, "none" does not.
        idf: float32[2**bits], or None for 1.
        intercept: score of a text without features.

    Raises:
        ModelError: weights or idf have a wrong shape, or values that are no finite numbers.
        ValueError: an option is out of range.
    """
    bits = int(weights.size).bit_length() - 1
    if weights.ndim != 1 or weights.size != 1 << bits:
        raise ModelError(f"weights must be float32[2**bits], got shape {weights.shape}")
    _check(bits, word_ngrams, char_ngrams)
    if tf not in _TERM_FREQUENCIES or norm not in _NORMS:
        raise ValueError(f"tf must be one of {_TERM_FREQUENCIES} and norm one of {_NORMS}, got {tf!r} and {norm!r}")
    if idf is not None and idf.shape != weights.shape:
        raise ModelError(f"idf must have the shape of the weights {weights.shape}, got {idf.shape}")
    if not np.isfinite(weights).all() or not (idf is None or np.isfinite(idf).all()):
        raise ModelError("weights or idf have values that are no finite numbers")
    packed = in_nfc(packed)
    if max_characters is not None:
        packed = packed.head(max_characters)
    shortest, longest = char_ngrams or (1, 0)
    classes, lower = tables()
    scores = np.empty(len(packed), np.float32)
    _score(
        packed.data, packed.offsets, classes, lower, bits, word_ngrams, shortest, longest,
        np.ascontiguousarray(weights, np.float32),
        np.empty(0, np.float32) if idf is None else np.ascontiguousarray(idf, np.float32),
        _TERM_FREQUENCIES.index(tf), norm == "l2", float(intercept), scores,
    )  # fmt: skip
    return scores


def _check(bits: int, word_ngrams: int, char_ngrams: tuple[int, int] | None) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be between 1 and {MAX_BITS}, got {bits}")
    if not 0 <= word_ngrams <= 10:
        raise ValueError(f"word_ngrams must be between 0 and 10, got {word_ngrams}")
    if char_ngrams is not None and not 1 <= char_ngrams[0] <= char_ngrams[1] <= 10:
        raise ValueError(f"char_ngrams must be (shortest, longest) with 1 <= shortest <= longest <= 10: {char_ngrams}")


@numba.njit(nogil=True, cache=True)
def _characters(data, position, end, classes, lower, characters, word_ends):  # type: ignore[no-untyped-def]
    """Lower-cased code points of the words of a text, one after the other, and where each word ends; how many words."""
    count = 0
    words = 0
    started = 0
    while position < end:
        byte = data[position]
        if byte < 128:
            code, size = np.int64(byte), 1
        else:
            code, size = decode(data, position, end)
        position += size
        kind = class_of(code, classes)
        if kind == WORD:
            characters[count] = lower[code] if code < 65536 else code
            count += 1
        elif kind != IGNORED:
            if count > started:
                word_ends[words] = count
                words += 1
                started = count
            if kind == CLUSTER:
                characters[count] = code
                count += 1
            elif kind == SINGLE:
                characters[count] = code
                count += 1
                word_ends[words] = count
                words += 1
                started = count
    if count > started:
        word_ends[words] = count
        words += 1
    return words


@numba.njit(nogil=True, cache=True)
def _hashes(characters, word_ends, words, word_ngrams, shortest, longest, bits, chains, indices):  # type: ignore[no-untyped-def]
    """Indices of all n-grams of a text, with repetitions; how many."""
    shift = np.uint64(64 - bits)
    count = 0
    if word_ngrams > 0:
        start = 0
        for word in range(words):
            h = _START
            for position in range(start, word_ends[word]):
                h = (h ^ np.uint64(characters[position])) * GOLDEN
            start = word_ends[word]
            chains[word] = finish(h)
        for word in range(words):
            h = _ZERO
            for following in range(word, min(words, word + word_ngrams)):
                h = (h + chains[following]) * _WORD_CHAIN
                indices[count] = np.uint32(finish(h) * GOLDEN >> shift)
                count += 1
    if longest > 0:
        start = 0
        for word in range(words):
            size = word_ends[word] - start + 2
            for first in range(size):
                h = _CHARACTER_START
                for position in range(first, min(size, first + longest)):
                    inside = 0 < position < size - 1
                    h = (h ^ (np.uint64(characters[start + position - 1]) if inside else _BOUNDARY)) * GOLDEN
                    if position - first + 1 >= shortest:
                        indices[count] = np.uint32(finish(h) * GOLDEN >> shift)
                        count += 1
            start = word_ends[word]
    return count


@numba.njit(nogil=True, cache=True)
def _unique(indices, count, slots, counts):  # type: ignore[no-untyped-def]
    """Move the distinct ones of `count` indices to the front and count them; how many they are.

    `slots` are zeros, a power of two of them and more than `count`, and zeros again afterwards.
    """
    mask = 1
    while mask <= 2 * count:
        mask *= 2
    mask -= 1
    distinct = 0
    for position in range(count):
        index = indices[position]
        slot = np.int64(index) & mask  # an index is a hash already
        while True:
            number = slots[slot]
            if number == 0:
                indices[distinct] = index
                counts[distinct] = 1
                distinct += 1
                slots[slot] = distinct
                break
            if indices[number - 1] == index:
                counts[number - 1] += 1
                break
            slot = (slot + 1) & mask
    slots[: mask + 1] = 0
    return distinct


@numba.njit(nogil=True, cache=True)
def _longest(offsets):  # type: ignore[no-untyped-def]
    longest = np.int64(0)
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    return longest


@numba.njit(nogil=True, cache=True)
def _slots(features):  # type: ignore[no-untyped-def]
    """A table for `_unique` with room for so many features."""
    size = 1
    while size <= 2 * features:
        size *= 2
    return np.zeros(size, np.int32)


@numba.njit(nogil=True, cache=True)
def _features(  # type: ignore[no-untyped-def]
    data, offsets, classes, lower, bits, word_ngrams, shortest, longest, indices, counts, ends
):
    room = _longest(offsets)
    characters, word_ends = np.empty(room, np.uint32), np.empty(room, np.int64)
    chains = np.empty(room, np.uint64)
    slots = _slots(room * (word_ngrams + 3 * max(0, longest - shortest + 1)))
    filled = np.int64(0)
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        words = _characters(data, start, end, classes, lower, characters, word_ends)
        found = indices[filled:]
        count = _hashes(characters, word_ends, words, word_ngrams, shortest, longest, bits, chains, found)
        filled += _unique(found, count, slots, counts[filled:])
        ends[document + 1] = filled


@numba.njit(nogil=True, cache=True)
def _score(  # type: ignore[no-untyped-def]
    data, offsets, classes, lower, bits, word_ngrams, shortest, longest, weights, idf, tf, normalize, intercept, scores
):
    room = _longest(offsets)
    characters, word_ends = np.empty(room, np.uint32), np.empty(room, np.int64)
    chains = np.empty(room, np.uint64)
    features = room * (word_ngrams + 3 * max(0, longest - shortest + 1))
    indices, counts = np.empty(features, np.uint32), np.empty(features, np.uint32)
    slots = _slots(features)
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        words = _characters(data, start, end, classes, lower, characters, word_ends)
        count = _hashes(characters, word_ends, words, word_ngrams, shortest, longest, bits, chains, indices)
        distinct = _unique(indices, count, slots, counts)
        total = 0.0
        squares = 0.0
        for feature in range(distinct):
            index = indices[feature]
            value = 1.0
            if tf == 0:
                value = float(counts[feature])
            elif tf == 1 and counts[feature] > 1:
                value = 1.0 + math.log(float(counts[feature]))
            if len(idf) > 0:
                value *= idf[index]
            total += value * weights[index]
            squares += value * value
        if normalize and squares > 0:
            total /= math.sqrt(squares)
        scores[document] = total + intercept
