"""Long documents: which windows of a text are read, and how their scores become one.

A window is a run of characters (code points). The rules:

- `first`: the first window only. Cheapest, and what a judge saw that read the beginning only.
- `begin-middle-end`: the first, the middle and the last window (all of a shorter text); the mean of their scores.
- `max`: windows one after the other; the highest score. A page with one good part is a good page.
- `length-weighted`: windows one after the other; the mean, each counting by its characters.

The last two read at most `MAX_WINDOWS` windows, and leave out a rest shorter than a quarter of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from filters.arrays import Int64
from filters.kernels.packed import PackedText

WindowRule = Literal["first", "begin-middle-end", "max", "length-weighted"]

MAX_WINDOWS = 16


@dataclass(frozen=True, slots=True)
class Windows:
    """m windows of n texts, those of one text next to each other.

    Attributes:
        packed: m texts.
        document: int64[m], not decreasing; the text each window is of. Every text has at least one.
        characters: int64[m], length of each window.
    """

    packed: PackedText
    document: Int64
    characters: Int64


def split(packed: PackedText, rule: WindowRule, size: int) -> Windows:
    """Windows of `size` characters of each text, by a rule other than `first`.

    Raises:
        ValueError: `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"a window has at least one character, got {size}")
    # Positions of characters: as for `PackedText.head`, continuation bytes do not count.
    starts = np.flatnonzero((packed.data & 0xC0) != 0x80)
    first = np.searchsorted(starts, packed.offsets[:-1])
    lengths = np.searchsorted(starts, packed.offsets[1:]) - first
    document: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    for number, length in enumerate(lengths.tolist()):
        for begin in _begins(rule, length, size):
            document.append(number)
            begins.append(begin)
            ends.append(min(begin + size, length))
    rows, begin_at, end_at = np.array(document, np.int64), np.array(begins, np.int64), np.array(ends, np.int64)
    bounds = np.r_[starts, len(packed.data)]
    low = np.where(begin_at == 0, packed.offsets[rows], bounds[first[rows] + begin_at])
    high = np.where(end_at == lengths[rows], packed.offsets[rows + 1], bounds[first[rows] + end_at])
    offsets = np.r_[0, np.cumsum(high - low)]
    pieces = [packed.data[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    data = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
    return Windows(PackedText(data, offsets), rows, end_at - begin_at)


def _begins(rule: WindowRule, length: int, size: int) -> list[int]:
    if length <= size or rule == "first":
        return [0]
    if rule == "begin-middle-end":
        return [0, (length - size) // 2, length - size]
    begins = list(range(0, length, size))[:MAX_WINDOWS]
    return begins[:-1] if length - begins[-1] < size / 4 else begins


def pool(windows: Windows, scores: npt.NDArray[np.float32], rule: WindowRule) -> npt.NDArray[np.float32]:
    """float32[n]: one score for each text from the scores of its windows, float32[m]; k of each for float32[m, k]."""
    if len(scores) == 0:
        return scores
    heads = np.flatnonzero(np.r_[True, np.diff(windows.document) > 0])
    if rule == "max":
        return np.maximum.reduceat(scores, heads, axis=0)
    even = rule == "begin-middle-end"
    weights = np.ones(len(scores)) if even else np.maximum(windows.characters, 1).astype(np.float64)
    columns = scores if scores.ndim == 2 else scores[:, None]
    total = np.add.reduceat(weights[:, None] * columns, heads, axis=0) / np.add.reduceat(weights, heads)[:, None]
    return total.reshape(-1, *scores.shape[1:]).astype(np.float32)
