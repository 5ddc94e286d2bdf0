"""Scoring texts with a fastText classifier, several times as fast as fastText and with the same probabilities.

A supervised fastText model is linear up to its last step: softmax(W mean(E[features])) equals
softmax(mean((E W')[features])). Where that makes the table smaller, E W' is computed once and texts are scored from it;
words of the vocabulary have their character n-grams summed beforehand.

Sums are in float64, so the difference to fastText's probabilities is the error of its sums in float32: below 5e-5 but
for texts of some 100,000 features. The losses `ova` and `ns` take a probability from fastText's table of the sigmoid:
where a sum lies at the edge between two of its values, ours may be the neighbour of fastText's, .0078 away at most.

Everything else is as in `FastText::predict` (facebookresearch/fastText 0.9.2): FNV-1a over signed bytes; tokens split
at space, \\n, \\r, \\t, \\v, \\f and \\0; a literal `</s>` ends the text as its end does; tokens that are labels or
start with `__label__` are skipped; n-gram hashes are chained over sign-extended hashes modulo the buckets. fastText
predicts one line, and refuses a text with a newline: here a newline separates words like a space.

The last step of fastText's losses other than softmax: hierarchical softmax, and the sigmoid of the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from filters.arrays import Float32, Float64, Int32, Int64, UInt8, UInt64
from filters.errors import ModelError
from filters.kernels.fasttext_format import HIERARCHICAL_SOFTMAX, SOFTMAX, FastTextFile, read_fasttext
from filters.kernels.packed import PackedText
from filters.kernels.vectors import (
    LANES,
    WINDOW,
    add_rows,
    fasttext_spaces,
    load_word,
    lowest,
    prefetch,
    shifted,
    trailing_zeros,
    upper_product,
)

_FNV_START = np.uint32(2166136261)
_FNV_PRIME = np.uint32(16777619)
_CHAIN = np.uint64(116049371)
_HALF = np.uint64(32)
_BYTE = np.uint64(8)
_ZERO = np.uint64(0)
_END_OF_TEXT = b"</s>"
_END_HASH = np.uint32(3617362777)  # its FNV-1a hash
_END_TAIL = np.uint64(int.from_bytes(_END_OF_TEXT, "big"))
_LABEL_PREFIX = np.frombuffer(b"__label__", np.uint8)
_CHUNK = 65536
_SHORT = 8
"""Bytes that most tokens have at most."""
_AT_ONCE = 512
"""Rows of character n-grams that are asked for before they are added."""


class _Vocabulary(NamedTuple):
    """Words, then labels, and an open-addressing table of them.

    A slot is two numbers: hash << 32 | number + 1 (0 if empty), and the last eight bytes of the entry, which tell a
    short one for certain without a look at its text.
    """

    slots: UInt64
    data: UInt8
    offsets: Int64
    nwords: int
    end: int  # number of `</s>`, -1 if there is none


class _Hashing(NamedTuple):
    """How n-grams become rows."""

    word_ngrams: int
    minn: int
    maxn: int
    bucket: np.uint64
    inverse: np.uint64  # (2^64 - 1) // bucket: a multiplication takes a few cycles, a division of 64 bits up to 90
    pruned: Int32  # row of each bucket, -1 where there is none; empty if nothing was pruned


class CompiledFastText:
    """A fastText classifier, loaded for scoring.

    Attributes:
        labels: as in the model, prefix included, in the order of the columns of `predict_proba`.
    """

    def __init__(self, file: FastTextFile, name: str = "model") -> None:
        self.labels = tuple(label.decode("utf-8", "replace") for label in file.labels)
        self._loss = file.loss
        self._tree = huffman_tree(file.label_counts) if file.loss == HIERARCHICAL_SOFTMAX else None
        self._vocabulary = _vocabulary(file)
        pruned = np.empty(0, np.int32) if file.pruned is None else file.pruned
        bucket = max(1, file.bucket)
        inverse = np.uint64((2**64 - 1) // bucket)
        self._hashing = _Hashing(file.word_ngrams, file.minn, file.maxn, np.uint64(bucket), inverse, pruned)
        rows = file.output
        if file.loss == SOFTMAX and len(rows) == 2:
            rows = rows[1:] - rows[:1]
        elif self._tree is not None:
            rows = rows[:-1]
        folded = len(rows) <= file.dim
        self._columns = len(rows)
        self._output: Float32 = np.empty((0, 0), np.float32) if folded else np.ascontiguousarray(rows.T)
        self._table = _table(file, rows if folded else None)
        if not np.isfinite(self._table).all():
            raise ModelError(f"{name}: the input matrix has values that are no finite numbers")
        self._sizes = np.ones(len(file.words) if file.maxn > 0 else 0, np.int32)  # features of each word; empty: 1
        if file.maxn > 0:
            _add_subwords_of_words(*self._vocabulary[1:], *self._hashing[1:], self._table, self._sizes)

    @classmethod
    def load(cls, path: str | Path) -> CompiledFastText:
        """Load a .bin or .ftz file.

        Raises:
            ModelError: see `filters.kernels.fasttext_format.read_fasttext`.
        """
        return cls(read_fasttext(path), str(path))

    def predict_proba(self, packed: PackedText) -> Float32:
        """Probability of each label for each text: float32[n, K].

        Softmax probabilities sum to 1; those of one-versus-all and negative sampling are independent, each from
        fastText's sigmoid table. Those of hierarchical softmax are products of branch probabilities + 1e-5, as in
        fastText; of the other losses fastText's `predict` returns p + 1e-5. A row is 0 where the model knows no feature
        of a text (and has no `</s>` in its vocabulary), for which fastText returns no label.
        """
        sums, known = self._scores(packed)
        probabilities = self._activate(sums)
        probabilities[~known] = 0
        return probabilities

    def score(self, packed: PackedText, label: str) -> Float32:
        """Probability of one label, given with or without the prefix `__label__`: float32[n].

        Raises:
            ModelError: the model has no such label.
        """
        if label not in self.labels:
            label = f"__label__{label}"
        if label not in self.labels:
            shown = ", ".join(self.labels[:10]) + (", ..." if len(self.labels) > 10 else "")
            raise ModelError(f"the model has no label {label.removeprefix('__label__')!r}; it has {shown}")
        return np.ascontiguousarray(self.predict_proba(packed)[:, self.labels.index(label)])

    def _scores(self, packed: PackedText) -> tuple[Float32, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Sum of the output rows before the last step, float32[n, rows], and whether the text has any feature."""
        sums = np.zeros((len(packed), self._columns), np.float32)
        counts = np.zeros(len(packed), np.int64)
        _score(
            packed.data, packed.offsets, *self._vocabulary, *self._hashing, self._table, self._sizes, self._output,
            sums, counts,
        )  # fmt: skip
        return sums, counts > 0

    def _activate(self, sums: Float32) -> Float32:
        if self._tree is not None:
            return descend(self._tree, sums)
        if self._loss != SOFTMAX:
            return tabulated_sigmoid(sums)
        if sums.shape[1] == 1 and len(self.labels) == 2:
            with np.errstate(over="ignore"):
                return np.concatenate([1 / (1 + np.exp(sums)), 1 / (1 + np.exp(-sums))], axis=1)
        exponentials = np.exp(sums - sums.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)


