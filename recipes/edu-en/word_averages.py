"""Vectors of tokens: means of states over their occurrences, and what they would be without one page's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filters.arrays import Float32, Int64, UInt64
from filters.kernels.packed import PackedText
from filters.kernels.static import static_tokens

_RARE = 3e-4
"""The weight of a token of relative frequency f is _RARE / (_RARE + f) (Arora et al. 2017)."""


@dataclass(frozen=True)
class Part:
    """Tokens with states of some documents: documents' keys, tokens per document, hash and state of each token."""

    keys: npt.NDArray[np.uint8]
    counts: Int64
    hashes: UInt64
    states: npt.NDArray[np.float16]


@dataclass(frozen=True)
class Averages:
    """Sums of centred states and counts of each of s tokens.

    Attributes:
        keys: uint64[s].
        mean: float32[e], of all states.
        totals: float32[s, e].
        counts: float32[s].
        tokens: number of tokens with states.
        shrink: occurrences that the mean of all tokens counts for.
    """

    keys: UInt64
    mean: Float32
    totals: Float32
    counts: Float32
    tokens: int
    shrink: float

    @property
    def vectors(self) -> Float32:
        """float32[s, e]: shrunk means."""
        means: Float32 = self.totals / np.maximum(self.counts + self.shrink, 1e-6)[:, None]
        return means

    @property
    def weights(self) -> Float32:
        """float32[s]: how much a token counts in the mean over a text."""
        return _weights(self.counts, self.tokens)

    @classmethod
    def of(cls, parts: Sequence[Part], keys: UInt64, shrink: float) -> Averages:
        """Sum the states of the tokens `keys`."""
        dims = parts[0].states.shape[1]
        tokens = sum(len(part.hashes) for part in parts)
        whole = sum((part.states.sum(axis=0, dtype=np.float64) for part in parts), np.zeros(dims))
        mean = (whole / max(tokens, 1)).astype(np.float32)
        total, count = np.zeros((len(keys), dims)), np.zeros(len(keys))
        number = numbering(keys)
        for part in parts:
            rows = number(part.hashes)
            known = rows >= 0
            np.add.at(total, rows[known], part.states[known].astype(np.float32) - mean)
            np.add.at(count, rows[known], 1)
        return cls(keys, mean, total.astype(np.float32), count.astype(np.float32), tokens, shrink)


def _weights(counts: Float32, tokens: int) -> Float32:
    return (_RARE / (_RARE + counts / max(tokens, 1)) * (counts > 0)).astype(np.float32)


def numbering(keys: UInt64) -> Callable[[UInt64], Int64]:
    """A function from hashes to their places in `keys`, -1 for those that are not in it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]

    def number(hashes: UInt64) -> Int64:
        if len(ordered) == 0:
            return np.full(len(hashes), -1, np.int64)
        places = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
        return np.where(ordered[places] == hashes, order[places], -1)

    return number


def left_out_means(averages: Averages, parts: Sequence[Part], texts: Sequence[str], groups: Int64) -> Float32:
    """float32[n, e]: the weighted mean of each text's tokens by averages without its own states and its group's.

    Args:
        averages: of `parts`.
        parts: tokens with states of the first texts, in their order.
        texts: n texts; those beyond the parts are in no average.
        groups: int64[n]; texts that are not to see each other's states.
    """
    packed = PackedText.from_strings(texts)
    tokens = static_tokens(packed)
    number = numbering(averages.keys)
    own: dict[int, list[tuple[Int64, Float32]]] = {}
    whole: dict[int, Float32] = {}
    sizes: dict[int, int] = {}
    place = 0
    for part in parts:
        states = part.states.astype(np.float32) - averages.mean
        ends = np.r_[0, np.cumsum(part.counts)]
        rows = number(part.hashes)
        for document in range(len(part.counts)):
            inside = slice(ends[document], ends[document + 1])
            known = rows[inside] >= 0
            group = int(groups[place])
            own.setdefault(group, []).append((rows[inside][known], states[inside][known]))
            whole[group] = whole.get(group, np.float32(0)) + states[inside].sum(axis=0)
            sizes[group] = sizes.get(group, 0) + int(part.counts[document])
            place += 1
    width = averages.totals.shape[1]
    means = np.zeros((len(texts), width), np.float32)
    for row in range(len(texts)):
        found = number(tokens.hashes[tokens.offsets[row] : tokens.offsets[row + 1]])
        used, counted = np.unique(found[found >= 0], return_counts=True)
        minus, fewer = np.zeros((len(used), width), np.float32), np.zeros(len(used), np.float32)
        group = int(groups[row])
        for rows, states in own.get(group, ()):
            slots = np.minimum(np.searchsorted(used, rows), max(len(used) - 1, 0))
            hit = used[slots] == rows if len(used) else np.zeros(len(rows), bool)
            np.add.at(minus, slots[hit], states[hit])
            np.add.at(fewer, slots[hit], 1)
        count = np.maximum(averages.counts[used] - fewer, 0)
        # The sums are relative to the mean of all states, which changes when the group is left out.
        others = averages.tokens - sizes.get(group, 0)
        moved = -whole.get(group, np.zeros(width, np.float32)) / max(others, 1)
        rest = averages.totals[used] - minus - count[:, None] * moved
        vectors = rest / np.maximum(count + averages.shrink, 1e-6)[:, None]
        weight = _weights(count, others) * counted
        means[row] = weight @ vectors / max(float(weight.sum()), 1e-6)
    return means
