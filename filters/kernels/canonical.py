"""One spelling for what is the same text: canonical composition (NFC), and numbers folded to one digit."""

from __future__ import annotations

import functools
import unicodedata

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import UInt8
from filters.kernels.packed import PackedText
from filters.kernels.unicode import decode, encode
from filters.kernels.vectors import WINDOW, non_ascii, trailing_zeros

LONGEST_RUN = 30
"""Combining marks in a row at most, as in Unicode's stream-safe format. A text with more is left as it is: nobody
writes it, and ordering the marks takes time that grows with the square of their number."""

_COMPOSES = 255
"""Stands for a combining class: NFC may replace the character, or compose it with one before it."""
_SAME, _CHANGES, _TOO_LONG = 0, 1, 2


def in_nfc(packed: PackedText) -> PackedText:
    """The texts in NFC; `packed` itself if they are.

    Invalid UTF-8 is left as it is, and so is a text with more than `LONGEST_RUN` combining marks in a row.
    """
    classes, leads = _tables()
    states = np.empty(len(packed), np.uint8)
    _check(packed.data, packed.offsets, classes, leads, states)
    rows = [row for row in np.flatnonzero(states == _CHANGES).tolist() if _is_utf8(packed[row])]
    if not rows:
        return packed
    texts = pa.array([packed[row] for row in rows], pa.large_binary()).cast(pa.large_string())
    composed = PackedText.from_arrow(pc.utf8_normalize(texts, form="NFC"))
    lengths = packed.lengths.copy()
    lengths[rows] = composed.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    data = np.empty(int(offsets[-1]) + WINDOW, np.uint8)
    before = 0
    for number, row in enumerate([*rows, len(packed)]):
        first, last = packed.offsets[before], packed.offsets[row]
        data[offsets[before] : offsets[row]] = packed.data[first:last]
        if row < len(packed):
            data[offsets[row] : offsets[row + 1]] = composed.data[
                composed.offsets[number] : composed.offsets[number + 1]
            ]
        before = row + 1
    return PackedText(data, offsets)


def fold_digits(packed: PackedText) -> PackedText:
    """The texts with "0" for every number: digits of any script, and a fraction after a point."""
    data = np.empty(len(packed.data) + WINDOW, np.uint8)
    offsets = np.zeros(len(packed) + 1, np.int64)
    _fold(packed.data, packed.offsets, _digits(), data, offsets)
    return PackedText(data[: offsets[-1]], offsets)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@functools.cache
def _tables() -> tuple[UInt8, UInt8]:
    """(uint8[0x30000]: combining class of a code point, or `_COMPOSES`; uint8[16384]: 1 for the
    first byte of any of them, times 64, plus what the second one adds).

    Code points above are in NFC, or without a class.
    """
    classes = np.zeros(0x30000, np.uint8)
    leads = np.zeros(256 * 64, np.uint8)
    for code in range(0x300, len(classes)):
        if 0x3400 <= code < 0xA000 or 0xAC00 <= code < 0xF900 or 0x20000 <= code < 0x2F800:
            continue  # Han, syllables of Hangul, surrogates and private use: whole, and without marks
        character = chr(code)
        parts = unicodedata.decomposition(character)
        if parts and parts[0] != "<":
            if unicodedata.normalize("NFC", character) != character:
                classes[code] = _COMPOSES
            elif " " in parts:
                classes[int(parts.split()[1], 16)] = _COMPOSES
        if not classes[code]:
            classes[code] = unicodedata.combining(character)
    classes[0x1161:0x1176] = classes[0x11A8:0x11C3] = _COMPOSES  # Hangul, composed by rule
    for code in np.flatnonzero(classes).tolist():
        first, second, *_ = chr(code).encode()
        leads[first << 6 | second & 0x3F] = 1
    for table in (classes, leads):
        table.flags.writeable = False
    return classes, leads


@functools.cache
def _digits() -> UInt8:
    """uint8[0x20000]: 1 for decimal digits."""
    found = np.zeros(0x20000, np.uint8)
    for code in range(len(found)):
        found[code] = not 0xD800 <= code < 0xE000 and chr(code).isdecimal()
    found.flags.writeable = False
    return found


@numba.njit(nogil=True, cache=True)
def _check(data, offsets, classes, leads, states):  # type: ignore[no-untyped-def]
    """Whether each text may change under NFC, by the quick check of Unicode Annex 15."""
    last = len(data) - WINDOW
    for document in range(len(offsets) - 1):
        position, end = offsets[document], offsets[document + 1]
        state = _SAME
        behind = np.int64(-1)  # where the last mark ended
        before, run = np.int64(0), 0
        while position < end:
            byte = data[position]
            if byte < 0xC0:
                if byte < 128 and position <= last:
                    position += max(1, min(trailing_zeros(non_ascii(data, position)), end - position))
                else:
                    position += 1
                continue
            if position + 1 < end and leads[np.int64(byte) << 6 | np.int64(data[position + 1] & 0x3F)] == 0:
                position += 2
                continue
            start = position
            code, size = decode(data, position, end)
            position += size
            kind = classes[code] if code < len(classes) else np.uint8(0)
            if kind == 0:
                continue
            if start != behind:
                before, run = np.int64(0), 0
            behind = position
            run += 1
            if run > LONGEST_RUN:
                state = _TOO_LONG
                break
            if kind == _COMPOSES:
                state = _CHANGES
            else:
                if kind < before:
                    state = _CHANGES
                before = np.int64(kind)
        states[document] = state


@numba.njit(nogil=True, cache=True)
def _fold(data, offsets, digits, target, ends):  # type: ignore[no-untyped-def]
    written = 0
    for document in range(len(offsets) - 1):
        position, end = offsets[document], offsets[document + 1]
        number = fraction = False
        while position < end:
            code, size = decode(data, position, end)
            if code < len(digits) and digits[code]:
                if not number:
                    written = encode(48, target, written)
                    number = True
                position += size
                continue
            if number and not fraction and code == 46 and position + 1 < end:
                behind, _ = decode(data, position + 1, end)
                if behind < len(digits) and digits[behind]:
                    fraction = True
                    position += size
                    continue
            number = fraction = False
            for k in range(size):
                target[written + k] = data[position + k]
            written += size
            position += size
        ends[document + 1] = written
