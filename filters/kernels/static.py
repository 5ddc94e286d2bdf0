"""Static embeddings: tokens of a text, their vectors from a table, and the sums that are the text's features.

A token is a word (a run of letters, lower-cased, with an apostrophe between letters), a run of ASCII digits (only its
length counts, up to five), a run of white space with a line break in it, or any other single character that is not
white space: how a page is set tells as much about it as its words.

The table holds two vectors. A gram, which is a token or a pair of neighbouring tokens, has one that is summed as in a
linear model on tf-idf; a token has another that is averaged, rare tokens counting more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from filters.arrays import Float32, Int8, Int64, UInt64
from filters.errors import ModelError
from filters.kernels import GOLDEN
from filters.kernels.packed import PackedText
from filters.kernels.unicode import CLUSTER, IGNORED, SPACE, WORD, class_of, decode, tables
from filters.kernels.vectors import SPAN, WINDOW, letters, prefetch, sum_rows, trailing_zeros
from filters.kernels.words import finish

SHAPE = (
    "log tokens",
    "line breaks per token",
    "punctuation per token",
    "digits per token",
    "letters per word",
    "words known",
    "commas per token",
    "question marks per token",
)
"""What is counted besides the vectors. Not capitals: a page in capitals is the same page, and they added nothing."""

_START = np.uint64(0xCBF29CE484222325)
_PAIR = np.uint64(0xA24BAED4963EE407)
_DIGITS = np.uint64(0xD1617)
_BREAK = np.uint64(0xB4EA4)
_MOST_DIGITS = 5
_SHORT = 8  # letters that most words have after their first, at most

_LETTER, _DIGIT, _BLANK, _NEWLINE, _OTHER = range(5)
_BREAKS, _PUNCTUATION, _NUMBERS, _LETTERS, _WORDS, _COMMAS, _QUESTIONS = range(7)
_COUNTS = 7
_LOGS = 1024


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of n texts; text i has those from `offsets[i]` to `offsets[i + 1]`.

    Attributes:
        hashes: uint64[m].
        last: int64[m], position in `PackedText.data` of the first byte of a token's last character.
        offsets: int64[n + 1].
    """

    hashes: UInt64
    last: Int64
    offsets: Int64


@dataclass(frozen=True, slots=True)
class StaticTable:
    """Vectors of v grams, the first s of which are single tokens, for look-up.

    Attributes:
        slots: uint64[2^k], what a look-up reads: a hash's low k bits choose the slot to begin with, which holds its
            other bits and, in place of the low ones, the row + 1; 0: none. A hash that is not in the table passes for
            one that is if 64 - k bits agree: of 262,144 slots, once in 2^46 for each slot read.
        grams: int8[v, d].
        words: int8[s, e].
        factors: float32[v, 4]: of a row the idf and what its gram is multiplied by, then of a token the weight in the
            mean and what its vector is multiplied by. Side by side, for they are read together.
    """

    slots: UInt64
    grams: Int8
    words: Int8
    factors: Float32

    @classmethod
    def build(
        cls,
        keys: UInt64,
        grams: Int8,
        gram_scales: Float32,
        idf: Float32,
        words: Int8,
        word_scales: Float32,
        weights: Float32,
    ) -> StaticTable:
        """From keys uint64[v], distinct and not 0, those of single tokens first, and what belongs to each.

        A gram's vector is grams int8[v, d] * gram_scales float32[v], and counts idf float32[v]; a token's is words
        int8[s, e] * word_scales float32[s], and counts weights float32[s].

        Raises:
            ModelError: keys that repeat or are 0; more tokens than grams.
        """
        if len(np.unique(keys)) != len(keys) or (keys == 0).any():
            raise ModelError("the table's keys must be distinct and not 0. Remedy: build the table again")
        if len(words) > len(keys):
            raise ModelError(f"{len(words)} tokens are more than {len(keys)} grams. Remedy: build the table again")
        size = 1 << max(4, int(2 * len(keys)).bit_length())
        slots = np.zeros(size, np.uint64)
        _fill(np.ascontiguousarray(keys), slots)
        factors = np.zeros((len(keys), 4), np.float32)
        factors[:, 0], factors[:, 1] = idf, gram_scales
        factors[: len(words), 2], factors[: len(words), 3] = weights, word_scales
        return cls(slots, np.ascontiguousarray(grams), np.ascontiguousarray(words), factors)

    @property
    def columns(self) -> int:
        """Features of a text: the sum of grams, the mean of tokens, and `SHAPE`."""
        return int(self.grams.shape[1]) + int(self.words.shape[1]) + len(SHAPE)


def static_tokens(packed: PackedText) -> Tokens:
    """Tokens of each text."""
    classes, lower = tables()
    room = int(packed.lengths.sum())
    hashes, last = np.empty(room, np.uint64), np.empty(room, np.int64)
    offsets = np.zeros(len(packed) + 1, np.int64)
    counts = np.zeros(_COUNTS, np.int64)
    _all_tokens(packed.data, packed.offsets, classes, lower, _ascii(), hashes, last, offsets, counts)
    return Tokens(hashes[: offsets[-1]].copy(), last[: offsets[-1]].copy(), offsets)


