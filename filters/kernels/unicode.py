"""Unicode tables of the word kernels: a class and a lower case per code point, and a decoder of UTF-8.

The class of a code point is one of

- SEPARATOR: punctuation, symbols, emoji, controls, U+FFFD and therefore every invalid byte;
- SPACE: what `str.isspace` calls white space;
- WORD: letters, marks, numbers, connector punctuation such as "_", and code points no character has yet;
- SINGLE: a word by itself: Han, kana and bopomofo, written without spaces;
- CLUSTER: begins a word, to which the marks after it belong: letters of Thai, Lao, Khmer, Burmese and other scripts
  that set no spaces between words;
- IGNORED: inside a word but no part of it: soft hyphen, joiners, directional marks, variation selectors.

Tables cover the Basic Multilingual Plane. Above it, code points from U+20000 to U+3FFFF are SINGLE (Han), the planes
of symbols U+1F000-U+1FFFF SEPARATOR, U+E0000-U+E0FFF IGNORED, all others WORD; none of these has a lower case here.
A lower case of several code points is cut to its first (only U+0130), and does not depend on its neighbours (the
final sigma).
"""

from __future__ import annotations

import functools
import unicodedata

import numba
import numpy as np

from filters.arrays import UInt8, UInt16

SEPARATOR, SPACE, WORD, SINGLE, IGNORED, CLUSTER = range(6)

REPLACEMENT = 0xFFFD

_SINGLE_BLOCKS = (
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3040, 0x312F),  # hiragana, katakana, bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width katakana
)
_CLUSTER_BLOCKS = (
    (0x0E00, 0x0EFF),  # Thai and Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0xA980, 0xA9FF),  # Javanese, Burmese
    (0xAA60, 0xAADF),  # Burmese, Tai Viet
)
_AM = (0x0E33, 0x0EB3)
"""Vowels of Thai and Lao that are letters, and belong to the letter before them as marks do."""


@functools.cache
def tables() -> tuple[UInt8, UInt16]:
    """(class uint8[65536], lower case uint16[65536]) of the code points of the Basic Multilingual Plane."""
    classes = np.empty(65536, np.uint8)
    lower = np.arange(65536, dtype=np.uint16)
    for code in range(65536):
        character = chr(code)
        category = unicodedata.category(character)
        if character.isspace():
            classes[code] = SPACE
        elif (category == "Cf" and code != 0x200B) or 0xFE00 <= code <= 0xFE0F:
            classes[code] = IGNORED
        elif category[0] in "LMN" or category in ("Pc", "Cn"):
            classes[code] = WORD
        else:
            classes[code] = SEPARATOR
        folded = character.lower()
        if folded != character and ord(folded[0]) < 65536:
            lower[code] = ord(folded[0])
    for first, last in _SINGLE_BLOCKS:
        block = classes[first : last + 1]
        block[block == WORD] = SINGLE
    for first, last in _CLUSTER_BLOCKS:
        for code in range(first, last + 1):
            if classes[code] == WORD and unicodedata.category(chr(code)) in ("Lo", "Lm") and code not in _AM:
                classes[code] = CLUSTER
    # Blocks in which versions of Unicode still disagree about what is assigned.
    classes[0x2FF0:0x3000] = SEPARATOR
    classes[0x31C0:0x31F0] = SEPARATOR
    classes.flags.writeable = False
    lower.flags.writeable = False
    return classes, lower


@numba.njit(nogil=True, cache=True, inline="always")
def decode(data, position, end):  # type: ignore[no-untyped-def]
    """The code point at `position` and how many bytes it has; (U+FFFD, 1) if no valid sequence starts there."""
    first = np.int64(data[position])
    if first < 0x80:
        return first, 1
    if first < 0xC2 or first > 0xF4:
        return np.int64(0xFFFD), 1
    if first < 0xE0:
        if position + 1 < end and (data[position + 1] & 0xC0) == 0x80:
            return ((first & 0x1F) << 6) | np.int64(data[position + 1] & 0x3F), 2
        return np.int64(0xFFFD), 1
    if first < 0xF0:
        if position + 2 < end and (data[position + 1] & 0xC0) == 0x80 and (data[position + 2] & 0xC0) == 0x80:
            code = (
                ((first & 0x0F) << 12)
                | (np.int64(data[position + 1] & 0x3F) << 6)
                | np.int64(data[position + 2] & 0x3F)
            )
            if code >= 0x800 and not 0xD800 <= code <= 0xDFFF:
                return code, 3
        return np.int64(0xFFFD), 1
    if (
        position + 3 < end
        and (data[position + 1] & 0xC0) == 0x80
        and (data[position + 2] & 0xC0) == 0x80
        and (data[position + 3] & 0xC0) == 0x80
    ):
        code = (
            ((first & 0x07) << 18)
            | (np.int64(data[position + 1] & 0x3F) << 12)
            | (np.int64(data[position + 2] & 0x3F) << 6)
            | np.int64(data[position + 3] & 0x3F)
        )
        if 0x10000 <= code <= 0x10FFFF:
            return code, 4
    return np.int64(0xFFFD), 1


@numba.njit(nogil=True, cache=True, inline="always")
def class_of(code, classes):  # type: ignore[no-untyped-def]
    """The class of any code point, given the table of the Basic Multilingual Plane."""
    if code < 0x10000:
        return np.int64(classes[code])
    if 0x20000 <= code <= 0x3FFFF:
        return np.int64(3)
    if 0x1F000 <= code <= 0x1FFFF:
        return np.int64(0)
    if 0xE0000 <= code <= 0xE0FFF:
        return np.int64(4)
    return np.int64(2)


@numba.njit(nogil=True, cache=True, inline="always")
def encode(code, target, position):  # type: ignore[no-untyped-def]
    """Write `code` as UTF-8 at `target[position]`; the position after it."""
    if code < 0x80:
        target[position] = code
        return position + 1
    if code < 0x800:
        target[position] = 0xC0 | (code >> 6)
        target[position + 1] = 0x80 | (code & 0x3F)
        return position + 2
    if code < 0x10000:
        target[position] = 0xE0 | (code >> 12)
        target[position + 1] = 0x80 | ((code >> 6) & 0x3F)
        target[position + 2] = 0x80 | (code & 0x3F)
        return position + 3
    target[position] = 0xF0 | (code >> 18)
    target[position + 1] = 0x80 | ((code >> 12) & 0x3F)
    target[position + 2] = 0x80 | ((code >> 6) & 0x3F)
    target[position + 3] = 0x80 | (code & 0x3F)
    return position + 4
