"""Means of states over the occurrences of tokens and pairs, and what they would be without one page's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filters.kernels.packed import PackedText
from filters.kernels.static import SHAPE, look_up, pair_hashes, static_features, static_tokens
from filters.model.static_scorer import Vectors

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

_RARE = 3e-4
"""The weight of a token of relative frequency f is _RARE / (_RARE + f) (Arora et al. 2017)."""


@dataclass(frozen=True)
class Part:
    """Tokens with states of some documents: documents' keys, tokens per document, hash, hash of the token before (0 at
    the start) and state of each token."""

    keys: npt.NDArray[np.uint8]
    counts: Int64
    hashes: UInt64
    before: UInt64
    states: npt.NDArray[np.float16]


@dataclass(frozen=True)
class Sums:
    """Sums of centred states and counts of each entry; entries from `singles` on are pairs, of which `second` is the
    second token's entry."""

    mean: Float32
    totals: Float32
    counts: Float32
    singles: int
    second: Int64
    tokens: int


def average(
    parts: Sequence[Part], entries: int, min_count: int, shrink: float, with_pairs: bool
) -> tuple[Vectors, Sums]:
    """Vectors of the most frequent tokens and pairs: shrunk means of centred states.

    Args:
        parts: tokens with states.
        entries: vectors at most; half at most are of single tokens.
        min_count: leave out what is rarer.
        shrink: occurrences that the mean of all tokens (for a pair: its second token's vector) counts for.
        with_pairs: False: single tokens only.
    """
    hashes = np.concatenate([part.hashes for part in parts])
    before = np.concatenate([part.before for part in parts])
    keys, counts = np.unique(hashes[hashes != 0], return_counts=True)
    singles = _most(keys, counts, min_count, entries // 2)
    room = entries - len(singles) if with_pairs else 0
    paired = np.isin(hashes, singles) & (before != 0)
    pairs_of = pair_hashes(before[paired], hashes[paired])
    keys, first, counts = np.unique(pairs_of, return_index=True, return_counts=True)
    pairs = _most(keys[~np.isin(keys, singles)], counts[~np.isin(keys, singles)], min_count, room)
    second_hash = hashes[paired][first[np.searchsorted(keys, pairs)]]
    keys = np.r_[singles, pairs]
    number = _numbers(keys)
    dims = parts[0].states.shape[1]
    total = np.zeros((len(keys), dims), np.float64)
    count = np.zeros(len(keys), np.float64)
    mean = (sum((part.states.sum(axis=0, dtype=np.float64) for part in parts), np.zeros(dims)) / len(hashes)).astype(
        np.float32
    )
    for part in parts:
        states = part.states.astype(np.float32) - mean
        for rows in _rows_of(number, part):
            known = rows >= 0
            np.add.at(total, rows[known], states[known])
            np.add.at(count, rows[known], 1)
    second = np.r_[np.full(len(singles), -1), number(second_hash)].astype(np.int64)
    sums = Sums(mean, total.astype(np.float32), count.astype(np.float32), len(singles), second, len(hashes))
    plain = sums.totals[: sums.singles] / (sums.counts[: sums.singles] + shrink)[:, None]
    base = plain[second[sums.singles :]]
    shrunk = (sums.totals[sums.singles :] + shrink * base) / (sums.counts[sums.singles :] + shrink)[:, None]
    vectors = np.concatenate([plain, shrunk - base])
    scales = np.maximum(np.abs(vectors).max(axis=1, initial=0) / 127, 1e-6).astype(np.float16)
    scales = np.maximum(scales, np.float16(1e-6))
    whole = np.clip(np.rint(vectors / scales.astype(np.float32)[:, None]), -127, 127).astype(np.int8)
    weights = _RARE / (_RARE + sums.counts / sums.tokens)
    weights[sums.singles :] = 0
    return Vectors(keys, whole, scales, weights.astype(np.float16)), sums


def _most(keys: UInt64, counts: Int64, least: int, room: int) -> UInt64:
    """The `room` most frequent keys, most frequent first, so that those stay in the cache."""
    order = np.lexsort((keys, -counts))
    order = order[counts[order] >= least][:room]
    return keys[order]


def _numbers(entries: UInt64) -> Callable[[UInt64], Int64]:
    order = np.argsort(entries)
    ordered = entries[order]

    def number(keys: UInt64) -> Int64:
        places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        return np.where(ordered[places] == keys, order[places], -1)

    return number


def _rows_of(number: Callable[[UInt64], Int64], part: Part) -> tuple[Int64, Int64]:
    """(entry of each token, entry of each pair); -1: none."""
    pairs = number(pair_hashes(part.before, part.hashes))
    return number(part.hashes), np.where(part.before == 0, -1, pairs)


def left_out_features(
    vectors: Vectors, sums: Sums, parts: Sequence[Part], texts: Sequence[str], groups: Int64, shrink: float
) -> Float32:
    """float32[n, columns]: features of each text by a table without its own states and those of its near copies."""
    table = vectors.table()
    packed = PackedText.from_strings(texts)
    features = static_features(packed, table)
    tokens = static_tokens(packed)
    number = _numbers(vectors.keys)
    own: dict[int, list[tuple[Int64, Float32]]] = {}
    place = 0
    for part in parts:
        states = part.states.astype(np.float32) - sums.mean
        ends = np.r_[0, np.cumsum(part.counts)]
        singles, pairs = _rows_of(number, part)
        for document in range(len(part.counts)):
            low, high = ends[document], ends[document + 1]
            rows = np.r_[singles[low:high], pairs[low:high]]
            known = rows >= 0
            twice = np.concatenate([states[low:high], states[low:high]])
            own.setdefault(int(groups[place]), []).append((rows[known], twice[known]))
            place += 1
    width = vectors.vectors.shape[1]
    for row in range(len(texts)):
        hashes = tokens.hashes[tokens.offsets[row] : tokens.offsets[row + 1]]
        single = look_up(table, hashes).astype(np.int64)
        pair = np.r_[np.full(min(1, len(hashes)), -1), look_up(table, pair_hashes(hashes[:-1], hashes[1:]))]
        pair = pair[: len(hashes)].astype(np.int64)
        pair[single < 0] = -1
        used, counted = np.unique(np.r_[single[single >= 0], pair[pair >= 0]], return_counts=True)
        if len(used) == 0:
            continue
        minus = np.zeros((len(used), width), np.float32)
        fewer = np.zeros(len(used), np.float32)
        for rows, states in own[int(groups[row])]:
            slots = np.minimum(np.searchsorted(used, rows), len(used) - 1)
            hit = used[slots] == rows
            np.add.at(minus, slots[hit], states[hit])
            np.add.at(fewer, slots[hit], 1)
        count = np.maximum(sums.counts[used] - fewer, 0)
        rest = sums.totals[used] - minus
        is_single = used < sums.singles
        heavier = count + shrink
        values = rest / np.maximum(heavier, 1e-6)[:, None]
        base = values[np.searchsorted(used, np.where(is_single, used, sums.second[used]))]
        values = np.where(
            is_single[:, None], values, (rest + shrink * base) / np.maximum(heavier, 1e-6)[:, None] - base
        )
        values[count == 0] = 0
        weight = np.where(is_single & (count > 0), _RARE / (_RARE + count / sums.tokens), 0) * counted
        features[row, :width] = counted @ values / len(hashes)
        features[row, width : 2 * width] = weight @ values / max(float(weight.sum()), 1e-6)
        known = counted[is_single & (count > 0)].sum()
        features[row, 2 * width + SHAPE.index("words known")] = known / len(hashes)
    return features