def _vocabulary(file: FastTextFile) -> _Vocabulary:
    entries = PackedText.from_bytes([*file.words, *file.labels])
    slots = np.zeros(2 << (len(entries) * 10 // 7).bit_length(), np.uint64)
    _enter(entries.data, entries.offsets, slots)
    numbers = {entry: number for number, entry in enumerate((*file.words, *file.labels)) if entry == _END_OF_TEXT}
    return _Vocabulary(slots, entries.data, entries.offsets, len(file.words), numbers.get(_END_OF_TEXT, -1))


def _table(file: FastTextFile, fold: Float32 | None) -> Float32:
    """The input matrix, or its product with the rows of `fold` (float32[k, dim]), with columns of 0 for `add_rows`."""
    rows = file.input.shape[0]
    columns = file.dim if fold is None else len(fold)
    table = np.zeros((rows, 1 if columns == 1 else -(-columns // LANES) * LANES), np.float32)
    for start in range(0, rows, _CHUNK):
        chunk = file.input.rows(start, min(start + _CHUNK, rows))
        table[start : start + _CHUNK, :columns] = chunk if fold is None else chunk @ fold.T
    return table


@numba.njit(nogil=True, cache=True, inline="always")
def _step(h, byte):  # type: ignore[no-untyped-def]
    """One step of FNV-1a over signed bytes, as fastText has it."""
    return np.uint32((h ^ np.uint32(np.int8(byte))) * _FNV_PRIME)


@numba.njit(nogil=True, cache=True)
def _enter(data, offsets, slots):  # type: ignore[no-untyped-def]
    mask = len(slots) // 2 - 1
    for number in range(len(offsets) - 1):
        h = _FNV_START
        tail = _ZERO
        for position in range(offsets[number], offsets[number + 1]):
            h = _step(h, data[position])
            tail = (tail << _BYTE) | np.uint64(data[position])
        slot = np.int64(h) & mask
        while slots[2 * slot] != _ZERO:
            slot = (slot + 1) & mask
        slots[2 * slot] = (np.uint64(h) << _HALF) | np.uint64(number + 1)
        slots[2 * slot + 1] = tail


@numba.njit(nogil=True, cache=True)
def _same_head(data, start, other, other_start, length):  # type: ignore[no-untyped-def]
    """Whether two entries of `length` bytes, of which the last eight are equal, are equal; `length` >= 8."""
    position = 0
    while position < length - _SHORT:
        if load_word(data, start + position) != load_word(other, other_start + position):
            return False
        position += _SHORT
    return True


@numba.njit(nogil=True, cache=True)
def _is_label(data, start, length):  # type: ignore[no-untyped-def]
    matching = 0
    while matching < length and matching < len(_LABEL_PREFIX) and data[start + matching] == _LABEL_PREFIX[matching]:
        matching += 1
    return matching == len(_LABEL_PREFIX)


@numba.njit(nogil=True, cache=True)
def _lookup(slots, words, word_offsets, data, end, length, h, tail, entry):  # type: ignore[no-untyped-def]
    """Number of the token before `data[end]`, -1 if it is not in the vocabulary; `entry` is what its first slot has."""
    mask = len(slots) // 2 - 1
    slot = np.int64(h) & mask
    while entry != _ZERO:
        if entry >> _HALF == np.uint64(h) and slots[2 * slot + 1] == tail:
            number = np.int64(np.uint32(entry)) - 1
            # Tokens hold no zero byte, so a tail that starts with one is the whole token.
            if length < _SHORT:
                return number
            begin = word_offsets[number]
            if word_offsets[number + 1] - begin == length and _same_head(data, end - length, words, begin, length):
                return number
        slot = (slot + 1) & mask
        entry = slots[2 * slot]
    return np.int64(-1)


@numba.njit(nogil=True, cache=True)
def _row(nwords, bucket, inverse, pruned, h):  # type: ignore[no-untyped-def]
    """Row of an n-gram's hash, -1 if it was pruned."""
    # The quotient is right or one too small: inverse > 2^64 / bucket - 2, and h < 2^64.
    row = h - upper_product(h, inverse) * bucket
    row = np.int64(row - bucket if row >= bucket else row)
    if len(pruned) == 0:
        return nwords + row
    kept = np.int64(pruned[row])
    return nwords + kept if kept >= 0 else np.int64(-1)


@numba.njit(nogil=True, cache=True)
def _add_subwords(  # type: ignore[no-untyped-def]
    data, start, end, nwords, minn, maxn, bucket, inverse, pruned, table, rows, total
):
    """Add the rows of the character n-grams of `<` + data[start:end] + `>` to `total`; how many they are."""
    count = 0
    taken = 0
    size = end - start + 2
    for first in range(size):
        if 0 < first < size - 1 and (data[start + first - 1] & 0xC0) == 0x80:
            continue
        h = _FNV_START
        position = first
        for n in range(1, maxn + 1):
            if position == size:
                break
            byte = np.uint8(60) if position == 0 else np.uint8(62)
            if 0 < position < size - 1:
                byte = data[start + position - 1]
            h = _step(h, byte)
            position += 1
            while position < size - 1 and (data[start + position - 1] & 0xC0) == 0x80:
                h = _step(h, data[start + position - 1])
                position += 1
            if n >= minn and not (n == 1 and (first == 0 or position == size)):
                row = _row(nwords, bucket, inverse, pruned, np.uint64(h))
                if row >= 0:
                    prefetch(table, row * table.shape[1])
                    rows[taken] = row
                    taken += 1
                    if taken == len(rows):
                        add_rows(table, rows, taken, total)
                        count += taken
                        taken = 0
    add_rows(table, rows, taken, total)
    return count + taken


@numba.njit(nogil=True, cache=True)
def _add_subwords_of_words(  # type: ignore[no-untyped-def]
    words, offsets, nwords, end_number, minn, maxn, bucket, inverse, pruned, table, sizes
):
    """Add to the row of each word those of its character n-grams, and to `sizes` how many those are."""
    rows = np.empty(_AT_ONCE, np.int64)
    total = np.empty(table.shape[1], np.float64)
    for word in range(nwords):
        if word == end_number:
            continue
        for k in range(len(total)):
            total[k] = table[word, k]
        sizes[word] += _add_subwords(
            words, offsets[word], offsets[word + 1], nwords, minn, maxn, bucket, inverse, pruned, table, rows, total
        )
        for k in range(len(total)):
            table[word, k] = total[k]


@numba.njit(nogil=True, cache=True)
def _score(  # type: ignore[no-untyped-def]
    data, offsets, slots, words, word_offsets, nwords, end_number, word_ngrams, minn, maxn, bucket, inverse, pruned,
    table, sizes, output, scores, counts,
):  # fmt: skip
    mask = len(slots) // 2 - 1
    last = len(data) - WINDOW - _SHORT  # where a window may begin
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    hashes = np.empty(longest // 2 + 2, np.uint32)
    tails = np.empty(longest // 2 + 2, np.uint64)
    ends = np.empty(longest // 2 + 2, np.int64)
    lengths = np.empty(longest // 2 + 2, np.int64)
    loaded = np.empty(longest // 2 + 2, np.uint64)
    chains = np.empty(longest // 2 + 2, np.uint64)
    rows = np.empty(longest // 2 + 2, np.int64)
    some = np.empty(_AT_ONCE, np.int64)
    mean = np.empty(table.shape[1], np.float64)
    for document in range(len(offsets) - 1):
        # First pass: hash every token.
        tokens = 0
        start, end = offsets[document], offsets[document + 1]
        while start < end:
            ended = False
            if start <= last:
                # Tokens that end within the window.
                stop = min(start + WINDOW, end)
                found = ~fasttext_spaces(data, start) & lowest(stop - start)
                begin = start
                while found != _ZERO:
                    gap = trailing_zeros(found)
                    found >>= np.uint64(gap)
                    start += gap
                    length = trailing_zeros(~found)
                    if start + length == stop < end:
                        break
                    h = _FNV_START
                    # Always `_SHORT` steps: a branch on the length would be mispredicted.
                    for k in range(_SHORT):
                        longer = _step(h, data[start + k])
                        h = longer if k < length else h
                    for k in range(_SHORT, length):
                        h = _step(h, data[start + k])
                    tail = load_word(data, start + max(length - _SHORT, 0)) >> np.uint64(8 * max(_SHORT - length, 0))
                    start += length
                    if tail == _END_TAIL:
                        ended = True
                        break
                    hashes[tokens] = h
                    tails[tokens] = tail
                    ends[tokens] = start
                    lengths[tokens] = length
                    tokens += 1
                    found = shifted(found, length)
                else:
                    start = stop
                if ended:
                    break
                if start > begin:
                    continue
            h = _FNV_START
            tail = _ZERO
            position = start
            while position < end:
                byte = data[position]
                if byte == 32 or 9 <= byte <= 13 or byte == 0:
                    break
                h = _step(h, byte)
                tail = (tail << _BYTE) | np.uint64(byte)
                position += 1
            if position > start:
                if tail == _END_TAIL:
                    break
                hashes[tokens] = h
                tails[tokens] = tail
                ends[tokens] = position
                lengths[tokens] = position - start
                tokens += 1
            start = position + 1
        # Second pass: look them up, drop labels, add the rows of words. Their slots are loaded by a loop of its own,
        # because its loads overlap, which those between the branches of a look-up do not.
        for token in range(tokens):
            loaded[token] = slots[2 * (np.int64(hashes[token]) & mask)]
        mean[:] = 0
        single = 0.0
        features = 0
        kept = 0
        taken = 0
        for token in range(tokens):
            h, stop, length = hashes[token], ends[token], lengths[token]
            number = _lookup(slots, words, word_offsets, data, stop, length, h, tails[token], loaded[token])
            if number >= nwords:
                continue
            if number >= 0:
                features += sizes[number] if len(sizes) > 0 else 1
                if table.shape[1] == 1:  # at once: beside look-ups the chain of additions costs nothing
                    single += table[number, 0]
                else:
                    prefetch(table, number * table.shape[1])
                    rows[taken] = number
                    taken += 1
            else:
                start = stop - length
                if _is_label(data, start, length):
                    continue
                if maxn > 0:
                    features += _add_subwords(
                        data, start, stop, nwords, minn, maxn, bucket, inverse, pruned, table, some, mean
                    )
            hashes[kept] = h
            kept += 1
        if 0 <= end_number < nwords:
            features += 1
            rows[taken] = end_number
            taken += 1
        add_rows(table, rows, taken, mean)
        if end_number < nwords:
            hashes[kept] = _END_HASH
            kept += 1
        # Third pass: word n-grams.
        if word_ngrams > 1:
            for first in range(kept):
                chains[first] = _ZERO
            for length in range(min(word_ngrams, kept)):
                for first in range(kept - length):
                    chains[first] = chains[first] * _CHAIN + np.uint64(np.int64(np.int32(hashes[first + length])))
                if length == 0:
                    continue
                taken = 0
                for first in range(kept - length):
                    row = _row(nwords, bucket, inverse, pruned, chains[first])
                    if row >= 0 and table.shape[1] == 1 and len(pruned) > 0:
                        single += table[row, 0]
                        features += 1
                    elif row >= 0:
                        prefetch(table, row * table.shape[1])
                        rows[taken] = row
                        taken += 1
                features += taken
                add_rows(table, rows, taken, mean)
        mean[0] += single
        counts[document] = features
        if features == 0:
            continue
        for k in range(len(mean)):
            mean[k] /= features
        if output.shape[0] == 0:
            for k in range(scores.shape[1]):
                scores[document, k] = mean[k]
        else:
            for k in range(output.shape[0]):
                for label in range(output.shape[1]):
                    scores[document, label] += output[k, label] * mean[k]


def huffman_tree(counts: Int64) -> Int64:
    """int64[K - 1, 2]: children of the inner nodes K, K+1, ..., built as `HierarchicalSoftmaxLoss::buildTree` does."""
    labels = len(counts)
    total = np.full(2 * labels - 1, 10**15, np.int64)
    total[:labels] = counts
    children = np.zeros((labels - 1, 2), np.int64)
    leaf, node = labels - 1, labels
    for inner in range(labels, 2 * labels - 1):
        for side in range(2):
            if leaf >= 0 and total[leaf] < total[node]:
                children[inner - labels, side] = leaf
                leaf -= 1
            else:
                children[inner - labels, side] = node
                node += 1
        total[inner] = total[children[inner - labels]].sum()
    return children


def descend(tree: Int64, sums: Float32) -> Float32:
    """Probabilities of the leaves from the scores of the inner nodes (float32[n, K - 1])."""
    labels = len(tree) + 1
    with np.errstate(over="ignore"):
        right: Float64 = 1 / (1 + np.exp(-sums.T.astype(np.float64)))
    reach = np.ones((2 * labels - 1, len(sums)))
    for inner in range(len(tree) - 1, -1, -1):
        reach[tree[inner, 0]] = reach[labels + inner] * (1 - right[inner] + 1e-5)
        reach[tree[inner, 1]] = reach[labels + inner] * (right[inner] + 1e-5)
    return np.ascontiguousarray(reach[:labels].T, np.float32)


def tabulated_sigmoid(x: Float32) -> Float32:
    """fastText's sigmoid: 513 values from -8 to 8, 0 and 1 beyond."""
    steps = np.arange(513) * 16 / 512 - 8
    values = (1 / (1 + np.exp(-steps))).astype(np.float32)
    index = ((np.clip(x, -8, 8) + np.float32(8)) * np.float32(512) / np.float32(8) / np.float32(2)).astype(np.int64)
    sigmoid = values[index]
    sigmoid[x < -8] = 0
    sigmoid[x > 8] = 1
    return sigmoid
