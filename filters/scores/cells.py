"""Counts over ranges of float32 values so narrow that they end up as single values: what the solver passes over."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from filters.arrays import Float32, Int64
from filters.scores.histogram import WEIGHTS

CELLS = 2**18
"""Ranges of float32 values counted in a pass: 6 MiB of counts."""


class Cells:
    """Counts over equal ranges of float32 values between two scores; made by `ThresholdSearch.cells`.

    Attributes:
        counts: int64[3, cells]; rows as in `WEIGHTS`.
        next_above: the lowest score at or above the upper end, inf if there is none.
        next_weights: int64[3], what has precisely that score.
    """

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end
        self.step = -(-(end - first) // CELLS)
        self.counts: Int64 = np.zeros((len(WEIGHTS), -(-(end - first) // self.step)), dtype=np.int64)
        self.next_above = np.inf
        self.next_weights: Int64 = np.zeros(len(WEIGHTS), dtype=np.int64)

    def add(self, scores: Float32, *, tokens: npt.NDArray[np.integer], text_bytes: Int64) -> None:
        """Count n documents, all arrays of shape [n]; those below the range are passed over."""
        low, high = score_of_key(self.first), score_of_key(self.end)
        inside = (scores >= low) & (scores < high)
        cells = (order_keys(scores[inside]) - self.first) // self.step
        for row, weight in enumerate((np.ones(len(cells), np.int64), tokens[inside], text_bytes[inside])):
            np.add.at(self.counts[row], cells, np.asarray(weight, dtype=np.int64))
        if (above := scores >= high).any():
            lowest = scores[above].min()
            tied = scores == lowest
            weights = np.array([tied.sum(), tokens[tied].sum(dtype=np.int64), text_bytes[tied].sum(dtype=np.int64)])
            self._next(float(lowest), weights)

    def merge(self, other: Cells) -> Self:
        """Add another's counts to this one's.

        Raises:
            ValueError: they are not of the same step of the same search.
        """
        if (self.first, self.end) != (other.first, other.end):
            raise ValueError("cells of different ranges")
        self.counts += other.counts
        self._next(other.next_above, other.next_weights)
        return self

    def _next(self, score: float, weights: Int64) -> None:
        if score < self.next_above:
            self.next_above, self.next_weights = score, weights.copy()
        elif score == self.next_above:
            self.next_weights = self.next_weights + weights


def order_keys(scores: Float32) -> Int64:
    """int64[n]: numbers from 0 to 2^32 in the order of the scores; neighbouring float32 numbers differ by one."""
    bits = (np.asarray(scores, dtype=np.float32) + np.float32(0)).view(np.uint32)  # + 0: -0.0 becomes 0.0
    return np.where(bits >> 31, 0xFFFFFFFF - bits.astype(np.int64), bits.astype(np.int64) | 0x80000000)


def score_of_key(key: int) -> np.float32:
    """The float32 number whose `order_keys` is `key`."""
    bits = key & 0x7FFFFFFF if key >> 31 else 0xFFFFFFFF - key
    return np.float32(np.array([bits], dtype=np.uint32).view(np.float32)[0])