def pair_hashes(first: UInt64, second: UInt64) -> UInt64:
    """uint64[m]: keys of pairs of neighbouring tokens."""
    keys = np.empty(len(first), np.uint64)
    _pair_hashes(np.ascontiguousarray(first), np.ascontiguousarray(second), keys)
    return keys


def static_features(packed: PackedText, table: StaticTable, window: int | None = None) -> Float32:
    """float32[n, columns]: what `table` makes of each text, or of its first `window` characters.

    First the sum of the vectors of its grams, each times (1 + ln count) * idf, divided by the length of the vector of
    these factors; then the weighted mean of the other vectors of its tokens; then `SHAPE`. What is not in the table is
    left out.
    """
    classes, lower = tables()
    features = np.zeros((len(packed), table.columns), np.float32)
    ends = packed.offsets[1:].copy() if window is None else packed.head_ends(window)
    _all_features(
        packed.data, packed.offsets, ends, classes, lower, _ascii(), table.slots, table.grams, table.words,
        table.factors, features,
    )  # fmt: skip
    return features


def _ascii() -> npt.NDArray[np.uint8]:
    """uint8[128]: what kind of character each ASCII one is."""
    kinds = np.full(128, _OTHER, np.uint8)
    for code in range(128):
        character = chr(code)
        if character.isalpha():
            kinds[code] = _LETTER
        elif character.isdigit():
            kinds[code] = _DIGIT
        elif character in "\n\r":
            kinds[code] = _NEWLINE
        elif character.isspace():
            kinds[code] = _BLANK
    return kinds


@numba.njit(nogil=True, cache=True)
def _pair_hashes(first, second, keys):  # type: ignore[no-untyped-def]
    for position in range(len(first)):
        keys[position] = finish(first[position] * _PAIR + second[position])


