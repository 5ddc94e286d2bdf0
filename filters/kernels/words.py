"""Words of a text, lower-cased and hashed in one pass, and what follows from the same reading of it."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from filters.arrays import Int64, UInt8, UInt64
from filters.kernels import GOLDEN
from filters.kernels.canonical import in_nfc
from filters.kernels.packed import PackedText
from filters.kernels.unicode import CLUSTER, IGNORED, SINGLE, SPACE, WORD, class_of, decode, encode, tables
from filters.kernels.vectors import (
    WINDOW,
    copy_lower,
    lowest,
    non_ascii,
    shifted,
    spaces,
    trailing_zeros,
    word_characters,
)

_START = np.uint64(0xCBF29CE484222325)
_FINISH = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_NONE, _ONE = np.uint64(0), np.uint64(1)
_SHORT = 8
"""Letters that most words have at most."""
_HAN, _KANA, _LETTER = 1, 2, 3
_REACH = np.array([1.0, 1.5, 2.2, 2.8])
"""Characters of Han, of kana and clusters that say as much as a word: pages that have nothing to do with each other
share 5 words of English as rarely as 7 to 8 characters of Chinese, 11 of Japanese and 14 clusters of Thai."""


@dataclass(frozen=True, slots=True)
class WordHashes:
    """Words of n texts; text i has `hashes[offsets[i]:offsets[i + 1]]`, in the order of the text.

    Attributes:
        hashes: uint64[m], a hash of each word's lower-cased code points.
        offsets: int64[n + 1].
        kinds: uint8[m], 0 where a word is none of Han, kana or a cluster.
    """

    hashes: UInt64
    offsets: Int64
    kinds: UInt8

    def __len__(self) -> int:
        return len(self.offsets) - 1


def word_hashes(packed: PackedText) -> WordHashes:
    """Split each text, in NFC, into words (see `filters.kernels.unicode` for what a word is); hash them lower-cased."""
    packed = in_nfc(packed)
    classes, lower = tables()
    # A word is a run of at least one byte and the separator after it, or one character of at least three bytes.
    most = int(packed.lengths.sum()) // 2 + len(packed)
    hashes, kinds = np.empty(most, np.uint64), np.zeros(most, np.uint8)
    offsets = np.zeros(len(packed) + 1, np.int64)
    _hash_words(packed.data, packed.offsets, classes, lower, hashes, offsets, kinds)
    return WordHashes(hashes[: offsets[-1]], offsets, kinds[: offsets[-1]])


def widened(words: WordHashes, size: int) -> WordHashes:
    """Words of which `size` in a row say about as much in each script.

    A character of Han or kana, or a cluster, is hashed with those after it, so that `size` of them reach over `size`
    times `_REACH`. The last ones of a text, after which too little comes, are left out.
    """
    if not words.kinds.any():
        return words
    reach = np.rint(size * _REACH).astype(np.int64) - size + 1
    hashes, offsets = np.empty(len(words.hashes), np.uint64), np.zeros(len(words.offsets), np.int64)
    _widen(words.hashes, words.offsets, words.kinds, reach, hashes, offsets)
    return WordHashes(hashes[: offsets[-1]], offsets, np.zeros(int(offsets[-1]), np.uint8))


def normalize(packed: PackedText) -> PackedText:
    """Lower-cased text with every run of white space collapsed to one space, and none at its ends.

    Invalid bytes become U+FFFD, so the result is valid UTF-8. Nothing else is dropped: texts that differ in a comma
    stay different.
    """
    classes, lower = tables()
    # The longest growth is that of an invalid byte, to the three of U+FFFD; pages that are not written cost nothing.
    data = np.empty(int(packed.lengths.sum()) * 3 + WINDOW, np.uint8)
    offsets = np.zeros(len(packed) + 1, np.int64)
    _normalize(packed.data, packed.offsets, classes, lower, data, offsets)
    return PackedText(data[: offsets[-1]], offsets)


@numba.njit(nogil=True, cache=True, inline="always")
def finish(h):  # type: ignore[no-untyped-def]
    """Spread the entropy of a multiplicative hash over all its bits."""
    h = (h ^ (h >> _SHIFT)) * _FINISH
    return h ^ (h >> _SHIFT)


@numba.njit(nogil=True, cache=True)
def _hash_words(data, offsets, classes, lower, hashes, ends, kinds):  # type: ignore[no-untyped-def]
    ascii_letters = np.zeros(256, np.uint64)  # the lower case of a word character of ASCII, else 0
    for code in range(128):
        if classes[code] == WORD:
            ascii_letters[code] = lower[code]
    last = len(data) - WINDOW - _SHORT  # where a window may begin
    count = 0
    for document in range(len(offsets) - 1):
        position, end = offsets[document], offsets[document + 1]
        h = _START
        inside = False
        while position < end:
            byte = data[position]
            if byte < 128 and not inside and position <= last:
                # Words of ASCII that begin and end within the window.
                stop = min(trailing_zeros(non_ascii(data, position)), end - position)
                found = word_characters(data, position) & lowest(stop)
                first = 0
                while found != _NONE:
                    gap = trailing_zeros(found)
                    found >>= np.uint64(gap)
                    length = trailing_zeros(~found)
                    if first + gap + length == stop and position + stop < end:
                        first += gap
                        break
                    start = position + first + gap
                    # Always `_SHORT` steps: a branch on the length would be mispredicted.
                    for k in range(_SHORT):
                        longer = (h ^ ascii_letters[data[start + k]]) * GOLDEN
                        h = longer if k < length else h
                    for k in range(_SHORT, length):
                        h = (h ^ ascii_letters[data[start + k]]) * GOLDEN
                    hashes[count] = finish(h)
                    count += 1
                    h = _START
                    first += gap + length
                    found = shifted(found, length)
                else:
                    first = stop
                position += first
                if first > 0:
                    continue
            if byte < 128:
                letter = ascii_letters[byte]
                position += 1
                if letter != np.uint64(0):
                    h = (h ^ letter) * GOLDEN
                    inside = True
                elif inside:
                    hashes[count] = finish(h)
                    count += 1
                    h = _START
                    inside = False
                continue
            code, size = decode(data, position, end)
            position += size
            kind = class_of(code, classes)
            if kind == WORD:
                h = (h ^ np.uint64(lower[code] if code < 65536 else code)) * GOLDEN
                inside = True
            elif kind != IGNORED:
                if inside:
                    hashes[count] = finish(h)
                    count += 1
                    h = _START
                    inside = False
                if kind == SINGLE:
                    hashes[count] = finish((_START ^ np.uint64(code)) * GOLDEN)
                    kinds[count] = _KANA if 0x3040 <= code < 0x3200 or 0xFF66 <= code < 0xFFA0 else _HAN
                    count += 1
                elif kind == CLUSTER:
                    kinds[count] = _LETTER
                    h = (_START ^ np.uint64(code)) * GOLDEN
                    inside = True
        if inside:
            hashes[count] = finish(h)
            count += 1
        ends[document + 1] = count


@numba.njit(nogil=True, cache=True)
def _widen(words, bounds, kinds, reach, hashes, ends):  # type: ignore[no-untyped-def]
    count = 0
    for document in range(len(bounds) - 1):
        end = bounds[document + 1]
        for place in range(bounds[document], end):
            width = reach[kinds[place]]
            if place + width > end:
                continue
            h = words[place]
            if width > 1:
                h = np.uint64(0)
                for k in range(width):
                    h = (h + words[place + k]) * GOLDEN
                h = finish(h)
            hashes[count] = h
            count += 1
        ends[document + 1] = count


@numba.njit(nogil=True, cache=True)
def _normalize(data, offsets, classes, lower, target, ends):  # type: ignore[no-untyped-def]
    last = len(data) - WINDOW
    written = 0
    for document in range(len(offsets) - 1):
        position, end = offsets[document], offsets[document + 1]
        start = written
        after_space = True  # or at the start, where white space is dropped as well
        while position < end:
            if data[position] < 128 and position <= last:
                white = spaces(data, position)
                repeated = white & ((white << _ONE) | np.uint64(after_space))
                stop = min(trailing_zeros(non_ascii(data, position) | repeated), end - position)
                if stop > 0:
                    # What follows `stop` is written over, or cut off.
                    copy_lower(data, position, target, written)
                    position += stop
                    written += stop
                    after_space = target[written - 1] == 32
                    continue
            code, size = decode(data, position, end)
            position += size
            if code < 65536:
                if classes[code] == SPACE:
                    if not after_space:
                        target[written] = 32
                        written += 1
                        after_space = True
                    continue
                code = int(lower[code])
            written = encode(code, target, written)
            after_space = False
        if after_space and written > start:
            written -= 1
        ends[document + 1] = written
