"""Arrays of rows of different lengths: `PackedText`, the texts every kernel reads, and `Ragged`, any values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Int64
from filters.kernels.vectors import WINDOW, continuations, ones


@dataclass(frozen=True, slots=True)
class PackedText:
    """n texts, back to back. Text i is `data[offsets[i]:offsets[i + 1]]`; the first offset need not be 0.

    Bytes that are not valid UTF-8 are allowed: each byte that is in no valid sequence reads as U+FFFD.

    Attributes:
        data: uint8[total], read-only.
        offsets: int64[n + 1], read-only, not decreasing.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        # Kernels index without bounds checks, and are compiled once, for read-only contiguous arrays.
        data = np.ascontiguousarray(self.data, dtype=np.uint8).view()
        offsets = np.ascontiguousarray(self.offsets, dtype=np.int64).view()
        if data.ndim != 1 or offsets.ndim != 1 or len(offsets) == 0:
            raise ValueError("data must be uint8[total] and offsets int64[n + 1]")
        if offsets[0] < 0 or offsets[-1] > len(data) or np.any(offsets[1:] < offsets[:-1]):
            raise ValueError(f"offsets must not decrease and must lie within the {len(data)} bytes of data")
        data.flags.writeable = False
        offsets.flags.writeable = False
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def from_strings(cls, texts: Sequence[str]) -> PackedText:
        """Encode `texts`. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD."""
        texts = list(texts)
        try:
            return cls.from_arrow(pa.array(texts, type=pa.large_string()))
        except UnicodeEncodeError:
            pass
        whole = [text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for text in texts]
        return cls.from_arrow(pa.array(whole, type=pa.large_string()))

    @classmethod
    def from_bytes(cls, texts: Sequence[bytes]) -> PackedText:
        """Pack `texts` as they are, valid UTF-8 or not."""
        return cls.from_arrow(pa.array(list(texts), type=pa.large_binary()))

    @classmethod
    def from_arrow(cls, array: pa.Array | pa.ChunkedArray) -> PackedText:
        """View an Arrow array of strings or binaries; a null is an empty text.

        The text is copied only if the array has several chunks, nulls, or a type other than (large_)string/binary.

        Raises:
            TypeError: the array holds something else than text.
        """
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
            if isinstance(array, pa.ChunkedArray):  # combine_chunks keeps chunks where int32 offsets would overflow
                wide = pa.large_string() if pa.types.is_string(array.type) else pa.large_binary()
                array = array.cast(wide).combine_chunks()
        kind = array.type
        if pa.types.is_dictionary(kind) or str(kind) in ("string_view", "binary_view"):
            value = kind.value_type if pa.types.is_dictionary(kind) else kind
            text = pa.types.is_string(value) or pa.types.is_large_string(value) or str(value) == "string_view"
            array = array.cast(pa.large_string() if text else pa.large_binary())
            kind = array.type
        if pa.types.is_null(kind):
            return cls(np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64))
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            width: type[np.int32] | type[np.int64] = np.int32
        elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
            width = np.int64
        else:
            raise TypeError(f"text must be an Arrow array of strings or binaries, not of {kind}")
        if array.null_count:
            array = pc.fill_null(array, b"" if "binary" in str(kind) else "")
        if len(array) == 0:
            return cls(np.empty(0, np.uint8), np.zeros(1, np.int64))
        _, ends, content = array.buffers()
        offsets = np.frombuffer(ends, dtype=width)[array.offset : array.offset + len(array) + 1]
        data = np.empty(0, np.uint8) if content is None else np.frombuffer(content, dtype=np.uint8)
        return cls(data, offsets.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        """The bytes of text `index`; negative indices count from the end."""
        position = range(len(self))[index]
        return self.data[self.offsets[position] : self.offsets[position + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        for start, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield self.data[start:end].tobytes()

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[n]: bytes of each text."""
        return np.diff(self.offsets)

    def head(self, max_characters: int) -> PackedText:
        """The first `max_characters` code points of each text (in invalid UTF-8, continuation bytes do not count).

        Raises:
            ValueError: `max_characters` is negative.
        """
        ends = self.head_ends(max_characters)
        if np.array_equal(ends, self.offsets[1:]):
            return self
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(ends - self.offsets[:-1], out=offsets[1:])
        return PackedText(_gather(self.data, self.offsets, offsets), offsets)

    def head_ends(self, max_characters: int) -> npt.NDArray[np.int64]:
        """int64[n]: where in `data` the first `max_characters` code points of each text end.

        Raises:
            ValueError: `max_characters` is negative.
        """
        if max_characters < 0:
            raise ValueError(f"max_characters must not be negative, got {max_characters}")
        return np.asarray(_head_ends(self.data, self.offsets, max_characters))


@numba.njit(nogil=True, cache=True)
def _head_ends(data, offsets, max_characters):  # type: ignore[no-untyped-def]
    ends = np.empty(len(offsets) - 1, np.int64)
    for document in range(len(ends)):
        position, end = offsets[document], offsets[document + 1]
        characters = 0
        if end - position <= max_characters:
            position = end
        # Whole windows of which every character is wanted.
        while position + WINDOW <= end:
            within = WINDOW - ones(continuations(data, position))
            if characters + within > max_characters:
                break
            characters += within
            position += WINDOW
        while position < end:
            if (data[position] & 0xC0) != 0x80:
                if characters == max_characters:
                    break
                characters += 1
            position += 1
        ends[document] = position
    return ends


@numba.njit(nogil=True, cache=True)
def _gather(data, starts, offsets):  # type: ignore[no-untyped-def]
    """Rows of `data` from `starts` on, of the lengths that `offsets` gives them, back to back."""
    gathered = np.empty(offsets[-1], data.dtype)
    for document in range(len(offsets) - 1):
        # Indices without a sign are not looked at for being negative, so that whole vectors are copied.
        start, target = np.uint64(starts[document]), np.uint64(offsets[document])
        for k in range(np.uint64(offsets[document + 1] - offsets[document])):
            gathered[target + k] = data[start + k]
    return gathered


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
        packed = PackedText.from_arrow(strings)
        start, stop = packed.offsets[[0, -1]]
        return cls(packed.data[start:stop], packed.offsets - start)

    @classmethod
    def joined(cls, parts: Sequence[Ragged], dtype: npt.DTypeLike) -> Ragged:
        """The rows of all parts, one part after the other."""
        values = np.concatenate([np.empty(0, dtype), *(part.values for part in parts)])
        return cls.of_lengths(values, np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)]))

    @property
    def lengths(self) -> Int64:
        """int64[n]: values of each row."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.values.nbytes + self.offsets.nbytes

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Ragged:
        """Some rows, in any order and number."""
        chosen = np.ascontiguousarray(rows, np.int64)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[chosen], dtype=np.int64)])
        return Ragged(_gather(np.ascontiguousarray(self.values), self.offsets[:-1][chosen], offsets), offsets)

    def strings(self) -> pa.Array:
        """large_string[n] of rows of UTF-8 bytes."""
        buffers = (pa.py_buffer(np.ascontiguousarray(array)) for array in (self.offsets, self.values))
        return pa.LargeStringArray.from_buffers(len(self), *buffers)

    def __len__(self) -> int:
        return len(self.offsets) - 1