@numba.njit(nogil=True, cache=True)
def _fill(keys, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    for row in range(len(keys)):
        slot = keys[row] & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = (keys[row] & ~mask) | np.uint64(row + 1)


@numba.njit(nogil=True, cache=True, inline="always")
def _find(slots, key):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    slot = key & mask
    while True:
        found = slots[slot]
        row = found & mask
        if (found ^ key) <= mask or row == 0:
            return np.int32(np.int64(row) - 1)
        slot = (slot + np.uint64(1)) & mask


@numba.njit(nogil=True, cache=True)
def _tokens(data, position, end, classes, lower, ascii_kinds, hashes, last, counts):  # type: ignore[no-untyped-def]
    """Tokens of one text and what `counts` counts of it; how many tokens."""
    room = len(data) - WINDOW  # where a window may begin
    count = 0
    h = _START
    inside = False  # a word
    digits = 0
    blank = False  # a line break has been seen since the last token
    final = position
    while position < end:
        start = position
        byte = data[position]
        if byte < 128:
            code, size = int(byte), 1
            kind = int(ascii_kinds[byte])
        else:
            code, size = decode(data, position, end)
            what = class_of(code, classes)
            if what == IGNORED:
                position += size
                continue
            kind = _LETTER if what in (WORD, CLUSTER) else (_BLANK if what == SPACE else _OTHER)
        position += size
        if kind == _LETTER:
            if digits > 0:
                hashes[count] = finish((_DIGITS + np.uint64(min(digits, _MOST_DIGITS))) * GOLDEN)
                last[count] = final
                count += 1
                digits = 0
            small = np.int64(lower[code]) if code < 65536 else np.int64(code)
            counts[_LETTERS] += 1
            if not inside:
                counts[_WORDS] += 1
            h = (h ^ np.uint64(small)) * GOLDEN
            inside = True
            blank = False
            final = start
            # The rest of an ASCII word, which is most of most texts, without the questions above.
            if position <= room:
                run = min(trailing_zeros(~letters(data, position)), end - position)
                # Always `_SHORT` steps: a branch on the length would be mispredicted.
                for k in range(_SHORT):
                    longer = (h ^ np.uint64(data[position + k] | 32)) * GOLDEN
                    h = longer if k < run else h
                for k in range(_SHORT, run):
                    h = (h ^ np.uint64(data[position + k] | 32)) * GOLDEN
                position += run
            counts[_LETTERS] += position - final - size
            if position > start + size:
                final = position - 1
            continue
        if inside:
            apostrophe = code == 39 or code == 0x2019
            if apostrophe and position < end and data[position] < 128 and ascii_kinds[data[position]] == _LETTER:
                h = (h ^ np.uint64(39)) * GOLDEN
                continue
            hashes[count] = finish(h)
            last[count] = final
            count += 1
            h = _START
            inside = False
        if kind == _DIGIT:
            digits += 1
            counts[_NUMBERS] += 1
            blank = False
            final = start
            continue
        if digits > 0:
            hashes[count] = finish((_DIGITS + np.uint64(min(digits, _MOST_DIGITS))) * GOLDEN)
            last[count] = final
            count += 1
            digits = 0
        if kind == _NEWLINE:
            if not blank:
                hashes[count] = finish(_BREAK * GOLDEN)
                last[count] = start
                count += 1
                counts[_BREAKS] += 1
                blank = True
        elif kind == _OTHER:
            hashes[count] = finish((_START ^ np.uint64(code)) * GOLDEN)
            last[count] = start
            count += 1
            counts[_PUNCTUATION] += 1
            if code == 44:
                counts[_COMMAS] += 1
            elif code == 63:
                counts[_QUESTIONS] += 1
            blank = False
    if inside:
        hashes[count] = finish(h)
        last[count] = final
        count += 1
    elif digits > 0:
        hashes[count] = finish((_DIGITS + np.uint64(min(digits, _MOST_DIGITS))) * GOLDEN)
        last[count] = final
        count += 1
    return count


@numba.njit(nogil=True, cache=True)
def _all_tokens(data, offsets, classes, lower, ascii_kinds, hashes, last, ends, counts):  # type: ignore[no-untyped-def]
    filled = np.int64(0)
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        filled += _tokens(data, start, end, classes, lower, ascii_kinds, hashes[filled:], last[filled:], counts)
        ends[document + 1] = filled


@numba.njit(nogil=True, cache=True)
def _sum_rows(vectors, rows, factors, count, total):  # type: ignore[no-untyped-def]
    """Write the sum of the `count` rows `factors[k] * vectors[rows[k]]` to `total`, each column in the order of k."""
    width = len(total)
    whole = width - width % SPAN
    for column in range(0, whole, SPAN):
        sum_rows(vectors, width, column, rows, factors, count, total)
    total[whole:] = 0
    for place in range(count if whole < width else 0):
        vector = vectors[rows[place]]
        for column in range(whole, width):
            total[column] += factors[place] * np.float32(vector[column])


@numba.njit(nogil=True, cache=True)
def _all_features(  # type: ignore[no-untyped-def]
    data, starts, ends, classes, lower, ascii_kinds, slots, grams, words, table_factors, features
):
    longest = np.int64(1)
    for document in range(len(ends)):
        longest = max(longest, ends[document] - starts[document])
    hashes, last = np.empty(2 * longest, np.uint64), np.empty(longest, np.int64)
    found, used = np.empty(2 * longest, np.int32), np.empty(2 * longest, np.int32)
    tokens = np.empty(2 * longest, np.int32)
    factors, shares = np.empty(2 * longest, np.float32), np.empty(2 * longest, np.float32)
    mask = np.uint64(len(slots) - 1)
    times = np.zeros(len(grams), np.int32)
    counts = np.zeros(_COUNTS, np.int64)
    logs = np.empty(_LOGS, np.float32)
    for count in range(1, _LOGS):
        logs[count] = 1 + np.log(count)
    singles, width, depth = len(words), grams.shape[1], words.shape[1]
    # Arrays of their own: a slice of `features` has no layout that the compiler would make vector code for.
    summed, mean = np.empty(width, np.float32), np.empty(depth, np.float32)
    for document in range(len(ends)):
        counts[:] = 0
        count = _tokens(data, starts[document], ends[document], classes, lower, ascii_kinds, hashes, last, counts)
        # All look-ups first: they miss the cache one by one if each waits for sums over the vector before it.
        for token in range(1, count):
            pair = finish(hashes[token - 1] * _PAIR + hashes[token])
            hashes[count + token - 1] = pair
            prefetch(slots, np.int64(pair & mask))
        places = 0
        for token in range(max(0, 2 * count - 1)):
            row = _find(slots, hashes[token])
            prefetch(times, row)
            prefetch(table_factors, 4 * np.int64(row))
            found[places] = row
            places += row >= 0
        distinct = 0
        known = 0
        for place in range(places):
            row = found[place]
            often = times[row]
            used[distinct] = row
            distinct += often == 0
            times[row] = often + 1
            known += row < singles
        averaged = 0
        squares, total = np.float32(0), np.float32(0)
        for place in range(distinct):
            row = used[place]
            often = times[row]
            times[row] = 0
            value = table_factors[row, 0] * logs[min(often, _LOGS - 1)]
            squares += value * value
            factors[place] = value * table_factors[row, 1]
            weight = table_factors[row, 2] * np.float32(often)
            total += weight  # 0 for a pair
            tokens[averaged] = row
            shares[averaged] = weight * table_factors[row, 3]
            averaged += row < singles
        _sum_rows(grams, used, factors, distinct, summed)
        _sum_rows(words, tokens, shares, averaged, mean)
        size = np.float32(max(count, 1))
        length = np.sqrt(max(squares, np.float32(1e-12)))
        total = max(total, np.float32(1e-6))
        for column in range(width):
            features[document, column] = summed[column] / length
        for column in range(depth):
            features[document, width + column] = mean[column] / total
        shape = features[document, width + depth :]
        shape[0] = np.log(size)
        shape[1] = counts[_BREAKS] / size
        shape[2] = counts[_PUNCTUATION] / size
        shape[3] = counts[_NUMBERS] / size
        shape[4] = counts[_LETTERS] / max(counts[_WORDS], 1)
        shape[5] = known / size
        shape[6] = counts[_COMMAS] / size
        shape[7] = counts[_QUESTIONS] / size
