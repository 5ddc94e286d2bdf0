"""Columns whose rows have values of different number: ids as bytes, sets of shingles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.arrays import Int64


@dataclass(frozen=True, slots=True)
class Ragged:
    """n rows; row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: of any dtype, [offsets[-1]].
        offsets: int64[n + 1], the first is 0.
    """

    values: npt.NDArray[Any]
    offsets: Int64

    @classmethod
    def of_lengths(cls, values: npt.NDArray[Any], lengths: npt.NDArray[np.integer[Any]]) -> Ragged:
        """Rows that lie back to back in `values`."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @classmethod
    def of_strings(cls, strings: pa.Array | pa.ChunkedArray) -> Ragged:
        """The UTF-8 bytes of n strings without nulls."""
        large = strings.cast(pa.large_string())
        if isinstance(large, pa.ChunkedArray):
            large = large.combine_chunks() if large.num_chunks != 1 else large.chunk(0)
        if not len(large):
            return cls(np.empty(0, np.uint8), np.zeros(1, np.int64))
        _, ends, content = large.buffers()
        offsets = np.frombuffer(ends, np.int64)[large.offset : large.offset + len(large) + 1]
        data = np.empty(0, np.uint8) if content is None else np.frombuffer(content, np.uint8)
        return cls(data[offsets[0] : offsets[-1]], offsets - offsets[0])

    @classmethod
    def joined(cls, parts: Sequence[Ragged], dtype: npt.DTypeLike) -> Ragged:
        """The rows of all parts, one part after the other."""
        values = np.concatenate([np.empty(0, dtype), *(part.values for part in parts)])
        return cls.of_lengths(values, np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)]))

    @property
    def lengths(self) -> Int64:
        """int64[n]: values of each row."""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Ragged:
        """Some rows, in any order and number."""
        chosen = np.ascontiguousarray(rows, np.int64)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[chosen], dtype=np.int64)])
        values = np.empty(offsets[-1], self.values.dtype)
        _take(np.ascontiguousarray(self.values), np.ascontiguousarray(self.offsets), chosen, offsets, values)
        return Ragged(values, offsets)

    def strings(self) -> pa.Array:
        """large_string[n] of rows of UTF-8 bytes."""
        ends, content = (
            pa.py_buffer(np.ascontiguousarray(self.offsets)),
            pa.py_buffer(np.ascontiguousarray(self.values)),
        )
        return pa.LargeStringArray.from_buffers(len(self), ends, content)

    def __len__(self) -> int:
        return len(self.offsets) - 1


@numba.njit(nogil=True, cache=True)
def _take(values, bounds, rows, offsets, target):  # type: ignore[no-untyped-def]
    for place, row in enumerate(rows):
        # Indices without a sign are not looked at for being negative, so that whole vectors are copied.
        start, first = np.uint64(bounds[row]), np.uint64(offsets[place])
        for k in range(np.uint64(bounds[row + 1] - bounds[row])):
            target[first + k] = values[start + k]
